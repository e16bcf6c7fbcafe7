"""Label maps as pictures: `{split}/labels/{image_id}.png`, 16 bits, 0 = background, else `point_id` + 1.

An image with an id of 65,535 or more has `{image_id}.npy`, int32, instead. With the images in `{split}/images`, the
format `label_map` of this project reads it as a data set with true masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crowdmask.export import labels
from crowdmask.export.instances import Instances
from crowdmask.export.source import ImageMasks
from crowdmask.files import listed

COLUMNS = ()
BOXES = False


def place(root: Path, split: str) -> dict[str, Path]:
    """Folders that hold files of this split only."""
    return {"labels": root / split / "labels"}


def write(folders: dict[str, Path], masks: ImageMasks, options: dict[str, str]) -> tuple[list[Path], dict[str, int]]:
    """Write one image; see `crowdmask.export.files`."""
    painted = labels.paint(masks)
    small = int(painted.max(initial=0)) <= labels.MAX_PNG
    path = folders["labels"] / f"{masks.image.image_id}{'.png' if small else '.npy'}"
    if small:
        labels.save_png(path, painted.astype(np.uint16))
    else:
        labels.save_npy(path, painted)
    return [path], {"without_pixels": int((masks.rows.column("area").to_numpy() == 0).sum())}


def read(root: str | Path, split: str) -> Iterator[Instances]:
    """Masks of every map of a split, by name; `ids` are `point_id`. A mask without a pixel is not there.

    Raises:
        DataError: no such folder, or see `labels.read`.
    """
    folder = place(Path(root), split)["labels"]
    for path in listed(folder, (".png", ".npy"), "Name the folder above {split}/labels, and a split."):
        yield labels.read(path, split=split)
