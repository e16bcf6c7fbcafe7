"""What needs no torch: memory of a process, the machine, and answering the runner."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def _status_mb(field: str) -> float | None:
    """A field of the kernel's status file, MB; None where there is no such file."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB (2^20 bytes).

    From /proc where there is one: `ru_maxrss` of a new process on Linux begins with its parent's.
    """
    found = _status_mb("VmHWM")
    if found is not None:
        return found
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 2**20 if sys.platform == "darwin" else largest / 2**10


def start_peak() -> float:
    """Forget the peak so far where the system can, and return what counts as the model's own, MB."""
    try:
        _RESET.write_text("5")
    except OSError:
        return peak_mb()
    return _status_mb("VmRSS") or peak_mb()


def machine(gpu: str | None = None) -> dict[str, Any]:
    """What the machine is: processor, its cores and memory, and the name of its GPU."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def serve(work: Any, end: Callable[[], dict[str, Any]], answers: TextIO) -> None:
    """Do what the lines of standard input say, and answer each with a line of JSON: warm, run, end.

    Args:
        work: Has `warm` and `run`.
        end: What is said at the end.
        answers: To the runner.
    """
    for line in sys.stdin:
        command = line.strip()
        answer: dict[str, Any] = {}
        if command == "warm":
            work.warm()
        elif command == "run":
            answer = work.run()
        elif command == "end":
            answer = end()
        print(json.dumps(answer), file=answers, flush=True)
        if command == "end":
            return


def save_masks(path: Path, masks: list[np.ndarray]) -> None:
    """Masks of any sizes in one file."""
    flat = [mask.ravel() for mask in masks]
    bits = np.packbits(np.concatenate(flat)) if flat else np.zeros(0, np.uint8)
    np.savez(path, sizes=np.array([mask.size for mask in masks], np.int64), bits=bits)
