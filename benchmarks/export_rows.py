"""The COCO file row by row, as the export wrote it before it worked on columns: each mask is drawn and encoded anew.

The baseline of the export's benchmarks, and the plain path that its tests compare bytes with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from crowdmask import tables
from crowdmask.export import coco
from crowdmask.export.source import Batch
from crowdmask.masks import rle


def write(
    output: Path, batches: Sequence[Batch], dataset: str, category: str, settings: str, most: int | None = None
) -> dict[str, int]:
    """The same bytes as `coco.write_coco`; `most` = only so many annotations."""
    known: dict[tuple[str, str], tuple[int, int, int]] = {}
    with open(output, "w", encoding="utf-8", newline="\n") as file:
        head = coco.head(batches, dataset, category, settings)
        file.write("{\n")
        for key, value in head.items():
            file.write(f"{_line(key)}: {_line(value)},\n")
        images = _list(file, "images", _images(batches, known))
        file.write(",\n")
        annotations = _list(file, "annotations", islice(_annotations(batches, known), most))
        file.write("\n}\n")
    return {"images": images, "annotations": annotations}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _list(file: TextIO, name: str, entries: Iterator[dict[str, Any]]) -> int:
    file.write(f'"{name}": [')
    count = 0
    for entry in entries:
        file.write(",\n" if count else "\n")
        file.write(_line(entry))
        count += 1
    file.write("\n]" if count else "]")
    return count


def _images(batches: Sequence[Batch], known: dict[tuple[str, str], tuple[int, int, int]]) -> Iterator[dict[str, Any]]:
    for path, _ in batches:
        for row in tables.stream(path, "images", batch=64):
            known[row["split"], row["image_id"]] = len(known) + 1, row["height"], row["width"]
            yield {
                "id": len(known),
                "file_name": row["path"],
                "height": row["height"],
                "width": row["width"],
                "split": row["split"],
                "image_id": row["image_id"],
            }


def _annotations(
    batches: Sequence[Batch], known: dict[tuple[str, str], tuple[int, int, int]]
) -> Iterator[dict[str, Any]]:
    number = 0
    for _, path in batches:
        seen: set[tuple[int, int]] = set()
        for row in tables.stream(path, "masks"):
            image, height, width = known[row["split"], row["image_id"]]
            assert (image, row["point_id"]) not in seen
            seen.add((image, row["point_id"]))
            number += 1
            yield {"id": number, "image_id": image, **annotation(row, height, width)}


def annotation(row: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """COCO annotation, without ids, of one row of a masks table."""
    window = rle.Window.from_columns(row)
    assert min(row["x0"], row["y0"]) >= 0 and row["x0"] + row["w"] <= width and row["y0"] + row["h"] <= height
    window = window.tight()
    area = window.area
    assert area == row["area"]
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
