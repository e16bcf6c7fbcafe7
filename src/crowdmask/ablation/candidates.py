"""Automatic masks without points, and the rule that gives them to points.

SAM is asked on a grid of points in each tile, keeps what it is sure of, and drops doubles, as segment-anything's
automatic mask generator does, but on the same tiles as the heads' own prompts. XMask's baseline ("FastSAM") then gives
each point the smallest mask that covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from crowdmask.config import Candidates, Tiles
from crowdmask.datasets.images import Exif, read_row
from crowdmask.geometry import clip_points, neighbour_distances, own_pixels
from crowdmask.masks.decoder import Decoder, fit
from crowdmask.masks.prompts import Frame, Prompts
from crowdmask.masks.rle import Window
from crowdmask.masks.sampling import Patch
from crowdmask.masks.tiles import Tile, plan
from crowdmask.tables import points_of

VERSION = 1


def grid_points(frame: Frame, spacing_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Single points in the middle of equal parts of a tile, about `spacing_px` of the frame apart.

    Returns:
        float32 (B, 1, 2) in the frame, and their labels, int32 (B, 1) of 1.
    """
    rows, cols = (max(1, round(side / spacing_px)) for side in frame.input_hw)
    across = (np.arange(cols) + 0.5) * frame.width / cols - 0.5
    down = (np.arange(rows) + 0.5) * frame.height / rows - 0.5
    x, y = np.meshgrid(across, down)
    points = frame.to_frame(np.stack([x.ravel(), y.ravel()], axis=1))[:, None, :].astype(np.float32)
    return points, np.ones(points.shape[:2], np.int32)


def stability(logits: np.ndarray) -> np.ndarray:
    """Pixels with logit > 1 over pixels with logit > -1 of each of (B, h, w); 0 where there are none.

    Source: segment-anything's `calculate_stability_score` with offset 1; on the cells of SAM's mask instead of the
    enlarged image (our choice: nothing is enlarged that is dropped afterwards).
    """
    tight = np.count_nonzero(logits > 1, axis=(1, 2))
    loose = np.count_nonzero(logits > -1, axis=(1, 2))
    return np.where(loose > 0, tight / np.maximum(loose, 1), 0.0)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Boxes (B, 4) of bool (B, h, w) as x0, y0, x1, y1, one past the last pixel; zeros for an empty mask."""
    rows, cols = np.any(masks, axis=(2,)), np.any(masks, axis=(1,))
    some = np.any(rows, axis=(1,))
    first = np.stack([cols.argmax(axis=1), rows.argmax(axis=1)], axis=1)
    size = np.array([masks.shape[2], masks.shape[1]])
    last = size - np.stack([cols[:, ::-1].argmax(axis=1), rows[:, ::-1].argmax(axis=1)], axis=1)
    return np.where(some[:, None], np.concatenate([first, last], axis=1), 0)


def distinct(boxes: np.ndarray, order: Sequence[int] | np.ndarray, limit: float) -> list[int]:
    """Indices, best first, without those whose box has an IoU above `limit` with a better one's.

    Args:
        boxes: (B, 4) as x0, y0, x1, y1.
        order: All indices, best first.
        limit: Largest IoU of two boxes that both stay.
    """
    rank = np.empty(len(boxes), np.float32)
    rank[np.asarray(order, int)] = np.arange(len(boxes), 0, -1, dtype=np.float32)
    return nms(torch.from_numpy(np.asarray(boxes, np.float32)), torch.from_numpy(rank), limit).tolist()


def cut_off(boxes: np.ndarray, tile: Tile, cells_hw: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Which boxes of cells touch a border of the tile that is not one of the image: bool (B,)."""
    rows, cols = cells_hw
    inner = [tile.x0 > 0, tile.y0 > 0, tile.x0 + tile.w < width, tile.y0 + tile.h < height]
    touching = np.stack([boxes[:, 0] <= 0, boxes[:, 1] <= 0, boxes[:, 2] >= cols, boxes[:, 3] >= rows], axis=1)
    return np.any(touching & inner, axis=(1,))


