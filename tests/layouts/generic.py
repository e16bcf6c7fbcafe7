"""Tiny data sets in the generic formats: COCO, tables of points, labelme, label maps.

Each writer makes a data set in a folder and returns the truth: head points (x, y) of each image by `split/image_id`, as
the reader must give them with the settings in `Made.entry`.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
HEADS: dict[str, list[tuple[float, float]]] = {
    "b.jpg": [(3.5, 4.25), (20.0, 6.0)],
    "a.jpg": [(10.0, 11.0)],
    "empty.png": [],
}
"""Heads of each image file; the last image shows nobody."""

DIALECTS: dict[str, tuple[str, str, str]] = {
    "comma": (",", "utf-8", "."),
    "semicolon": (";", "utf-8", "."),
    "decimal comma": (";", "utf-8", ","),
    "tab": ("\t", "utf-8", "."),
    "byte order mark": (",", "utf-8-sig", "."),
}
"""Delimiter, encoding and decimal point of each dialect of CSV."""


@dataclass
class Made:
    """A data set that was written.

    Attributes:
        entry: Its entry of the configuration.
        points: float64 (N, 2) heads of each image by `split/image_id`, in the order of the list.
        boxes: float64 (N, 4) boxes (x0, y0, x1, y1), likewise, where all heads have one.
    """

    entry: dict[str, Any]
    points: dict[str, np.ndarray] = field(default_factory=dict)
    boxes: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(len(points) for points in self.points.values())


def save_image(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 20, 30)).save(path)


def as_array(points: Any) -> np.ndarray:
    return np.array(points, np.float64).reshape(-1, 2)


def _truth(entry: dict[str, Any], heads: dict[str, list[tuple[float, float]]], split: str = "all") -> Made:
    keys = {file: f"{split}/{file.rpartition('.')[0].replace('/', '-')}" for file in heads}
    return Made(entry, {keys[file]: as_array(heads[file]) for file in sorted(heads)})


def box_around(x: float, y: float) -> list[float]:
    """COCO box of 6 x 4 pixels whose centre is (x, y), where pixel centres are whole numbers."""
    return [x - 2.5, y - 1.5, 6, 4]


def coco_content(heads: dict[str, list[tuple[float, float]]], kind: str = "both") -> dict[str, Any]:
    """A COCO file of `keypoints`, `boxes`, or `both` (whose boxes are elsewhere, so that mistakes show)."""
    images = [{"id": 100 + k, "file_name": name, "height": HEIGHT, "width": WIDTH} for k, name in enumerate(heads)]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for x, y in heads[str(image["file_name"])]:
            item: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [[0, 0, 1, 0, 1, 1]],
            }
            if kind != "boxes":
                item |= {"keypoints": [0, 0, 0, 1, 1, 1, x, y, 2], "num_keypoints": 2}
            if kind != "keypoints":
                item["bbox"] = box_around(x, y) if kind == "boxes" else [0, 0, 10, 8]
            annotations.append(item)
    return {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "head"}]}


def coco(root: Path, kind: str = "both", images: str = "images", file: str = "annotations.json") -> Made:
    """One COCO file."""
    for name in HEADS:
        save_image(root / images / name)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(coco_content(HEADS, kind)), encoding="utf-8")
    entry = {"format": "coco", "root": str(root), "images": images, "annotations": {"all": file}}
    made = _truth(entry, HEADS)
    if kind == "boxes":
        corner = [-2.5, -1.5]
        made.boxes = {
            key: np.hstack([points + corner, points + corner + [6, 4]]) for key, points in made.points.items()
        }
    return made


def coco_splits(root: Path) -> Made:
    """`annotations/instances_{train,val}.json`, images in folders below `images`."""
    made = Made({"format": "coco", "root": str(root), "annotations": {}})
    for split in ("train", "val"):
        heads = {f"{split}/{name}": points for name, points in HEADS.items()}
        for name in heads:
            save_image(root / "images" / name)
        file = f"annotations/instances_{split}.json"
        (root / "annotations").mkdir(exist_ok=True)
        (root / file).write_text(json.dumps(coco_content(heads)), encoding="utf-8")
        made.entry["annotations"][split] = file
        made.points |= _truth({}, heads, split).points
    return made


def points_csv(root: Path, dialect: str = "comma", split: str | None = None) -> Made:
    """A CSV file with a column more than needed; `split` names the column of the split."""
    delimiter, encoding, decimal = DIALECTS[dialect]
    for name in HEADS:
        save_image(root / "images" / name)
    with (root / "points.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["image", "note", "x", "y", *([split] if split else [])])
        for name, points in HEADS.items():
            for x, y in points:
                numbers = [str(value).replace(".", decimal) for value in (x, y)]
                writer.writerow([name, "one; two, three", *numbers, *(["train"] if split else [])])
        if split:
            writer.writerow(["empty.png", "", "", "", "test"])
    made = _truth({"format": "points", "root": str(root)}, HEADS)
    if split:
        made.entry["split"] = split
        splits = {"all/empty": "test/empty"}
        made.points = dict(
            sorted((splits.get(key, key.replace("all/", "train/")), value) for key, value in made.points.items())
        )
    return made


def points_parquet(root: Path, images: str = "images") -> Made:
    """A Parquet file with its own names of columns; names of images as categories, as pandas writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in HEADS:
        save_image(root / images / name)
    rows = [(name, x, y) for name, points in HEADS.items() for x, y in points]
    table = pa.table(
        {
            "file_name": pa.array([row[0] for row in rows]).dictionary_encode(),
            "px": pa.array([row[1] for row in rows], pa.float32()),
            "py": pa.array([row[2] for row in rows]),
        }
    )
    pq.write_table(table, root / "heads.parquet")
    entry = {"format": "points", "root": str(root), "images": images, "table": "heads.parquet"}
    return _truth(entry | {"image": "file_name", "x": "px", "y": "py"}, HEADS)


