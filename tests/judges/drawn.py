"""A drawn image whose masks are as small, holed, broken and close to the border as masks get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from crowdmask.masks import rle

HEIGHT, WIDTH = 150, 200
SPLIT, NAME = "test", "forms"


def forms() -> dict[str, np.ndarray]:
    """Masks bool (HEIGHT, WIDTH) by name; no two touch each other."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]

    def disc(cx: int, cy: int, radius: float) -> np.ndarray:
        return np.hypot(x - cx, y - cy) <= radius

    def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
        return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)

    found = {
        "pixel": box(40, 30, 40, 30),
        "pixel at the border": box(60, 0, 60, 0),
        "line of 6 pixels": box(50, 30, 55, 30),
        "2 x 2": box(65, 30, 66, 31),
        "3 x 3": box(75, 30, 77, 32),
        "3 x 3 in the corner": box(WIDTH - 3, HEIGHT - 3, WIDTH - 1, HEIGHT - 1),
        "ring": disc(100, 35, 11) & ~disc(100, 35, 5),
        "thin ring": disc(130, 35, 8) & ~disc(130, 35, 6),
        "two fragments": disc(40, 65, 7) | disc(58, 65, 5),
        "a fragment of a pixel": disc(80, 65, 8) | box(92, 65, 92, 65),
        "fragments at a corner": box(105, 60, 111, 66) | box(112, 67, 117, 72),
        "left border": disc(1, 60, 9),
        "right border": disc(WIDTH - 2, 70, 9),
        "upper border": disc(110, 1, 9),
        "lower border": disc(90, HEIGHT - 3, 9),
        "upper left corner": disc(2, 2, 10),
        "claw": (disc(150, 75, 14) & ~disc(161, 78, 11)) | box(145, 88, 170, 89),
    }
    for number in range(8):
        found[f"disc {number}"] = disc(20 + 22 * number, 110, 5 + number % 4)
    cover = np.sum(list(found.values()), axis=0)
    assert cover.max() == 1
    return found


def make(folder: Path) -> None:
    """Write `folder/drawn`, a data set of format label_map, and edits in `folder/corrections` that draw its masks.

    The points are in the order of the forms.
    """
    found = forms()
    rng = np.random.default_rng(4)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    photo = rng.integers(90, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, mask in enumerate(found.values(), start=1):
        labels[mask] = number
        photo[mask] = rng.integers(150, 255, 3)
    root = folder / "drawn" / SPLIT
    for kind, values in (("images", photo), ("labels", labels)):
        (root / kind).mkdir(parents=True)
        Image.fromarray(values).save(root / kind / f"{NAME}.png")
    said = {"author": "eve", "time": "2025-03-01T12:00:00Z"}
    size = {"height": HEIGHT, "width": WIDTH}
    edits = [
        {"action": "replace", "point_id": point, "mask": {"counts": counts(mask), "size": [HEIGHT, WIDTH]}, **said}
        for point, mask in enumerate(found.values())
    ]
    path = folder / "corrections" / "drawn" / SPLIT / f"{NAME}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": 1, "image": {"split": SPLIT, "image_id": NAME, **size}, "edits": edits}))


def counts(mask: np.ndarray) -> str:
    """COCO compressed run lengths of a whole picture."""
    return rle.encode(mask).decode("ascii")
