"""Segment: one SAM mask for each head point, in a window around the point.

The work of an image is cut into tiles. A thread prepares tiles (reading, cropping, prompts), the device embeds and
decodes them, another thread turns logits into masks; nothing is ever as large as an image but the image itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from crowdmask.config import Prompt, Tiles
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.geometry import circle_box, clip_points, neighbour_distances
from crowdmask.masks.decoder import Decoder, fit
from crowdmask.masks.prompts import Frame, Prompts, assemble, head_boxes
from crowdmask.masks.rle import Window
from crowdmask.masks.sampling import Box, Patch, Sampler
from crowdmask.masks.superpixels import clip_to_circle
from crowdmask.masks.tiles import Tile, plan
from crowdmask.overlap import ahead, behind
from crowdmask.tables import boxes_of, by_image, points_of

VERSION = 2

WINDOW_MIN = 32.0
"""Half-side of the smallest window, pixels of an image of up to `REFERENCE_SIDE`; grows with larger images."""
REFERENCE_SIDE = 2048

Parts = Callable[[int], Window]
"""The superpixel part of a point, by its number."""


def window_reach(distances: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-side of the window that SAM's answer is kept in, float64 (N,), pixels.

    The nearest-neighbour distance, never below 32 px, so that other radius limits do not need SAM again; a lone
    point gets the shorter side of the image, the largest radius that the settings allow it.
    """
    least = WINDOW_MIN * max(1.0, max(height, width) / REFERENCE_SIDE)
    return np.where(np.isfinite(distances), np.maximum(distances, least), max(float(min(height, width)), least))


@dataclass(frozen=True)
class Group:
    """Prompts that go to the decoder together.

    Attributes:
        points: Their points' numbers in the image.
        prompts: SAM's inputs.
        windows: Window of each, pixels of the tile.
    """

    points: list[int]
    prompts: Prompts
    windows: list[Box]


@dataclass(frozen=True)
class Job:
    """A tile, ready for the device.

    Attributes:
        key: Of the image.
        of: Number of points of the image.
        index: Number of the tile in its image.
        tile: The tile.
        frame: Its geometry.
        picture: uint8 (h, w, 3), resized to SAM's frame.
        groups: Its prompts.
    """

    key: Any
    of: int
    index: int
    tile: Tile
    frame: Frame
    picture: np.ndarray
    groups: list[Group]


def jobs(
    key: Any,
    image: np.ndarray,
    points_xy: np.ndarray,
    parts: Parts,
    prompt: Prompt,
    tiles: Tiles,
    decoder: Decoder,
    boxes_xyxy: np.ndarray | None = None,
    window: str = "circle",
) -> Iterator[Job]:
    """The tiles of an image, one at a time.

    Args:
        key: Of the image.
        image: uint8 (H, W, 3) RGB.
        points_xy: float (N, 2) annotated points, pixels; those outside are prompted at the border.
        parts: Superpixel part of each point.
        prompt: Prompt mode and strengths.
        tiles: How the image is cut.
        decoder: Whose sizes and chunks are used.
        boxes_xyxy: float (N, 4) annotated boxes, pixels, NaN where there is none; None = no boxes.
        window: `circle` or `tile`: which part of SAM's answer is kept.
    """
    height, width = image.shape[:2]
    points = clip_points(points_xy, height, width)
    distances = neighbour_distances(points)
    given = np.full((len(points), 4), np.nan) if boxes_xyxy is None else boxes_xyxy
    boxes = head_boxes(points, distances, given, prompt.box_share, height, width)
    reach = window_reach(distances, height, width)
    for index, tile in enumerate(plan(points, distances, height, width, decoder.size, tiles)):
        frame = Frame(tile.h, tile.w, decoder.size)
        corner = points - [tile.x0, tile.y0]
        visible = ((corner > -0.5) & (corner < [tile.w - 0.5, tile.h - 0.5])).all(axis=1)
        # Windows of like size together: those of a group are as large as its largest.
        owned = tile.owned[np.argsort(reach[tile.owned], kind="stable")].tolist()
        groups = []
        for start in range(0, len(owned), decoder.most):
            members = owned[start : start + decoder.most]
            cut = []
            for i in members:
                part = parts(i)
                if prompt.clip_to_circle:
                    part = clip_to_circle(part, points[i, 0], points[i, 1], distances[i], height, width)
                cut.append(part)
            others, origin = points[visible], (tile.x0, tile.y0)
            made = assemble(points[members], cut, others, origin, frame, decoder.mask_side, prompt, boxes[members])
            if window == "tile":
                windows = [(0, 0, tile.w, tile.h)] * len(members)
            else:
                windows = [_window(points[i], reach[i], tile, height, width) for i in members]
            groups.append(Group(members, made, windows))
        picture = fit(image[tile.y0 : tile.y0 + tile.h, tile.x0 : tile.x0 + tile.w], decoder.size)
        yield Job(key, len(points), index, tile, frame, picture, groups)


