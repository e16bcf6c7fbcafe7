"""labelme: one JSON file an image, with shapes whose centres are the head points.

`x.jpg` with `x.json` beside it, or `images/x.jpg` with `annotations/x.json` (also `labels` or `json`), in the root
(split `all`) or in each of `train`, `val` and `test` below it. Of a shape becomes:

| shape | head point | box |
|---|---|---|
| point | the point | none |
| rectangle, mask | centre | its corners |
| polygon | centre of its area (mean of its corners, where it has none) | around its corners |
| circle | centre | around it |

Coordinates are as written: labelme draws its shapes with whole numbers at pixel centres, as we count them. Other kinds
of shape are an error, unless `label` leaves them out. `imagePath` and `imageData` are ignored, as they may lead to
other images: what belongs together is said by the file names.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.folders import FolderReader, Split, has_files
from crowdmask.datasets.jsons import as_number, read_json
from crowdmask.datasets.shared_file import claimed_size
from crowdmask.datasets.ucf import as_points
from crowdmask.errors import DataError

_FOLDERS = ("annotations", "labels", "json")
_KEPT = ("shapes", "label", "points", "shape_type", "imageHeight", "imageWidth")
_LARGEST = 1e50  # areas and their centres are products of three coordinates
_CORNERS = {"point": (1, 1), "rectangle": (2, 4), "mask": (2, 2), "polygon": (3, None), "circle": (2, 2)}


class LabelMeReader(FolderReader):
    """Reader of labelme files: splits `train`, `val` and `test`, or `all`."""

    title = "images with labelme files"
    expected = (
        "x.jpg and x.json in one folder, or images/x.jpg and annotations/x.json (or labels, json), "
        "or that in train, val and test"
    )

    def __init__(self, name: str, entry: config.LabelMe) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._label = entry.label

    def splits(self, root: Path) -> list[Split]:
        """The root itself, or those of train, val and test that are there; see `FolderReader.splits`."""
        found = []
        for split, base in (("all", ""), ("test", "test/"), ("train", "train/"), ("val", "val/")):
            if not (root / base).is_dir():
                continue
            beside = [
                f"{base}{name}"
                for name in _FOLDERS
                if _has_json(root / base / name) and (root / base / "images").is_dir()
            ]
            if _has_json(root / base) and not beside:
                found.append(Split(split, base.rstrip("/"), base.rstrip("/")))
            elif len(beside) > 1:
                raise DataError(root / base, f"has both {' and '.join(beside)}", "Keep one of them.")
            elif beside:
                found.append(Split(split, f"{base}images", beside[0]))
        if len(found) > 1 and found[0].name == "all":
            raise DataError(
                root,
                f"annotations lie beside the split {found[1].name}, so the layout is not clear",
                f"Expected: {self.expected}.",
            )
        return found

    def annotated_id(self, file_name: str) -> str | None:
        """`x` for `x.json`."""
        stem, suffix = os.path.splitext(file_name)
        return stem if suffix.lower() == ".json" else None

    def annotation_name(self, image_id: str) -> str:
        """`x.json` for `x`."""
        return f"{image_id}.json"

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Head points, boxes where all shapes have one, and the claimed size; see `base.Reader`."""
        path, way_out = Path(self.root, ref.annotation), self.way_out(ref)
        raw = read_json(path, way_out, lambda item: {key: item[key] for key in _KEPT if key in item})
        shapes = raw.get("shapes") if isinstance(raw, dict) else None
        if not isinstance(shapes, list):
            raise DataError(path, "not a labelme file: it has no list 'shapes'", way_out)
        points, boxes = [], []
        for row, shape in enumerate(shapes):
            if self._label is not None and isinstance(shape, dict) and shape.get("label") != self._label:
                continue
            try:
                point, box = head_of(shape)
            except ValueError as error:
                hint = "" if self._label else f"If it is no head, name the label of heads: datasets.{self.name}.label. "
                raise DataError(path, str(error), hint + way_out, row) from None
            points.append(point)
            boxes.append(box)
        known = [box for box in boxes if box is not None]
        return Annotation(
            as_points(path, np.array(points, np.float64).reshape(-1, 2), way_out),
            boxes_xyxy=np.array(known, np.float64) if known and len(known) == len(boxes) else None,
            size_hw=claimed_size(raw.get("imageHeight"), raw.get("imageWidth")),
        )


def head_of(shape: Any) -> tuple[tuple[float, float], tuple[float, float, float, float] | None]:
    """Head point (x, y) and box (x0, y0, x1, y1) of a shape, pixels; no box for a point.

    Raises:
        ValueError: another kind of shape, or not the coordinates that its kind has.
    """
    corners = shape.get("points") if isinstance(shape, dict) else None
    if not isinstance(corners, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(_is_finite(value) for value in pair) for pair in corners
    ):
        raise ValueError("the shape has no list of finite points x, y")
    kind = shape.get("shape_type") or ("point" if len(corners) == 1 else "polygon")  # early versions name no kind
    if not isinstance(kind, str) or kind not in _CORNERS:
        raise ValueError(f"a shape of the kind {kind!r} marks no head; known: {', '.join(_CORNERS)}")
    fewest, most = _CORNERS[kind]
    if len(corners) < fewest or (most is not None and len(corners) > most):
        raise ValueError(f"a {kind} with {len(corners)} points")
    xy = np.array(corners, np.float64)
    if kind == "point":
        return (corners[0][0], corners[0][1]), None
    if kind == "circle":
        (x, y), radius = corners[0], math.dist(corners[0], corners[1])
        return (x, y), (x - radius, y - radius, x + radius, y + radius)
    (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
    centre = area_centre(xy) if kind == "polygon" else ((x0 + x1) / 2, (y0 + y1) / 2)
    return centre, (x0, y0, x1, y1)


def area_centre(corners_xy: np.ndarray) -> tuple[float, float]:
    """Centre of the area of a polygon, (x, y) in pixels.

    The mean of the corners, where it has no area, or crosses itself so that the centre lies outside of its box.

    Args:
        corners_xy: float64 (N, 2), pixels.
    """
    start = corners_xy.mean(axis=0)
    here = corners_xy - start  # near zero, so that far-away polygons lose no digits
    there = np.roll(here, -1, axis=0)
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    if abs(cross.sum()) < 1e-9:
        return float(start[0]), float(start[1])
    x, y = start + ((here + there) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    inside = (corners_xy.min(axis=0) <= (x, y)).all() and ((x, y) <= corners_xy.max(axis=0)).all()
    return (float(x), float(y)) if inside else (float(start[0]), float(start[1]))


def _has_json(folder: Path) -> bool:
    return folder.is_dir() and has_files(folder, ".json")


def _is_finite(value: Any) -> bool:
    number = as_number(value)
    return number is not None and abs(number) < _LARGEST  # also false for NaN
