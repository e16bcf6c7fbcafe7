"""Segment against segment_anything's own predictor, with the small architecture and random weights."""

from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from crowdmask.config import Prompt, PromptMode, Tiles
from crowdmask.errors import DataError
from crowdmask.geometry import circle_box, clip_points, neighbour_distances
from crowdmask.masks.decoder import Decoder
from crowdmask.masks.prompts import Frame, assemble, head_boxes
from crowdmask.masks.rle import Window
from crowdmask.masks.segment import rows, segment_image, window_reach
from crowdmask.masks.small import build_small
from crowdmask.masks.superpixels import clip_to_circle
from crowdmask.masks.tiles import plan

MODES = get_args(PromptMode)
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def sam():
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = build_small()
    with torch.no_grad():  # random weights give nearly flat logits: spread them over both signs
        for layer in model.mask_decoder.output_hypernetworks_mlps:
            layer.layers[-1].weight.mul_(8)
        for parameter in model.mask_decoder.parameters():  # biases of 0 and norms of 1 would hide mistakes
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    image = np.clip(128 + cv2.GaussianBlur(rng.normal(0, 400, (HEIGHT, WIDTH, 3)), (0, 0), 4), 0, 255).astype(np.uint8)
    points = np.array([[20.0, 30.0], [50.5, 40.25], [90.0, 20.0], [100.0, 80.0], [64.0, 60.0], [140.0, 50.0], [20, 30]])
    parts = []
    for x, y in clip_points(points, HEIGHT, WIDTH):
        box = circle_box(x, y, 9, HEIGHT, WIDTH)
        parts.append(Window(box[0], box[1], np.ones((box[3], box[2]), bool)))
    return image, points, parts


PREDICTORS = {}


def predictor_of(sam, image):
    """The predictor with the embedding of an image, which most tests share."""
    key = image.tobytes(), image.shape
    if key not in PREDICTORS:
        PREDICTORS[key] = SamPredictor(sam)
        PREDICTORS[key].set_image(image)
    return PREDICTORS[key]


def reference(sam, image, points, parts, prompt, tile, index):
    """Logits of one point on the whole image (-inf outside of its tile), and score, by `predict_torch`."""
    height, width = image.shape[:2]
    points = clip_points(points, height, width)
    distances = neighbour_distances(points)
    part = parts[index]
    if prompt.clip_to_circle:
        part = clip_to_circle(part, *points[index], distances[index], height, width)
    corner = points - [tile.x0, tile.y0]
    visible = ((corner >= -0.5) & (corner < [tile.w - 0.5, tile.h - 0.5])).all(1)
    frame = Frame(tile.h, tile.w, 256)
    boxes = head_boxes(points, distances, np.full((len(points), 4), np.nan), prompt.box_share, height, width)
    made = assemble(points[[index]], [part], points[visible], (tile.x0, tile.y0), frame, 128, prompt, boxes[[index]])
    predictor = predictor_of(sam, image[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w])
    assert predictor.input_size == frame.input_hw

    def predict(boxes, masks, multimask):
        answers, scores, low = predictor.predict_torch(
            None if made.points_xy is None else torch.from_numpy(made.points_xy),
            None if made.points_xy is None else torch.from_numpy(made.point_labels),
            boxes=boxes,
            mask_input=masks,
            multimask_output=multimask,
            return_logits=True,
        )
        best = int(scores[0].argmax())
        return answers[0, best].numpy(), float(scores[0, best]), low[0, best]

    masks = None if made.masks is None else torch.from_numpy(made.masks.dense())
    if prompt.mode == "two-pass":
        first = predict(None, None, True)[2]
        masks = (first + torch.where(masks[0, 0] > 0, prompt.bias, -prompt.bias))[None, None]
    boxes = None if made.boxes_xyxy is None else torch.from_numpy(made.boxes_xyxy)
    logits, score, _ = predict(boxes, masks, made.multimask)
    full = np.full((height, width), -np.inf, np.float32)
    full[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w] = logits
    return full, score


