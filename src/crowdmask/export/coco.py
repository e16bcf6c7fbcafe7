"""Masks as one COCO file, written as a stream: what is in memory follows one batch, not the data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.masks import rle

VERSION = 2
"""Raised when the file's content changes for the same tables."""

Batch = tuple[str | Path, str | Path]
"""Paths of the `images` and the `masks` table of one batch."""

_AGAIN = "Delete it and run again."


def write_coco(output: str | Path, batches: Sequence[Batch], dataset: str, category: str, settings: str) -> dict:
    """Write a COCO file that pycocotools and CVAT open.

    Every row of a masks table becomes one annotation: compressed RLE of the whole image with text counts, `iscrowd` 0,
    `area` and `bbox` of the mask itself, the head point (clipped to the image) as its only keypoint. Our own keys:
    `split` and `image_id` of images; `point_id`, `point` (x, y as annotated), `source`, `score` (left out where there
    is none), `verified`, `author` (likewise) and `radius_px` of
    annotations. Ids count from 1, images and masks in the order of the batches
    and of their rows. One image or annotation a line; the same tables give the same bytes.

    Args:
        output: File to write.
        batches: Tables of every batch, in the order wanted.
        dataset: Name of the data set.
        category: Name of the only category.
        settings: Canonical JSON of the export settings.

    Returns:
        Numbers of `images` and `annotations` written.

    Raises:
        DataError: a table is missing or damaged, an image comes twice, a mask belongs to no image of its batch, leaves
            its image or comes twice, or its stored area is not that of its pixels.
    """
    sizes: list[tuple[Any, dict[tuple[str, str], tuple[int, int, int]]]] = []
    with replacing(output) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        head = {
            "info": _info(batches, dataset, settings),
            "licenses": [],
            "categories": [
                {"id": 1, "name": category, "supercategory": "person", "keypoints": ["head"], "skeleton": []}
            ],
        }
        file.write("{\n")
        for key, value in head.items():
            file.write(f"{_line(key)}: {_line(value)},\n")
        images = _write_list(file, "images", _images(batches, sizes))
        file.write(",\n")
        annotations = _write_list(file, "annotations", _annotations(batches, sizes))
        file.write("\n}\n")
    return {"images": images, "annotations": annotations}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_list(file: TextIO, name: str, lines: Iterable[dict[str, Any]]) -> int:
    file.write(f'"{name}": [')
    count = 0
    for entry in lines:
        file.write(",\n" if count else "\n")
        file.write(_line(entry))
        count += 1
    file.write("\n]" if count else "]")
    return count


def _info(batches: Sequence[Batch], dataset: str, settings: str) -> dict[str, Any]:
    """What made the file; without a time, so that equal input gives equal bytes."""
    stages: dict[str, list[dict[str, Any]]] = {"images": [], "masks": []}
    for batch in batches:
        for stage, path in zip(stages, batch, strict=True):
            _, number, values = tables.metadata(path)
            entry = {"version": number, "settings": values}
            if entry not in stages[stage]:
                stages[stage].append(entry)
    return {
        "description": f"Head masks of {dataset} made by crowdmask from annotated points",
        "version": version("crowdmask"),
        "dataset": dataset,
        "export": {"version": VERSION, "settings": json.loads(settings)},
        "stages": stages,
    }


def _images(batches: Sequence[Batch], sizes: list) -> Iterator[dict[str, Any]]:
    """Image entries; `sizes` receives, batch by batch, the id, height and width of each image."""
    seen: set[tuple[str, str]] = set()
    for path, _ in batches:
        known: dict[tuple[str, str], tuple[int, int, int]] = {}
        for row in tables.stream(path, "images", batch=64):
            key = row["split"], row["image_id"]
            if key in seen:
                raise DataError(path, f"image {key[0]}/{key[1]} is in the data set twice", _AGAIN)
            seen.add(key)
            known[key] = len(seen), row["height"], row["width"]
            yield {
                "id": len(seen),
                "file_name": row["path"],
                "height": row["height"],
                "width": row["width"],
                "split": row["split"],
                "image_id": row["image_id"],
            }
        sizes.append(known)


def _annotations(batches: Sequence[Batch], sizes: list) -> Iterator[dict[str, Any]]:
    number = 0
    for (_, path), known in zip(batches, sizes, strict=True):
        seen: set[tuple[int, int]] = set()
        for index, row in enumerate(tables.stream(path, "masks")):
            name = f"point {row['point_id']} of image {row['split']}/{row['image_id']}"
            image = known.get((row["split"], row["image_id"]))
            if image is None:
                raise DataError(path, f"{name}: the image is not in the images table", _AGAIN, row=index)
            if (image[0], row["point_id"]) in seen:
                raise DataError(path, f"{name} has two masks", _AGAIN, row=index)
            seen.add((image[0], row["point_id"]))
            number += 1
            try:
                entry = annotation(row, *image[1:])
            except ValueError as error:
                raise DataError(path, f"{name}: {error}", _AGAIN, row=index) from None
            yield {"id": number, "image_id": image[0], **entry}


def annotation(row: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """COCO annotation, without ids, of one row of a masks table.

    Args:
        row: Columns of `tables.MASKS`.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: the window leaves the image, or `area` is not the number of mask pixels.
    """
    window = rle.Window.from_columns(row)
    if min(row["x0"], row["y0"]) < 0 or row["x0"] + row["w"] > width or row["y0"] + row["h"] > height:
        raise ValueError(f"its mask leaves the image of {width} x {height} pixels")
    window = window.tight()
    area = window.area
    if area != row["area"]:
        raise ValueError(f"its mask has {area} pixels, its row says {row['area']}")
    h, w = window.mask.shape
    x, y = row["x"], row["y"]
    entry: dict[str, Any] = {
        "category_id": 1,
        "segmentation": {"size": [height, width], "counts": rle.full_counts(window, height, width).decode("ascii")},
        "area": area,
        "bbox": [window.x0, window.y0, w, h] if area else [0, 0, 0, 0],
        "iscrowd": 0,
        "keypoints": [min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0), 2],
        "num_keypoints": 1,
        "point_id": row["point_id"],
        "point": [x, y],
        "source": row["source"],
        "verified": row["verified"],
        "radius_px": round(row["radius_px"], 4),
    }
    if row["score"] is not None:
        entry["score"] = round(row["score"], 6)
    if row["author"] is not None:
        entry["author"] = row["author"]
    return entry
