"""Segment: one SAM mask for each head point, in a window around the point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from segment_anything.modeling import Sam

from crowdmask.config import Prompt, Tiles
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.geometry import circle_box, clip_points, neighbour_distances
from crowdmask.masks.decoder import decode, embed
from crowdmask.masks.prompts import Frame, assemble
from crowdmask.masks.rle import Window
from crowdmask.masks.superpixels import clip_to_circle
from crowdmask.masks.tiles import Tile, plan
from crowdmask.tables import by_image, points_of

VERSION = 1

WINDOW_MIN = 32.0
"""Half-side of the smallest window, pixels of an image of up to `REFERENCE_SIDE`; grows with larger images."""
REFERENCE_SIDE = 2048


def window_reach(distances: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-side of the window that SAM's answer is kept in, float64 (N,), pixels.

    The nearest-neighbour distance, never below 32 px, so that other radius limits do not need SAM again; a lone
    point gets the shorter side of the image, the largest radius that the settings allow it.
    """
    least = WINDOW_MIN * max(1.0, max(height, width) / REFERENCE_SIDE)
    return np.where(np.isfinite(distances), np.maximum(distances, least), max(float(min(height, width)), least))


def segment_image(
    sam: Sam,
    image: np.ndarray,
    points_xy: np.ndarray,
    parts: Sequence[Window],
    prompt: Prompt,
    tiles: Tiles,
    chunk: int,
) -> list[dict[str, Any]]:
    """SAM's mask of each point.

    Args:
        sam: The model.
        image: uint8 (H, W, 3) RGB.
        points_xy: float (N, 2) annotated points, pixels; those outside are prompted at the border.
        parts: Superpixel part of each point.
        prompt: Prompt mode and strengths.
        tiles: How the image is cut.
        chunk: Prompts decoded together.

    Returns:
        For each point, in order: score, stability, tile, zoom and the window columns (tight; possibly empty).
    """
    height, width = image.shape[:2]
    points = clip_points(points_xy, height, width)
    distances = neighbour_distances(points)
    reach = window_reach(distances, height, width)
    if prompt.clip_to_circle:
        parts = [
            clip_to_circle(part, x, y, distances[i], height, width)
            for i, (part, (x, y)) in enumerate(zip(parts, points.tolist(), strict=True))
        ]
    rows: dict[int, dict[str, Any]] = {}
    for index, tile in enumerate(plan(points, distances, height, width, sam.image_encoder.img_size, tiles)):
        for point, row in _segment_tile(sam, image, points, parts, reach, tile, prompt, chunk):
            rows[point] = {"tile": index, "zoom": tile.zoom, **row}
    return [rows[i] for i in range(len(points))]


def _segment_tile(
    sam: Sam,
    image: np.ndarray,
    points: np.ndarray,
    parts: Sequence[Window],
    reach: np.ndarray,
    tile: Tile,
    prompt: Prompt,
    chunk: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    height, width = image.shape[:2]
    frame = Frame(tile.h, tile.w, sam.image_encoder.img_size)
    origin = (tile.x0, tile.y0)
    corner = points - origin
    visible = ((corner > -0.5) & (corner < [tile.w - 0.5, tile.h - 0.5])).all(axis=1)
    embedding = embed(sam, image[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w])
    bias = prompt.bias if prompt.mode == "two-pass" else None
    for start in range(0, len(tile.owned), chunk):
        owned = tile.owned[start : start + chunk].tolist()
        prompts = assemble(
            points[owned],
            [parts[i] for i in owned],
            points[visible],
            origin,
            frame,
            sam.prompt_encoder.mask_input_size[0],
            prompt,
        )
        for point, answer in zip(owned, decode(sam, embedding, prompts, frame, chunk, bias), strict=True):
            x0, y0, w, h = circle_box(points[point, 0], points[point, 1], reach[point], height, width)
            left, top = max(x0, tile.x0), max(y0, tile.y0)
            right, bottom = min(x0 + w, tile.x0 + tile.w), min(y0 + h, tile.y0 + tile.h)
            logits = answer.logits[top - tile.y0 : bottom - tile.y0, left - tile.x0 : right - tile.x0]
            loose = int((logits > -1).sum())
            yield (
                point,
                {
                    "score": answer.score,
                    "stability": int((logits > 1).sum()) / loose if loose else 0.0,
                    **Window(left, top, logits > 0).tight().columns(),
                },
            )


def rows(
    sam: Sam,
    images: Iterable[dict[str, Any]],
    superpixels: Iterable[dict[str, Any]],
    root: str,
    exif: Exif,
    prompt: Prompt,
    tiles: Tiles,
    chunk: int,
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.SEGMENT` for rows of `tables.IMAGES` and `tables.SUPERPIXELS`, one image in memory at a time.

    Raises:
        DataError: the tables do not have the same points.
    """
    groups = by_image(superpixels)
    for image in images:
        key = image["split"], image["image_id"]
        points = points_of(image)
        parts = [Window.from_columns(row) for row in groups.get(key, [])]
        if len(parts) != len(points):
            raise DataError("/".join(key), f"{len(points)} points but {len(parts)} superpixel parts", "Run again.")
        if len(points) == 0:
            continue
        answers = segment_image(sam, read_row(root, image, exif), points, parts, prompt, tiles, chunk)
        for point_id, answer in enumerate(answers):
            yield {"split": key[0], "image_id": key[1], "point_id": point_id, **answer}
