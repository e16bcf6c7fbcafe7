"""A few hundred damaged files of every kind in a minute; `make fuzz` tries many more, each batch in its own process."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from crowdmask.datasets import READERS
from fuzz import mutate, samples
from fuzz.cases import CASES, Case, by_name
from fuzz.check import READ, Sample, TooLong, guarded

MUTANTS = 300


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sample]:
    made = Sample(request.param, tmp_path / "data")
    made.case.read(made.root)  # the valid files; also loads what is loaded once
    yield made


def test_every_format_is_damaged() -> None:
    assert {case.name.partition("-")[0] for case in CASES} >= set(READERS)


def test_damaged_files(sample: Sample) -> None:
    seen: dict[str, int] = {}
    faults = []
    with guarded():
        for seed in range(MUTANTS):
            try:
                found = sample.outcome(*sample.damage(seed))
            except (Exception, TooLong) as error:
                faults.append(f"seed {seed}: {type(error).__name__}: {error}"[:400])
                continue
            seen[found] = seen.get(found, 0) + 1
    again = f"{len(faults)} of {MUTANTS}; again with: python -m fuzz {sample.case.name} --first SEED --mutants 1"
    assert not faults, "\n".join([again, *faults[:10]])
    assert seen.get(READ, 0) < MUTANTS and len(seen) > 3, seen  # the damage does some


def test_damage_follows_from_the_seed(tmp_path: Path) -> None:
    for case in CASES:
        one, two = (Sample(case, tmp_path / side / case.name) for side in "ab")
        for seed in range(3):
            if one.valid == two.valid:  # Parquet and MATLAB files have the time in them
                assert one.damage(seed)[1] == two.damage(seed)[1], (case.name, seed)


SHAPE = ("x", "y", "width", "height")
JSON_FILES = ["nwpu-json", "fdst", "coco", "labelme", "edits", "synthetic"]

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-10, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([value for value in mutate.VALUES if not isinstance(value, list | dict)])
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner))


def shaped(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same keys and lengths as a valid one, in which any part may be something else."""
    if isinstance(value, dict):
        same: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional={k: shaped(v) for k, v in value.items()})
        full = st.fixed_dictionaries({k: shaped(v) for k, v in value.items()})
        return st.one_of(full, full, full, same, VALUES)
    if isinstance(value, list) and value:
        return st.one_of(st.lists(st.one_of([shaped(item) for item in value[:3]]), max_size=5), st.just(value), VALUES)
    return st.one_of(st.just(value), st.just(value), st.just(value), LEAVES)


@pytest.mark.parametrize("name", JSON_FILES)
def test_right_keys_with_wrong_values(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Sample(by_name(name), tmp_path_factory.mktemp(name) / "data")
    made.case.read(made.root)
    path = made.files[0]
    valid = json.loads(made.valid[0])

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(valid)
    @given(shaped(valid))
    def run(value: Any) -> None:
        made.outcome(path, json.dumps(value).encode("utf-8", "surrogatepass"))

    with guarded():
        run()


def _huge_png() -> bytes:
    """A whole PNG file of 12 rows whose header claims 100 million."""
    buffer = io.BytesIO()
    Image.fromarray(samples.LABELS).save(buffer, "PNG")
    data = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", 10_000, 10_000) + data[24:29]
    return data[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _not_utf8() -> bytes:
    """A Parquet file whose text column holds bytes that are no text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([b"a.jpg", b"\xb8\xff"]).view(pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": names, "x": [1.0, 2.0], "y": [1.0, 2.0], "split": ["a", "a"]}), buffer)
    return buffer.getvalue()


def _coco_box(box: list[float]) -> bytes:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box}
    return json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [annotation]}).encode()


def _polygon(value: float) -> bytes:
    points = [[value, 0], [0, value], [-value, -value], [value, -value]]
    return json.dumps({"shapes": [{"label": "head", "shape_type": "polygon", "points": points}]}).encode()


def _archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, samples.LABELS)
    return buffer.getvalue()


FOUND = [
    # Found by hand and by earlier runs; each of them once ended in something else than our error.
    ("label_map-npy", _archive(), "not a readable label map"),
    ("label_map-png", _huge_png(), "its header claims N x N pixels"),
    ("image-png", _huge_png(), "its header claims N x N pixels"),
    ("points-parquet", _not_utf8(), ""),
    ("jhu", b"1e308 1 -1.7e308 1 1 1\n", "the head"),
    ("coco", _coco_box([1.7e308, 1, 1, 1]), "its bbox"),
    ("coco", _coco_box([-1.7e308, 1, 1.7e308, 1]), "its bbox"),
    ("labelme", _polygon(1e200), "the shape has no list of finite points"),
    ("labelme", _polygon(1.7e308), "the shape has no list of finite points"),
    ("synthetic", b'{"points": [[1, ' + b"9" * 400 + b"]]}", "not a file of points"),
    ("jhu", b"1e308 1 1.7e308 1 1 1\n", ""),
    ("fdst", json.dumps({"a": {"regions": [{"shape_attributes": dict.fromkeys(SHAPE, 1.7e308)}]}}).encode(), ""),
]


@pytest.mark.parametrize(("name", "content", "message"), FOUND)
def test_found_before(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    made = Sample(by_name(name), tmp_path / "data")
    made.case.read(made.root)
    with guarded():
        assert made.outcome(made.files[0], content).startswith(message)


def test_faults_are_noticed(tmp_path: Path) -> None:
    """A reader that fails in each of the forbidden ways."""

    def wrong(kind: str) -> Sample:
        def read(root: Path) -> None:
            if kind == "exception":
                raise KeyError("points")
            if kind == "memory":
                bytearray(2 << 30)
            while kind == "hang":
                pass

        case = Case(kind, by_name("jhu").build, read)
        return Sample(case, tmp_path / kind)

    for kind, error in (("exception", KeyError), ("memory", MemoryError)):
        made = wrong(kind)
        with guarded(), pytest.raises(error):
            made.outcome(*made.damage(0))
        assert made.files[0].read_bytes() == made.valid[0]
    made = wrong("hang")
    with pytest.MonkeyPatch.context() as patch, guarded():
        patch.setattr("fuzz.check.SECONDS", 0.05)
        with pytest.raises(TooLong):
            made.outcome(*made.damage(0))
