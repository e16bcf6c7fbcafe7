"""Masks of a COCO file, streamed: what is in memory is an image's masks and a few numbers an annotation.

Annotations may come in any order, so they go to a temporary file first, with their places by image. Run lengths may be
compressed or not; outlines are drawn as pycocotools draws them. All annotations count, of any category and with
`iscrowd` 0 or 1 (CVAT writes 1 for every mask).
"""

from __future__ import annotations

import json
import math
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.corrections.exchange import outlines, runs
from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SHAPES, MAX_SIDE
from crowdmask.corrections.exchange.budget import MAX_WORK, Budget
from crowdmask.corrections.exchange.coco import id_of, point_of
from crowdmask.errors import DataError
from crowdmask.json_stream import entries
from crowdmask.masks.rle import Window
from crowdmask.metrics.mask_files import Masks, Name, name_in_split, name_of, unique_ids

_WAY_OUT = "Write it again with the tool that made it, as COCO's format says."
_WORK_A_BYTE = 1000
"""Drawing that a byte of the file pays for, as for files that people bring back (`corrections.exchange.coco`)."""


@dataclass(frozen=True)
class Image:
    """An entry of `images`."""

    name: Name
    height: int
    width: int


class CocoMasks:
    """A COCO file.

    Args:
        path: The file.
        images: Of another file, for a list of results.

    Raises:
        DataError: not a COCO file, an image twice, or an annotation of an image that is not listed.
    """

    def __init__(self, path: Path, images: dict[int, Image] | None) -> None:
        """Read the images, and put the annotations aside."""
        self.path = path
        self.images: dict[int, Image] = {}
        self._names: set[Name] = set()
        self._places: dict[int, array[int]] = {}
        self._spool = tempfile.TemporaryFile()
        try:
            self._pass(images)
            for number in self._places:
                if number not in self.images:
                    raise self._fault(f"annotations of image {number}, which is not listed")
        except BaseException:
            self._spool.close()
            raise
        self._by_name = {image.name: number for number, image in self.images.items()}
        self._work = Budget(MAX_WORK + _WORK_A_BYTE * path.stat().st_size)

    def _pass(self, images: dict[int, Image] | None) -> None:
        rows = dict.fromkeys(("images", "annotations", ""), 0)
        for key, entry in entries(self.path, ("images", "annotations"), _WAY_OUT):
            if key == "" and images is None:
                problem = "a list of results, which does not say how its images are called"
                raise DataError(self.path, problem, "Compare it with the COCO file that it belongs to, given as TRUTH.")
            given = entry if isinstance(entry, dict) else {}
            (self._list if key == "images" else self._put_aside)(rows[key], given)
            rows[key] += 1
        if not rows["images"] and images is not None:
            self.images = images
        if not self.images:
            raise self._fault("not a COCO file with masks: it has no list `images`, or nothing in it")

    def _list(self, row: int, entry: dict[str, Any]) -> None:
        """Take an entry of `images`."""
        number, file_name = runs.whole(entry.get("id")), entry.get("file_name")
        height, width = runs.whole(entry.get("height")), runs.whole(entry.get("width"))
        if number is None or not isinstance(file_name, str) or not file_name or height is None or width is None:
            raise self._fault(f"images[{row}] lacks `id`, `file_name`, `height` or `width`")
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
            raise self._fault(f"images[{row}] claims {height} x {width} pixels")
        split, image_id = entry.get("split"), entry.get("image_id")
        ours = isinstance(split, str) and isinstance(image_id, str)
        name = name_in_split(str(split), str(image_id)) if ours else name_of(file_name)
        if number in self.images or name in self._names:
            raise self._fault(f"images[{row}]: the image {name.full}, or its id {number}, is listed twice")
        self._names.add(name)
        self.images[number] = Image(name, height, width)

    def _put_aside(self, row: int, entry: dict[str, Any]) -> None:
        """Write an annotation to the temporary file; of each image start, length, start, length, ... are kept."""
        image = runs.whole(entry.get("image_id"))
        if image is None:
            raise self._fault(f"annotation {row} is of no image")
        kept = {"row": row, "point_id": id_of(entry)}
        kept |= {key: entry.get(key) for key in ("segmentation", "score", "point")}
        text = json.dumps(kept).encode()
        places = self._places.setdefault(image, array("q"))
        if len(places) >= 2 * MAX_SHAPES:
            raise self._fault(f"image {image} has more than {MAX_SHAPES} annotations")
        places.extend((self._spool.tell(), len(text)))
        self._spool.write(text)

    def _fault(self, problem: str) -> DataError:
        return DataError(self.path, problem, _WAY_OUT)

    def names(self) -> Sequence[Name]:
        """All images, in the order of the file."""
        return list(self._by_name)

    def read(self, name: Name) -> Masks:
        """Masks of one image; see `mask_files.Source`.

        Raises:
            DataError: an annotation without mask, or whose mask does not fit its image.
        """
        number = self._by_name[name]
        image, places = self.images[number], self._places.get(number, array("q"))
        self._work.new_picture()
        entries, windows = [], []
        for start, length in zip(places[::2], places[1::2], strict=True):
            self._spool.seek(start)
            entry = json.loads(self._spool.read(length))
            try:
                windows.append(self._window(entry["segmentation"], image.height, image.width))
            except ValueError as error:
                raise self._fault(f"annotation {entry['row']} of image {name.full}: {error}") from None
            entries.append(entry)
        points = [point_of(entry["point"]) for entry in entries]
        return Masks(
            (image.height, image.width),
            windows,
            unique_ids([entry["point_id"] for entry in entries]),
            np.array([_score(entry["score"]) for entry in entries], np.float64),
            None if any(p is None for p in points) else np.array(points, np.float64).reshape(-1, 2),
        )

    def _window(self, drawn: Any, height: int, width: int) -> Window:
        if isinstance(drawn, dict):
            size = drawn.get("size")
            if not isinstance(size, list) or [runs.whole(side) for side in size] != [height, width]:
                raise ValueError(f"run lengths of another size than the image, which has {[height, width]}")
            counts = runs.checked(drawn.get("counts"), height, width, self._work)
            window = runs.window(counts, height, self._work)
        elif isinstance(drawn, list) and drawn:
            rings = [drawn] if isinstance(drawn[0], int | float) else drawn
            parts = [outlines.ring(part) for part in rings]
            outlines.check(parts)
            if outlines.length(parts) > outlines.MAX_TRACED:
                raise ValueError(f"an outline of more than {outlines.MAX_TRACED} pixels; give it as run lengths")
            window = outlines.as_pycocotools(parts, height, width, self._work)
        else:
            raise ValueError("it has no mask: neither run lengths nor an outline")
        self._work.keep(window.mask.size)
        return window

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()


def _score(value: Any) -> float:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else math.nan
