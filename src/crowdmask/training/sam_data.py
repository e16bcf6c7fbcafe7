"""Training crops for SAM: an image crop, prompts of some of its heads, and what their masks should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from crowdmask.config import Tiles
from crowdmask.geometry import clip_points, local_spacing, neighbour_distances
from crowdmask.masks.prompts import Frame, coarse_mask, to_cells
from crowdmask.masks.rle import Window
from crowdmask.masks.superpixels import clip_to_circle
from crowdmask.masks.tiles import zoom_levels

SLOTS = 5
"""Point prompts of one head in training: itself and up to four negatives (filler label -1)."""

KINDS = ("point", "point+superpixel", "superpixel", "point+superpixel-box", "point+neighbours")
SHARES = (0.2, 0.55, 0.05, 0.1, 0.1)


@dataclass(frozen=True)
class Sample:
    """One image with true masks.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        points_xy: float64 (N, 2), pixels.
        truth: True mask of each point.
        parts: Superpixel part of each point.
        radius: float64 (N,) distance to the nearest neighbour, pixels.
        zoom: float64 (N,) zoom at which the segment stage would look at each point.
    """

    image: np.ndarray
    points_xy: np.ndarray
    truth: Sequence[Window]
    parts: Sequence[Window]
    radius: np.ndarray
    zoom: np.ndarray

    @classmethod
    def make(
        cls,
        image: np.ndarray,
        points_xy: np.ndarray,
        truth: Sequence[Window],
        parts: Sequence[Window],
        frame: int,
        tiles: Tiles,
    ) -> Sample:
        """Compute the radii and zooms that the crops are drawn with."""
        h, w = image.shape[:2]
        distance = neighbour_distances(points_xy)
        zoom = zoom_levels(local_spacing(points_xy, distance), h, w, frame, tiles)
        return cls(image, points_xy, truth, parts, np.minimum(distance, 0.5 * min(h, w)), zoom)


@dataclass(frozen=True)
class Crop:
    """A training example; n heads of one crop, S = side of the frame, L = side of the mask grid.

    Attributes:
        image: uint8 (h, w, 3) RGB, resized, without padding.
        points_xy: float32 (n, SLOTS, 2) in the frame.
        point_labels: int32 (n, SLOTS).
        boxes_xyxy: float32 (n, 4) in the frame; rows of NaN where the head has no box prompt.
        masks: float32 (n, 1, L, L) logits; all 0 where the head has no mask prompt.
        target: float32 (n, L, L) share of each cell that the true mask covers.
        weight: float32 (n, L, L) weight of each cell in the loss: 1 in the circle, little outside, 0 in the padding.
    """

    image: np.ndarray
    points_xy: np.ndarray
    point_labels: np.ndarray
    boxes_xyxy: np.ndarray
    masks: np.ndarray
    target: np.ndarray
    weight: np.ndarray


def draw(sample: Sample, rng: np.random.Generator, frame: int, side: int, heads: int, logit: float) -> Crop:
    """Draw one crop around a random head, with prompts as the segment stage makes them, and worse ones.

    Args:
        sample: Prepared image.
        rng: Source of all randomness.
        frame: Side of SAM's input, pixels.
        side: Side of its mask input, cells.
        heads: Most heads that are prompted.
        logit: Strength of the superpixel mask.
    """
    height, width = sample.image.shape[:2]
    points = clip_points(sample.points_xy, height, width)
    centre = int(rng.integers(len(points)))
    length = max(24, round(frame / (sample.zoom[centre] * 2 ** rng.uniform(-0.75, 0.75))))
    w, h = min(length, width), min(length, height)
    x0 = _place(points[centre, 0], w, width, rng)
    y0 = _place(points[centre, 1], h, height, rng)
    inside = (points >= [x0 - 0.5, y0 - 0.5]).all(1) & (points < [x0 + w - 0.5, y0 + h - 0.5]).all(1)
    members = np.flatnonzero(inside)
    chosen = rng.permutation(members)[:heads]
    truth = np.stack([sample.truth[i].cut(x0, y0, w, h) for i in chosen])
    parts = []
    for i in chosen:
        part = clip_to_circle(sample.parts[i], points[i, 0], points[i, 1], sample.radius[i], height, width)
        parts.append(part.cut(x0, y0, w, h))
    image = sample.image[y0 : y0 + h, x0 : x0 + w]
    local = points - [x0, y0]
    image, truth, part_stack, local = _symmetry(image, truth, np.stack(parts), local, rng)
    geometry = Frame(image.shape[0], image.shape[1], frame)
    input_h, input_w = geometry.input_hw
    small = cv2.resize(
        np.ascontiguousarray(image),
        (input_w, input_h),
        interpolation=cv2.INTER_AREA if input_h < image.shape[0] else cv2.INTER_LINEAR,
    )
    scale = input_w / image.shape[1]
    count = len(chosen)
    out = Crop(
        image=recolour(small, rng),
        points_xy=np.zeros((count, SLOTS, 2), np.float32),
        point_labels=np.full((count, SLOTS), -1, np.int32),
        boxes_xyxy=np.full((count, 4), np.nan, np.float32),
        masks=np.zeros((count, 1, side, side), np.float32),
        target=np.zeros((count, side, side), np.float32),
        weight=np.zeros((count, side, side), np.float32),
    )
    for k, i in enumerate(chosen):
        cells_h, cells_w = geometry.cells_hw(side)
        covered = to_cells(Window(0, 0, truth[k]), geometry, side)
        if covered is not None:
            x, y, share = covered
            out.target[k, y : y + share.shape[0], x : x + share.shape[1]] = share
        reach = 1.15 * sample.radius[i] * scale + 2
        out.weight[k, :cells_h, :cells_w] = _circle(local[i] * scale, reach, cells_h, cells_w, frame / side)
        kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
        if kind != "superpixel":
            clicked = _click(local[i], truth[k], rng)
            out.points_xy[k, 0] = geometry.to_frame(clicked)[0]
            out.point_labels[k, 0] = 1
        if "superpixel" in kind:
            cells = _loosen(coarse_mask(Window(0, 0, part_stack[k]), geometry, side).full(side, side), rng)
            if kind == "point+superpixel-box" or kind == "superpixel":
                ys, xs = np.nonzero(cells)
                step = frame / side
                out.boxes_xyxy[k] = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * step
            if kind != "point+superpixel-box":
                out.masks[k, 0] = np.where(cells, logit, -logit)
        if kind == "point+neighbours" or (kind == "point+superpixel" and rng.random() < 0.2):
            others = members[members != i]
            nearest = others[np.argsort(((local[others] - local[i]) ** 2).sum(1))][: int(rng.integers(1, SLOTS))]
            out.points_xy[k, 1 : 1 + len(nearest)] = geometry.to_frame(local[nearest])
            out.point_labels[k, 1 : 1 + len(nearest)] = 0
    return out


def _place(position: float, length: int, limit: int, rng: np.random.Generator) -> int:
    """First pixel of a crop of `length` that holds `position`, anywhere it fits."""
    low = max(0, int(np.ceil(position - length + 1)))
    high = min(int(np.floor(position)), limit - length)
    return int(rng.integers(low, max(low, high) + 1)) if high >= low else max(0, min(low, limit - length))


def _symmetry(
    image: np.ndarray, truth: np.ndarray, parts: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random flip, and now and then a flip upside down or a transposition, of everything alike."""
    h, w = image.shape[:2]
    points = points.copy()
    if rng.random() < 0.5:
        image, truth, parts = image[:, ::-1], truth[:, :, ::-1], parts[:, :, ::-1]
        points[:, 0] = w - 1 - points[:, 0]
    if rng.random() < 0.3:
        image, truth, parts = image[::-1], truth[:, ::-1], parts[:, ::-1]
        points[:, 1] = h - 1 - points[:, 1]
    if rng.random() < 0.3:
        image, truth, parts = image.swapaxes(0, 1), truth.swapaxes(1, 2), parts.swapaxes(1, 2)
        points = points[:, ::-1]
    return image, truth, parts, points


