"""GPUs of this machine: how many there are, and those of each job.

Snakemake counts `gpu` resources but assigns no device. A job that was given some takes free devices by locking a file
for each, so that concurrent jobs of one machine use different devices. Where CUDA_VISIBLE_DEVICES is set (Slurm does),
only the devices that it names are used.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowdmask.errors import CrowdmaskError

VARIABLE = "CUDA_VISIBLE_DEVICES"

_log = logging.getLogger(__name__)


def count(dev: Path = Path("/dev")) -> int:
    """Number of NVIDIA GPUs that jobs may use here, found without loading torch.

    Args:
        dev: Folder of the device files.
    """
    visible = os.environ.get(VARIABLE)
    if visible is not None:
        return len(_visible(visible))
    devices = [path for path in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    if devices:
        return len(devices)
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


@contextmanager
def device_slot(wanted: int, folder: Path | None = None, poll_s: float = 1.0) -> Iterator[str]:
    """Hold GPUs while the block runs, and yield the torch device to use: 'cuda' or 'cpu'.

    Call it before torch touches CUDA. Waits while too few devices are free of other jobs of this user; takes all that
    it needs at once or none, so that jobs cannot wait for each other. The block sees the devices that it holds alone,
    as cuda:0, cuda:1, ...

    Args:
        wanted: What the rule's `gpu` resource says; 0 = CPU.
        folder: Where the lock files lie; default: one for each user in the temporary folder.
        poll_s: Seconds between two looks for a free device.

    Raises:
        CrowdmaskError: more than one is wanted than this machine, or the scheduler, gives.
    """
    if wanted <= 0:
        yield "cpu"
        return
    before = os.environ.get(VARIABLE)
    names = [str(number) for number in range(count())] if before is None else _visible(before)
    if wanted > 1 and len(names) < wanted:
        where = "this machine shows" if before is None else f"{VARIABLE}={before} names"
        raise CrowdmaskError(f"{wanted} GPUs were asked for, but {where} {len(names)}. Ask for fewer with `gpu`.")
    if before is not None and len(names) <= wanted:
        yield _checked()
        return
    if not names:
        _log.warning("a GPU was asked for, but this machine shows none: using the CPU (set `gpu: 0` to silence this)")
        yield "cpu"
        return
    folder = folder or Path(tempfile.gettempdir()) / f"crowdmask-gpu-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    taken = _take(folder, names, wanted, poll_s)
    os.environ[VARIABLE] = ",".join(taken)
    _log.info("using GPU %s of %s", ", ".join(taken), ", ".join(names))
    try:
        yield _checked()
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        for handle in taken.values():
            os.close(handle)


def _visible(value: str) -> list[str]:
    """Devices that CUDA_VISIBLE_DEVICES names."""
    return [name.strip() for name in value.split(",") if name.strip() and name.strip() != "-1"]


def _take(folder: Path, names: list[str], wanted: int, poll_s: float) -> dict[str, int]:
    """Lock the first free devices: their names, and the file handles whose closing frees them."""
    waited = False
    while True:
        taken: dict[str, int] = {}
        for name in names:
            lock = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            taken[name] = handle
            if len(taken) == wanted:
                return taken
        for handle in taken.values():
            os.close(handle)
        if not waited:
            _log.info("%d of %d GPUs are free: waiting for %d", len(taken), len(names), wanted)
            waited = True
        time.sleep(poll_s)


def _checked() -> str:
    """'cuda' where torch can use it, else 'cpu' with a warning."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    _log.warning("a GPU was asked for, but this torch cannot use one: using the CPU (install a CUDA build of torch)")
    return "cpu"
