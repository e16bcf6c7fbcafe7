"""Prompts: how a head point and its superpixel become SAM's inputs, in the frame of one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from crowdmask.config import Prompt
from crowdmask.masks.rle import Window


@dataclass(frozen=True)
class Frame:
    """Geometry of a tile in SAM's input square (segment-anything's `ResizeLongestSide`).

    Attributes:
        height: Of the tile, original pixels.
        width: Of the tile, original pixels.
        size: Side of SAM's input square, pixels.
    """

    height: int
    width: int
    size: int

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the resized tile inside the square; at least 1 each."""
        scale = self.size / max(self.height, self.width)
        return max(1, int(self.height * scale + 0.5)), max(1, int(self.width * scale + 0.5))

    def cells_hw(self, side: int) -> tuple[int, int]:
        """Height and width of the tile on SAM's mask-input grid of this side, cells; at least 1 each."""
        h, w = (min(side, max(1, round(n * side / self.size))) for n in self.input_hw)
        return h, w

    def to_frame(self, points_xy: np.ndarray) -> np.ndarray:
        """Points of the tile (original pixels) in the frame: each axis by its own rounded factor."""
        h, w = self.input_hw
        return np.asarray(points_xy, float).reshape(-1, 2) * [w / self.width, h / self.height]


BLOCK = 4
"""Mask-input cells along the side of one cell of the image embedding (segment-anything's `mask_downscaling`)."""


@dataclass(frozen=True)
class MaskPrompts:
    """Mask prompts of B heads, `logit` inside and `-logit` elsewhere, kept where there is something inside.

    Attributes:
        blocks: int64 (B, m) cells of the image embedding (row * E + column), distinct in each row: first those that a
            mask touches, then any others to fill up.
        inside: bool (B, m, 4, 4) the mask-input cells of each.
        logit: Strength.
        side: Side of SAM's mask input, cells (4 E).
    """

    blocks: np.ndarray
    inside: np.ndarray
    logit: float
    side: int

    def take(self, part: slice) -> MaskPrompts:
        """Some of the heads, without the blocks that none of them needs."""
        inside = self.inside[part]
        most = max(1, int(inside.any(axis=(2, 3)).sum(axis=1).max(initial=0)))
        return MaskPrompts(self.blocks[part, :most], inside[:, :most], self.logit, self.side)

    def dense(self) -> np.ndarray:
        """SAM's mask input, float32 (B, 1, side, side)."""
        count, across = len(self.blocks), self.side // BLOCK
        grid = np.zeros((count, across * across, BLOCK, BLOCK), bool)
        np.put_along_axis(grid, self.blocks[:, :, None, None], self.inside, axis=1)
        grid = grid.reshape(count, across, across, BLOCK, BLOCK).swapaxes(2, 3).reshape(count, 1, self.side, self.side)
        return np.where(grid, np.float32(self.logit), np.float32(-self.logit))


@dataclass(frozen=True)
class Prompts:
    """SAM's inputs for B heads of one tile.

    Attributes:
        points_xy: float32 (B, N, 2) in the frame, (x, y), or None.
        point_labels: int32 (B, N): 1 head, 0 other head, -1 filler; or None.
        boxes_xyxy: float32 (B, 4) in the frame, or None.
        masks: Mask prompts, or None.
        multimask: whether the best of three masks is taken.
        bias: two-pass mode: the mask prompts wait for the second pass, where `bias` is added to the first pass's logits
            inside and subtracted outside; None for a single pass.
    """

    points_xy: np.ndarray | None
    point_labels: np.ndarray | None
    boxes_xyxy: np.ndarray | None
    masks: MaskPrompts | None
    multimask: bool
    bias: float | None = None


def coarse_mask(part: Window, frame: Frame, side: int) -> Window:
    """A mask on SAM's mask-input grid.

    Args:
        part: In pixels of the tile; what lies outside of the tile does not count.
        frame: Geometry of the tile.
        side: Side of the mask input (256 for the official models).

    Returns:
        Window of cells, all inside: those covered by half or more (area average); if none is, the one that is covered
        most; of size 0 for an empty mask.
    """
    covered = to_cells(part, frame, side)
    if covered is None:
        return Window(0, 0, np.zeros((0, 0), bool))
    left, top, coverage = covered
    kept = coverage >= np.float32(0.5)
    if not kept.any():
        kept[np.unravel_index(int(np.argmax(coverage)), kept.shape)] = True
    return Window(left, top, kept).tight()


