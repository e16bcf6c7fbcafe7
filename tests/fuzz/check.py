"""One damaged file: read, refused with our error, or a fault that names its seed.

Allowed is a clean read or `CrowdmaskError` whose text can be printed. Not allowed: any other exception or warning, more
than `SECONDS` of processor time, more than `BYTES` of memory (also where a reader turns the lack of it into its own
error), arrays of other types or shapes or with NaN, a name that leads out of the data set.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowdmask.errors import CrowdmaskError
from fuzz.cases import Case
from fuzz.mutate import mutant

SECONDS = 5.0
BYTES = 1 << 30
READ = "(read)"


class TooLong(BaseException):
    """Not an `Exception`, which a reader could take for a damaged file."""


class Sample:
    """Valid files of a case in a folder, to be damaged one at a time.

    Args:
        case: The kind of file.
        root: An empty folder.
    """

    def __init__(self, case: Case, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.case, self.root = case, root
        self.files = case.build(root)
        self.valid = [path.read_bytes() for path in self.files]
        self._changes = 0

    def write(self, path: Path, content: bytes) -> None:
        """Write with a time of its own, so that no reader takes the file for the one before."""
        path.write_bytes(content)
        self._changes += 1
        os.utime(path, ns=(self._changes * 1000, self._changes * 1000))

    def outcome(self, path: Path, content: bytes) -> str:
        """Pattern of our error for a file with this content, or `READ`; the valid file is put back.

        Raises:
            BaseException: anything that is not allowed.
        """
        valid = self.valid[self.files.index(path)]
        self.write(path, content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            self.case.read(self.root)
            return READ
        except CrowdmaskError as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            return _pattern(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.write(path, valid)

    def damage(self, seed: int) -> tuple[Path, bytes]:
        """The file that a seed damages, and its content."""
        number = zlib.crc32(f"{self.case.name}:{seed}".encode())
        at = number % len(self.files)
        other = self.valid[(at + 1) % len(self.valid)]
        return self.files[at], mutant(number, self.valid[at], other, self.case.own)


@contextmanager
def guarded() -> Iterator[None]:
    """Limits of memory and time, warnings as errors; put back at the end."""

    def stop(*_: object) -> None:
        raise TooLong(f"more than {SECONDS:g} s of processor time")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit = now + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _pattern(error: CrowdmaskError) -> str:
    """What an error says, without the names and numbers of the file.

    Raises:
        AssertionError: a text that cannot be shown, or that hides a lack of memory.
    """
    text = str(error)
    text.encode("utf-8")
    assert len(text) < 3000, f"a message of {len(text)} characters: {text[:200]}"
    assert text.isprintable(), f"a message with control characters: {text[:500]!a}"
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), f"more than {BYTES} bytes of memory: {text[:300]}"
        cause = cause.__context__
    problem = re.sub(r"0x[0-9a-f]{2}", "N", getattr(error, "problem", text))
    problem = re.sub(r"\"[^\"]*\"|'[^']*'", "'...'", problem)
    return re.sub(r"-?\d[\d.e+]*", "N", problem)[:90]
