"""Arrays on disk by key, mapped into memory: several workers and several jobs may share one folder."""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.errors import DataError
from crowdmask.files import replacing

UNUSED_S = 86_400.0
"""A file that no job has opened for that long may be removed for a new one, seconds (our choice)."""

_TOUCH_S = 3600.0
"""How old the mark of a file's last use may become while it is used, seconds."""

_KEY = re.compile(r"[0-9a-f]{8,128}")


class Cache:
    """Arrays by key, each a `.npy` file that is complete or not there.

    The folder does not grow beyond its bound: a new file takes the place of those that nobody has used for a day, and
    where there are none it is not kept. So a set that does not fit has as many hits as fit, where dropping the least
    recently used would have none.

    Args:
        folder: Where they lie; made when the first is.
        bound_bytes: Most that they take together.
    """

    def __init__(self, folder: str | Path, bound_bytes: float) -> None:
        self.folder = Path(folder)
        self.bound_bytes = bound_bytes

    def path(self, key: str) -> Path:
        """Where the array of a key lies, whether it is there or not.

        Raises:
            ValueError: the key is not hexadecimal.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot be a key")
        return self.folder / key[:2] / f"{key}.npy"

    def get(self, key: str, shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray | None:
        """The array, mapped read-only; None where it is not there, is damaged, or is another than expected."""
        path = self.path(key)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # ValueError: a header that is none, cut off, or of Python objects
            return None
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.dtype(dtype):
            return None
        if not found.flags.c_contiguous:
            return None
        _mark_used(path)
        return found.view(np.ndarray)

    def get_or_make(
        self, key: str, shape: tuple[int, ...], dtype: type | np.dtype, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The array, made and kept where it is not there; in memory where it cannot be kept.

        Two that make the same array at the same time both write it; the later takes the earlier's place.

        Args:
            key: Hexadecimal.
            shape: Of the array.
            dtype: Of the array.
            make: Gives it, of that shape and type.

        Raises:
            DataError: the folder cannot be written.
        """
        found = self.get(key, shape, dtype)
        if found is not None:
            return found
        made = np.ascontiguousarray(make())
        if made.shape != shape or made.dtype != np.dtype(dtype):
            raise ValueError(f"made {made.dtype} {made.shape}, not {np.dtype(dtype)} {shape}")
        if made.size == 0 or not self._room(made.nbytes + 128, self.path(key)):
            return made
        try:
            with replacing(self.path(key)) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array(file, made, allow_pickle=False)
        except OSError as error:
            way_out = "Make room, choose another folder, or give `cache_gb: 0`."
            raise DataError(self.folder, f"cannot be written ({error.strerror})", way_out) from None
        kept = self.get(key, shape, dtype)
        return made if kept is None else kept

    def size(self) -> int:
        """Bytes of all files, unfinished ones of killed jobs included."""
        return sum(size for _, size, _ in self._files())

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, bytes and path of each file."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                try:
                    state = path.stat()
                except OSError:  # another job has just removed it
                    continue
                if name.endswith(".npy"):
                    found.append((state.st_mtime, state.st_size, path))
        return found

    def _room(self, wanted: int, target: Path) -> bool:
        """Make room for a new file; whether there is."""
        files = sorted(item for item in self._files() if item[2] != target)
        total = sum(size for _, size, _ in files) + wanted
        old = time.time() - UNUSED_S
        for used, size, path in files:
            if total <= self.bound_bytes:
                break
            if used < old:
                path.unlink(missing_ok=True)  # whoever has it mapped keeps it
                total -= size
        return total <= self.bound_bytes


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array lies in a mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def _mark_used(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > _TOUCH_S:
            os.utime(path)
    except OSError:  # removed, or of another user: it is used all the same
        pass