def to_cells(part: Window, frame: Frame, side: int) -> tuple[int, int, np.ndarray] | None:
    """Share of each mask-input cell that a mask covers; cells outside of the window returned have none.

    Args:
        part: In pixels of the tile; what lies outside of the tile does not count.
        frame: Geometry of the tile.
        side: Side of the mask input.

    Returns:
        Left column, top row and float32 (h, w) of a window of cells; None for an empty mask.
    """
    part = part.within(0, 0, frame.width, frame.height).tight()
    if part.mask.size == 0:
        return None
    rows, cols = frame.cells_hw(side)
    top, tall = _resize(part.mask.astype(float), part.y0, frame.height, rows)
    left, wide = _resize(tall.T, part.x0, frame.width, cols)
    return left, top, np.ascontiguousarray(wide.T, np.float32)


def _resize(values: np.ndarray, start: int, size_in: int, size_out: int) -> tuple[int, np.ndarray]:
    """Resize the first axis of (n, k), pixels [start, start + n) of `size_in`: averages when shrinking, else bilinear.

    No matrix products: their last bits depend on the number of BLAS threads.

    Returns:
        First cell, and float64 (cells, k); all other cells are 0.
    """
    length = len(values)
    if size_in > size_out:
        step = size_in / size_out
        first, last = int(start / step), min(size_out, int(np.ceil((start + length) / step - 1e-9)))
        # Differences of the running sum at the cells' edges; between two pixels it grows linearly.
        edges = np.clip(np.arange(first, last + 1) * step - start, 0, length)
        whole = np.minimum(edges.astype(int), length - 1)
        total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        at = total[whole] + (edges - whole)[:, None] * values[whole]
        return first, np.diff(at, axis=0) / step
    position = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1)
    seen = np.flatnonzero((position > start - 1) & (position < start + length))
    position = position[seen] - start
    padded = np.pad(values, ((1, 2), (0, 0)))
    whole = np.floor(position).astype(int)
    share = (position - whole)[:, None]
    return int(seen[0]), (1 - share) * padded[whole + 1] + share * padded[whole + 2]


