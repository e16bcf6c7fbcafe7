"""GPUs of this machine: how many there are, and one for each job.

Snakemake counts `gpu` resources but assigns no device. A job that was given one takes a free device by locking a
file, so that concurrent jobs of one machine use different devices; a scheduler that has set CUDA_VISIBLE_DEVICES
(Slurm does) is left in charge.
"""

from __future__ import annotations

import fcntl
import getpass
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

VARIABLE = "CUDA_VISIBLE_DEVICES"

_log = logging.getLogger(__name__)


def count(dev: Path = Path("/dev")) -> int:
    """Number of NVIDIA GPUs that jobs may use here, found without loading torch.

    Args:
        dev: Folder of the device files.
    """
    visible = os.environ.get(VARIABLE)
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
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
    """Hold one GPU while the block runs, and yield the torch device to use: 'cuda' or 'cpu'.

    Call it before torch touches CUDA. Waits while every device is taken by another job of this user.

    Args:
        wanted: What the rule's `gpu` resource says; 0 = CPU.
        folder: Where the lock files lie; default: one for each user in the temporary folder.
        poll_s: Seconds between two looks for a free device.
    """
    if wanted <= 0:
        yield "cpu"
        return
    if VARIABLE in os.environ:
        yield _checked()
        return
    devices = count()
    if devices == 0:
        _log.warning("a GPU was asked for, but this machine shows none: using the CPU (set `gpu: 0` to silence this)")
        yield "cpu"
        return
    folder = folder or Path(tempfile.gettempdir()) / f"crowdmask-gpu-{getpass.getuser()}"
    folder.mkdir(parents=True, exist_ok=True)
    number, handle = _take(folder, devices, poll_s)
    os.environ[VARIABLE] = str(number)
    _log.info("using GPU %d of %d", number, devices)
    try:
        yield _checked()
    finally:
        del os.environ[VARIABLE]
        os.close(handle)


def _take(folder: Path, devices: int, poll_s: float) -> tuple[int, int]:
    """Lock the first free device: its number and the file handle whose closing frees it."""
    waited = False
    while True:
        for number in range(devices):
            handle = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number, handle
            except BlockingIOError:
                os.close(handle)
        if not waited:
            _log.info("all %d GPUs are taken: waiting for one", devices)
            waited = True
        time.sleep(poll_s)


def _checked() -> str:
    """'cuda' where torch can use it, else 'cpu' with a warning."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    _log.warning("a GPU was asked for, but this torch cannot use one: using the CPU (install a CUDA build of torch)")
    return "cpu"
