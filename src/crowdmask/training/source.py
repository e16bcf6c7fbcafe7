"""Images to train on, each as a working copy with its heads and, for supervision by masks or boxes, a label map."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from crowdmask.config import canonical
from crowdmask.config.crops import WorkingCopy
from crowdmask.datasets.images import Exif, path_of, read_row
from crowdmask.errors import DataError
from crowdmask.files import sha256
from crowdmask.geometry import own_pixels
from crowdmask.models.base import Supervision
from crowdmask.training.cache import Cache, is_mapped
from crowdmask.training.heads import Entry, Key, box_areas, check_boxes, covers, mask_areas, read_entries
from crowdmask.training.label_maps import Area, keep_heads, paint

VERSION = 1
"""Raised when working copies or their label maps change: those in caches are made anew."""

OPEN = 128
"""Images whose copies one process keeps mapped."""


@dataclass(frozen=True)
class Sample:
    """One image to cut crops from; arrays are read-only.

    Attributes:
        name: split/image_id.
        pixels: uint8 (h, w, 3) RGB working copy.
        points_xy: float64 (n, 2), pixels of the copy: the heads that lie in the image, by point_id.
        labels: int (h, w) label map: 0 background, i + 1 head i of `points_xy`, -1 a head that was annotated outside of
            the image. None for supervision by points.
    """

    name: str
    pixels: np.ndarray
    points_xy: np.ndarray
    labels: np.ndarray | None


def working_size(height: int, width: int, settings: WorkingCopy) -> tuple[int, int]:
    """Height and width of the working copy, pixels, each at least 1.

    The longest side is at most `max_side`, the shortest at least `min_side` as far as that allows (methods k.1: the
    data set's limit goes first).
    """
    scale = 1.0
    if settings.min_side is not None:
        scale = max(scale, settings.min_side / min(height, width))
    if settings.max_side is not None:
        scale = min(scale, settings.max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_points(points_xy: np.ndarray, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> np.ndarray:
    """Points of an image in the pixels of a scaled one, float64 (n, 2).

    By the real factors f = new / old side, between the pictures' edges: (x + 0.5) f - 0.5. A point inside stays
    inside of [-0.5, side - 0.5), also where rounding would put it on the edge.

    Args:
        points_xy: (n, 2), inside of the image.
        from_hw: Its height and width.
        to_hw: Those of the scaled one.
    """
    if from_hw == to_hw:
        return np.asarray(points_xy, float)
    old, new = np.array(from_hw[::-1], float), np.array(to_hw[::-1], float)
    return np.minimum((np.asarray(points_xy, float) + 0.5) * (new / old) - 0.5, np.nextafter(new - 0.5, -np.inf))


def resize(pixels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A picture scaled by Pillow's bilinear filter, which averages where it shrinks: uint8 (h, w, 3)."""
    if pixels.shape[:2] == size_hw:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size_hw[::-1], Image.Resampling.BILINEAR))


