"""Label maps and points in the layout of XMask's training code.

`{split}_data/masks/{image_id}.npy`: int32 (H, W), 0 = background, else `point_id` + 1. `{split}_data/new-anno/`: head
points float64 (N, 2) as (x, y), pixels, one row a mask in the order of the table; the files are called
`GT_{image_id}.npy`, for UCF-QNRF `{image_id}_ann.npy` and for JHU-CROWD++ `{image_id}.npy`, as its loaders expect.
Source: the layout in the README of the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crowdmask.errors import DataError
from crowdmask.export import labels
from crowdmask.export.instances import Instances
from crowdmask.export.source import ImageMasks
from crowdmask.files import listed

COLUMNS = ("x", "y")
BOXES = False


def place(root: Path, split: str) -> dict[str, Path]:
    """Folders that hold files of this split only."""
    return {name: root / f"{split}_data" / name for name in ("masks", "new-anno")}


def write(folders: dict[str, Path], masks: ImageMasks, options: dict[str, str]) -> tuple[list[Path], dict[str, int]]:
    """Write one image; see `crowdmask.export.files`. Option `points`: pattern of the name of the file of points."""
    name = masks.image.image_id
    painted = labels.paint(masks)
    paths = [folders["masks"] / f"{name}.npy", folders["new-anno"] / options["points"].format(name)]
    labels.save_npy(paths[0], painted)
    labels.save_npy(paths[1], masks.points_xy)
    return paths, {"without_pixels": int((masks.rows.column("area").to_numpy() == 0).sum())}


def read(root: str | Path, split: str) -> Iterator[Instances]:
    """Masks of every map of a split, by name; `ids` are `point_id`. A mask without a pixel is not there.

    Raises:
        DataError: no such folder, or see `labels.read`.
    """
    folder = place(Path(root), split)["masks"]
    for path in listed(folder, (".npy",), "Name the folder above {split}_data, and a split."):
        yield labels.read(path, split=split)


def read_points(path: str | Path) -> np.ndarray:
    """Head points float64 (N, 2) of a file in `new-anno`, more columns left out.

    Raises:
        DataError: not such a file.
    """
    way_out = "Export it again."
    try:
        found = np.lib.format.open_memmap(path, mode="r")
        if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "iuf":
            raise ValueError(f"{found.dtype} of shape {found.shape}, not (N, 2 or more) numbers")
        return np.array(found[:, :2], np.float64)
    except FileNotFoundError:
        raise DataError(path, "file not found", way_out) from None
    except (ValueError, OSError, TypeError, EOFError, SyntaxError) as error:
        raise DataError(path, f"no points ({error})", way_out) from None
