"""GPUs of this machine: how many there are, and one for each job.

Snakemake counts `gpu` resources but assigns no device. A job that was given one takes a free device by locking a
file, so that concurrent jobs of one machine use different devices. Where CUDA_VISIBLE_DEVICES is set (Slurm does), only
the devices that it names are used.
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
    before = os.environ.get(VARIABLE)
    names = [str(number) for number in range(count())] if before is None else _visible(before)
    if before is not None and len(names) < 2:
        yield _checked()
        return
    if not names:
        _log.warning("a GPU was asked for, but this machine shows none: using the CPU (set `gpu: 0` to silence this)")
        yield "cpu"
        return
    folder = folder or Path(tempfile.gettempdir()) / f"crowdmask-gpu-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    name, handle = _take(folder, names, poll_s)
    os.environ[VARIABLE] = name
    _log.info("using GPU %s of %s", name, ", ".join(names))
    try:
        yield _checked()
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        os.close(handle)


def _visible(value: str) -> list[str]:
    """Devices that CUDA_VISIBLE_DEVICES names."""
    return [name.strip() for name in value.split(",") if name.strip() and name.strip() != "-1"]


def _take(folder: Path, names: list[str], poll_s: float) -> tuple[str, int]:
    """Lock the first free device: its name and the file handle whose closing frees it."""
    waited = False
    while True:
        for name in names:
            lock = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return name, handle
            except BlockingIOError:
                os.close(handle)
        if not waited:
            _log.info("all %d GPUs are taken: waiting for one", len(names))
            waited = True
        time.sleep(poll_s)


def _checked() -> str:
    """'cuda' where torch can use it, else 'cpu' with a warning."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    _log.warning("a GPU was asked for, but this torch cannot use one: using the CPU (install a CUDA build of torch)")
    return "cpu"
