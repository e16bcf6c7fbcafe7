"""Masks and head sizes as IIM's training and evaluation code has them.

`{split}/masks/{image_id}.png`: grey of 8 bits, 1 where a head is, else 0. `{split}/{split}_gt_loc.txt`: a line an
image, `id n` and for each head `x y r_s r_l level`, whole numbers, with r_s = int(min(w, h) / 2) and
r_l = int(sqrt(w^2 + h^2) / 2) of the head's box and level 0 to 5 by its area: up to 10, 100, 1000, 10^4, 10^5 pixels,
more. `{split}/{split}.txt`: names of the images, one a line.

Source: the methods of NWPU-Crowd and IIM; where the printed formula and the code differ, the code (r_l), where the code
has strict bounds, the caption (levels). Our choices: the box is the annotated one where there is one, else that of the
mask; points are rounded half up; heads are told apart in a 0/1 picture by its 4-connected components, so where two
masks touch the pixels of the larger one along the border become 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crowdmask.datasets.label_map import read_label_map
from crowdmask.errors import DataError
from crowdmask.export import labels
from crowdmask.export.instances import Instances
from crowdmask.export.source import ImageMasks
from crowdmask.files import listed, read_bytes, replacing

COLUMNS = ("x", "y")
BOXES = True

LEVELS = (10, 100, 1_000, 10_000, 100_000)
"""Largest box areas of the levels 0 to 4, pixels."""

_WAY_OUT = "Export it again."


def place(root: Path, split: str) -> dict[str, Path]:
    """Folders that hold files of this split only."""
    return {"masks": root / split / "masks"}


def write(folders: dict[str, Path], masks: ImageMasks, options: dict[str, str]) -> tuple[list[Path], dict[str, int]]:
    """Write the picture of one image; see `crowdmask.export.files`."""
    painted = labels.paint(masks)
    heads = apart(painted)
    path = folders["masks"] / f"{masks.image.image_id}.png"
    labels.save_png(path, heads.astype(np.uint8))
    split, touching = confused(painted, heads)
    return [path], {
        "without_pixels": int((masks.rows.column("area").to_numpy() == 0).sum()),
        "pixels_given_up": int(((painted > 0) & ~heads).sum()),
        "in_several_components": split,
        "still_touching": touching,
        "boxes_annotated": sum(point in masks.boxes_xyxy for point in masks.point_ids.tolist()),
    }


def apart(painted: np.ndarray) -> np.ndarray:
    """Where a head is, bool (H, W), without the border pixels that would join two heads.

    Of two 4-neighbours of different masks the one of the larger mask (of equal ones: of the larger id) is left out. A
    mask that would lose all its pixels keeps them all.

    Args:
        painted: Label map int32 (H, W).
    """
    heads = painted > 0
    areas = np.bincount(painted.ravel())
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = painted[first], painted[second]
        y, x = np.nonzero((a != b) & (a > 0) & (b > 0))
        left, right = a[y, x], b[y, x]
        larger = (areas[left] > areas[right]) | ((areas[left] == areas[right]) & (left > right))
        heads[first][y[larger], x[larger]] = False
        heads[second][y[~larger], x[~larger]] = False
    gone = (areas > 0) & (np.bincount(painted[heads], minlength=areas.size) == 0)
    gone[0] = False
    if gone.any():
        heads |= gone[painted]
    return heads


def confused(painted: np.ndarray, heads: np.ndarray) -> tuple[int, int]:
    """How many masks lie in several 4-connected components, and how many share one with another mask."""
    from scipy import ndimage

    components, count = ndimage.label(heads)
    pairs = np.unique(painted[heads].astype(np.int64) * (count + 1) + components[heads])
    value, component = pairs // (count + 1), pairs % (count + 1)
    several = int((np.bincount(value) > 1).sum())
    shared = np.bincount(component, minlength=count + 1) > 1
    return several, int(np.unique(value[shared[component]]).size)


def location(masks: ImageMasks) -> list[int]:
    """Numbers of an image's line after its id: n, and x y r_s r_l level of each mask."""
    found = [masks.rows.num_rows]
    for point, (x, y), window in zip(masks.point_ids.tolist(), masks.points_xy.tolist(), masks.windows(), strict=True):
        height, width = window.mask.shape
        w, h = float(width), float(height)
        if point in masks.boxes_xyxy:
            x0, y0, x1, y1 = masks.boxes_xyxy[point]
            w, h = x1 - x0, y1 - y0
        level = sum(w * h > bound for bound in LEVELS)
        radii = int(min(w, h) / 2), int(math.hypot(w, h) / 2)
        found += [math.floor(x + 0.5), math.floor(y + 0.5), *radii, level]
    return found


def numbers(image_ids: list[str]) -> list[int]:
    """Whole number of each image, which its line begins with.

    The image's own where all names are different whole numbers, else 1, 2, ... in their order.
    """
    if all(name.isascii() and name.isdigit() for name in image_ids):
        found = [int(name) for name in image_ids]
        if len(set(found)) == len(found):
            return found
    return list(range(1, len(image_ids) + 1))


def finish(root: Path, split: str, image_ids: list[str], lines: list[list[int]]) -> tuple[list[Path], list[int]]:
    """Write the two lists of a split; returns their paths and the number of each image."""
    given = numbers(image_ids)
    paths = [root / split / f"{split}_gt_loc.txt", root / split / f"{split}.txt"]
    with replacing(paths[0]) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        for number, line in zip(given, lines, strict=True):
            file.write(" ".join(map(str, (number, *line))) + "\n")
    with replacing(paths[1]) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{name}\n" for name in image_ids)
    return paths, given


def read(root: str | Path, split: str) -> Iterator[Instances]:
    """Heads of every picture of a split, by name: its 4-connected components; `ids` count from 0, row by row.

    Raises:
        DataError: no such folder, or a file that is no grey picture of 0 and 1.
    """
    from scipy import ndimage

    folder = place(Path(root), split)["masks"]
    for path in listed(folder, (".png",), "Name the folder above {split}/masks, and a split."):
        heads = read_label_map(path, _WAY_OUT)
        if heads.max(initial=0) > 1:
            raise DataError(path, f"holds the value {heads.max()}, not 0 and 1 only", _WAY_OUT)
        components, _ = ndimage.label(heads)
        ids, windows = labels.instances(components.astype(np.int32))
        height, width = heads.shape
        yield Instances(path.stem, height, width, ids, windows, split)


def read_locations(path: str | Path) -> dict[int, np.ndarray]:
    """Lines of a ground-truth file: int64 (N, 5) as (x, y, r_s, r_l, level), by the number of the image.

    Raises:
        DataError: with the row: not whole numbers, another count than it says, or an image that comes twice.
    """
    path = Path(path)
    found: dict[int, np.ndarray] = {}
    for row, line in enumerate(read_bytes(path, _WAY_OUT).split(b"\n")):
        if not line.strip():
            continue
        try:
            values = np.array([int(text) for text in line.split()], np.int64)
            if values.size < 2 or values[1] < 0 or values.size != 2 + 5 * values[1]:
                raise ValueError(f"{values.size} numbers, where 2 + 5 for each head are expected")
        except (ValueError, OverflowError) as error:
            raise DataError(path, f"not id n (x y r_s r_l level)*n ({error})", _WAY_OUT, row) from None
        if int(values[0]) in found:
            raise DataError(path, f"the image {values[0]} comes twice", _WAY_OUT, row)
        found[int(values[0])] = values[2:].reshape(-1, 5)
    return found
