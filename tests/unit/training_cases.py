"""Small data sets with their tables, as the stages write them, for tests of the data path of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crowdmask import tables
from crowdmask.config.crops import WorkingCopy
from crowdmask.datasets.stage import outside_image
from crowdmask.files import sha256
from crowdmask.masks import rle
from crowdmask.training.source import Sample, Source

Row = dict[str, Any]


def disc(x: float, y: float, radius: float, height: int, width: int) -> rle.Window:
    """Pixels within `radius` of a point."""
    ys, xs = np.mgrid[:height, :width]
    return rle.Window(0, 0, (xs - x) ** 2 + (ys - y) ** 2 <= radius**2).tight()


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_row(root: Path, name: str, pixels: np.ndarray, points: Any, boxes: Any = None, split: str = "train") -> Row:
    """Row of the images table; the image file is written."""
    path = root / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    points = np.asarray(points, float).reshape(-1, 2)
    height, width = pixels.shape[:2]
    outside = outside_image(points, height, width).tolist()
    rows = []
    for k, (x, y) in enumerate(points.tolist()):
        box = tables.NO_BOX if boxes is None or boxes[k] is None else dict(zip(tables.NO_BOX, boxes[k], strict=True))
        rows.append({"point_id": k, "x": x, "y": y, "outside": outside[k], **box})
    mode = "RGB" if pixels.ndim == 3 else "L"
    size = {"height": height, "width": width, "mode": mode, "sha256": sha256(path)}
    return {"split": split, "image_id": name, "path": path.name, **size, "points": rows}


def mask_row(image: Row, point_id: int, x: float, y: float, window: rle.Window, source: str = "sam") -> Row:
    key = {"split": image["split"], "image_id": image["image_id"], "point_id": point_id, "x": x, "y": y}
    flags = {"source": source, "verified": False, "author": None, "score": None, "radius_px": 2.0, "lost_px": 0}
    return {**key, **flags, "area": window.area, "sha256": rle.digest(window), **window.columns()}


def mask_rows(image: Row, radius: float = 2.5) -> list[Row]:
    """A disc for each point, which may overlap."""
    made = []
    for point in image["points"]:
        window = disc(point["x"], point["y"], radius, image["height"], image["width"])
        made.append(mask_row(image, point["point_id"], point["x"], point["y"], window))
    return made


def edit_row(image: Row, action: str, point_id: int | None, outcome: str = "applied") -> Row:
    key = {"split": image["split"], "image_id": image["image_id"], "point_id": point_id, "row": 0}
    return {**key, "action": action, "outcome": outcome, "reason": "", "pixels": 0, "author": "ada", "time": "2025"}


def write(path: Path, table: str, rows: list[Row]) -> Path:
    tables.write(path, table, rows, version=1, settings="{}")
    return path


class Project:
    """Tables of a few images in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[Row] = []
        self.masks: list[Row] = []
        self.edits: list[Row] = []

    def add(self, name: str, pixels: np.ndarray, points: Any, radius: float = 2.5, boxes: Any = None) -> Row:
        row = image_row(self.root, name, pixels, points, boxes)
        self.images.append(row)
        self.masks += mask_rows(row, radius)
        return row

    def source(self, supervision: Any = "masks", **changed: Any) -> Source:
        """What training reads; tables are written anew."""
        options: dict[str, Any] = {
            "images": [write(self.root / "t" / "images.parquet", "images", self.images)],
            "masks": [write(self.root / "t" / "masks.parquet", "masks", self.masks)],
            "edits": [write(self.root / "t" / "edits.parquet", "edits", self.edits)],
            "size": WorkingCopy(max_side=None),
            "cache": self.root / "cache",
            "wanted": [(row["split"], row["image_id"]) for row in self.images],
            "exif": "stored",
            **changed,
        }
        wanted, exif = options.pop("wanted"), options.pop("exif")
        return Source("crowd", wanted, self.root, exif, supervision, **options)


def sample(height: int, width: int, points: Any, radius: float | None = 2.5, seed: int = 0) -> Sample:
    """An image in memory with a disc around each point; of overlapping discs the nearest point has the pixel."""
    points = np.asarray(points, float).reshape(-1, 2)
    labels = None
    if radius is not None:
        labels = np.zeros((height, width), np.int32)
        if len(points):
            ys, xs = np.mgrid[:height, :width]
            distance = (xs[:, :, None] - points[:, 0]) ** 2 + (ys[:, :, None] - points[:, 1]) ** 2
            nearest = distance.argmin(2)
            labels = np.where(distance.min(2) <= radius**2, nearest + 1, 0).astype(np.int32)
    return Sample(f"train/{seed}", texture(height, width, seed), points, labels)
