"""Images with instance-id maps: one point and one true mask an instance.

`images/NAME.*` with `labels/NAME.png` or `labels/NAME.npy`, in the root (split `all`) or in each of `train`, `val` and
`test` below it. A label map has the image's height and width, 0 is background, every other value one instance, which
may have several components. PNG: grey of 1, 8 or 16 bits, or palette indices. NPY: integers or bool.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import ImageRef
from crowdmask.datasets.folders import FolderReader, Split
from crowdmask.datasets.images import check_plausible, image_size
from crowdmask.errors import DataError


class LabelMapReader(FolderReader):
    """Reader of label maps: splits `train`, `val` and `test`, or `all`."""

    title = "images with label maps"
    has_truth = True

    def __init__(self, name: str, entry: config.LabelMap) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._images, self._labels = Path(entry.images).as_posix(), Path(entry.labels).as_posix()
        self._exif = entry.exif
        self.expected = (
            f"{self._images}/NAME.png and {self._labels}/NAME.png (or .npy) in it, or in train, val and test below it"
        )

    def splits(self, root: Path) -> list[Split]:
        """The root itself, or those of train, val and test that are there; see `FolderReader.splits`."""
        if self._images == self._labels:
            raise DataError(
                root, f"datasets.{self.name} has images and labels in one folder", "Set images and labels apart."
            )
        found = [Split("all", self._images, self._labels)] if self._starts(root) else []
        for split in ("test", "train", "val"):
            if self._starts(root / split):
                found.append(Split(split, f"{split}/{self._images}", f"{split}/{self._labels}"))
        if len(found) > 1 and found[0].name == "all":
            raise DataError(
                root,
                f"{self._images} or {self._labels} lies beside the split {found[1].name}, so the layout is not clear",
                f"Expected: {self.expected}.",
            )
        return found

    def _starts(self, folder: Path) -> bool:
        return (folder / self._images).is_dir() or (folder / self._labels).is_dir()

    def annotated_id(self, file_name: str) -> str | None:
        """`a` for `a.png` and `a.npy`."""
        stem, suffix = os.path.splitext(file_name)
        return stem if suffix.lower() in (".png", ".npy") else None

    def annotation_name(self, image_id: str) -> str:
        """`a.png or a.npy` for `a`."""
        return f"{image_id}.png or {image_id}.npy"

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Inner point of each instance as float64 (N, 2), (x, y) in pixels, by ascending id; see `base.Reader`."""
        labels, _ = self.read_truth(ref)
        return inner_points(labels)

    def read_truth(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray]:
        """Label map int32 (H, W) and ascending instance ids int32 (N,); see `base.Reader`.

        Raises:
            DataError: unreadable file, not a label map, or of another size than the image.
        """
        path = Path(self.root, ref.annotation)
        labels = read_label_map(path, self.way_out(ref))
        check_same_size(path, labels, Path(self.root, ref.image), self._exif, self.way_out(ref))
        return labels, instance_ids(labels)


def read_label_map(path: Path, way_out: str) -> np.ndarray:
    """Label map of a PNG or NPY file.

    Args:
        path: The file.
        way_out: What the user can do about an unusable file, for the message.

    Returns:
        int32 (H, W), 0 = background.

    Raises:
        DataError: unreadable, in colour, not two-dimensional, not integers, or ids outside [0, 2**31).
    """
    try:
        values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_png(path, way_out)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(path, "file not found (or a link that leads nowhere)", way_out) from None
    except Exception as error:  # the decoders raise nearly anything on damaged files
        if os.path.exists(path) and os.path.getsize(path) == 0:
            raise DataError(path, "the file is empty (0 bytes)", way_out) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(path, f"not a readable label map ({reason})", way_out) from None
    if values.ndim != 2 or values.dtype.kind not in "iub":
        shape = " x ".join(str(n) for n in values.shape)
        raise DataError(
            path, f"a label map has H x W integers, this has {shape or 'single'} {values.dtype} values", way_out
        )
    if values.size and (int(values.min()) < 0 or int(values.max()) >= 2**31):
        problem = f"instance ids must be 0 to 2147483647, found {int(values.min())} to {int(values.max())}"
        raise DataError(path, problem, way_out)
    return values.astype(np.int32)


def _read_npy(path: Path) -> np.ndarray:
    # Mapped first: a header that claims more than the file holds is refused before anything is allocated.
    return np.array(np.lib.format.open_memmap(path, mode="r"))


def _read_png(path: Path, way_out: str) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # From memory: of a file, Pillow would reserve whatever size a damaged chunk claims.
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as file:
            check_plausible(path, file)
            if file.mode not in ("1", "L", "P") and not file.mode.startswith("I"):
                raise DataError(path, f"a picture in colour mode {file.mode}, not instance ids", way_out)
            return np.array(file)


def check_same_size(path: Path, labels: np.ndarray, image: Path, exif: str, way_out: str) -> None:
    """Compare a label map with its image, whose header alone is read.

    Raises:
        DataError: their heights or widths differ.
    """
    height, width = image_size(image, "apply" if exif == "apply" else "stored")
    if labels.shape != (height, width):
        size = f"{labels.shape[1]} x {labels.shape[0]}"
        raise DataError(path, f"the label map is {size} pixels, its image {image.name} {width} x {height}", way_out)


def instance_ids(labels: np.ndarray) -> np.ndarray:
    """Ascending ids int32 (N,) of a label map, background left out."""
    ids = np.unique(labels)
    return ids[ids > 0].astype(np.int32)


def instance_boxes(labels: np.ndarray) -> dict[int, tuple[slice, slice]]:
    """Bounding box (rows, columns) of each instance, by ascending id.

    Args:
        labels: int32 (H, W), 0 = background; ids may be large and have gaps.
    """
    from scipy import ndimage

    ids = instance_ids(labels)
    ranks = np.searchsorted(ids, labels, side="right").astype(np.int32)
    return {int(value): box for value, box in zip(ids, ndimage.find_objects(ranks), strict=True)}


def inner_points(labels: np.ndarray) -> np.ndarray:
    """Pixel of each instance that is farthest from all that is not the instance (our choice of a head point).

    Distances are Euclidean between pixel centres; beyond the image border nothing belongs to an instance. Of several
    components the one with the larger distance counts, of equal pixels the first, row by row.

    Args:
        labels: int32 (H, W), 0 = background.

    Returns:
        float64 (N, 2), (x, y) in pixels (whole numbers), by ascending id; each lies on its instance.
    """
    from scipy import ndimage

    points = []
    for value, (rows, columns) in instance_boxes(labels).items():
        distance = ndimage.distance_transform_edt(np.pad(labels[rows, columns] == value, 1))[1:-1, 1:-1]
        y, x = divmod(int(distance.argmax()), distance.shape[1])
        points.append((columns.start + x, rows.start + y))
    return np.array(points, np.float64).reshape(-1, 2)
