"""Automatic masks: the grid, what is kept of it, and segment-anything's own measures of both."""

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torchvision.ops import box_iou

from crowdmask import tables
from crowdmask.ablation import candidates
from crowdmask.config import Candidates, Tiles
from crowdmask.datasets.images import read_row
from crowdmask.datasets.synthetic import render_scene
from crowdmask.masks.decoder import Decoder
from crowdmask.masks.prompts import Frame
from crowdmask.masks.tiles import Tile

LOOSE = Candidates(pred_iou=0.4, stability=0.5)


@pytest.fixture(scope="module")
def scene():
    return render_scene(12, height=192, width=256, people=7)


def test_the_grid_is_that_of_segment_anything():
    points, labels = candidates.grid_points(Frame(100, 100, 256), 32)
    expected = build_point_grid(8) * 256
    # Theirs are corners of pixels, ours are centres: half a pixel of the original.
    np.testing.assert_allclose(points[:, 0], expected - 0.5 * 2.56, rtol=1e-5)
    assert labels.shape == (64, 1) and (labels == 1).all()
    assert candidates.grid_points(Frame(60, 240, 256), 32)[0].shape == (2 * 8, 1, 2)
    assert candidates.grid_points(Frame(1, 500, 256), 64)[0].shape == (4, 1, 2)


def test_stability_and_boxes_are_those_of_segment_anything():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20, 9, 13)).astype(np.float32) - rng.uniform(0, 6, (20, 1, 1)).astype(np.float32)
    logits[3] = -9
    theirs = calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0).numpy()
    theirs[np.isnan(theirs)] = 0
    np.testing.assert_allclose(candidates.stability(logits), theirs, rtol=1e-6)
    masks = logits > 0
    inclusive = batched_mask_to_box(torch.from_numpy(masks)).numpy()
    some = masks.any((1, 2))
    assert 5 < some.sum() < 20
    np.testing.assert_array_equal(candidates.boxes_of(masks)[some], inclusive[some] + [0, 0, 1, 1])
    assert (candidates.boxes_of(masks)[~some] == 0).all()


def test_of_overlapping_boxes_the_better_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 5]])
    assert candidates.distinct(boxes, [1, 0, 2, 3], 0.7) == [1, 2, 3]
    assert candidates.distinct(boxes, [3, 0, 2, 1], 0.7) == [3, 0, 2]
    assert candidates.distinct(boxes, [3, 0, 2, 1], 0.4) == [3, 2]  # 0.5 with the half, 0.43 of the next with it
    assert candidates.distinct(boxes, [0, 1, 2, 3], 1.0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tile", "cut"),
    [
        (Tile(0, 0, 50, 40, np.zeros(0), 1.0), [False] * 5),  # the whole image
        (Tile(10, 0, 40, 40, np.zeros(0), 1.0), [False, True, False, False, False]),
        (Tile(0, 0, 40, 30, np.zeros(0), 1.0), [False, False, False, True, True]),
        (Tile(10, 10, 30, 20, np.zeros(0), 1.0), [False, True, True, True, True]),
    ],
)
def test_masks_that_a_tile_cuts_off_are_dropped(tile, cut):
    boxes = np.array([[1, 1, 7, 7], [0, 2, 4, 4], [2, 0, 4, 4], [2, 2, 8, 4], [2, 2, 4, 8]])
    assert candidates.cut_off(boxes, tile, (8, 8), 40, 50).tolist() == cut


@pytest.mark.parametrize("tiles", [Tiles(mode="none"), Tiles()])
def test_candidates_of_a_rendered_crowd(shipped, scene, tiles):
    image, points = scene.image, scene.points_xy
    found = candidates.image_candidates(Decoder(shipped), image, points, tiles, LOOSE)
    assert len(found) > 3
    height, width = image.shape[:2]
    for score, steadiness, window in found:
        assert score > LOOSE.pred_iou and LOOSE.stability <= steadiness <= 1 and window.area > 0
        assert window.x0 >= 0 and window.x0 + window.mask.shape[1] <= width
        assert window.y0 >= 0 and window.y0 + window.mask.shape[0] <= height
    boxes = torch.tensor([[w.x0, w.y0, w.x0 + w.mask.shape[1], w.y0 + w.mask.shape[0]] for _, _, w in found]).float()
    overlap = box_iou(boxes, boxes).fill_diagonal_(0)
    assert overlap.max() <= LOOSE.nms_iou
    strict = candidates.image_candidates(
        Decoder(shipped), image, points, tiles, Candidates(pred_iou=0.7, stability=0.8)
    )
    assert len(strict) < len(found) and all(s > 0.7 and t >= 0.8 for s, t, _ in strict)


def test_nothing_sure_enough_is_no_candidate(shipped, scene):
    impossible = Candidates(pred_iou=9.0)
    assert candidates.image_candidates(Decoder(shipped), scene.image, scene.points_xy, Tiles(), impossible) == []
    assert candidates.image_candidates(Decoder(shipped), scene.image, np.zeros((0, 2)), Tiles(), LOOSE) == []


def test_rows_of_the_table(shipped, scene, tmp_path, monkeypatch):
    key = {"split": "test", "image_id": "i"}
    points = [{"point_id": k, "x": x, "y": y} for k, (x, y) in enumerate(scene.points_xy.tolist())]
    image = {**key, "path": "i.png", "height": 192, "width": 256, "points": points}
    monkeypatch.setattr(candidates, "read_row", lambda root, row, exif: scene.image)
    assert read_row is not candidates.read_row
    rows = list(
        candidates.rows(Decoder(shipped), [{**image, "points": []}, image], "", "stored", Tiles(mode="none"), LOOSE)
    )
    assert [row["candidate_id"] for row in rows] == list(range(len(rows))) and rows
    assert tables.write(tmp_path / "c.parquet", "candidates", rows, version=1, settings="{}") == len(rows)