def check(sam, scene, prompt, tiles):
    image, points, parts = scene
    made = segment_image(Decoder(sam, 4), image, points, parts, prompt, tiles)
    clipped = clip_points(points, HEIGHT, WIDTH)
    distances = neighbour_distances(clipped)
    planned = plan(clipped, distances, HEIGHT, WIDTH, 256, tiles)
    owner = {int(i): k for k, tile in enumerate(planned) for i in tile.owned}
    reach = window_reach(distances, HEIGHT, WIDTH)
    assert len(made) == len(points)
    areas = []
    for i, row in enumerate(made):
        tile = planned[owner[i]]
        logits, score = reference(sam, image, points, parts, prompt, tile, i)
        assert row["tile"] == owner[i] and row["zoom"] == tile.zoom
        assert row["score"] == pytest.approx(score, abs=1e-5)
        x0, y0, w, h = circle_box(*clipped[i], reach[i], HEIGHT, WIDTH)
        window = np.zeros((HEIGHT, WIDTH), bool)
        window[y0 : y0 + h, x0 : x0 + w] = True
        found = Window.from_columns(row).full(HEIGHT, WIDTH)
        sure = np.abs(logits) > 1e-3
        np.testing.assert_array_equal(found[sure], ((logits > 0) & window)[sure])
        inside = logits[window]
        assert row["stability"] == pytest.approx((inside > 1).sum() / max((inside > -1).sum(), 1), abs=0.02)
        areas.append(found.sum() / np.isfinite(inside).sum())
    assert min(areas) < 0.995 and max(areas) > 0.005  # the comparison is not of empty or full windows only


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_masks_are_those_of_the_official_predictor(sam, scene, mode, neighbours):
    check(sam, scene, Prompt(mode=mode, neighbours=neighbours), Tiles(mode="none"))


@pytest.mark.parametrize("mode", ["point", "point+superpixel", "two-pass"])
def test_a_tile_is_a_picture_of_its_own(sam, scene, mode):
    check(sam, scene, Prompt(mode=mode, neighbours=1), Tiles(mode="fixed", side=64))


def test_automatic_tiles_and_whole_superpixels(sam, scene):
    check(sam, scene, Prompt(clip_to_circle=False), Tiles(mode="auto", max_zoom=8.0))


@pytest.mark.parametrize("tiles", [Tiles(mode="none"), Tiles(mode="fixed", side=48), Tiles()])
def test_one_row_a_point_in_order(sam, scene, tiles):
    image, points, parts = scene
    decoder = Decoder(sam, 64)
    made = segment_image(decoder, image, points, parts, Prompt(), tiles)
    order = np.array([5, 0, 4, 1, 3, 2])
    again = segment_image(decoder, image, points[order], [parts[i] for i in order], Prompt(), tiles)
    assert len(made) == len(points) and len(again) == len(order)
    for row, i in zip(again, order, strict=True):
        assert row["zoom"] == made[i]["zoom"] and row["score"] == pytest.approx(made[i]["score"], abs=1e-4)
        a, b = (Window.from_columns(r).full(HEIGHT, WIDTH) for r in (row, made[i]))
        assert (a ^ b).mean() < 0.002


def test_the_same_input_gives_the_same_bytes(sam, scene):
    first = segment_image(Decoder(sam, 3), *scene, Prompt(), Tiles())
    assert segment_image(Decoder(sam, 3), *scene, Prompt(), Tiles()) == first


@pytest.mark.parametrize("mode", ["point+superpixel", "two-pass"])
def test_chunks_change_only_what_lies_on_the_edge(sam, scene, mode):
    image, points, parts = scene
    prompt, tiles = Prompt(mode=mode), Tiles(mode="none")
    (tile,) = plan(clip_points(points, HEIGHT, WIDTH), np.ones(7), HEIGHT, WIDTH, 256, tiles)
    whole = segment_image(Decoder(sam, 64), *scene, prompt, tiles)
    for chunk in (1, 3):
        made = segment_image(Decoder(sam, chunk), *scene, prompt, tiles)
        for i, (a, b) in enumerate(zip(whole, made, strict=True)):
            differ = Window.from_columns(a).full(HEIGHT, WIDTH) ^ Window.from_columns(b).full(HEIGHT, WIDTH)
            if differ.any():
                logits, _ = reference(sam, image, points, parts, prompt, tile, i)
                assert np.abs(logits[differ]).max() <= 1e-3
            assert a["score"] == pytest.approx(b["score"], abs=1e-4)


@pytest.mark.parametrize("tiles", [Tiles(mode="none"), Tiles(mode="fixed", side=64), Tiles()])
@pytest.mark.parametrize("mode", ["point", "point+superpixel"])
def test_all_of_a_tiles_answer_is_the_same_within_the_circle(shipped, scene, mode, tiles):
    """The window is all that differs: score, and each pixel that the smaller window has."""
    image, points, parts = scene
    clipped = clip_points(points, HEIGHT, WIDTH)
    reach = window_reach(neighbour_distances(clipped), HEIGHT, WIDTH)
    decoder, prompt = Decoder(shipped, 3), Prompt(mode=mode)
    small = segment_image(decoder, image, points, parts, prompt, tiles)
    large = segment_image(decoder, image, points, parts, prompt, tiles, window="tile")
    for i, (a, b) in enumerate(zip(small, large, strict=True)):
        assert {key: a[key] for key in ("tile", "zoom", "score")} == {key: b[key] for key in ("tile", "zoom", "score")}
        box = circle_box(*clipped[i], reach[i], HEIGHT, WIDTH)
        tile = plan(clipped, neighbour_distances(clipped), HEIGHT, WIDTH, 256, tiles)[a["tile"]]
        seen = np.zeros((HEIGHT, WIDTH), bool)
        seen[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w] = True
        found = Window.from_columns(b)
        assert not (found.full(HEIGHT, WIDTH) & ~seen).any()
        np.testing.assert_array_equal(Window.from_columns(a).cut(*box), found.cut(*box))


