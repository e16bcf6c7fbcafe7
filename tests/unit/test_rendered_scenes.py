"""Rendered scenes as a data set: list, files, faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crowdmask import config
from crowdmask.datasets import reader_for, rendered, stage
from crowdmask.datasets.base import Reader
from crowdmask.errors import DataError, SettingsError
from layouts.reading import ids as keys


def synthetic(**settings: Any) -> config.Synthetic:
    return config.Synthetic(**{"format": "synthetic", "count": 3, "height": 96, "width": 128, **settings})


def test_rendered_list_follows_from_the_settings(tmp_path: Path) -> None:
    made = reader_for("demo", synthetic(), str(tmp_path / "results"))
    assert made.root == str(tmp_path / "results" / "demo" / "render")
    refs = made.list_images()
    assert keys(refs) == ["test/scene-0000", "test/scene-0001", "test/scene-0002"]
    assert refs[0].image == "test/scene-0000.png" and refs[0].annotation == "test/scene-0000.points.json"
    assert [rendered.scene_index(ref.image_id) for ref in refs] == [0, 1, 2]
    assert rendered.scene_index(rendered.scene_id(12_345)) == 12_345
    with pytest.raises(DataError, match="file not found"):
        made.read_points(refs[0])


def test_number_of_people_is_log_uniform() -> None:
    entry = synthetic(people=(20, 300))
    drawn = np.array([rendered.scene_people(entry, k) for k in range(2000)])
    assert drawn.min() >= 20 and drawn.max() <= 300
    assert 70 < np.median(drawn) < 86  # the geometric mean is 77
    assert rendered.scene_people(synthetic(people=(20, 300), seed=5), 2) == rendered.scene_people(entry, 7)
    few = [rendered.scene_people(synthetic(people=(0, 2)), k) for k in range(200)]
    assert set(few) == {0, 1, 2}
    assert {rendered.scene_people(synthetic(people=(9, 9)), k) for k in range(20)} == {9}


def render_all(tmp_path: Path, entry: config.Synthetic) -> Reader:
    made = reader_for("demo", entry, str(tmp_path))
    for index, ref in enumerate(made.list_images()):
        base = Path(made.root, ref.split, ref.image_id)
        rendered.render(entry, index, f"{base}.png", f"{base}.labels.png", f"{base}.points.json")
    return made


def test_rendered_scene_round_trip(tmp_path: Path) -> None:
    entry = synthetic(count=1, people=(4, 6))
    made = render_all(tmp_path, entry)
    refs = made.list_images()
    (row,) = stage.collect(made, refs, "stored")
    labels, ids = made.read_truth(refs[0])
    written = json.loads(Path(made.root, refs[0].annotation).read_text())
    assert written["seed"] == 0 and written["people"] == rendered.scene_people(entry, 0)
    assert len(row["points"]) == len(ids) == len(list(stage.truth_rows(made, refs)))
    assert labels.shape == (row["height"], row["width"]) == (96, 128)
    for point, value in zip(row["points"], ids, strict=True):
        assert labels[round(point["y"]), round(point["x"])] == value
    before = {path.name: path.read_bytes() for path in Path(made.root, "test").iterdir()}
    assert set(before) == {"scene-0000.png", "scene-0000.labels.png", "scene-0000.points.json"}
    render_all(tmp_path, entry)
    assert before == {path.name: path.read_bytes() for path in Path(made.root, "test").iterdir()}


def test_rendered_scene_without_people(tmp_path: Path) -> None:
    made = render_all(tmp_path, synthetic(count=1, people=(0, 0)))
    (row,) = stage.collect(made, made.list_images(), "stored")
    assert row["points"] == []
    assert list(stage.truth_rows(made, made.list_images())) == []


def test_frame_too_small_for_the_people(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"scene 0: .* Set fewer people"):
        render_all(tmp_path, synthetic(height=64, width=64, people=(1500, 1500)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a file of points"),
        (b"[1, 2]", "not a file of points"),
        (b'{"points": [[1, 2], [3]]}', "not a file of points"),
        (b'{"points": [[1, NaN]]}', "row 0: the point"),
        (b'{"points": [1, 2]}', "the points are 2 numbers"),
        (b'{"points": []}', "has the id"),
        (b"\xff\xfe", "not a file of points"),
    ],
)
def test_damaged_rendered_files(tmp_path: Path, content: bytes, words: str) -> None:
    made = render_all(tmp_path, synthetic(count=1, people=(3, 3)))
    ref = made.list_images()[0]
    Path(made.root, ref.annotation).write_bytes(content)
    with pytest.raises(DataError, match=words):
        made.read_truth(ref)
