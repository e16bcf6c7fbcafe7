"""Where a training runs: the CPU, a GPU, or a process for each of several GPUs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import multiprocessing

from crowdmask.errors import CrowdmaskError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for the one that validates."""

_INTERRUPTED = ""


def make_fabric(gpus: int = 0, processes: int = 1) -> Fabric:
    """The devices of one training on this machine.

    Fabric moves the model and averages gradients. It is given full precision: its own mixed precision rounds
    everything that a model is called with, points among it; `loop.Objective` casts what may be cast.

    Args:
        gpus: How many; 0 = CPU. `crowdmask.gpu.device_slot` reserves them beforehand.
        processes: On the CPU. More than one is slower than one with as many threads: for tests.

    Raises:
        CrowdmaskError: torch cannot use that many GPUs.
    """
    if gpus:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found < gpus:
            why = "" if torch.version.cuda else "; this torch is built without CUDA"
            raise CrowdmaskError(
                f"{gpus} GPUs were asked for, but torch can use {found}{why}. Ask for fewer (`gpu: 0` = CPU), or "
                "install a build of torch for these GPUs."
            )
    number = gpus or processes
    strategy: Any = "auto"
    if number > 1:
        # Models may leave weights out of a step (a head without heads to learn from); torch warns where none is.
        # Spawned, not started as a second command, which would wait for the GPUs that the first one holds.
        strategy = DDPStrategy(start_method="spawn", timeout=PATIENCE, find_unused_parameters=True)
    return Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=number,
        strategy=strategy,
        precision="32-true",
        # Else a Slurm job's variables would be taken for a training on several nodes.
        plugins=[LightningEnvironment()],
    )


def launch(work: Callable[..., T], *args: Any, gpus: int = 0, processes: int = 1) -> T:
    """`work(fabric, *args)` on the devices, in a process for each where there are several.

    Args:
        work: A function of a module, which new processes can import.
        args: Anything that can be sent to them.
        gpus: As in `make_fabric`.
        processes: As in `make_fabric`.

    Returns:
        What the first process returns.

    Raises:
        CrowdmaskError: of whichever process; the others are ended.
        KeyboardInterrupt: likewise.
    """
    fabric = make_fabric(gpus, processes)
    if max(gpus, processes) == 1:
        return work(fabric, *args)
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        return fabric.launch(cast(Any, _guarded), work, messages, *args)
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException):
        if messages.empty():
            raise
        message = messages.get()
    if message == _INTERRUPTED:
        raise KeyboardInterrupt
    raise CrowdmaskError(message)


def _guarded(fabric: Fabric, work: Callable[..., T], messages: Any, *args: Any) -> T:
    """`work`, with the errors that people see sent as text: the parent would get a traceback, or hear nothing."""
    try:
        return work(fabric, *args)
    except CrowdmaskError as error:
        messages.put(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        messages.put(_INTERRUPTED)
        sys.exit(130)
