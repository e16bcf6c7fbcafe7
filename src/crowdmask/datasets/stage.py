"""The stage `datasets`: what every later stage knows of the images, and the true masks where there are some."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.datasets.images import Exif, open_picture
from crowdmask.datasets.label_map import instance_boxes
from crowdmask.errors import DataError
from crowdmask.files import sha256
from crowdmask.masks.rle import Window
from crowdmask.tables import NO_BOX

VERSION = 3
"""Raised when the tables change."""

_log = logging.getLogger(__name__)


def collect(reader: Reader, refs: Iterable[ImageRef], exif: Exif) -> Iterator[dict[str, Any]]:
    """Rows of `tables.IMAGES`: every image is decoded in full, every annotated point kept, unmoved, in its row.

    Duplicate points stay; points outside of the image stay and are flagged (logged too), however far they are.

    Args:
        reader: Reader of the data set.
        refs: Images wanted.
        exif: The data set's EXIF policy; an image that is not upright is logged where it is `stored`.

    Raises:
        DataError: an image or annotation cannot be used, or has another number of boxes than of points.
    """
    way_out = getattr(reader, "way_out", None)
    for ref in refs:
        path = Path(reader.root, ref.image)
        try:
            picture = open_picture(path, exif)
        except DataError as error:
            # The reader knows what `images` does not: the names to write into the configuration.
            raise DataError(error.path, error.problem, way_out(ref) if way_out else error.fix) from None
        height, width = picture.pixels.shape[:2]
        if picture.orientation != 1 and exif == "stored":
            _log.warning(
                "%s: EXIF orientation %d is not applied; set exif: apply if the points refer to the upright picture",
                path,
                picture.orientation,
            )
        annotation = reader.read_annotation(ref)
        points, boxes = annotation.points_xy, annotation.boxes_xyxy
        if boxes is not None and len(boxes) != len(points):  # which a reader should have noticed
            problem = f"{len(points)} points, but {len(boxes)} boxes"
            fix = way_out(ref) if way_out else "Repair the file."
            raise DataError(Path(reader.root, ref.annotation), problem, fix)
        outside = outside_image(points, height, width)
        if outside.any():
            _log.warning(
                "%s: %d of %d points outside of the image, kept and flagged; first at row %d",
                Path(reader.root, ref.annotation),
                np.count_nonzero(outside),
                len(points),
                int(outside.argmax()),
            )
        yield {
            "split": ref.split,
            "image_id": ref.image_id,
            "path": ref.image,
            "height": height,
            "width": width,
            "mode": picture.mode,
            "sha256": sha256(path),
            "points": _point_rows(points, boxes, outside),
        }


def _point_rows(points_xy: np.ndarray, boxes_xyxy: np.ndarray | None, outside: np.ndarray) -> list[dict[str, Any]]:
    """Values of `tables.POINT`; boxes as they are annotated, however they lie, null where there are none."""
    rows = [
        {"point_id": row, "x": x, "y": y, "outside": out, **NO_BOX}
        for row, ((x, y), out) in enumerate(zip(points_xy.tolist(), outside.tolist(), strict=True))
    ]
    if boxes_xyxy is not None:
        for row, box in zip(rows, boxes_xyxy.tolist(), strict=True):
            row.update(zip(NO_BOX, box, strict=True))
    return rows


def outside_image(points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which points lie on no pixel of the image.

    The image covers [-0.5, width - 0.5) x [-0.5, height - 0.5), as pixel centres are at integers.

    Args:
        points_xy: float64 (N, 2), pixels.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        bool (N,).
    """
    return np.any((points_xy < -0.5) | (points_xy >= np.array([width, height]) - 0.5), axis=1)


def truth_rows(reader: Reader, refs: Iterable[ImageRef]) -> Iterator[dict[str, Any]]:
    """Rows of `tables.TRUTH`: the true mask of each point on its bounding box, in point order.

    An instance without pixels has a window of 0 x 0.

    Raises:
        DataError: the truth cannot be used, or the data set has none.
    """
    for ref in refs:
        labels, ids = reader.read_truth(ref)
        boxes = instance_boxes(labels)
        for point_id, value in enumerate(ids.tolist()):
            window = Window(0, 0, np.zeros((0, 0), bool))
            if value in boxes:
                rows, columns = boxes[value]
                window = Window(columns.start, rows.start, labels[rows, columns] == value)
            yield {
                "split": ref.split,
                "image_id": ref.image_id,
                "point_id": point_id,
                "instance_id": value,
                **window.columns(),
            }