def _window(point: np.ndarray, reach: float, tile: Tile, height: int, width: int) -> Box:
    """The part of a point's window that its tile sees, in pixels of the tile."""
    x0, y0, w, h = circle_box(point[0], point[1], reach, height, width)
    left, top = max(x0, tile.x0), max(y0, tile.y0)
    right, bottom = min(x0 + w, tile.x0 + tile.w), min(y0 + h, tile.y0 + tile.h)
    return left - tile.x0, top - tile.y0, right - left, bottom - top


def _decode(decoder: Decoder, job: Job, embedding: Tensor) -> Iterator[tuple[Job, Group, Sampler, list[Patch]]]:
    on = decoder.tile(embedding, job.frame)
    for group in job.groups:
        yield job, group, on.sampler, list(on.decode(group.prompts, group.windows))


def _finish(found: tuple[Job, Group, Sampler, list[Patch]]) -> tuple[Job, list[tuple[int, dict[str, Any]]]]:
    """Rows of a group's points."""
    job, group, sampler, patches = found
    made = []
    for point, box, patch in zip(group.points, group.windows, patches, strict=True):
        logits = sampler.window(patch, box)
        loose = int((logits > -1).sum())
        row = {
            "tile": job.index,
            "zoom": job.tile.zoom,
            "score": patch.score,
            "stability": int((logits > 1).sum()) / loose if loose else 0.0,
            **Window(job.tile.x0 + box[0], job.tile.y0 + box[1], logits > 0).tight().columns(),
        }
        made.append((point, row))
    return job, made


def segment(decoder: Decoder, prepared: Iterable[Job]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """SAM's mask of each point, image by image.

    Args:
        decoder: The model.
        prepared: Tiles, those of an image together, from `jobs`.

    Yields:
        Key of the image and, for each of its points, in order: score, stability, tile, zoom and the window columns
        (tight; possibly empty).
    """

    def decoded() -> Iterator[tuple[Job, Group, Sampler, list[Patch]]]:
        source = ahead(prepared)
        while some := list(islice(source, decoder.tiles)):
            for job, embedding in zip(some, decoder.embed([job.picture for job in some]), strict=True):
                yield from _decode(decoder, job, embedding)

    rows: dict[int, dict[str, Any]] = {}
    key = None
    for job, made in behind(_finish, decoded()):
        if rows and job.key != key:
            raise RuntimeError(f"{key}: a tile is missing")  # each point is owned by one tile: cannot be
        key = job.key
        rows.update(made)
        if len(rows) == job.of:
            yield job.key, [rows[i] for i in range(job.of)]
            rows = {}


def segment_image(
    decoder: Decoder,
    image: np.ndarray,
    points_xy: np.ndarray,
    parts: Sequence[Window],
    prompt: Prompt,
    tiles: Tiles,
    boxes_xyxy: np.ndarray | None = None,
    window: str = "circle",
) -> list[dict[str, Any]]:
    """SAM's mask of each point of one image; see `jobs` and `segment`."""
    prepared = jobs(None, image, points_xy, parts.__getitem__, prompt, tiles, decoder, boxes_xyxy, window)
    for _, rows in segment(decoder, prepared):
        return rows
    return []


def _unpack(found: Sequence[dict[str, Any]], index: int) -> Window:
    return Window.from_columns(found[index])


def rows(
    decoder: Decoder,
    images: Iterable[dict[str, Any]],
    superpixels: Iterable[dict[str, Any]],
    root: str,
    exif: Exif,
    prompt: Prompt,
    tiles: Tiles,
    window: str = "circle",
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.SEGMENT` for rows of `tables.IMAGES` and `tables.SUPERPIXELS`.

    Raises:
        DataError: the tables do not have the same points.
    """
    groups = by_image(superpixels)

    def prepared() -> Iterator[Job]:
        for image in images:
            key = image["split"], image["image_id"]
            points, found = points_of(image), groups.get(key, [])
            if len(found) != len(points):
                problem = f"{len(points)} points but {len(found)} superpixel parts"
                raise DataError("/".join(key), problem, "Run again.")
            if len(points) == 0:
                continue
            # Parts are unpacked when they are needed: those of a large image would not fit into memory together.
            parts = partial(_unpack, found)
            photo, boxes = read_row(root, image, exif), boxes_of(image)
            yield from jobs(key, photo, points, parts, prompt, tiles, decoder, boxes, window)

    for (split, image_id), answers in segment(decoder, prepared()):
        for point_id, answer in enumerate(answers):
            yield {"split": split, "image_id": image_id, "point_id": point_id, **answer}
