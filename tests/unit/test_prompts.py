"""Prompts: where a point and a superpixel land in SAM's frame, and what each mode hands over."""

from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from segment_anything.utils.transforms import ResizeLongestSide

from crowdmask.config import Prompt, PromptMode
from crowdmask.masks.prompts import Frame, assemble, coarse_mask, head_boxes, mask_prompts, to_cells
from crowdmask.masks.rle import Window
from crowdmask.masks.small import build_small

MODES = get_args(PromptMode)


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
    assert coarse_mask(Window(0, 0, np.ones(size, bool)), Frame(*size, 256), 64).mask.any()


def cells_of(frame, side):
    """Rows and columns of the mask input that hold the tile."""
    return tuple(min(side, max(1, round(n * side / frame.size))) for n in frame.input_hw)


def share_of(part, frame, side):
    """`to_cells` on all cells that hold the tile."""
    share = np.zeros(cells_of(frame, side), np.float32)
    found = to_cells(part, frame, side)
    if found is not None:
        left, top, coverage = found
        assert coverage.dtype == np.float32
        block = share[top : top + coverage.shape[0], left : left + coverage.shape[1]]
        assert block.shape == coverage.shape and min(left, top) >= 0
        block[:] = coverage
    return share


def resized(full, rows, cols):
    """A drawn mask on the cells: OpenCV's area average along an axis that shrinks, torch's bilinear along others."""
    out = full.astype(np.float64)
    if full.shape[0] > rows and full.shape[1] > cols:
        return cv2.resize(out, (cols, rows), interpolation=cv2.INTER_AREA)
    for axis, count in enumerate((rows, cols)):
        shape = tuple(count if k == axis else n for k, n in enumerate(out.shape))
        if out.shape[axis] > count:
            out = cv2.resize(out, shape[::-1], interpolation=cv2.INTER_AREA).reshape(shape)
        else:
            drawn = torch.from_numpy(out)[None, None]
            out = torch.nn.functional.interpolate(drawn, shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    return out


@pytest.mark.parametrize(
    ("largest", "frame_side", "side"),
    [
        ((700, 900), 1024, 256),
        ((700, 900), 256, 128),
        ((90, 120), 256, 128),  # about half of them enlarged
        ((300, 200), 1024, 256),
        ((3, 900), 256, 64),
        ((900, 2), 256, 64),
    ],
)
def test_cells_are_those_of_resizing_the_drawn_mask(largest, frame_side, side):
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(1, np.array(largest) + 1))
        h, w = rng.integers(1, [height + 1, width + 1])
        x0, y0 = int(rng.integers(1 - w, width)), int(rng.integers(1 - h, height))  # often over the border
        part, frame = Window(x0, y0, rng.random((h, w)) < rng.choice([0.5, 1.0])), Frame(height, width, frame_side)
        expected = resized(part.full(height, width), *cells_of(frame, side))
        np.testing.assert_allclose(share_of(part, frame, side), expected, atol=1e-5)


