"""Tiny data sets of the first formats: ShanghaiTech, UCF, label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

POINTS = np.array([[3.5, 4.25], [10.0, 2.0], [10.0, 2.0]])


def save_image(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 20, 30)).save(path)


def save_mat(path: Path, **variables: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables)


def image_info(points: np.ndarray) -> np.ndarray:
    """The nesting of ShanghaiTech's files: a cell with a structure with the fields location and number."""
    structure = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    structure[0, 0] = (points, np.array([[len(points)]]))
    cell = np.empty((1, 1), object)
    cell[0, 0] = structure
    return cell


def make_sha(root: Path, names: dict[str, list[str]] | None = None, spelling: str = "ground-truth") -> Path:
    for split, ids in (names or {"train": ["IMG_1", "IMG_10", "IMG_2"], "test": ["IMG_1"]}).items():
        for image_id in ids:
            save_image(root / f"{split}_data" / "images" / f"{image_id}.jpg")
            save_mat(root / f"{split}_data" / spelling / f"GT_{image_id}.mat", image_info=image_info(POINTS))
    return root


def make_ucf(root: Path, ids: tuple[str, ...] = ("1", "2"), points: Any = POINTS) -> Path:
    for image_id in ids:
        save_image(root / f"{image_id}.jpg")
        save_mat(root / f"{image_id}_ann.mat", annPoints=points)
    return root


LABELS = np.zeros((12, 16), np.uint16)
LABELS[1:6, 1:6] = 7
LABELS[8:11, 2:14] = 300
LABELS[0:2, 12:16] = 2


def make_labels(root: Path, ids: tuple[str, ...] = ("a", "b"), labels: np.ndarray = LABELS) -> Path:
    for image_id in ids:
        save_image(root / "images" / f"{image_id}.png")
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / f"{image_id}.png")
    return root
