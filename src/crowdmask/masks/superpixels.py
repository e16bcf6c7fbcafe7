"""Superpixels: the part of its SLIC superpixel that belongs to each head point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import find_objects
from skimage.segmentation import slic

from crowdmask.config import Superpixels
from crowdmask.datasets.images import Exif, read_row
from crowdmask.geometry import circle_box, clip_points, own_pixels, squared_distance
from crowdmask.masks.rle import Window
from crowdmask.tables import points_of

VERSION = 1


def slic_labels(image: np.ndarray, settings: Superpixels) -> np.ndarray:
    """SLIC labels at working resolution.

    Args:
        image: uint8 (H, W, 3) RGB.
        settings: Number, compactness and working size.

    Returns:
        int32 (h, w) labels from 1, where max(h, w) <= `settings.max_side`.

    Source: SLIC as in scikit-image, n = 1000 (XMask paper), other parameters our choice.
    """
    height, width = image.shape[:2]
    scale = min(1.0, settings.max_side / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = slic(
        image,
        n_segments=settings.n_segments,
        compactness=settings.compactness,
        sigma=settings.sigma,
        max_num_iter=settings.max_num_iter,
        start_label=1,
        enforce_connectivity=True,
        channel_axis=-1,
    )
    return labels.astype(np.int32)


def own_parts(labels: np.ndarray, points_xy: np.ndarray, height: int, width: int) -> Iterator[tuple[int, int, Window]]:
    """For each point: its label, how many points share that superpixel, and the part that is its own.

    Args:
        labels: int32 (h, w) at working resolution, from `slic_labels`; enlarged by nearest neighbour here.
        points_xy: float (N, 2) in pixels of the original image.
        height: Of the original image.
        width: Of the original image.

    Yields:
        (label, sharing, window) in point order. Where several points share a superpixel each of its pixels goes to
        the nearest point (ties to the lower row); points at the same place get the same part. The own pixel of a
        point is always in its part.
    """
    h, w = labels.shape
    rows = np.minimum((np.arange(height) + 0.5) * (h / height), h - 1).astype(np.int64)
    cols = np.minimum((np.arange(width) + 0.5) * (w / width), w - 1).astype(np.int64)
    pixels = own_pixels(points_xy, height, width)
    own = labels[rows[pixels[:, 1]], cols[pixels[:, 0]]]
    boxes = find_objects(labels)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(own.tolist()):
        members.setdefault(label, []).append(index)
    points = clip_points(points_xy, height, width)
    regions: dict[int, tuple[int, int, np.ndarray, np.ndarray | None]] = {}
    for index, label in enumerate(own.tolist()):
        sharing = members[label]
        if label not in regions:
            ys, xs = boxes[label - 1]
            y0, y1 = np.searchsorted(rows, [ys.start, ys.stop])
            x0, x1 = np.searchsorted(cols, [xs.start, xs.stop])
            inside = labels[rows[y0:y1, None], cols[None, x0:x1]] == label
            owner = None
            if len(sharing) > 1:
                owner = _nearest(points[sharing], int(x0), int(y0), int(x1 - x0), int(y1 - y0))
            regions[label] = int(x0), int(y0), inside, owner
        x0, y0, inside, owner = regions[label]
        if owner is None:
            part = inside.copy()
        else:
            first = next(k for k, i in enumerate(sharing) if np.array_equal(points[i], points[index]))
            part = inside & (owner == first)
        part[pixels[index, 1] - y0, pixels[index, 0] - x0] = True
        yield label, len(sharing), Window(x0, y0, part).tight()


def _nearest(points_xy: np.ndarray, x0: int, y0: int, w: int, h: int) -> np.ndarray:
    """Index of the nearest point for each pixel of a window (ties to the lower), int64 (h, w)."""
    owner = np.zeros((h, w), np.int64)
    least = np.full((h, w), np.inf)
    for k, (x, y) in enumerate(points_xy.tolist()):  # one point at a time: memory does not grow with their number
        distance = squared_distance(x, y, x0, y0, w, h)
        nearer = distance < least
        owner[nearer], least[nearer] = k, distance[nearer]
    return owner


def clip_to_circle(part: Window, x: float, y: float, radius: float, height: int, width: int) -> Window:
    """The part of a superpixel within `radius` of the point (infinite = unchanged).

    A circle between pixel centres leaves the point's own pixel.
    """
    if not np.isfinite(radius):
        return part
    box = circle_box(x, y, radius, height, width)
    inside = part.cut(*box) & (squared_distance(x, y, *box) <= radius**2)
    if not inside.any():
        left, top = own_pixels(np.array([[x, y]]), height, width)[0].tolist()
        return Window(left, top, np.ones((1, 1), bool))
    return Window(box[0], box[1], inside).tight()


def rows(images: Iterable[dict[str, Any]], root: str, exif: Exif, settings: Superpixels) -> Iterator[dict[str, Any]]:
    """Rows of `tables.SUPERPIXELS` for rows of `tables.IMAGES`, one image in memory at a time."""
    for image in images:
        points = points_of(image)
        if len(points) == 0:
            continue
        labels = slic_labels(read_row(root, image, exif), settings)
        parts = own_parts(labels, points, image["height"], image["width"])
        for point_id, (label, sharing, part) in enumerate(parts):
            yield {
                "split": image["split"],
                "image_id": image["image_id"],
                "point_id": point_id,
                "superpixel": label,
                "sharing": sharing,
                **part.columns(),
            }