def test_all_of_a_tiles_answer_may_leave_the_window(sam, scene):
    image, points, parts = scene
    made = segment_image(Decoder(sam), image, points, parts, Prompt(), Tiles(mode="none"), window="tile")
    reach = window_reach(neighbour_distances(clip_points(points, HEIGHT, WIDTH)), HEIGHT, WIDTH)
    assert any(max(row["w"], row["h"]) > 2 * r + 1 for row, r in zip(made, reach, strict=True))


def test_annotated_boxes_are_prompts_in_box_mode_only(sam, scene):
    image, points, parts = scene
    boxes = np.full((len(points), 4), np.nan)
    boxes[1] = [40, 30, 60, 50]
    decoder = Decoder(sam)
    for mode, same in (("point+superpixel", True), ("box", False)):
        prompt, tiles = Prompt(mode=mode), Tiles(mode="none")
        without = segment_image(decoder, image, points, parts, prompt, tiles)
        given = segment_image(decoder, image, points, parts, prompt, tiles, boxes)
        assert (without[1] == given[1]) == same
        assert [row["score"] for k, row in enumerate(given) if k != 1] == pytest.approx(
            [row["score"] for k, row in enumerate(without) if k != 1]
        )


def test_no_points_need_no_model(scene):
    assert segment_image(Decoder(build_small()), scene[0], np.zeros((0, 2)), [], Prompt(), Tiles()) == []


def test_points_at_one_place_get_equal_masks_and_points_outside_are_prompted_at_the_border(sam, scene):
    image, points, parts = scene
    decoder = Decoder(sam, 1)
    made = segment_image(decoder, image, points, parts, Prompt(), Tiles(mode="none"))
    assert made[0] == made[6]
    moved = points.copy()
    moved[5] = [127.0, 50.0]
    assert segment_image(decoder, image, moved, parts, Prompt(), Tiles(mode="none")) == made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("points", [[[10.4, 10.4], [10.4, 10.5]], [[0.5, 0.5], [0.5, 0.6]]])
def test_two_points_within_a_pixel(sam, mode, points):
    """Their circles hold no pixel centre; each keeps its own pixel as prompt."""
    parts = [Window(0, 0, np.ones((20, 20), bool))] * 2
    image = np.zeros((40, 40, 3), np.uint8)
    assert len(segment_image(Decoder(sam), image, np.array(points), parts, Prompt(mode=mode), Tiles())) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 1200), (1200, 1), (2, 900)])
@pytest.mark.parametrize("tiles", ["none", "auto"])
def test_tiny_and_thin_images(sam, size, tiles):
    image = np.full((*size, 3), 90, np.uint8)
    parts = [Window(0, 0, np.ones((1, 1), bool))]
    (row,) = segment_image(Decoder(sam), image, np.zeros((1, 2)), parts, Prompt(), Tiles(mode=tiles))
    assert np.isfinite(row["score"])
    assert not (Window.from_columns(row).full(1300, 1300)[size[0] :].any())


def test_window_reach():
    reach = window_reach(np.array([5.0, 32.0, 90.0, np.inf]), 768, 1024)
    np.testing.assert_array_equal(reach, [32, 32, 90, 768])
    # Radii are in working pixels of a 2048 image: the window grows with larger ones.
    np.testing.assert_array_equal(window_reach(np.array([5.0, np.inf]), 3000, 4096), [64, 3000])
    np.testing.assert_array_equal(window_reach(np.array([np.inf]), 10, 20), [32])


def test_tables_that_do_not_fit_are_refused(sam, tmp_path):
    decoder = Decoder(sam)
    image = {"split": "all", "image_id": "a", "height": 5, "width": 5, "points": [{"x": 1.0, "y": 1.0}]}
    with pytest.raises(DataError, match=r"all/a: 1 points but 0 superpixel parts"):
        list(rows(decoder, [image], [], str(tmp_path), "stored", Prompt(), Tiles()))
    nothing = {**image, "points": []}
    assert list(rows(decoder, [nothing], [], str(tmp_path), "stored", Prompt(), Tiles())) == []