class Source:
    """The images of a list, in its order; `source[i]` is a `Sample`.

    An image is decoded once; its working copy lies in the cache, as does its label map, by the hash of the image file
    and of all that the copy depends on. What is not there is made when it is asked for, by whichever process asks.

    Args:
        dataset: Name, for messages.
        wanted: (split, image_id) of each image.
        root: Folder that image paths are relative to.
        exif: EXIF policy of the data set.
        supervision: What labels to make.
        images: `images` tables that have the images.
        masks: Merged `masks` tables of the same batches: they say which heads there are. Needed for supervision by
            masks; none for the others = the annotated heads.
        edits: `edits` tables of the same batches, which say which heads were deleted.
        size: Of the working copies.
        cache: Folder of the copies; several runs may share it.

    Raises:
        DataError: the tables do not fit each other or lack an image; no boxes for supervision by boxes.
        ValueError: supervision by masks without masks.
    """

    def __init__(
        self,
        dataset: str,
        wanted: Sequence[Key],
        root: str | Path,
        exif: Exif,
        supervision: Supervision,
        *,
        images: Sequence[str | Path],
        masks: Sequence[str | Path] = (),
        edits: Sequence[str | Path] = (),
        size: WorkingCopy,
        cache: str | Path,
    ) -> None:
        if supervision == "masks" and not masks:
            raise ValueError("supervision by masks needs `masks` tables")
        self.root, self.exif, self.supervision, self.size = Path(root), exif, supervision, size
        self.entries = read_entries(wanted, images, masks, edits)
        if supervision == "boxes":
            check_boxes(self.entries, dataset)
        self.cache = Cache(cache, size.cache_gb * 2**30)
        self._open: OrderedDict[int, Sample] = OrderedDict()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.entries)

    @property
    def names(self) -> list[str]:
        """split/image_id of each."""
        return [entry.name for entry in self.entries]

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, which every process opens for itself."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __getitem__(self, index: int) -> Sample:
        """Image `index` of the list.

        Raises:
            DataError: its file cannot be read or is not the one that was listed; a mask is damaged.
        """
        if not 0 <= index < len(self.entries):
            raise IndexError(index)
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        sample = self._make(self.entries[index])
        # What could not be kept on disk is not hoarded in memory either.
        if is_mapped(sample.pixels) and (sample.labels is None or is_mapped(sample.labels)):
            self._open[index] = sample
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        return sample

    def prepare(self, threads: int = 1, progress: bool = True) -> None:
        """Make all copies that are not there, so that faults are found before the training begins; may be interrupted.

        Args:
            threads: How many images at a time.
            progress: Whether to show a bar.
        """
        with ThreadPoolExecutor(threads) as pool:
            try:
                made = pool.map(self._make, self.entries)
                for _ in tqdm(made, "copies", len(self.entries), unit="image", disable=not progress):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)

    def _make(self, entry: Entry) -> Sample:
        height, width = working_size(entry.height, entry.width, self.size)
        # First the pixels: decoding the file proves the size that the table claims.
        pixels = self.cache.get_or_make(
            self._key(entry, "pixels"), (height, width, 3), np.uint8, lambda: self._pixels(entry, (height, width))
        )
        inside = entry.inside
        points = scale_points(entry.points_xy[inside], (entry.height, entry.width), (height, width))
        labels = None
        if self.supervision != "points":
            kind = np.int16 if len(inside) < 2**15 - 1 else np.int32
            labels = self.cache.get_or_make(
                self._key(entry, self.supervision),
                (height, width),
                kind,
                lambda: _label_map(entry, self.supervision, (height, width), points).astype(kind),
            )
        return Sample(entry.name, pixels, points, labels)

    def _pixels(self, entry: Entry, size_hw: tuple[int, int]) -> np.ndarray:
        row = {"path": entry.path, "height": entry.height, "width": entry.width}
        path = path_of(self.root, row)
        pixels = read_row(self.root, row, self.exif)
        if sha256(path) != entry.sha256:
            raise DataError(path, "the file is not the one that was listed", "Run again from the images table on.")
        return resize(pixels, size_hw)

    def _key(self, entry: Entry, kind: str) -> str:
        """Hash of everything that an array depends on."""
        found = hashlib.sha256()
        size = working_size(entry.height, entry.width, self.size)
        plain = [VERSION, kind, entry.sha256, entry.height, entry.width, *size, self.exif]
        found.update(canonical(plain).encode())
        if kind != "pixels":
            for values in (entry.point_ids, entry.points_xy, entry.boxes_xyxy, entry.annotated):
                found.update(np.ascontiguousarray(values).tobytes())
        if kind == "masks" and entry.masks is not None:
            found.update(entry.masks.digest.encode())
        return found.hexdigest()


def _label_map(entry: Entry, supervision: Supervision, size_hw: tuple[int, int], points_xy: np.ndarray) -> np.ndarray:
    """Labels of an image on its working copy, by places in `points_xy`; int32 (h, w)."""
    own = own_pixels(entry.points_xy, entry.height, entry.width).tolist()
    owned = np.zeros(len(own), bool)

    def seen(areas: Iterable[Area]) -> Iterator[Area]:
        for k, area in enumerate(areas):
            owned[k] = covers(area, *own[k])
            yield area

    areas = mask_areas(entry) if supervision == "masks" else box_areas(entry)
    labels = paint(seen(areas), (entry.height, entry.width), size_hw)
    inside = entry.inside
    place = np.full(len(own) + 1, -1, np.int32)
    place[0] = 0
    place[1:][inside] = np.arange(1, np.count_nonzero(inside) + 1)
    return keep_heads(place[labels], points_xy, owned[inside])