def labelme_content(points: list[tuple[float, float]]) -> dict[str, Any]:
    """A labelme file that marks heads as point, rectangle, polygon and circle in turn, and one thing that is no head.

    `imagePath` leads elsewhere: it must not be followed.
    """
    shapes: list[dict[str, Any]] = [{"label": "flag", "shape_type": "linestrip", "points": [[0, 0], [5, 5], [9, 0]]}]
    for k, (x, y) in enumerate(points):
        kind = ("point", "rectangle", "polygon", "circle")[k % 4]
        corners = {
            "point": [[x, y]],
            "rectangle": [[x + 2, y + 1], [x - 2, y - 1]],
            "polygon": [[x - 2, y - 1], [x + 2, y - 1], [x + 2, y + 1], [x, y + 1], [x - 2, y + 1]],
            "circle": [[x, y], [x + 3, y]],
        }[kind]
        shapes.append({"label": "head", "shape_type": kind, "points": corners, "flags": {}})
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "../../../etc/passwd",
        "imageData": "QUJD" * 100,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


LABELME_HEADS = [(3.5, 4.25), (20.0, 6.0), (12.0, 8.0), (25.0, 16.0)]


def labelme(root: Path, annotations: str | None = None, splits: tuple[str, ...] = ("",)) -> Made:
    """labelme files beside the images, or in the folder `annotations` beside `images`."""
    made = Made({"format": "labelme", "root": str(root), "label": "head"})
    for split in splits:
        for name, points in (("a.jpg", LABELME_HEADS), ("b.jpg", LABELME_HEADS[:2]), ("empty.png", [])):
            base = root / split
            image = base / "images" / name if annotations else base / name
            save_image(image)
            folder = base / annotations if annotations else base
            folder.mkdir(exist_ok=True)
            stem = name.rpartition(".")[0]
            (folder / f"{stem}.json").write_text(json.dumps(labelme_content(points)), encoding="utf-8")
            made.points[f"{split or 'all'}/{stem}"] = as_array(points)
    return made


def label_map(root: Path) -> Made:
    """Two images with label maps of two instances of 3 x 3 pixels."""
    made = Made({"format": "label_map", "root": str(root)})
    for name in ("a", "b"):
        save_image(root / "images" / f"{name}.png")
        labels = np.zeros((HEIGHT, WIDTH), np.uint16)
        labels[4:7, 10:13], labels[15:18, 20:23] = 300, 7
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")
        made.points[f"all/{name}"] = as_array([(21, 16), (11, 5)])
    return made
