"""Clocks and the speed of the machine, as seen from one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks import host


def device(wanted: str) -> torch.device:
    """The device of a name; auto = the GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def sync(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_device_peak(device: torch.device) -> None:
    """Forget the device's peak so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak_mb(device: torch.device) -> float | None:
    """Largest memory that torch held on the device, weights included, MB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class Clock:
    """Seconds by part, the device waited for at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as this part."""
        sync(self.device)
        start = time.perf_counter()
        yield
        sync(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _best(work: Any, device: torch.device, seconds: float) -> float:
    """Shortest time of a call within a time budget."""
    work()
    sync(device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        sync(device)
        best = min(best, time.perf_counter() - start)
    return best


@torch.inference_mode()
def fastest_matmul(device: torch.device, dtype: torch.dtype = torch.float32, seconds: float = 0.5) -> float:
    """Most FLOP/s of a product of square matrices, with the threads that are set."""
    most = 0.0
    for side in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        took = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds)
        most = max(most, 2 * side**3 / took)
    return most


@torch.inference_mode()
def copy_bandwidth(device: torch.device, seconds: float = 0.3) -> float:
    """Bytes read and written a second when memory is copied, in blocks that no cache holds."""
    source = torch.ones(1 << (26 if device.type == "cpu" else 28), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device, seconds)


def speed(device: torch.device, threads: int | None = None) -> dict[str, float]:
    """How fast the machine multiplies and copies: `flop_per_s` and `bytes_per_s`.

    Args:
        device: Of the machine.
        threads: CPU threads from now on; None = as they are.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return {"flop_per_s": fastest_matmul(device), "bytes_per_s": copy_bandwidth(device)}


def machine(device: torch.device) -> dict[str, Any]:
    """What the machine is: processor, its cores, memory and GPU."""
    return host.machine(torch.cuda.get_device_name(device) if device.type == "cuda" else None)
