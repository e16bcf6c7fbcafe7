"""Prompts: how a head point and its superpixel become SAM's inputs, in the frame of one tile."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
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

    def to_frame(self, points_xy: np.ndarray) -> np.ndarray:
        """Points of the tile (original pixels) in the frame: each axis by its own rounded factor."""
        h, w = self.input_hw
        return np.asarray(points_xy, float).reshape(-1, 2) * [w / self.width, h / self.height]


@dataclass(frozen=True)
class Prompts:
    """SAM's inputs for B heads of one tile.

    Attributes:
        points_xy: float32 (B, N, 2) in the frame, (x, y).
        point_labels: int32 (B, N): 1 head, 0 other head, -1 filler.
        boxes_xyxy: float32 (B, 4) in the frame, or None.
        masks: float32 (B, 1, S/4, S/4) logits, or None (S/4 stands for the side of SAM's mask input).
        multimask: whether the best of three masks is taken.
    """

    points_xy: np.ndarray | None
    point_labels: np.ndarray | None
    boxes_xyxy: np.ndarray | None
    masks: np.ndarray | None
    multimask: bool


def coarse_mask(inside: np.ndarray, frame: Frame, side: int) -> np.ndarray:
    """A mask of the tile on SAM's mask-input grid.

    Args:
        inside: bool (h, w) of the tile, original pixels.
        frame: Geometry of the tile.
        side: Side of the mask input (256 for the official models).

    Returns:
        bool (side, side): cells covered by half or more (area average, padding at the right and bottom false); if
        no cell is, the one that is covered most; nothing for an empty mask.
    """
    cells = np.zeros((side, side), bool)
    if inside.any():
        coverage = to_cells(inside, frame, side)
        kept = coverage >= 0.5
        if not kept.any():
            kept.ravel()[int(np.argmax(coverage))] = True
        cells[: kept.shape[0], : kept.shape[1]] = kept
    return cells


def to_cells(inside: np.ndarray, frame: Frame, side: int) -> np.ndarray:
    """Share of each mask-input cell that a mask of the tile covers, float32 (h, w) without the padding."""
    h, w = (min(side, max(1, round(n * side / frame.size))) for n in frame.input_hw)
    shrinks = inside.shape[0] > h or inside.shape[1] > w
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(inside.astype(np.float32), (w, h), interpolation=method)


def assemble(
    points_xy: np.ndarray,
    parts: list[Window],
    others_xy: np.ndarray,
    origin: tuple[int, int],
    frame: Frame,
    side: int,
    settings: Prompt,
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

    Source: methods a.6 ([R]); the papers name the two prompts only.
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
        cells = [coarse_mask(p.cut(*origin, frame.width, frame.height), frame, side) for p in parts]
        inside = np.stack(cells)[:, None]
        masks = np.where(inside, np.float32(settings.logit), np.float32(-settings.logit))
    if mode in ("superpixel", "point+superpixel-box"):
        boxes = np.stack([_box(p, origin, frame) for p in parts]).astype(np.float32)
    keep_points = mode != "superpixel" or negatives
    if mode == "superpixel" and negatives:  # no head point in this mode, others only
        points, labels = points[1:], labels[1:]
    all_points = np.concatenate(points, axis=1).astype(np.float32) if keep_points else None
    all_labels = np.concatenate(labels, axis=1) if keep_points else None
    return Prompts(all_points, all_labels, boxes, masks, multimask=mode == "point" and not negatives)


def _box(part: Window, origin: tuple[int, int], frame: Frame) -> np.ndarray:
    """(x0, y0, x1, y1) of the part in the frame; last pixel inclusive, as segment-anything counts boxes."""
    h, w = part.mask.shape
    corners = np.array([[part.x0, part.y0], [part.x0 + w - 1, part.y0 + h - 1]], float) - origin
    corners = np.clip(corners, 0, [frame.width - 1, frame.height - 1])
    return frame.to_frame(corners).ravel()


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