def tile_candidates(
    decoder: Decoder, image: np.ndarray, tile: Tile, settings: Candidates
) -> Iterator[tuple[float, float, Window]]:
    """Score, stability and mask (pixels of the image) of what is left of a tile's grid, best first."""
    height, width = image.shape[:2]
    frame = Frame(tile.h, tile.w, decoder.size)
    picture = fit(image[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w], decoder.size)
    on = decoder.tile(decoder.embed([picture])[0], frame)
    cells = frame.cells_hw(decoder.mask_side)
    whole = (0, 0, tile.w, tile.h)
    patches: list[Patch] = []
    steady: list[float] = []
    boxes: list[np.ndarray] = []
    points, labels = grid_points(frame, settings.spacing_px)
    prompts = Prompts(points, labels, None, None, multimask=True)
    for found in on.decode_three(prompts, [whole] * len(points)):
        sure = [patch for patch in found if patch.score > settings.pred_iou]
        if not sure:
            continue
        logits = np.stack([patch.logits[: cells[0], : cells[1]] for patch in sure])
        steadiness, box = stability(logits), boxes_of(logits > 0)
        kept = (steadiness >= settings.stability) & (box[:, 2] > 0) & ~cut_off(box, tile, cells, height, width)
        patches += [sure[k] for k in np.flatnonzero(kept)]
        steady += steadiness[kept].tolist()
        boxes += list(box[kept])
    if not patches:
        return
    order = np.argsort([-patch.score for patch in patches], kind="stable")
    for k in distinct(np.array(boxes), order, settings.nms_iou):
        mask = on.sampler.window(patches[k], whole) > 0
        if mask.any():
            yield patches[k].score, steady[k], Window(tile.x0, tile.y0, mask).tight()


def image_candidates(
    decoder: Decoder, image: np.ndarray, points_xy: np.ndarray, tiles: Tiles, settings: Candidates
) -> list[tuple[float, float, Window]]:
    """Automatic masks of an image: score, stability and mask; those of smaller tiles first, then by score.

    Args:
        decoder: The model.
        image: uint8 (H, W, 3) RGB.
        points_xy: float (N, 2), pixels: they choose the tiles and nothing else.
        tiles: How the image is cut.
        settings: Grid and limits.
    """
    height, width = image.shape[:2]
    points = clip_points(points_xy, height, width)
    found: list[tuple[float, float, Window]] = []
    zooms: list[float] = []
    for tile in plan(points, neighbour_distances(points), height, width, decoder.size, tiles):
        made = list(tile_candidates(decoder, image, tile, settings))
        found += made
        zooms += [tile.zoom] * len(made)
    if not found:
        return []
    # As segment-anything does: what a smaller crop sees is drawn more exactly.
    order = np.lexsort([[-score for score, _, _ in found], [-zoom for zoom in zooms]])
    boxes = np.array([[w.x0, w.y0, w.x0 + w.mask.shape[1], w.y0 + w.mask.shape[0]] for _, _, w in found])
    return [found[k] for k in distinct(boxes, order, settings.nms_iou)]


def smallest_covering(candidates: Sequence[Window], points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """The smallest candidate that holds each point's pixel: int64 (N,) indices, -1 where there is none.

    Of equally small ones the first. Points may share a candidate. Source: the baseline of XMask, section 4.
    """
    pixels = own_pixels(points_xy, height, width)
    chosen = np.full(len(pixels), -1, np.int64)
    areas = [window.area for window in candidates]
    for index in sorted(range(len(candidates)), key=areas.__getitem__):
        window = candidates[index]
        h, w = window.mask.shape
        at = pixels - [window.x0, window.y0]
        near = np.flatnonzero((chosen < 0) & (at >= 0).all(axis=1) & (at < [w, h]).all(axis=1))
        chosen[near[window.mask[at[near, 1], at[near, 0]]]] = index
    return chosen


def rows(
    decoder: Decoder, images: Iterable[dict[str, Any]], root: str, exif: Exif, tiles: Tiles, settings: Candidates
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.CANDIDATES` for rows of `tables.IMAGES`."""
    for image in images:
        if not image["points"]:
            continue
        found = image_candidates(decoder, read_row(root, image, exif), points_of(image), tiles, settings)
        for number, (score, steadiness, window) in enumerate(found):
            yield {
                "split": image["split"],
                "image_id": image["image_id"],
                "candidate_id": number,
                "score": score,
                "stability": steadiness,
                **window.columns(),
            }
