"""Three small masks and edits of them, for the tests of what corrections changed."""

from __future__ import annotations

import numpy as np

from crowdmask.corrections import gain, merge, native
from crowdmask.masks import rle

H, W = 12, 16
WHO = {"author": "ada", "time": "2025-01-02T03:04:05Z"}


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def window(mask: np.ndarray) -> rle.Window:
    return rle.Window(0, 0, mask).tight()


def row(point_id: int, mask: np.ndarray, x: float, y: float) -> dict:
    tight = window(mask)
    key = {"split": "test", "image_id": "a", "point_id": point_id, "x": float(x), "y": float(y)}
    flags = {"source": "sam", "verified": False, "author": None, "score": 0.5, "radius_px": 2.0, "lost_px": 0}
    return {**key, **flags, "area": tight.area, "sha256": rle.digest(tight), **tight.columns()}


def three() -> list[dict]:
    """Three masks of 3 x 3 side by side, their points in the middle."""
    return [row(i, box(1 + 4 * i, 4, 3, 3), 2 + 4 * i, 5) for i in range(3)]


def runs(mask: np.ndarray) -> dict:
    return {"counts": rle.encode(mask).decode(), "size": [H, W]}


def file_of(*edits: dict, **image) -> native.EditFile:
    known = {"split": "test", "image_id": "a", "height": H, "width": W, **image}
    return native.EditFile.model_validate({"version": 1, "image": known, "edits": [{**WHO, **e} for e in edits]})


def compared(*edits: dict, rows=None, truth=None, stale="report") -> gain.ImageGain:
    rows = three() if rows is None else rows
    file = file_of(*edits)
    merged, table = merge.merge_image(rows, file, H, W, "a" * 64, stale)
    return gain.of_image(file, table, rows, merged, truth, "a.json")


def replace(point_id: int, mask: np.ndarray, **values) -> dict:
    return {"action": "replace", "point_id": point_id, "mask": runs(mask), **values}
