"""COCO files with keypoints or boxes: one head point an annotation.

`annotations.json` (one for each split, below the root) with the lists `images`, `annotations` and, for a choice by
category, `categories`; `file_name` is a path below the folder of the images. Source: "COCO data format",
cocodataset.org. The head point (setting `head`):

- keypoint: the first one that is visible (v = 2), else the first that is labelled but hidden (v = 1), as written;
- box `[x, y, w, h]`, which covers w x h pixels from the corner (x, y) of a pixel on: its centre, in our coordinates
  (x + w/2 - 1/2, y + h/2 - 1/2), as pixel centres are whole numbers here; `box_top`: the middle of its upper row of
  pixels, (x + w/2 - 1/2, y);
- `auto`: the keypoint where there is one, else the centre of the box.

Annotations with `iscrowd: 1` (a region of many people) are kept, as every annotation gets a mask, and flagged in the
attribute `iscrowd`. Images of the folder that no file names are `unlabelled`; named ones without annotation are empty.

The file is read once a process; only names, sizes, points and boxes are kept of it, whatever masks it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.folders import Split
from crowdmask.datasets.jsons import as_number, read_json
from crowdmask.datasets.shared_file import SharedFileReader, claimed_size, image_path, state_of
from crowdmask.datasets.ucf import as_points
from crowdmask.errors import DataError

_WAY_OUT = "Write it again with the tool that made it, as COCO's format says."
_NONE = np.nan


@dataclass(frozen=True)
class Content:
    """What is kept of a COCO file.

    Attributes:
        names: File name of each image, as written.
        images: Position of each image by its path below the folder of the images.
        sizes: Claimed height and width of each image.
        categories: Category ids by name.
        order: int64 (M,) rows of `annotations`, by image, then as they lie in the file.
        starts: int64 (images + 1,) where each image begins in `order`.
        keypoints_xy: float64 (M, 2) by row; NaN where no keypoint is labelled.
        boxes_xyxy: float64 (M, 4) by row; NaN where there is no box.
        crowd: int64 (M,) by row.
        category: Category id of each row.
        faults: What is wrong with a row, by row.
    """

    names: list[str]
    images: dict[str, int]
    sizes: list[tuple[int, int] | None]
    categories: dict[str, set[Any]]
    order: np.ndarray
    starts: np.ndarray
    keypoints_xy: np.ndarray
    boxes_xyxy: np.ndarray
    crowd: np.ndarray
    category: list[Any]
    faults: dict[int, str]


class CocoReader(SharedFileReader):
    """Reader of COCO files: the splits that the configuration names."""

    title = "a data set with COCO files"

    def __init__(self, name: str, entry: config.Coco) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._coco = entry
        self.expected = (
            f"{', '.join(sorted(entry.annotations.values()))} and images in {entry.images}; "
            f"see datasets.{name}.annotations and .images"
        )

    def _images(self, split: str) -> str:
        return self._below_root("images", self._coco.images.replace("{split}", split))

    def splits(self, root: Path) -> list[Split]:
        """Those of the configuration, where at least one of their files is there; see `FolderReader.splits`."""
        files = {s: self._below_root(f"annotations.{s}", file) for s, file in self._coco.annotations.items()}
        if not any((root / file).is_file() for file in files.values()):
            return []
        return [Split(split, self._images(split), file) for split, file in files.items()]

    def listed(self, split: Split) -> Iterable[tuple[str, int]]:
        """`file_name` of each image; see `SharedFileReader.listed`."""
        path = Path(self.root, split.annotations)
        content = load(path)
        wanted = self._coco.category
        if wanted is not None and wanted not in content.categories:
            known = ", ".join(sorted(content.categories)) or "none"
            raise DataError(
                path, f"has no category '{wanted}'; it has: {known}", f"Correct datasets.{self.name}.category."
            )
        return ((name, row) for row, name in enumerate(content.names))

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Head points, boxes where all have one, claimed size and `iscrowd`; see `base.Reader`."""
        path, way_out = Path(self.root, ref.annotation), self.way_out(ref)
        content = load(path)
        image = content.images.get(self.file_of(ref))
        if image is None:
            raise DataError(path, f"has no image {self.file_of(ref)} any more", "Run again: the file has changed.")
        rows = content.order[content.starts[image] : content.starts[image + 1]]
        if self._coco.category is not None:
            wanted = content.categories.get(self._coco.category, set())
            rows = np.array([row for row in rows if content.category[row] in wanted], np.int64)
        for row in rows:
            if int(row) in content.faults:
                raise DataError(path, content.faults[int(row)], way_out, int(row))
        points = self._head_points(content.keypoints_xy[rows], content.boxes_xyxy[rows])
        lacking = np.flatnonzero(np.isnan(points).any(axis=1))
        if lacking.size:
            head = self._coco.head
            problem = {"keypoint": "has no labelled keypoint", "auto": "has neither labelled keypoint nor box"}.get(
                head, "has no box"
            )
            hint = "" if head == "auto" else f"Set datasets.{self.name}.head to auto. "
            raise DataError(path, f"the annotation {problem}", hint + way_out, int(rows[lacking[0]]))
        boxes = content.boxes_xyxy[rows]
        return Annotation(
            as_points(path, points, way_out),
            boxes_xyxy=boxes if len(boxes) and np.isfinite(boxes).all() else None,
            size_hw=content.sizes[image],
            attributes={"iscrowd": content.crowd[rows]},
        )

    def _head_points(self, keypoints_xy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Points (N, 2), NaN where there is none of the wanted kind."""
        head = self._coco.head
        if head == "keypoint":
            return keypoints_xy
        x0, y0, x1, y1 = boxes_xyxy.T
        middle = (x0 + x1 - 1) / 2
        if head == "box_top":
            return np.stack([middle, y0], axis=1)
        centres = np.stack([middle, (y0 + y1 - 1) / 2], axis=1)
        return centres if head == "box" else np.where(np.isnan(keypoints_xy), centres, keypoints_xy)


def load(path: Path) -> Content:
    """Content of a COCO file, kept for the next call as long as the file does not change.

    Raises:
        DataError: not a COCO file, an image twice, or an annotation of an image that is not listed.
    """
    return _load(*state_of(path, _WAY_OUT))


@lru_cache(maxsize=8)
def _load(file: str, _changed: int, _size: int) -> Content:
    path = Path(file)
    raw = read_json(path, _WAY_OUT, _without_masks)
    raw = raw if isinstance(raw, dict) else {}
    for key in ("images", "annotations"):
        if not isinstance(raw.get(key), list):
            raise DataError(path, f"not a COCO file: it has no list '{key}'", _WAY_OUT)
    names, images, sizes, by_id = _images_of(path, raw["images"])
    annotations = raw["annotations"]
    count = len(annotations)
    image_of = np.zeros(count, np.int64)
    keypoints, boxes = np.full((count, 2), _NONE), np.full((count, 4), _NONE)
    crowd = np.zeros(count, np.int64)
    category: list[Any] = [None] * count
    faults: dict[int, str] = {}
    for row, item in enumerate(annotations):
        image = item.get("image_id") if isinstance(item, dict) else None
        if not isinstance(image, int | str) or image not in by_id:
            raise DataError(path, f"an annotation of the image {image!r}, which the file does not list", _WAY_OUT, row)
        image_of[row] = by_id[image]
        named = item.get("category_id")
        category[row] = named if isinstance(named, int | str) else None
        crowd[row] = item.get("iscrowd") in (1, True)
        try:
            keypoints[row] = _keypoint(item.get("keypoints"))
            boxes[row] = _box(item.get("bbox"))
        except ValueError as error:
            faults[row] = str(error)
    return Content(
        names,
        images,
        sizes,
        _categories(raw.get("categories")),
        np.argsort(image_of, kind="stable"),
        np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=len(names)))]).astype(np.int64),
        keypoints,
        boxes,
        crowd,
        category,
        faults,
    )


def _without_masks(item: dict[str, Any]) -> dict[str, Any]:
    """An object of the file without its outlines, which are most of a large one."""
    item.pop("segmentation", None)
    return item


def _images_of(
    path: Path, items: list[Any]
) -> tuple[list[str], dict[str, int], list[tuple[int, int] | None], dict[int | str, int]]:
    """Names, positions by path, sizes, and positions by id."""
    names: list[str] = []
    sizes: list[tuple[int, int] | None] = []
    positions: dict[str, int] = {}
    by_id: dict[int | str, int] = {}
    for row, item in enumerate(items):
        name, key = (item.get("file_name"), item.get("id")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(key, int | str):
            raise DataError(path, "an entry of 'images' without id or file_name", _WAY_OUT, row)
        file = image_path(path, name, row)
        if file in positions or key in by_id:
            what = f"image {file}" if file in positions else f"id {key!r}"
            raise DataError(path, f"the {what} is in 'images' twice", "Merge the two entries.", row)
        positions[file] = by_id[key] = row
        names.append(name)
        sizes.append(claimed_size(item.get("height"), item.get("width")))
    return names, positions, sizes, by_id


def _categories(items: Any) -> dict[str, set[Any]]:
    result: dict[str, set[Any]] = {}
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("id"), int | str):
            result.setdefault(item["name"], set()).add(item["id"])
    return result


def _keypoint(value: Any) -> tuple[float, float]:
    """First visible keypoint, else the first labelled one, (x, y) in pixels; NaN where there is none."""
    if value is None:
        return _NONE, _NONE
    if not isinstance(value, list) or len(value) % 3:
        raise ValueError("its keypoints are not triples of numbers x, y, v")
    seen = value[2::3]  # the rest of a person's many keypoints is not looked at
    at = 3 * seen.index(2) if 2 in seen else 3 * seen.index(1) if 1 in seen else None
    if at is None:
        if any(as_number(visibility) is None for visibility in seen):
            raise ValueError("its keypoints are not triples of numbers x, y, v")
        return _NONE, _NONE
    numbers = _numbers(value[at : at + 2])
    if numbers is None:
        raise ValueError("its keypoints are not triples of numbers x, y, v")
    x, y = numbers
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"its keypoint ({x:g}, {y:g}) is not finite")
    return x, y


def _box(value: Any) -> tuple[float, float, float, float]:
    """Box (x0, y0, x1, y1) in pixels; NaN where there is none."""
    if value is None or value == []:
        return _NONE, _NONE, _NONE, _NONE
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 4:
        raise ValueError("its bbox is not four numbers x, y, w, h")
    x, y, w, h = numbers
    # Also of the sum of its edges, which gives the centre.
    if not (math.isfinite(2 * abs(x) + w) and math.isfinite(2 * abs(y) + h)) or w < 0 or h < 0:
        raise ValueError(f"its bbox [{x:g}, {y:g}, {w:g}, {h:g}] is not finite, or has a negative size")
    return x, y, x + w, y + h


def _numbers(value: Any) -> list[float] | None:
    """A list of JSON numbers as floats, None for anything else."""
    numbers = [as_number(item) for item in value] if isinstance(value, list) else [None]
    return [number for number in numbers if number is not None] if None not in numbers else None
