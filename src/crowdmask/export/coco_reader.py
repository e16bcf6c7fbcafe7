"""COCO files of any size as a source of masks: one image in memory at a time.

The file is read once to find its images and where the annotations of each lie (24 bytes an annotation are kept), and
then again, image by image. So the order and the layout of the file do not matter; one annotation a line, sorted by
image, as we write it, is merely the fastest.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from pycocotools import mask as coco

from crowdmask.corrections.exchange import outlines
from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SIDE
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.corrections.exchange.runs import whole
from crowdmask.errors import DataError
from crowdmask.export import json_stream
from crowdmask.export.instances import Instances
from crowdmask.files import reading
from crowdmask.masks import runs
from crowdmask.masks.rle import Window

_WAY_OUT = "Write it again with the tool that made it, as COCO's format says."
_BLOCK = 8 << 20
"""Bytes of annotations of one image that are read together."""
_POINT_ID = "point_id"


@dataclass(frozen=True)
class Image:
    """An entry of `images`.

    Attributes:
        id: Its own.
        file_name: As written.
        height: Pixels.
        width: Pixels.
        image_id: Our key of that name, else the file's name without folders and ending.
        split: Our key of that name, if there.
    """

    id: int
    file_name: str
    height: int
    width: int
    image_id: str
    split: str | None


class CocoFile:
    """A COCO file with instance masks: run lengths (compressed or not) or polygons.

    Args:
        path: The file.

    Attributes:
        images: By id, in the order of the file.
        categories: Names by id.
        info: What stands there.
        count: Number of annotations.

    Raises:
        DataError: not such a file, a faulty or repeated image, an annotation of an image that is not listed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.images: dict[int, Image] = {}
        self.categories: dict[int, str] = {}
        self.info: Any = None
        image_ids, begins, sizes = array("q"), array("q"), array("q")
        seen = set()
        for entry in json_stream.entries(self.path, ("images", "annotations", "categories"), _WAY_OUT):
            seen.add(entry.key)
            if entry.key == "info":
                self.info = entry.value
            if entry.row is None:
                if entry.key in ("images", "annotations") and entry.value != []:
                    raise self._fault(f"`{entry.key}` is no list")
                continue
            if entry.key == "images":
                image = self._image(entry.value, entry.row)
                if image.id in self.images:
                    raise self._fault(f"the image {image.id} is listed twice", entry.row)
                self.images[image.id] = image
            elif entry.key == "categories":
                self._category(entry.value, entry.row)
            else:
                number = whole(entry.value.get("image_id")) if isinstance(entry.value, dict) else None
                if number is None or not abs(number) < 2**63:
                    raise self._fault("an annotation without whole number as `image_id`", entry.row)
                image_ids.append(number)
                begins.append(entry.begin)
                sizes.append(entry.size)
        if not {"images", "annotations"} <= seen:
            raise self._fault("not a COCO file: it lacks `images` or `annotations`")
        self.count = len(sizes)
        self._begin, self._size = np.array(begins, np.int64), np.array(sizes, np.int64)
        places = {number: place for place, number in enumerate(self.images)}
        self._place = np.fromiter((places.get(number, -1) for number in image_ids), np.int64, self.count)
        lost = np.flatnonzero(self._place < 0)
        if lost.size:
            row = int(lost[0])
            raise self._fault(f"an annotation of the image {image_ids[row]}, which is not listed", row)

    def _fault(self, problem: str, row: int | None = None) -> DataError:
        return DataError(self.path, problem, _WAY_OUT, row)

    def _image(self, entry: Any, row: int) -> Image:
        if not isinstance(entry, dict):
            raise self._fault("an entry of `images` is no object", row)
        number, height, width = (whole(entry.get(key)) for key in ("id", "height", "width"))
        name, own, split = (entry.get(key) for key in ("file_name", "image_id", "split"))
        if number is None or not isinstance(name, str) or not name:
            raise self._fault("an image without whole number as `id`, or without `file_name`", row)
        if height is None or width is None or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise self._fault(f"image {number} needs `height` and `width` from 1 to {MAX_SIDE}", row)
        if height * width > MAX_PIXELS:
            raise self._fault(f"image {number} claims {height} x {width}, more than {MAX_PIXELS} pixels", row)
        image_id = own if isinstance(own, str) else PurePosixPath(name).stem
        return Image(number, name, height, width, image_id, split if isinstance(split, str) else None)

    def _category(self, entry: Any, row: int) -> None:
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str):
            raise self._fault("a category without whole number as `id`, or without `name`", row)
        self.categories[number] = entry["name"]

    def annotations(self) -> Iterator[tuple[Image, list[dict[str, Any]]]]:
        """Each image, also one without annotations, with its annotations as parsed; both in the order of the file."""
        order = np.argsort(self._place, kind="stable")
        starts = np.searchsorted(self._place[order], np.arange(len(self.images) + 1))
        with reading(self.path, _WAY_OUT), open(self.path, "rb") as file:
            for place, image in enumerate(self.images.values()):
                yield image, list(self._parsed(file, order[starts[place] : starts[place + 1]]))

    def _parsed(self, file: BinaryIO, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        """Annotations of one image; neighbours in the file are read together."""
        begin, end = self._begin[rows], self._begin[rows] + self._size[rows]
        first = 0
        while first < rows.size:
            last = first + 1
            while last < rows.size and begin[last] - end[last - 1] < 64 and end[last] - begin[first] <= _BLOCK:
                last += 1
            file.seek(int(begin[first]))
            block = file.read(int(end[last - 1] - begin[first]))
            for k in range(first, last):
                text = block[begin[k] - begin[first] : end[k] - begin[first]]
                try:
                    yield json_stream.parse(text.decode())
                except ValueError:
                    raise self._fault("has changed while it was read") from None
            first = last

    def instances(self) -> Iterator[Instances]:
        """Masks of each image, also of one without.

        `ids` are the annotations' `point_id` where all of the image have one (ours do), else their `id`.

        Raises:
            DataError: with the annotation: no mask, or run lengths or polygons that do not fit the image.
        """
        for image, found in self.annotations():
            yield Instances(
                image.image_id, image.height, image.width, _ids(found), self.windows(image, found), image.split
            )

    def windows(self, image: Image, annotations: Sequence[dict[str, Any]]) -> list[Window]:
        """Masks of annotations of one image, tight.

        Polygons are filled as pycocotools does, several of one annotation united.

        Raises:
            DataError: see `instances`.
        """
        lengths = []
        for entry in annotations:
            try:
                lengths.append(_lengths(entry.get("segmentation"), image.height, image.width))
            except ValueError as error:
                raise self._fault(f"annotation {entry.get('id')!r} of {image.file_name}: {error}") from None
        texts = [part for part in lengths if isinstance(part, bytes)]
        starts = np.cumsum([0, *map(len, texts)])
        pixels = np.full(len(texts), image.height * image.width)
        try:
            parsed, first = runs.parse(np.frombuffer(b"".join(texts), np.uint8), starts, pixels)
        except runs.RunsError as error:
            at = [k for k, part in enumerate(lengths) if isinstance(part, bytes)][error.index]
            name = annotations[at].get("id")
            raise self._fault(f"annotation {name!r} of {image.file_name}: {error}") from None
        # Back among those that were lists of numbers.
        parts, at = [], 0
        for part in lengths:
            if isinstance(part, bytes):
                parts.append(parsed[first[at] : first[at + 1]])
                at += 1
            else:
                parts.append(part)
        all_runs = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        bounds = np.cumsum([0, *(part.size for part in parts)])
        try:
            return runs.windows(runs.intervals(all_runs, bounds), image.height, Budget().room)
        except ValueError as error:
            raise self._fault(f"{image.file_name}: {error}") from None


def _ids(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    for key in (_POINT_ID, "id"):
        found = [whole(entry.get(key)) for entry in annotations]
        if None not in found and all(abs(number) < 2**63 for number in found):  # type: ignore[arg-type]
            return np.array(found, np.int64)
    return np.arange(len(annotations))


def _lengths(drawn: Any, height: int, width: int) -> bytes | np.ndarray:
    """Compressed counts, or run lengths int64 that add up to the image.

    Raises:
        ValueError: neither run lengths nor polygons, or of another image.
    """
    if isinstance(drawn, dict):
        size = drawn.get("size")
        if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
            raise ValueError(f"run lengths of another size than the image, which has {[height, width]}")
        counts = drawn.get("counts")
        if isinstance(counts, str):
            return counts.encode()  # what is not ASCII is refused with the other foreign characters
        numbers = [whole(number) for number in counts] if isinstance(counts, list) else [None]
        if any(number is None or not 0 <= number <= height * width for number in numbers):
            raise ValueError("counts are neither text nor a list of run lengths within the image")
        made = np.array(numbers, np.int64)
        if made.sum() != height * width:
            raise ValueError(f"counts add up to {made.sum()}, not to the {height * width} pixels of the image")
        return made
    if not isinstance(drawn, list) or not drawn:
        raise ValueError("no mask, at most a box")
    rings = [drawn] if isinstance(drawn[0], int | float) else drawn
    parts = [outlines.ring(ring) for ring in rings]
    outlines.check(parts)
    long = sum(float(np.abs(np.roll(part, -1, axis=0) - part).max(axis=1).sum()) for part in parts if len(part))
    if long > outlines.MAX_TRACED:
        raise ValueError(f"an outline longer than {outlines.MAX_TRACED} pixels; bring the mask as run lengths")
    parts = [part for part in parts if len(part) > 2]
    if not parts:
        raise ValueError("an outline of fewer than three points")
    return coco.merge(coco.frPyObjects([part.ravel().tolist() for part in parts], height, width))["counts"]
