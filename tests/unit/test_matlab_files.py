"""The reader of MATLAB files: damaged ones, against SciPy, byte order."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from crowdmask.datasets.ucf import mat_variable
from crowdmask.errors import DataError
from layouts.tiny import POINTS, image_info


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["ucf", "shanghaitech"])
def test_flipped_bytes_of_a_matlab_file(tmp_path: Path, kind: str, compressed: bool) -> None:
    """Damaged files are read or refused, whatever bytes are changed; SciPy's reader ends the process on some."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"annPoints": POINTS, "image_info": image_info(POINTS)}, do_compression=compressed)
    content = path.read_bytes()
    name = "annPoints" if kind == "ucf" else "image_info"
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(124, len(content)):
        for value in rng.integers(0, 256, 8):
            damaged = bytearray(content)
            damaged[place] = value
            path.write_bytes(bytes(damaged))
            try:
                mat_variable(path, name, "Way out.")
            except DataError:
                refused += 1
    assert refused > 500


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"])
def test_matlab_reader_against_scipy(tmp_path: Path, dtype: str, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    numbers = np.arange(12).reshape(4, 3).astype(dtype)
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = numbers, "text"
    values = {
        "n": numbers,
        "cube": np.arange(24).reshape(2, 3, 4).astype(dtype),
        "s": {"a": numbers, "bc": 2.0},
        "c": cell,
    }
    scipy.io.savemat(path, {**values, "none": np.zeros((0, 0)), "t": "text"}, do_compression=compressed)
    theirs = scipy.io.loadmat(path)
    for name in ("n", "cube", "none"):
        ours = mat_variable(path, name, "")
        np.testing.assert_array_equal(ours, theirs[name])
        assert ours.shape == theirs[name].shape and ours.dtype.kind == theirs[name].dtype.kind
    structure = mat_variable(path, "s", "")
    assert list(structure) == ["a", "bc"] and structure["bc"][0].tolist() == [[2.0]]
    np.testing.assert_array_equal(structure["a"][0], numbers)
    first, second = mat_variable(path, "c", "")
    np.testing.assert_array_equal(first, numbers)
    assert second == mat_variable(path, "t", "") == "text"


def test_big_endian_matlab_file(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"annPoints")
    content = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, body + element(9, struct.pack(">dd", 3.5, 4.0)))
    (tmp_path / "a.mat").write_bytes(content)
    assert mat_variable(tmp_path / "a.mat", "annPoints", "").tolist() == [[3.5, 4.0]]