def _click(point: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The point as annotated, or another place on the mask not far from it."""
    if rng.random() < 0.5 or not mask.any():
        return point
    spread = 0.35 * np.sqrt(mask.sum() / np.pi)
    moved = point + rng.normal(0, spread, 2)
    x, y = np.floor(moved + 0.5).astype(int)
    if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
        return moved
    return point


def _loosen(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A superpixel as it is (mostly), grown, shrunk or shifted by up to two cells; never empty."""
    luck = rng.random()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    changed = cells
    if luck < 0.12:
        changed = cv2.dilate(cells.astype(np.uint8), kernel, iterations=int(rng.integers(1, 3))).astype(bool)
    elif luck < 0.24:
        changed = cv2.erode(cells.astype(np.uint8), kernel).astype(bool)
    elif luck < 0.36:
        dy, dx = rng.integers(-2, 3, 2)
        changed = cv2.warpAffine(
            cells.astype(np.uint8), np.array([[1, 0, dx], [0, 1, dy]], np.float32), cells.shape[::-1]
        ).astype(bool)
    return changed if changed.any() else cells


def _circle(centre: np.ndarray, reach: float, h: int, w: int, step: float) -> np.ndarray:
    """Weight 1 within `reach` of the point, 0.03 elsewhere; float32 (h, w). `step` = frame pixels a cell."""
    y = (np.arange(h) + 0.5) * step - 0.5 - centre[1]
    x = (np.arange(w) + 0.5) * step - 0.5 - centre[0]
    near = y[:, None] ** 2 + x[None, :] ** 2 <= reach**2
    return np.where(near, np.float32(1), np.float32(0.03))


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random light, colour, grey, inversion, blur and noise; uint8 (h, w, 3) in and out."""
    x: np.ndarray = image.astype(np.float32) / 255
    if rng.random() < 0.2:
        x = np.repeat(x @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    elif rng.random() < 0.2:
        x = x[:, :, rng.permutation(3)]
    if rng.random() < 0.15:
        x = 1 - x
    if rng.random() < 0.7:
        x = np.clip(x, 0, 1) ** np.float32(2 ** rng.uniform(-0.8, 0.8))
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
        x = (x - x.mean()) * gain.astype(np.float32) + x.mean() + np.float32(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(0.01, 0.06), x.shape).astype(np.float32)
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