def mask_prompts(parts: list[Window], frame: Frame, side: int, logit: float) -> MaskPrompts:
    """Mask prompts of parts given in pixels of the tile.

    Source: methods a.6 ([R]).
    """
    across = side // BLOCK
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        cells = coarse_mask(part, frame, side)
        top, left = cells.y0 // BLOCK, cells.x0 // BLOCK
        rows, cols = (
            -(-(cells.y0 + cells.mask.shape[0]) // BLOCK) - top,
            -(-(cells.x0 + cells.mask.shape[1]) // BLOCK) - left,
        )
        grid = cells.cut(left * BLOCK, top * BLOCK, cols * BLOCK, rows * BLOCK)
        grid = grid.reshape(rows, BLOCK, cols, BLOCK).swapaxes(1, 2)
        row, col = np.nonzero(grid.any(axis=(2, 3)))
        found.append(((top + row) * across + left + col, grid[row, col]))
    most = max([1, *(len(blocks) for blocks, _ in found)])
    blocks = np.zeros((len(parts), most), np.int64)
    inside = np.zeros((len(parts), most, BLOCK, BLOCK), bool)
    for k, (touched, shapes) in enumerate(found):
        count = len(touched)
        blocks[k, :count], inside[k, :count] = touched, shapes
        if count < most:
            blocks[k, count:] = np.setdiff1d(np.arange(most), touched)[: most - count]
    return MaskPrompts(blocks, inside, logit, side)


def assemble(
    points_xy: np.ndarray,
    parts: list[Window],
    others_xy: np.ndarray,
    origin: tuple[int, int],
    frame: Frame,
    side: int,
    settings: Prompt,
    boxes_xyxy: np.ndarray | None = None,
) -> Prompts:
    """Prompts of the points owned by one tile.

    Args:
        points_xy: float (B, 2) head points, original pixels, clipped to the image.
        parts: Superpixel part of each point, original pixels.
        others_xy: float (M, 2) all points inside the tile (the B included), original pixels.
        origin: (x0, y0) of the tile.
        frame: Geometry of the tile.
        side: Side of SAM's mask input.
        settings: Mode and strengths.
        boxes_xyxy: float (B, 4) box of each head, original pixels, from `head_boxes`; only box mode needs them.

    Source: methods a.6 ([R]); the papers name point, superpixel and box only.
    """
    mode = settings.mode
    heads = frame.to_frame(points_xy - origin)[:, None, :]
    points, labels = [heads], [np.ones((len(parts), 1), np.int32)]
    if mode == "point+superpixel-points":
        inner = np.stack([frame.to_frame(_inner_points(p) - origin) for p in parts])
        points.append(inner)
        labels.append(np.ones(inner.shape[:2], np.int32))
    negatives = settings.neighbours or (4 if mode == "point+superpixel-points" else 0)
    if negatives:
        near, near_labels = _neighbours(points_xy, others_xy, negatives)
        points.append(frame.to_frame((near - origin).reshape(-1, 2)).reshape(near.shape))
        labels.append(near_labels)
    masks = boxes = None
    if mode in ("superpixel", "point+superpixel", "two-pass"):
        local = [Window(p.x0 - origin[0], p.y0 - origin[1], p.mask) for p in parts]
        masks = mask_prompts(local, frame, side, settings.logit)
    if mode in ("superpixel", "point+superpixel-box"):
        boxes = np.stack([_box(p, origin, frame) for p in parts]).astype(np.float32)
    if mode == "box":
        assert boxes_xyxy is not None
        boxes = np.stack([_in_frame(box, origin, frame) for box in boxes_xyxy]).astype(np.float32)
    pointless = mode in ("superpixel", "box")
    keep_points = not pointless or negatives
    if pointless and negatives:  # no head point in these modes, others only
        points, labels = points[1:], labels[1:]
    all_points = np.concatenate(points, axis=1).astype(np.float32) if keep_points else None
    all_labels = np.concatenate(labels, axis=1) if keep_points else None
    multimask = mode == "point" and not negatives
    bias = settings.bias if mode == "two-pass" else None
    return Prompts(all_points, all_labels, boxes, masks, multimask, bias)


def _box(part: Window, origin: tuple[int, int], frame: Frame) -> np.ndarray:
    """(x0, y0, x1, y1) of the part in the frame; last pixel inclusive, as segment-anything counts boxes."""
    h, w = part.mask.shape
    return _in_frame(np.array([part.x0, part.y0, part.x0 + w - 1, part.y0 + h - 1], float), origin, frame)


def _in_frame(box_xyxy: np.ndarray, origin: tuple[int, int], frame: Frame) -> np.ndarray:
    """A box of the original, cut to the tile, in the frame."""
    corners = np.clip(box_xyxy.reshape(2, 2) - origin, 0, [frame.width - 1, frame.height - 1])
    return frame.to_frame(corners).ravel()


def head_boxes(
    points_xy: np.ndarray, distances: np.ndarray, given_xyxy: np.ndarray, share: float, height: int, width: int
) -> np.ndarray:
    """Box of each head: as annotated, else a square around its point.

    Args:
        points_xy: float (N, 2) inside of the image, pixels.
        distances: float (N,) nearest-neighbour distances, pixels; infinity for a lone point, which gets half of the
            shorter side instead.
        given_xyxy: float (N, 4) annotated boxes, pixels, NaN where there is none.
        share: Half of the square's side, share of the distance.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        float64 (N, 4), corners in pixels, cut to the image.

    Source: the square is our choice; DPMO-RPS Table 5 compares with box prompts and does not say whose.
    """
    reach = share * np.where(np.isfinite(distances), distances, 0.5 * min(height, width))
    square = np.concatenate([points_xy - reach[:, None], points_xy + reach[:, None]], axis=1)
    boxes = np.where(np.isfinite(given_xyxy).all(axis=1, keepdims=True), given_xyxy, square)
    return np.clip(boxes, 0, [width - 1, height - 1, width - 1, height - 1])


def _inner_points(part: Window, count: int = 2) -> np.ndarray:
    """The `count` places of a part deepest inside of it and apart from each other, (count, 2) original pixels."""
    depth = distance_transform_edt(np.pad(part.mask, 1))[1:-1, 1:-1]
    found = []
    for _ in range(count):
        y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
        found.append((part.x0 + x, part.y0 + y))
        reach = max(3.0, float(depth[y, x]))
        ys, xs = np.ogrid[: depth.shape[0], : depth.shape[1]]
        away = (ys - y) ** 2 + (xs - x) ** 2 > reach**2
        if (depth * away).any():
            depth = depth * away
    return np.array(found, float)


def _neighbours(points_xy: np.ndarray, others_xy: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest other places of each point: (B, count, 2) and labels 0, or -1 where there are fewer."""
    places = np.unique(others_xy, axis=0)
    k = min(count + 1, len(places))
    near = np.repeat(points_xy[:, None, :], count, axis=1)
    labels = np.full((len(points_xy), count), -1, np.int32)
    if k > 1:
        distance, index = cKDTree(places).query(points_xy, k=k)
        for row in range(len(points_xy)):
            chosen = index[row][distance[row] > 0][:count]
            near[row, : len(chosen)] = places[chosen]
            labels[row, : len(chosen)] = 0
    return near, labels
