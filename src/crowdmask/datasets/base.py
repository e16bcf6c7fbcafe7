"""What every reader offers: image lists by name alone, then points and truth image by image."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crowdmask.errors import DataError

IMAGE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ()+,=@.-]*")
"""Image ids become file names and wildcards: no separators, no leading dot or dash, no control characters."""


@dataclass(frozen=True)
class ImageRef:
    """One image of a data set, by names alone (nothing opened).

    Attributes:
        split: Split, `all` where the layout has none.
        image_id: File name without extension, unique within the split.
        image: Image file relative to the root, POSIX.
        annotation: Annotation file relative to the root, POSIX; empty for an image without one.
    """

    split: str
    image_id: str
    image: str
    annotation: str


@dataclass(frozen=True)
class Annotation:
    """What the annotation of one image says.

    Attributes:
        points_xy: float64 (N, 2) head points, (x, y) in pixels, in source order.
        boxes_xyxy: float64 (N, 4) head boxes (x0, y0, x1, y1) in pixels, in point order; None where there are none.
            Edges of corner and size (COCO, FDST) count from the corner of the first pixel, which [0, 0, 1, 1] covers,
            so that the centre is half a pixel less in the coordinates of points; corners (NWPU-Crowd, labelme) are as
            written, and edges around a centre (JHU-CROWD++) are in the coordinates of points.
        declared: Number of people that the file claims to hold; None where it does not say.
        size_hw: Height and width that the file claims for the image; None where it does not say.
        attributes: Whole numbers for each head by name (occlusion, blur), int64 (N,).
        labels: What is said of the image as a whole, by name (scene, weather, illumination).
    """

    points_xy: np.ndarray
    boxes_xyxy: np.ndarray | None = None
    declared: int | None = None
    size_hw: tuple[int, int] | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What keeps a file of a data set out of its list.

    Attributes:
        kind: `layout`, `unsafe_id`, `duplicate_id`, `missing_annotation`, `orphan_annotation`, `missing_image` (a list
            names it) or `unknown_skip`.
        split: Split, empty for a fault of the whole data set.
        image_id: Image id, empty for a fault of a whole split.
        error: What `list_images` says of it.
    """

    kind: str
    split: str
    image_id: str
    error: DataError


@dataclass(frozen=True)
class Pairing:
    """A list of images made without stopping at faults.

    Attributes:
        refs: Images that the configuration selects, as `list_images` gives them.
        skipped: `split/id` of those that `skip_images` leaves out.
        unselected: Complete pairs that `skip` and `limit` leave out.
        unlabelled: Images that come without annotation, of hidden splits.
        faults: Everything that `list_images` would stop at, in its order.
    """

    refs: list[ImageRef] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unselected: list[ImageRef] = field(default_factory=list)
    unlabelled: list[ImageRef] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Reader(Protocol):
    """A data set format."""

    root: str
    has_truth: bool

    def list_images(self) -> list[ImageRef]:
        """All images by (split, file name), reading folder listings only.

        Raises:
            DataError: missing folder, an image without annotation or the reverse, an unsafe id.
        """
        ...

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Annotated points as float64 (N, 2), (x, y) in pixels, in source order.

        Raises:
            DataError: unreadable file, missing variable, wrong shape, NaN or infinite coordinate (with its row).
        """
        ...

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Points and all else that the annotation says; same errors."""
        ...

    def unlabelled(self) -> list[ImageRef]:
        """Images that the data set comes with but without annotation (hidden test splits): listed, never segmented."""
        ...

    def read_truth(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray]:
        """True masks as a label map: int32 (H, W), 0 = background, and int32 (N,) instance ids in point order."""
        ...


def safe_id(path: str, image_id: str) -> str:
    """Return `image_id` unless it could leave its folder or break a file name.

    Raises:
        DataError: the id is unsafe.
    """
    if not IMAGE_ID.fullmatch(image_id) or ".." in image_id:
        raise DataError(
            path,
            f"{image_id!r} cannot be an image id",
            "Rename the file: letters, digits, blanks and ()+,=@._- are allowed, '..' is not.",
        )
    return image_id


def batch_of(ref: ImageRef, split_size: int, batches: int) -> str:
    """Name of the batch an image belongs to.

    A split of at most `batches` images has one image a batch, named by it; a larger one is spread by a stable hash
    of the image id, so that one more image touches one batch.
    """
    if split_size <= batches:
        return ref.image_id
    digest = hashlib.sha256(ref.image_id.encode()).digest()
    return f"batch-{int.from_bytes(digest[:8], 'big') % batches:04d}"


def batches_of(refs: Sequence[ImageRef], batches: int) -> dict[tuple[str, str], list[ImageRef]]:
    """Images of each (split, batch), in list order."""
    sizes: dict[str, int] = {}
    for ref in refs:
        sizes[ref.split] = sizes.get(ref.split, 0) + 1
    groups: dict[tuple[str, str], list[ImageRef]] = {}
    for ref in refs:
        groups.setdefault((ref.split, batch_of(ref, sizes[ref.split], batches)), []).append(ref)
    return groups


def batch_holding(groups: Mapping[tuple[str, str], Sequence[ImageRef]], split: str, image_id: str) -> str | None:
    """Name of the batch among `batches_of` that holds an image; None where no image has that name."""
    for (found, batch), refs in groups.items():
        if found == split and any(ref.image_id == image_id for ref in refs):
            return batch
    return None
