"""Prompts: where a point and a superpixel land in SAM's frame, and what each mode hands over."""

import numpy as np
import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from crowdmask.config import Prompt
from crowdmask.masks.prompts import Frame, assemble, coarse_mask, to_cells
from crowdmask.masks.rle import Window
from crowdmask.masks.small import build_small

MODES = ("point", "superpixel", "point+superpixel", "point+superpixel-box", "point+superpixel-points", "two-pass")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 900), (683, 1024)), ((1536, 2048), (768, 1024)), ((512, 683), (768, 1024)), ((683, 512), (1024, 768))],
)
def test_sizes_in_the_frame(size, expected):
    assert Frame(*size, 1024).input_hw == expected  # methods a.2
    assert ResizeLongestSide(1024).get_preprocess_shape(*size, 1024) == expected


@pytest.mark.parametrize("size", [(1, 1), (600, 900), (77, 1023), (1025, 1024), (1500, 4), (3, 5)])
@pytest.mark.parametrize("side", [256, 1024])
def test_frame_agrees_with_segment_anything(size, side):
    frame, theirs = Frame(*size, side), ResizeLongestSide(side)
    assert frame.input_hw == theirs.get_preprocess_shape(*size, side)
    points = np.random.default_rng(0).uniform(0, [size[1], size[0]], (20, 2))
    np.testing.assert_allclose(frame.to_frame(points), theirs.apply_coords(points, size), rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (2, 2000)])
def test_a_very_thin_tile_keeps_a_row(size):
    assert min(Frame(*size, 256).input_hw) == 1
    assert coarse_mask(np.ones(size, bool), Frame(*size, 256), 64).any()