@st.composite
def placed(draw):
    """A mask in, over or beside the border of a tile, and the tile's frame."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    h, w = draw(st.integers(0, 24)), draw(st.integers(0, 24))
    x0, y0 = draw(st.integers(-30, width + 6)), draw(st.integers(-30, height + 6))
    mask = draw(hnp.arrays(bool, (h, w), elements=st.booleans(), fill=st.booleans()))
    return Window(x0, y0, mask), Frame(height, width, draw(st.sampled_from([64, 256])))


@given(placed())
def test_where_a_window_ends_does_not_matter(case):
    part, frame = case
    whole = Window(0, 0, part.full(frame.height, frame.width))
    cells = coarse_mask(part, frame, 32)
    np.testing.assert_array_equal(cells.full(32, 32), coarse_mask(whole, frame, 32).full(32, 32))
    assert cells.mask.dtype == bool and bool(cells.area) == bool(whole.area)
    share = share_of(part, frame, 32)
    if share.any():  # covered by half or more, else the one that is covered most
        expected = (
            share >= 0.5 if (share >= 0.5).any() else np.arange(share.size).reshape(share.shape) == share.argmax()
        )
        np.testing.assert_array_equal(cells.full(32, 32)[: share.shape[0], : share.shape[1]], expected)


@given(st.lists(placed(), min_size=1, max_size=5), st.integers(0, 5), st.integers(0, 5))
def test_mask_prompts_are_the_drawn_ones(cases, start, stop):
    parts, frame = [part for part, _ in cases], cases[0][1]
    made = mask_prompts(parts, frame, 32, 2.5)
    expected = np.full((len(parts), 1, 32, 32), -2.5, np.float32)
    for k, part in enumerate(parts):
        expected[k, 0][coarse_mask(part, frame, 32).full(32, 32)] = 2.5
    assert made.dense().dtype == np.float32
    np.testing.assert_array_equal(made.dense(), expected)
    some = made.take(slice(start, stop))
    np.testing.assert_array_equal(some.dense(), expected[start:stop])
    for masks in (made, some):
        assert masks.blocks.shape == masks.inside.shape[:2] and masks.inside.shape[2:] == (4, 4)
        touched = masks.inside.any(axis=(2, 3))
        if len(touched):
            assert masks.blocks.shape[1] == max(1, touched.sum(1).max())  # no more than the largest needs
        for blocks, first in zip(masks.blocks, touched, strict=True):
            assert len(set(blocks.tolist())) == len(blocks) and 0 <= blocks.min() and blocks.max() < 64
            assert first.tolist() == sorted(first.tolist(), reverse=True)  # fillers come last


def test_a_mask_of_all_cells_leaves_no_filler_to_find():
    frame = Frame(64, 64, 64)
    parts = [Window(0, 0, np.ones((64, 64), bool)), Window(0, 0, np.ones((1, 1), bool))]
    made = mask_prompts(parts, frame, 16, 1.0)
    assert [sorted(row) for row in made.blocks.tolist()] == [list(range(16))] * 2
    assert (made.dense() > 0).sum(axis=(1, 2, 3)).tolist() == [256, 1]


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
        cells = coarse_mask(Window(0, 0, inside), frame, 256).full(256, 256)
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
    share = share_of(Window(0, 0, inside), Frame(height, width, 1024), 256)
    assert max(share.shape) == 256 and share.min() >= 0 and share.max() <= 1 + 1e-6
    assert share.mean() == pytest.approx(inside.mean(), abs=0.02)
    blur = int(np.ceil(max(share.shape) / max(size))) + 2  # cells that pixels of the border reach into
    assert share[: share.shape[0] // 2 - blur, : share.shape[1] // 2 - blur].min() > 0.999


@pytest.mark.parametrize("size", [(1536, 2048), (2013, 2902), (600, 900)])
def test_a_tiny_superpixel_keeps_the_cell_of_its_place(size):
    rng = np.random.default_rng(2)
    frame = Frame(*size, 1024)
    for _ in range(20):
        y, x = rng.integers(0, size)
        cells = coarse_mask(Window(int(x), int(y), np.ones((1, 1), bool)), frame, 256).full(256, 256)
        assert cells.sum() == 1
        row, column = np.argwhere(cells)[0]
        assert abs(row - (y + 0.5) * 256 / max(size)) <= 1.3 and abs(column - (x + 0.5) * 256 / max(size)) <= 1.3


@pytest.mark.parametrize(
    "part",
    [
        Window(0, 0, np.zeros((30, 40), bool)),
        Window(0, 0, np.zeros((0, 0), bool)),
        Window(40, 3, np.ones((5, 5), bool)),  # beside the tile
        Window(-5, 3, np.ones((5, 5), bool)),
        Window(3, 30, np.ones((5, 5), bool)),
        Window(-9, -9, np.pad(np.ones((9, 9), bool), (0, 9))),  # over the corner, but only with its empty part
    ],
)
def test_an_empty_mask_has_no_cell(part):
    frame = Frame(30, 40, 1024)
    assert coarse_mask(part, frame, 256).mask.shape == (0, 0) and to_cells(part, frame, 256) is None
    assert (mask_prompts([part], frame, 256, 6.9).dense() == np.float32(-6.9)).all()


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
    boxes = np.concatenate([heads - 5, heads + 7], axis=1)
    return assemble(heads, parts, others, ORIGIN, frame, 128, Prompt(mode=mode, neighbours=neighbours), boxes), frame


SHAPES = {  # mode -> (points without neighbours, points with 3, boxes, masks)
    "point": (1, 4, False, False),
    "superpixel": (None, 3, True, True),
    "point+superpixel": (1, 4, False, True),
    "point+superpixel-box": (1, 4, True, False),
    "point+superpixel-points": (7, 6, False, False),  # 4 neighbours unless told otherwise
    "two-pass": (1, 4, False, True),
    "box": (None, 3, True, False),
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
        masks = made.masks.dense()
        assert masks.shape == (3, 1, 128, 128) and masks.dtype == np.float32
        assert set(np.unique(masks)) == {np.float32(-6.9), np.float32(6.9)}
        assert (masks[:, :, 96:] < 0).all()  # padding below the 120 x 160 tile
    assert made.multimask == (mode == "point" and not neighbours)
    assert made.bias == (Prompt().bias if mode == "two-pass" else None)


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_segment_anything_takes_the_prompts_of_each_mode(mode, neighbours):
    made, _ = prompts_of(mode, neighbours)
    tensor = lambda a: None if a is None else torch.from_numpy(a)  # noqa: E731
    points = None if made.points_xy is None else (tensor(made.points_xy), tensor(made.point_labels))
    encoder = build_small().prompt_encoder
    with torch.inference_mode():
        masks = None if made.masks is None else tensor(made.masks.dense())
        sparse, dense = encoder(points=points, boxes=tensor(made.boxes_xyxy), masks=masks)
    tokens = 0 if points is None else made.points_xy.shape[1]
    tokens += 2 if made.boxes_xyxy is not None else 1
    assert sparse.shape == (3, tokens, 128) and dense.shape == (3, 128, 32, 32)
    assert torch.isfinite(sparse).all()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("superpixel", "box")])
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


@pytest.mark.parametrize("mode", ["superpixel", "box"])
def test_modes_without_head_point_have_none_beside_neighbours(mode):
    made, frame = prompts_of(mode, 2)
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


def test_a_box_is_cut_to_the_tile():
    made, _ = prompts_of("box")
    np.testing.assert_allclose(made.boxes_xyxy[0], np.array([15, 15, 27, 27]) * 1.6, rtol=1e-6)
    np.testing.assert_allclose(made.boxes_xyxy[2], np.array([145, 105, 157, 117]) * 1.6, rtol=1e-6)
    edge, _ = prompts_of("box", heads=np.array([[41.0, 148.0]]), parts=PARTS[:1])
    np.testing.assert_allclose(edge.boxes_xyxy[0], np.array([0, 113, 8, 119]) * 1.6, rtol=1e-6)


def test_head_boxes_are_those_annotated_else_squares_around_the_points():
    points = np.array([[20.0, 30.0], [50.0, 30.0], [2.0, 90.0]])
    given_ = np.array([[15.0, 25, 24, 38], [np.nan] * 4, [np.nan, 1, 2, 3]])
    made = head_boxes(points, np.array([30.0, 30.0, np.inf]), given_, 0.5, 100, 80)
    np.testing.assert_array_equal(made, [[15, 25, 24, 38], [35, 15, 65, 45], [0, 70, 22, 99]])
    # 0.7: within the circle, about; 1: around it.
    inner, outer = (head_boxes(points[1:2], np.array([10.0]), given_[1:2], share, 100, 80)[0] for share in (0.7, 1.0))
    assert np.hypot(*(inner[2:] - points[1])) <= 10 < np.hypot(*(outer[2:] - points[1]))
    np.testing.assert_array_equal(outer, [40, 20, 60, 40])


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
        assert (made.masks.dense() > 0).sum() == 1
    if made.boxes_xyxy is not None and mode != "box":  # which is not the superpixel's
        assert (made.boxes_xyxy[0, :2] == made.boxes_xyxy[0, 2:]).all()
