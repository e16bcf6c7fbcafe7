"""COCO files of any size as a source of masks: one image in memory at a time.

The file is read once to find its images and where the annotations of each lie (24 bytes an annotation are kept), and
then again, image by image. So the order and the layout of the file do not matter; one annotation a line, sorted by
image, as we write it, is merely the fastest. All annotations count, of any category and with `iscrowd` 0 or 1 (CVAT
writes 1 for every mask).

Nothing of a file is trusted: what its masks may cost is charged before they are made, and compressed run lengths reach
no decoder but ours (`crowdmask.masks.runs`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from crowdmask.corrections.exchange import outlines
from crowdmask.corrections.exchange import runs as foreign
from crowdmask.corrections.exchange.base import MAX_SHAPES
from crowdmask.corrections.exchange.budget import MAX_KEPT, MAX_WORK, WORK_A_BYTE, Budget
from crowdmask.corrections.exchange.coco import id_of, image_of, point_of
from crowdmask.corrections.exchange.runs import whole
from crowdmask.errors import DataError
from crowdmask.export.instances import Instances
from crowdmask.files import parse_json, reading
from crowdmask.json_stream import entries
from crowdmask.masks import runs
from crowdmask.masks.rle import Window

_WAY_OUT = "Write it again with the tool that made it, as COCO's format says."
_BLOCK = 8 << 20
"""Bytes of annotations of one image that are read together."""
_TOGETHER = 1 << 20
"""Characters of counts, or run lengths, that are decoded together (some 80 bytes each)."""


@dataclass(frozen=True)
class Image:
    """An entry of `images`.

    Attributes:
        id: Its own.
        file_name: As written.
        height: Pixels.
        width: Pixels.
        image_id: Our key of that name, else the file's name without folders and ending.
        split: Our key of that name, where both are there.
    """

    id: int
    file_name: str
    height: int
    width: int
    image_id: str
    split: str | None


class Annotation(NamedTuple):
    """What stands beside a mask.

    Attributes:
        id: Its own; None where it has none.
        point_id: Of the head, as our exports write it; None where it has none.
        score: NaN where it has none.
        point_xy: Head point, pixels, our key `point`; None where it has none.
    """

    id: int | None
    point_id: int | None
    score: float
    point_xy: tuple[float, float] | None


class CocoFile:
    """A COCO file with instance masks: run lengths (compressed or not) or polygons.

    Args:
        path: The file.
        images: Of another file, for a list of results, which has annotations alone.

    Attributes:
        images: By id, in the order of the file.
        categories: Names by id.
        info: What stands there.
        count: Number of annotations.

    Raises:
        DataError: not such a file, a faulty or repeated image, an annotation of an image that is not listed, or more
            than `MAX_SHAPES` of one image.
    """

    def __init__(self, path: str | Path, images: Mapping[int, Image] | None = None) -> None:
        self.path = Path(path)
        self.images: dict[int, Image] = {}
        self.categories: dict[int, str] = {}
        self.info: Any = None
        image_ids, begins, sizes = array("q"), array("q"), array("q")
        seen = set()
        for entry in entries(self.path, ("images", "annotations", "categories"), _WAY_OUT, ("info",)):
            seen.add(entry.key)
            if entry.key == "info":
                self.info = entry.value
            elif entry.key == "" and images is None:
                problem = "a list of results, which does not say how its images are called"
                raise DataError(self.path, problem, "Compare it with the COCO file that it belongs to, given as TRUTH.")
            elif entry.row is None:
                pass
            elif entry.key == "images":
                image = self._image(entry.value, entry.row)
                self.images[image.id] = image
            elif entry.key == "categories":
                self._category(entry.value, entry.row)
            else:
                number = whole(entry.value.get("image_id")) if isinstance(entry.value, dict) else None
                if number is None or not abs(number) < 2**63:
                    raise self._fault(f"annotation {entry.row} is of no image: it has no whole number as `image_id`")
                image_ids.append(number)
                begins.append(entry.begin)
                sizes.append(entry.size)
        if "" in seen:
            self.images = dict(images or {})
        elif not {"images", "annotations"} <= seen:
            raise self._fault("not a COCO file with masks: it lacks `images` or `annotations`")
        self._index(image_ids, begins, sizes)

    def _index(self, image_ids: array[int], begins: array[int], sizes: array[int]) -> None:
        """Sort the places of all annotations by image, within it as they stand in the file."""
        self.count = len(sizes)
        self._places = {number: place for place, number in enumerate(self.images)}
        place = np.fromiter((self._places.get(number, -1) for number in image_ids), np.int64, self.count)
        lost = np.flatnonzero(place < 0)
        if lost.size:
            row = int(lost[0])
            raise self._fault(f"annotation {row} is of the image {image_ids[row]}, which is not listed")
        self._row = np.argsort(place, kind="stable")
        self._begin, self._size = np.array(begins, np.int64)[self._row], np.array(sizes, np.int64)[self._row]
        self._starts = np.searchsorted(place[self._row], np.arange(len(self.images) + 1))
        many = np.flatnonzero(np.diff(self._starts) > MAX_SHAPES)
        if many.size:
            image = list(self.images)[many[0]]
            raise self._fault(f"the image {image} has more than {MAX_SHAPES} annotations")

    def _fault(self, problem: str) -> DataError:
        return DataError(self.path, problem, _WAY_OUT)

    def _image(self, entry: Any, row: int) -> Image:
        try:
            number, name, height, width = image_of(entry, f"images[{row}]", self.images)
        except ValueError as error:
            raise self._fault(str(error)) from None
        own, split = entry.get("image_id"), entry.get("split")
        image_id = own if isinstance(own, str) else PurePosixPath(name).stem
        ours = isinstance(own, str) and isinstance(split, str)
        return Image(number, name, height, width, image_id, split if ours else None)

    def _category(self, entry: Any, row: int) -> None:
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str):
            raise self._fault(f"categories[{row}] lacks a whole number as `id`, or `name`")
        self.categories[number] = entry["name"]

    def budget(self) -> Budget:
        """What all masks of the file may cost: its bytes pay for it (our choice)."""
        return Budget(work=MAX_WORK + WORK_A_BYTE * self.path.stat().st_size, kept=MAX_KEPT)

    def annotations(self) -> Iterator[tuple[Image, list[dict[str, Any]]]]:
        """Each image, also one without annotations, with its annotations as parsed; both in the order of the file."""
        with reading(self.path, _WAY_OUT), open(self.path, "rb") as file:
            for image in self.images.values():
                yield image, [entry for _, entry in self._parsed(file, image)]

    def _parsed(self, file: BinaryIO, image: Image) -> Iterator[tuple[int, dict[str, Any]]]:
        """Annotations of one image, with their rows; neighbours in the file are read together."""
        place = self._places[image.id]
        part = slice(self._starts[place], self._starts[place + 1])
        row, begin, end = self._row[part], self._begin[part], self._begin[part] + self._size[part]
        first = 0
        while first < row.size:
            last = first + 1
            while last < row.size and begin[last] - end[last - 1] < 64 and end[last] - begin[first] <= _BLOCK:
                last += 1
            file.seek(int(begin[first]))
            block = file.read(int(end[last - 1] - begin[first]))
            for k in range(first, last):
                try:
                    entry = parse_json(block[begin[k] - begin[first] : end[k] - begin[first]].decode())
                except (ValueError, RecursionError):
                    entry = None
                if not isinstance(entry, dict) or whole(entry.get("image_id")) != image.id:
                    raise self._fault("it has changed while it was read")
                yield int(row[k]), entry
            first = last

    def instances(self) -> Iterator[Instances]:
        """Masks of each image, also of one without.

        `ids` are the annotations' `point_id` where all of the image have one (ours do), else their `id`.

        Raises:
            DataError: see `read`.
        """
        budget = self.budget()
        for image in self.images.values():
            found, windows = self.read(image, budget)
            yield Instances(image.image_id, image.height, image.width, _ids(found), windows, image.split)

    def read(self, image: Image, budget: Budget) -> tuple[list[Annotation], list[Window]]:
        """Masks of one image, tight, and what stands beside them, in the order of the file.

        Polygons are filled as pycocotools does, several of one annotation united.

        Args:
            image: One of `images`.
            budget: Of the file; see `budget`.

        Raises:
            DataError: with the annotation: no mask, or run lengths or polygons that do not fit the image or cost too
                much.
        """
        budget.new_picture()
        beside: list[Annotation] = []
        with reading(self.path, _WAY_OUT), open(self.path, "rb") as file:
            windows = self._windows(image, self._parsed(file, image), beside, budget)
        return beside, windows

    def _windows(
        self, image: Image, found: Iterable[tuple[int, dict[str, Any]]], beside: list[Annotation], budget: Budget
    ) -> list[Window]:
        """Masks of annotations, so many at a time that little is held; what stands beside them goes to the list."""
        made: list[Window] = []
        rows: list[int] = []
        parts: list[bytes | np.ndarray] = []
        held = 0
        for row, entry in found:
            try:
                parts.append(_lengths(entry.get("segmentation"), image.height, image.width, budget))
            except ValueError as error:
                raise self._fault(f"annotation {row} of image {image.file_name}: {error}") from None
            rows.append(row)
            beside.append(_beside(entry))
            held += len(parts[-1])
            if held > _TOGETHER:
                made += self._decoded(image, rows, parts, budget)
                rows, parts, held = [], [], 0
        return made + self._decoded(image, rows, parts, budget)

    def _decoded(self, image: Image, rows: list[int], parts: list[bytes | np.ndarray], budget: Budget) -> list[Window]:
        """Masks of compressed counts, and of run lengths, all at once."""

        def allow(pixels: int) -> None:
            budget.keep(pixels)
            budget.draw(pixels)

        at, texts = [], []
        for k, part in enumerate(parts):
            if isinstance(part, bytes):
                at.append(k)
                texts.append(part)
        starts = np.cumsum([0, *map(len, texts)])
        pixels = np.full(len(texts), image.height * image.width)
        try:
            parsed, first = runs.parse(np.frombuffer(b"".join(texts), np.uint8), starts, pixels)
        except runs.RunsError as error:
            raise self._fault(f"annotation {rows[at[error.index]]} of image {image.file_name}: {error}") from None
        # Back among those that were lists of numbers.
        lengths = [part for part in parts if not isinstance(part, bytes)]
        if not lengths:
            together, bounds = parsed, first
        else:
            for place, k in enumerate(at):
                lengths.insert(k, parsed[first[place] : first[place + 1]])
            together, bounds = np.concatenate(lengths), np.cumsum([0, *(part.size for part in lengths)])
        try:
            return runs.windows(runs.intervals(together, bounds), image.height, allow)
        except ValueError as error:
            raise self._fault(f"image {image.file_name}: {error}") from None


def _beside(entry: dict[str, Any]) -> Annotation:
    value = entry.get("score")
    number = type(value) is float or (type(value) is int and abs(value) < 2**63)
    score = float(value) if number else math.nan  # type: ignore[arg-type]
    point = point_of(entry.get("point"))
    return Annotation(whole(entry.get("id")), id_of(entry), score if math.isfinite(score) else math.nan, point)


def _ids(found: list[Annotation]) -> np.ndarray:
    for ids in ([entry.point_id for entry in found], [entry.id for entry in found]):
        known = [number for number in ids if number is not None and abs(number) < 2**63]
        if len(known) == len(ids):
            return np.array(known, np.int64)
    return np.arange(len(found))


def _lengths(drawn: Any, height: int, width: int, budget: Budget) -> bytes | np.ndarray:
    """Compressed counts, or run lengths int64 that add up to the image.

    Raises:
        ValueError: neither run lengths nor polygons, of another image, or too costly.
    """
    if isinstance(drawn, dict):
        counts = foreign.counts_of(drawn, height, width)
        if isinstance(counts, str):
            # What is not ASCII, also half a pair of UTF-16, is refused with the other foreign characters.
            return foreign.text(counts, budget).encode("utf-8", "surrogatepass")
        return foreign.checked(counts, height, width, budget)
    if not isinstance(drawn, list) or not drawn:
        raise ValueError("it has no mask: neither run lengths nor an outline")
    rings = [drawn] if isinstance(drawn[0], int | float) else drawn
    parts = [outlines.ring(ring) for ring in rings]
    outlines.check(parts)
    if outlines.length(parts) > outlines.MAX_TRACED:
        raise ValueError(f"an outline of more than {outlines.MAX_TRACED} pixels; give it as run lengths")
    parts = [part for part in parts if len(part) > 2]
    if not parts:
        raise ValueError("an outline of fewer than three points")
    return outlines.pycocotools_counts(parts, height, width, budget)