@pytest.mark.parametrize("size", [(600, 900), (768, 1024), (1536, 2048), (2048, 1536)])
def test_a_superpixel_maps_to_the_cells_that_it_covers(size):
    height, width = size
    frame = Frame(height, width, 1024)
    step = max(size) / 256  # original pixels a cell
    for left, top in [(0, 0), (0.3, 0.6), (0.71, 0.13), (0.9, 0.9)]:
        x0, y0 = int(left * width), int(top * height)
        x1, y1 = min(x0 + int(9 * step), width), min(y0 + int(7 * step), height)
        inside = np.zeros(size, bool)
        inside[y0:y1, x0:x1] = True
        cells = coarse_mask(inside, frame, 256)
        assert cells.shape == (256, 256) and cells.dtype == bool
        ys, xs = np.nonzero(cells)
        edges = np.array([xs.min(), xs.max() + 1, ys.min(), ys.max() + 1])
        assert np.abs(edges - np.array([x0, x1, y0, y1]) / step).max() <= 0.8  # half a cell, and the rounded height
        block = cells[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert (~block).sum() <= 4 and block[1:-1].all() and block[:, 1:-1].all()  # corners may miss half of a cell
        used_h, used_w = (int(np.ceil(n / 4)) for n in frame.input_hw)
        assert not cells[used_h:].any() and not cells[:, used_w:].any()  # padding


@pytest.mark.parametrize("size", [(600, 900), (256, 256), (40, 64), (33, 20)])
def test_cells_hold_the_share_that_is_covered(size):
    height, width = size
    inside = np.random.default_rng(1).random(size) < 0.3
    inside[: height // 2, : width // 2] = True
    share = to_cells(inside, Frame(height, width, 1024), 256)
    assert share.dtype == np.float32 and max(share.shape) == 256 and share.min() >= 0 and share.max() <= 1 + 1e-6
    assert share.mean() == pytest.approx(inside.mean(), abs=0.02)
    blur = int(np.ceil(max(share.shape) / max(size))) + 2  # cells that pixels of the border reach into
    assert share[: share.shape[0] // 2 - blur, : share.shape[1] // 2 - blur].min() > 0.999


@pytest.mark.parametrize("size", [(1536, 2048), (2013, 2902), (600, 900)])
def test_a_tiny_superpixel_keeps_the_cell_of_its_place(size):
    rng = np.random.default_rng(2)
    frame = Frame(*size, 1024)
    for _ in range(20):
        y, x = rng.integers(0, size)
        inside = np.zeros(size, bool)
        inside[y, x] = True
        cells = coarse_mask(inside, frame, 256)
        assert cells.sum() == 1
        row, column = np.argwhere(cells)[0]
        assert abs(row - (y + 0.5) * 256 / max(size)) <= 1.3 and abs(column - (x + 0.5) * 256 / max(size)) <= 1.3


def test_an_empty_mask_has_no_cell():
    assert not coarse_mask(np.zeros((30, 40), bool), Frame(30, 40, 1024), 256).any()


HEIGHT, WIDTH, ORIGIN = 120, 160, (40, 30)
HEADS = np.array([[60.0, 50.0], [100.5, 80.25], [190.0, 140.0]])
ALL = np.vstack([HEADS, [[70.0, 50.0], [45.0, 35.0], [150.0, 45.0]]])
PARTS = [
    Window(52, 44, np.ones((13, 17), bool)),
    Window(90, 70, np.tri(20, dtype=bool)),
    Window(186, 136, np.ones((14, 14), bool)),
]


def prompts_of(mode, neighbours=0, heads=HEADS, parts=PARTS, others=ALL):
    frame = Frame(HEIGHT, WIDTH, 256)
    return assemble(heads, parts, others, ORIGIN, frame, 128, Prompt(mode=mode, neighbours=neighbours)), frame


SHAPES = {  # mode -> (points without neighbours, points with 3, boxes, masks)
    "point": (1, 4, False, False),
    "superpixel": (None, 3, True, True),
    "point+superpixel": (1, 4, False, True),
    "point+superpixel-box": (1, 4, True, False),
    "point+superpixel-points": (7, 6, False, False),  # 4 neighbours unless told otherwise
    "two-pass": (1, 4, False, True),
}


@pytest.mark.parametrize("neighbours", [0, 3])
@pytest.mark.parametrize("mode", MODES)
def test_shapes_and_types_of_each_mode(mode, neighbours):
    made, _ = prompts_of(mode, neighbours)
    count = SHAPES[mode][bool(neighbours)]
    if count is None:
        assert made.points_xy is None and made.point_labels is None
    else:
        assert made.points_xy.shape == (3, count, 2) and made.points_xy.dtype == np.float32
        assert made.point_labels.shape == (3, count) and made.point_labels.dtype == np.int32
    assert (made.boxes_xyxy is not None) == SHAPES[mode][2] and (made.masks is not None) == SHAPES[mode][3]
    if made.boxes_xyxy is not None:
        assert made.boxes_xyxy.shape == (3, 4) and made.boxes_xyxy.dtype == np.float32
    if made.masks is not None:
        assert made.masks.shape == (3, 1, 128, 128) and made.masks.dtype == np.float32
        assert set(np.unique(made.masks)) == {np.float32(-6.9), np.float32(6.9)}
        assert (made.masks[:, :, 96:] < 0).all()  # padding below the 120 x 160 tile
    assert made.multimask == (mode == "point" and not neighbours)


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_segment_anything_takes_the_prompts_of_each_mode(mode, neighbours):
    made, _ = prompts_of(mode, neighbours)
    tensor = lambda a: None if a is None else torch.from_numpy(a)  # noqa: E731
    points = None if made.points_xy is None else (tensor(made.points_xy), tensor(made.point_labels))
    encoder = build_small().prompt_encoder
    with torch.inference_mode():
        sparse, dense = encoder(points=points, boxes=tensor(made.boxes_xyxy), masks=tensor(made.masks))
    tokens = 0 if points is None else made.points_xy.shape[1]
    tokens += 2 if made.boxes_xyxy is not None else 1
    assert sparse.shape == (3, tokens, 128) and dense.shape == (3, 128, 32, 32)
    assert torch.isfinite(sparse).all()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "superpixel"])
def test_the_head_is_the_first_positive_point(mode):
    made, frame = prompts_of(mode)
    np.testing.assert_allclose(made.points_xy[:, 0], (HEADS - ORIGIN) * 1.6, rtol=1e-6)  # 160 -> 256
    assert (made.point_labels[:, 0] == 1).all()
    assert frame.input_hw == (192, 256)


def test_neighbours_are_the_nearest_other_places():
    made, frame = prompts_of("point", 2)
    assert made.point_labels.tolist() == [[1, 0, 0]] * 3
    for head, points in zip(HEADS, made.points_xy, strict=True):
        others = ALL[(ALL != head).any(1)]
        nearest = others[np.argsort(((others - head) ** 2).sum(1))[:2]]
        np.testing.assert_allclose(points[1:], frame.to_frame(nearest - ORIGIN), rtol=1e-6)


def test_the_superpixel_mode_with_neighbours_has_no_head_point():
    made, frame = prompts_of("superpixel", 2)
    assert made.point_labels.tolist() == [[0, 0]] * 3
    heads = frame.to_frame(HEADS - ORIGIN)
    assert (np.abs(made.points_xy - heads[:, None]).max(-1) > 1).all()


def test_a_head_is_no_negative_of_itself_nor_of_its_duplicates():
    heads = np.vstack([HEADS[:1], HEADS[:1]])
    made, frame = prompts_of("point", 2, heads, PARTS[:1] * 2, np.vstack([heads, [[70.0, 50.0]]]))
    assert made.point_labels.tolist() == [[1, 0, -1]] * 2  # one other place, then filler
    np.testing.assert_allclose(made.points_xy[0, 1], frame.to_frame(np.array([[30.0, 20.0]]))[0])
    alone, _ = prompts_of("point", 2, heads, PARTS[:1] * 2, heads)
    assert alone.point_labels.tolist() == [[1, -1, -1]] * 2


def test_boxes_hold_the_first_and_last_pixel_inside_of_the_tile():
    made, _ = prompts_of("point+superpixel-box")
    np.testing.assert_allclose(made.boxes_xyxy[0], np.array([12, 14, 28, 26]) * 1.6, rtol=1e-6)
    np.testing.assert_allclose(made.boxes_xyxy[2], np.array([146, 106, 159, 119]) * 1.6, rtol=1e-6)


def test_inner_points_lie_in_the_superpixel_and_apart():
    made, frame = prompts_of("point+superpixel-points")
    scale = frame.input_hw[1] / WIDTH
    for part, points, labels in zip(PARTS, made.points_xy, made.point_labels, strict=True):
        assert labels[:3].tolist() == [1, 1, 1]
        places = points[1:3] / scale + ORIGIN
        for x, y in np.rint(places).astype(int):
            assert part.mask[y - part.y0, x - part.x0]
        assert np.hypot(*(places[0] - places[1])) > 2


@pytest.mark.parametrize("mode", MODES)
def test_a_superpixel_of_one_pixel_works_in_each_mode(mode):
    part = Window(60, 50, np.ones((1, 1), bool))
    made, _ = prompts_of(mode, 0, HEADS[:1], [part], ALL)
    if made.masks is not None:
        assert (made.masks > 0).sum() == 1
    if made.boxes_xyxy is not None:
        assert (made.boxes_xyxy[0, :2] == made.boxes_xyxy[0, 2:]).all()
