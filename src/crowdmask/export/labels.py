"""Label maps: int32 (H, W), 0 = background, else `point_id` + 1; made from the masks of an image, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crowdmask.datasets.label_map import instance_boxes, read_label_map
from crowdmask.errors import DataError
from crowdmask.export.instances import Instances
from crowdmask.export.source import ImageMasks
from crowdmask.files import replacing
from crowdmask.masks.rle import Window

MAX_PNG = 65_535
"""Largest value of a map of 16 bits."""

_WAY_OUT = "Write it again with the tool that made it."


def paint(masks: ImageMasks) -> np.ndarray:
    """Label map of an image.

    Raises:
        DataError: two masks share a pixel.
    """
    image = masks.image
    labels = np.zeros((image.height, image.width), np.int32)
    for point, window in zip(masks.point_ids.tolist(), masks.windows(), strict=True):
        h, w = window.mask.shape
        part = labels[window.y0 : window.y0 + h, window.x0 : window.x0 + w]
        taken = part[window.mask]
        if taken.any():
            other = int(taken.max()) - 1
            raise DataError(
                f"image {image.split}/{image.image_id}",
                f"the masks of points {other} and {point} share pixels, and a pixel of a label map has one value",
                "Set exclusion.disjoint to true and run again, or export as coco, parquet or yolo.",
            )
        part[window.mask] = point + 1
    return labels


def save_npy(path: Path, labels: np.ndarray) -> None:
    """Write a map as int32 NPY."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, labels, allow_pickle=False)


def save_png(path: Path, values: np.ndarray) -> None:
    """Write a uint8 or uint16 (H, W) array as grey PNG."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, "PNG")


def read(path: str | Path, image_id: str | None = None, split: str | None = None) -> Instances:
    """Masks of a label map, PNG or NPY: one for each value, by ascending value; `ids` are the values less 1.

    Args:
        path: The map.
        image_id: Of its image; None = the file's name without its ending.
        split: Of its image.

    Raises:
        DataError: see `crowdmask.datasets.label_map.read_label_map`.
    """
    path = Path(path)
    labels = read_label_map(path, _WAY_OUT)
    ids, windows = instances(labels)
    height, width = labels.shape
    return Instances(image_id or path.stem, height, width, ids, windows, split)


def instances(labels: np.ndarray) -> tuple[np.ndarray, list[Window]]:
    """`point_id` int64 (N,), ascending, and tight mask of each value of a label map but 0."""
    boxes = instance_boxes(labels)
    windows = [
        Window(columns.start, rows.start, labels[rows, columns] == value) for value, (rows, columns) in boxes.items()
    ]
    return np.array(list(boxes), np.int64) - 1, windows
