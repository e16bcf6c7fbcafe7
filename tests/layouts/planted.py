"""A data set with every defect that the audit knows, one of each, in the layout of JHU-CROWD++."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.jhu import JhuReader

GRID = [(20.0 + 30 * k, 20.0 + 40 * j) for j in range(3) for k in range(4)]
"""Twelve places on a picture of 160 x 120, far from each other and from its edge."""


def picture(seed: int, height: int = 120, width: int = 160) -> Image.Image:
    """Coloured noise in blocks, different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return Image.fromarray(small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width])


class Planter:
    """Writer of a data set in the layout of JHU-CROWD++."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seed = 0

    def image(self, name: str, image: Image.Image | None = None, split: str = "train", **options: Any) -> Path:
        self.seed += 1
        path = self.root / split / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image or picture(self.seed)).save(path, **options)
        return path

    def text(self, name: str, points: Any = GRID, size: float = 8, split: str = "train", more: str = "") -> None:
        path = self.root / split / "gt" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{x} {y} {size} {size} 1 0\n" for x, y in points) + more)

    def both(self, name: str, image: Image.Image | None = None, points: Any = GRID, **options: Any) -> Path:
        split = options.pop("split", "train")
        self.text(name, points, options.pop("size", 8), split)
        return self.image(f"{name}.png", image, split, **options)

    def declare(self, split: str = "train", **counts: int) -> None:
        lines = [f"{name},{count},street,0,0\n" for name, count in counts.items()]
        (self.root / split / "image_labels.txt").write_text("".join(lines))


class Stub(JhuReader):
    """JHU-CROWD++ with boxes only where they are the matter, and with what its files cannot hold."""

    def read_annotation(self, ref: ImageRef) -> Annotation:
        found = super().read_annotation(ref)
        boxes = found.boxes_xyxy if ref.image_id.startswith("box") else None
        if ref.image_id == "box-count":
            boxes = boxes[:-1]
        if ref.image_id == "box-astray":
            boxes = boxes.copy()
            boxes[5] += 20
        size = (160, 120) if ref.image_id == "size" else (120, 160) if ref.image_id == "fine-0" else None
        return dataclasses.replace(found, boxes_xyxy=boxes, size_hw=size)


def plant(root: Path) -> set[tuple[str, str, str, tuple[int, ...]]]:
    """Write a data set with every defect once; returns (kind, split, image id, rows) of all that is to be found."""
    new = Planter(root)
    expected: set[tuple[str, str, str, tuple[int, ...]]] = set()

    def expect(kind: str, image_id: str, *rows: int, split: str = "train") -> None:
        expected.add((kind, split, image_id, rows))

    for k in range(8):
        new.both(f"fine-{k}")
    # the list
    new.image("bare.png")
    expect("missing_annotation", "bare")
    new.text("orphan")
    expect("orphan_annotation", "orphan")
    new.both("twofold")
    new.image("twofold.jpg")
    expect("duplicate_id", "twofold")
    new.both("bad..id")
    expect("unsafe_id", "bad..id")
    new.both("CASE")
    new.both("case")
    expect("similar_ids", "case")
    new.both("left")
    expect("skipped", "left")
    expected.add(("unknown_skip", "", "", ()))
    # the images
    new.text("link")
    (root / "train/images/link.png").symlink_to(root / "nowhere.png")
    expect("broken_link", "link")
    new.both("empty").write_bytes(b"")
    expect("empty_file", "empty")
    new.both("garbage").write_bytes(b"not an image" * 9)
    expect("unreadable_image", "garbage")
    cut = new.both("cut")
    cut.write_bytes(cut.read_bytes()[:-400])
    expect("truncated_image", "cut")
    new.both("size")
    expect("size_mismatch", "size")
    exif = Image.Exif()
    exif[0x0112] = 6
    new.both("turned", exif=exif)
    expect("exif_rotation", "turned")
    new.both("grey", picture(900).convert("L"))
    expect("colour_mode", "grey")
    new.both("flat", Image.new("RGB", (160, 120), (30, 90, 30)))
    expect("flat_image", "flat")
    letterbox = picture(901)
    letterbox.paste((0, 0, 0), (0, 0, 160, 12))
    new.both("bars", letterbox, [(50.0, 5.0), *GRID[1:]])
    expect("padding", "bars")
    expect("on_padding", "bars", 0)
    new.both("twin", picture(1), split="val")
    expect("duplicate_image", "twin", split="val")
    near = np.asarray(picture(2)).astype(int) + np.random.default_rng(0).integers(-2, 3, (120, 160, 3))
    new.both("near", Image.fromarray(near.clip(0, 255).astype(np.uint8)))
    expect("near_duplicate_image", "near")
    # the annotations
    new.both("words")
    (root / "train/gt/words.txt").write_text("1 2 three\n")
    expect("unreadable_annotation", "words", 0)
    new.both("nan", points=[*GRID[:3], (float("nan"), 4)])
    expect("not_finite", "nan", 3)
    new.both("nobody", points=[])
    expect("no_points", "nobody")
    new.both("declared")
    expect("declared_differs", "declared")
    new.both("claimed", points=[])
    expect("empty_but_declared", "claimed")
    new.declare(declared=13, claimed=7, **{"fine-1": 12})
    new.both("crowded", picture(902, 9, 9), [(x, y) for y in range(0, 9, 2) for x in range(0, 9, 2)], split="val")
    expect("absurd_count", "crowded", split="val")
    new.both("again", points=[*GRID, GRID[3]])
    expect("duplicate_points", "again", 12)
    new.both("close", points=[*GRID, (GRID[3][0] + 1, GRID[3][1] + 1)])
    expect("close_points", "close", 12)
    new.both("away", points=[*GRID[:4], (300.0, 20.0), *GRID[5:]])
    expect("outside", "away", 4)
    new.both("edge", points=[*GRID, (160.0, 60.0)])
    expect("beyond_edge", "edge", 12)
    swapped = [(y, x + 45) for x, y in GRID]
    new.both("swapped", points=swapped)
    expect("swapped_axes", "swapped", *[row for row, (_, y) in enumerate(swapped) if y >= 119.5])
    # the boxes
    new.both("box-none", points=GRID[:-1])
    new.text("box-none", GRID[:-1], more="110 100 0 8 1 0\n")
    expect("box_degenerate", "box-none", 11)
    new.both("box-away")
    new.text("box-away", GRID[:-1], more="160.2 60 4 8 1 0\n")
    expected |= {("box_outside", "train", "box-away", (11,)), ("beyond_edge", "train", "box-away", (11,))}
    new.both("box-astray")
    expect("box_without_point", "box-astray", 5)
    new.both("box-huge")
    new.text("box-huge", GRID[:-1], more="110 100 150 119 1 0\n")
    expect("box_absurd", "box-huge", 11)
    new.both("box-count")
    expect("box_count", "box-count")
    # the set
    new.both("dense", points=[(5.0 + 10 * k, 5.0 + 10 * j) for j in range(11) for k in range(15)])
    expect("density_outlier", "dense")
    return expected


SKIP = {"skip_images": ["train/left", "train/ghost"]}


def entry(root: Path, kind: str = "jhu", **settings: Any) -> Any:
    return config.load({"datasets": {"mine": {"format": kind, "root": str(root), **settings}}}).datasets["mine"]


def small(root: Path, count: int = 5) -> Path:
    """A sound data set, but for two points on one spot in the first image."""
    new = Planter(root)
    for k in range(count):
        new.both(f"{k:04d}", points=[*GRID, GRID[0]] if k == 0 else GRID)
    return root
