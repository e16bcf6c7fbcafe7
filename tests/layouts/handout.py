"""A small data set of odd image files with its tables, as the stages make them, for tests of handing out masks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crowdmask import cli_people, tables
from crowdmask.corrections import merge
from crowdmask.corrections.exchange import record as records
from crowdmask.corrections.exporting import export
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import batches_of
from crowdmask.datasets.stage import collect
from crowdmask.masks import rle

H, W = 40, 60
TIME = "2025-01-02T03:04:05Z"
WHO = {"author": "ada", "time": TIME}
FORMS = (
    "rgb.png",
    "photo.jpg",
    "turned.jpg",
    "grey.png",
    "alpha.png",
    "deep.png",
    "named.jpg",
    "paper.tif",
    *("more.webp", "keyed.png"),
)
"""Image files of the split `test`; `train` has one, of the same id as one of these."""
PLAIN = ("rgb.png", "photo.jpg", "grey.png", "more.webp")


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)


def save_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = [Image.fromarray(pixels(i)) for i in range(len(FORMS))]
    picture[0].save(folder / "rgb.png")
    picture[1].save(folder / "photo.jpg", quality=80)
    picture[2].save(folder / "turned.jpg", exif=exif)
    picture[3].convert("L").save(folder / "grey.png")
    picture[4].putalpha(99)
    picture[4].save(folder / "alpha.png")
    cv2.imwrite(str(folder / "deep.png"), pixels(5).astype(np.uint16) * 257)
    picture[6].save(folder / "named.jpg", format="PNG")  # a PNG by content
    picture[7].save(folder / "paper.tif")
    picture[8].save(folder / "more.webp", lossless=True)
    picture[9].save(folder / "keyed.png", transparency=tuple(pixels(9)[0, 0].tolist()))  # one colour is transparent
    (folder / "sub").mkdir()
    picture[0].save(folder / "sub" / "rgb.png")


POINTS = [(5.0, 5.0), (20.2, 6), (50, 35), (-9, 30), (30, 20)]
"""Heads of each image; the fourth was annotated outside of it."""


def mask_row(key: tuple[str, str], point_id: int, x: float, y: float, size: tuple[int, int] = (H, W)) -> dict:
    """A mask of 3 x 3 pixels without one, at the point or as near as the image allows."""
    mask = np.zeros(size, bool)
    left, top = min(max(int(x) - 1, 0), size[1] - 3), min(int(y) - 1, size[0] - 3)
    mask[top : top + 3, left : left + 3] = True
    mask[top, left] = False
    window = rle.Window(0, 0, mask).tight()
    own = {"split": key[0], "image_id": key[1], "point_id": point_id, "x": float(x), "y": float(y)}
    flags = {"source": "sam", "verified": False, "author": None, "score": 0.5, "radius_px": 2.0, "lost_px": 0}
    return {**own, **flags, "area": window.area, "sha256": rle.digest(window), **window.columns()}


def make(root: Path) -> None:
    """Images, points and configuration."""
    save_images(root / "data" / "images")
    lines = ["image,x,y,set"]
    for name in [*FORMS, "sub/rgb.png"]:
        lines += [f"{name},{x},{y},{'train' if '/' in name else 'test'}" for x, y in POINTS]
    (root / "data" / "points.csv").write_text("\n".join(lines), encoding="utf-8")
    entry = {"format": "points", "root": "data", "split": "set"}
    text = json.dumps({"batches": 1, "datasets": {"crowd": entry, "other": {**entry, "exif": "apply"}}})
    (root / "config.yaml").write_text(text, encoding="utf-8")


def config():
    return cli_people.read_config([])


def batches(name: str) -> dict:
    made = config()
    return batches_of(reader_for(name, made.datasets[name], "results").list_images(), made.batches)


def table(name: str, stage: str, split: str, batch: str) -> Path:
    return Path("results", name, stage, split, f"{batch}.parquet")


def make_tables() -> None:
    for name in ("crowd", "other"):
        entry = config().datasets[name]
        for key, refs in batches(name).items():
            rows = list(collect(reader_for(name, entry, "results"), refs, entry.exif))
            tables.write(table(name, "datasets", *key), "images", rows, version=2, settings="{}")
            masks = [
                mask_row((row["split"], row["image_id"]), i, *point, (row["height"], row["width"]))
                for row in rows
                for i, point in enumerate(POINTS)
            ]
            tables.write(table(name, "exclude", *key), "masks", masks, version=2, settings="{}")


def run_merge() -> None:
    for name in ("crowd", "other"):
        for key, refs in batches(name).items():
            edits = [path for ref in refs if (path := edit_path(name, ref.split, ref.image_id)).is_file()]
            paths = [table(name, stage, *key) for stage in ("exclude", "datasets")]
            outputs = [table(name, stage, *key) for stage in ("merge", "edits")]
            settings = json.dumps({"version": 2, "stale": "report", "disjoint": True})
            merge.run(*paths, edits, *outputs, "report", True, settings)


def edit_path(name: str, split: str, image_id: str) -> Path:
    return Path("corrections", name, split, f"{image_id}.json")


def edit(split: str, image_id: str, *edits: dict, name: str = "crowd") -> None:
    image = {"split": split, "image_id": image_id, "height": H, "width": W}
    path = edit_path(name, split, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1, "image": image, "edits": edits}), encoding="utf-8")


CORNER = {"polygons": [[40, 2, 50, 2, 50, 9, 40, 9]]}


def written() -> set[Path]:
    """All files that an export may have written."""
    return {path for folder in ("results/crowd/corrections", "corrections", "out") for path in Path(folder).rglob("*")}


def fails(error: type[BaseException], words: str, **options) -> str:
    """Message of an export that must fail and leave nothing."""
    before = written()
    with pytest.raises(error, match=words) as caught:
        export(config(), "crowd", "cvat", **options)
    assert written() == before
    return str(caught.value)


def write(folder: Path, record: records.Record) -> list[Path]:
    """What the module of a tool does."""
    assert all((folder / "images" / task.name).is_file() for task in record.tasks)
    path = folder / "sub" / "masks.json"
    path.parent.mkdir()
    path.write_text(json.dumps([task.name for task in record.tasks]), encoding="utf-8")
    return [path]
