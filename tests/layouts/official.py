"""Tiny data sets in the layouts and file formats of the official downloads.

Each function writes one and returns its truth by `split/id`, in the order in which a reader lists it. What is drawn is
texture only; nothing is taken from a real data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image


@dataclass(frozen=True)
class Truth:
    """What was written of an image: points and boxes in pixels, and what the files say beside them."""

    image: str
    annotation: str
    points_xy: np.ndarray
    boxes_xyxy: np.ndarray | None = None
    declared: int | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def draw(path: Path, rng: np.random.Generator, mode: str = "RGB") -> tuple[int, int]:
    """Write an image of 96 to 160 pixels a side, smooth colours with noise and blobs; returns height and width."""
    height, width = (int(side) for side in rng.integers(96, 161, 2))
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    pixels = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (height, width, 3), dtype=np.int16)
    rows, columns = np.ogrid[:height, :width]
    for y, x in rng.uniform(0, (height, width), (12, 2)):
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < 20] = rng.integers(20, 236, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 90} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path, **options)
    return height, width


def heads(rng: np.random.Generator, height: int, width: int, fewest: int = 4, most: int = 12) -> np.ndarray:
    """Head points inside an image, float64 (N, 2), none twice, with the four decimals of clicked ones."""
    count = int(rng.integers(fewest, most + 1))
    return np.round(rng.uniform((4, 4), (width - 5, height - 5), (count, 2)), 4)


def save_mat(path: Path, compressed: bool, **variables: Any) -> None:
    """A MATLAB file of version 5, compressed (version 7) or not (version 6)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=compressed)


def image_info(points: np.ndarray) -> np.ndarray:
    """ShanghaiTech's nesting: a cell of one structure with the fields location and number."""
    structure = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    structure[0, 0] = (points, np.array([[len(points)]], np.uint16))
    cell = np.empty((1, 1), object)
    cell[0, 0] = structure
    return cell


def shanghaitech(
    root: Path, rng: np.random.Generator, images: int = 3, spelling: str = "ground-truth"
) -> dict[str, Truth]:
    """One part of ShanghaiTech; the first training image is grey, as some of part A are."""
    truth = {}
    for split in ("test", "train"):
        for number in range(1, images + 1):
            base, image_id = f"{split}_data", f"IMG_{number}"
            image, annotation = f"{base}/images/{image_id}.jpg", f"{base}/{spelling}/GT_{image_id}.mat"
            size = draw(root / image, rng, "L" if split == "train" and number == 1 else "RGB")
            points = heads(rng, *size)
            save_mat(root / annotation, True, image_info=image_info(points))
            truth[f"{split}/{image_id}"] = Truth(image, annotation, points, declared=len(points))
    return truth


def ucf_qnrf(root: Path, rng: np.random.Generator, images: int = 3) -> dict[str, Truth]:
    """UCF-QNRF; the same ids in both splits, as in the original."""
    truth = {}
    for split in ("test", "train"):
        for number in range(1, images + 1):
            image_id = f"img_{number:04d}"
            image, annotation = (f"{split.title()}/{image_id}{end}" for end in (".jpg", "_ann.mat"))
            points = heads(rng, *draw(root / image, rng))
            save_mat(root / annotation, True, annPoints=points)
            truth[f"{split}/{image_id}"] = Truth(image, annotation, points)
    return truth


def ucf_cc_50(root: Path, rng: np.random.Generator, images: int = 3) -> dict[str, Truth]:
    """UCF_CC_50: one folder, grey images."""
    truth = {}
    for number in range(1, images + 1):
        points = heads(rng, *draw(root / f"{number}.jpg", rng, "L"))
        save_mat(root / f"{number}_ann.mat", False, annPoints=points)
        truth[f"all/{number}"] = Truth(f"{number}.jpg", f"{number}_ann.mat", points)
    return truth


def jhu(root: Path, rng: np.random.Generator, images: int = 3) -> dict[str, Truth]:
    """JHU-CROWD++; the last image of each split is a distractor without people, whose text file is empty."""
    truth = {}
    number = 0
    for split in ("test", "train", "val"):
        listed = []
        for index in range(images):
            number += 1
            image_id = f"{number:04d}"
            image, annotation = f"{split}/images/{image_id}.jpg", f"{split}/gt/{image_id}.txt"
            size = draw(root / image, rng)
            distractor = index == images - 1
            points = np.zeros((0, 2)) if distractor else np.unique(heads(rng, *size).round(), axis=0)
            rng.shuffle(points)
            sizes = rng.integers(5, 20, points.shape).astype(float)
            levels = np.stack([rng.integers(1, 4, len(points)), rng.integers(0, 2, len(points))], axis=1)
            rows = np.hstack([points, sizes, levels]).astype(int)
            (root / annotation).parent.mkdir(parents=True, exist_ok=True)
            (root / annotation).write_text("".join(" ".join(map(str, row)) + " \n" for row in rows.tolist()))
            scene, weather = ["street", "stadium", "rally"][index % 3], int(rng.integers(0, 4))
            listed.append(f"{image_id},{len(points)},{scene},{weather},{int(distractor)}\n")
            truth[f"{split}/{image_id}"] = Truth(
                image,
                annotation,
                points,
                np.hstack([points - sizes / 2, points + sizes / 2]),
                len(points),
                {"occlusion": levels[:, 0], "blur": levels[:, 1]},
                {"scene": scene, "weather": str(weather), "distractor": str(int(distractor))},
            )
        (root / split / "image_labels.txt").write_text("".join(listed))
    return truth


