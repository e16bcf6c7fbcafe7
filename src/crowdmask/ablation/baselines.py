"""Masks from the same points by other means, as masks tables, so that they are measured like the method's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdmask.ablation.candidates import smallest_covering
from crowdmask.config import Exclusion
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.geometry import own_pixels
from crowdmask.masks.exclusion import radii
from crowdmask.masks.rle import Window, digest
from crowdmask.metrics.baselines import circles, disjoint, random_walker_masks, watershed_masks
from crowdmask.metrics.instances import intersect
from crowdmask.tables import by_image, points_of

VERSION = 1


@dataclass(frozen=True)
class Scene:
    """What baselines may use of an image, one entry a point.

    Attributes:
        points_xy: float (N, 2), pixels.
        radii_px: float (N,) of the exclusion circles.
        height: Pixels.
        width: Pixels.
        superpixels: The part of its superpixel that belongs to each point.
        truth: True masks.
        candidates: Automatic masks, which belong to no point.
        photo: uint8 (H, W, 3), or None for baselines that do not look at it.
    """

    points_xy: np.ndarray
    radii_px: np.ndarray
    height: int
    width: int
    superpixels: Sequence[Window]
    truth: Sequence[Window]
    candidates: Sequence[Window]
    photo: np.ndarray | None


LOOK = ("watershed", "random_walker")
"""Baselines that need the picture."""


def masks(name: str, scene: Scene) -> list[tuple[Window, str]]:
    """Mask and source of each point; a point without mask has its own pixel, with source `pixel`.

    Args:
        name: `circle` (they overlap), `circle_disjoint` (contested pixels to the nearest point), `superpixel`,
            `superpixel_circle` (what both share), `watershed`, `random_walker`, `oracle` (the true mask within the
            circle), `smallest` (the smallest automatic mask that covers the point), `smallest_circle` (the same, and
            the circle where there is none).
        scene: The image.
    """
    points, height, width = scene.points_xy, scene.height, scene.width
    around = circles(points, scene.radii_px, height, width)
    sources = [name] * len(points)
    if name in ("circle", "circle_disjoint"):
        made = around if name == "circle" else disjoint(around, points, height, width)
        sources = ["circle"] * len(points)
    elif name == "superpixel":
        made = list(scene.superpixels)
    elif name == "superpixel_circle":
        made = [intersect(a, b) for a, b in zip(scene.superpixels, around, strict=True)]
    elif name == "oracle":
        made = [intersect(a, b) for a, b in zip(scene.truth, around, strict=True)]
    elif name in LOOK:
        assert scene.photo is not None
        method = watershed_masks if name == "watershed" else random_walker_masks
        made = method(scene.photo, points, scene.radii_px)
    else:
        chosen = smallest_covering(scene.candidates, points, height, width)
        nothing = Window(0, 0, np.zeros((0, 0), bool))
        rest = around if name == "smallest_circle" else [nothing] * len(points)
        made = [scene.candidates[k] if k >= 0 else other for k, other in zip(chosen, rest, strict=True)]
        sources = ["sam" if k >= 0 else "circle" for k in chosen]
    own = own_pixels(points, height, width).tolist()
    pixel = np.ones((1, 1), bool)
    return [
        (window.tight(), source) if window.mask.any() else (Window(x, y, pixel), "pixel")
        for window, source, (x, y) in zip(made, sources, own, strict=True)
    ]


def rows(
    name: str,
    images: Iterable[dict[str, Any]],
    superpixels: Iterable[dict[str, Any]],
    truth: Iterable[dict[str, Any]],
    candidates: Iterable[dict[str, Any]],
    root: str,
    exif: Exif,
    settings: Exclusion,
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.MASKS` for rows of the other tables.

    Raises:
        DataError: the tables do not have the same points.
    """
    parts, true, found = by_image(superpixels), by_image(truth), by_image(candidates)
    for image in images:
        key = image["split"], image["image_id"]
        points, height, width = points_of(image), image["height"], image["width"]
        for what, groups in (("superpixel parts", parts), ("true masks", true)):
            if len(groups.get(key, [])) != len(points):
                problem = f"{len(points)} points but {len(groups.get(key, []))} {what}"
                raise DataError("/".join(key), problem, "Run again.")
        if len(points) == 0:
            continue
        by_point = {row["point_id"]: row for row in true[key]}
        scene = Scene(
            points,
            radii(points, height, width, settings),
            height,
            width,
            [Window.from_columns(row) for row in parts[key]],
            [Window.from_columns(by_point[index]) for index in range(len(points))],
            [Window.from_columns(row) for row in found.get(key, [])],
            read_row(root, image, exif) if name in LOOK else None,
        )
        for index, (window, source) in enumerate(masks(name, scene)):
            yield {
                "split": key[0],
                "image_id": key[1],
                "point_id": index,
                "x": float(points[index, 0]),
                "y": float(points[index, 1]),
                "source": source,
                "verified": False,
                "author": None,
                "score": None,
                "radius_px": float(scene.radii_px[index]),
                "lost_px": 0,
                "area": window.area,
                "sha256": digest(window),
                **window.columns(),
            }
