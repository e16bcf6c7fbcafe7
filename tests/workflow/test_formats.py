"""Every format from its official layout to masks: as many masks as points, each where its point is."""

import json

import numpy as np
import pytest
from flow import Flow

from layouts import generic, official

GENERIC = {
    "coco": generic.coco,
    "points": generic.points_csv,
    "parquet": generic.points_parquet,
    "labelme": generic.labelme,
    "label_map": generic.label_map,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run over a small data set of each layout, and the points of each: {data set: {split/id: (N, 2)}}."""
    folder = tmp_path_factory.mktemp("formats")
    entries, points = {}, {}
    for name, (kind, write) in official.LAYOUTS.items():
        written = write(folder / "data" / name, np.random.default_rng(len(points)), 1)
        points[name] = {key: truth.points_xy for key, truth in written.items()}
        entries[name] = {"format": kind, "root": f"data/{name}"}
    for name, make in GENERIC.items():
        written = make(folder / "data" / name)
        points[name] = written.points
        entries[name] = {**written.entry, "root": f"data/{name}"}
    flow = Flow(folder, {"datasets": entries, "batches": 1})
    flow.make(*(f"results/{name}/masks.json" for name in entries))
    return flow, points


@pytest.mark.parametrize("name", [*official.LAYOUTS, *GENERIC])
def test_as_many_masks_as_points(made, name):
    flow, points = made
    coco = json.loads(flow.path(name, "masks.json").read_text(encoding="utf-8"))
    images = {image["id"]: f"{image['split']}/{image['image_id']}" for image in coco["images"]}
    assert sorted(images.values()) == sorted(points[name])
    found: dict[str, dict[int, list[float]]] = {key: {} for key in points[name]}
    for annotation in coco["annotations"]:
        assert annotation["area"] > 0
        found[images[annotation["image_id"]]][annotation["point_id"]] = annotation["point"]
    for key, heads in points[name].items():
        assert sorted(found[key]) == list(range(len(heads)))
        expected = np.asarray(heads, float).reshape(-1, 2)
        at = np.array([found[key][i] for i in range(len(heads))], float).reshape(-1, 2)
        np.testing.assert_allclose(at, expected, atol=1e-6)