def nwpu(root: Path, rng: np.random.Generator, images: int = 3) -> tuple[dict[str, Truth], dict[str, str]]:
    """NWPU-Crowd: five parts, JSON and MATLAB annotations, lists; published numbers; the last of val has no people.

    Returns:
        Truth of train and val, and the image files of test, which has no annotation, by `test/id`.
    """
    truth: dict[str, Truth] = {}
    unlabelled: dict[str, str] = {}
    place = 0
    for split, first in (("test", 3610), ("train", 1), ("val", 3110)):
        listed = []
        for number in range(first, first + images):
            image_id = f"{number:04d}"
            image = f"images_part{place % 5 + 1}/{image_id}.jpg"
            place += 1
            size = draw(root / image, rng)
            level, light = (int(value) for value in rng.integers(0, 3, 2))
            if split == "test":
                listed.append(f"{image_id}\n")
                unlabelled[f"test/{image_id}"] = image
                continue
            listed.append(f"{image_id} {level} {light}\n")
            nobody = split == "val" and number == first + images - 1
            points = np.zeros((0, 2)) if nobody else heads(rng, *size)
            sides = np.round(rng.uniform(2, 9, (len(points), 4)), 4)
            boxes = np.hstack([points, points]) + sides * (-1, -1, 1, 1)
            labels = {"level": str(level), "illumination": str(light), "img_id": f"{image_id}.jpg"}
            content = {"img_id": f"{image_id}.jpg", "human_num": len(points)}
            (root / "jsons").mkdir(exist_ok=True)
            (root / "jsons" / f"{image_id}.json").write_text(
                json.dumps({**content, "points": points.tolist(), "boxes": boxes.tolist()})
            )
            empty = np.zeros((0, 0))
            save_mat(
                root / "mats" / f"{image_id}.mat",
                True,
                annPoints=points if len(points) else empty,
                annBoxes=boxes if len(points) else empty,
            )
            truth[f"{split}/{image_id}"] = Truth(
                image, f"jsons/{image_id}.json", points, boxes, len(points), labels=labels
            )
        (root / f"{split}.txt").write_text("".join(listed))
    return truth, unlabelled


def via(file_name: str, size: int, boxes_xywh: list[list[int]], old: bool = False) -> dict[str, Any]:
    """Annotation of an image as the VGG Image Annotator 2 exports it; `old`: version 1, regions in a dictionary."""
    regions = [
        {
            "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
            "region_attributes": {},
        }
        for x, y, w, h in boxes_xywh
    ]
    listed: Any = {str(row): region for row, region in enumerate(regions)} if old else regions
    return {f"{file_name}{size}": {"filename": file_name, "size": size, "regions": listed, "file_attributes": {}}}


def fdst(root: Path, rng: np.random.Generator, images: int = 3) -> dict[str, Truth]:
    """FDST: two clips a split, numbered through; the last frame of each clip shows nobody."""
    truth = {}
    for split, clips in (("test", ("10", "2")), ("train", ("1", "13"))):
        for clip in clips:
            for number in range(1, images + 1):
                image, annotation = (f"{split}_data/{clip}/{number:03d}{end}" for end in (".jpg", ".json"))
                height, width = draw(root / image, rng)
                corners = (
                    heads(rng, height - 15, width - 15).round().astype(int)
                    if number < images
                    else np.zeros((0, 2), int)
                )
                boxes = np.hstack([corners, rng.integers(3, 16, corners.shape)])
                content = via(f"{number:03d}.jpg", (root / image).stat().st_size, boxes.tolist(), old=clip == "13")
                (root / annotation).write_text(json.dumps(content))
                low, sides = boxes[:, :2].astype(float), boxes[:, 2:]
                truth[f"{split}/{clip}-{number:03d}"] = Truth(
                    image, annotation, low + (sides - 1) / 2, np.hstack([low, low + sides])
                )
    return truth


def _labelled_nwpu(root: Path, rng: np.random.Generator, images: int = 3) -> dict[str, Truth]:
    return nwpu(root, rng, images)[0]


LAYOUTS: dict[str, tuple[str, Callable[..., dict[str, Truth]]]] = {
    "shanghaitech": ("shanghaitech", shanghaitech),
    "shanghaitech_": ("shanghaitech", partial(shanghaitech, spelling="ground_truth")),
    "ucf_qnrf": ("ucf", ucf_qnrf),
    "ucf_cc_50": ("ucf", ucf_cc_50),
    "jhu": ("jhu", jhu),
    "nwpu": ("nwpu", _labelled_nwpu),
    "fdst": ("fdst", fdst),
}
"""Format and writer of each layout; a writer takes the root, a generator and the number of images (a split or clip)."""
