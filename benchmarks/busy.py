"""How much of the machine other programs took: a figure measured beside them is worth little."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class Others:
    """Watches from its making on."""

    def __init__(self) -> None:
        self.start = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float | None:
        """Share of all CPU time that went to programs other than this one and its ended children; None = unknown."""
        start, busy, own = self.start
        now = _busy_s()
        if now is None or busy is None:
            return None
        took = (time.monotonic() - start) * (os.cpu_count() or 1)
        return round(max(0.0, now - busy - (_own_s() - own)) / took, 3)


def _busy_s() -> float | None:
    """CPU seconds of all programs since the machine started, from the kernel's count."""
    try:
        fields = _STAT.read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _idle, _wait, hard, soft = (int(field) for field in fields[:7])
    except (OSError, ValueError):
        return None
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """CPU seconds of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
