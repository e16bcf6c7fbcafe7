"""COCO instances: out as compressed run lengths, back in any of the forms that tools write.

The id of a head is the attribute `point_id` of its annotation, which CVAT and datumaro keep, and a key of the same name
beside it, which programs keep that pass annotations through. COCO puts (0, 0) at the corner of the first pixel
(pycocotools, `maskApi.c`). Keypoints are left out: CVAT reads files with them as another format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crowdmask.corrections.exchange import checks as c
from crowdmask.corrections.exchange import jsons, outlines, runs
from crowdmask.corrections.exchange.base import (
    LABEL,
    MAX_COORDINATE,
    MAX_PIXELS,
    MAX_SHAPES,
    MAX_SIDE,
    POINT_ID,
    File,
    Picture,
    Shape,
)
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.corrections.exchange.record import Record, Task
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.masks import rle

TOOL = "coco"
"""Name for `--to`."""
FILE = "annotations.json"
"""Name of the only file that is written, beside the folder `images`."""

_WAY_OUT = "Export it from the tool again, as COCO instances with masks."
_MAX_AUTHOR = 200
"""Longest name of an author, as edit files have it."""


def write(folder: Path, record: Record) -> list[Path]:
    """Write one `annotations.json` for all pictures: compressed run lengths with text counts, ids from 1.

    A head without a pixel in its picture is left out. Equal records give equal bytes.

    Args:
        folder: Of the export; the pictures lie in its `images`.
        record: What is handed out.

    Returns:
        The file.
    """
    path = folder / FILE
    head = {
        "info": {"description": f"Head masks of {record.dataset} for correction", "version": version("crowdmask")},
        "licenses": [],
        "categories": [{"id": 1, "name": LABEL, "supercategory": ""}],
    }
    images = [
        {"id": number, "file_name": task.name, "height": task.h, "width": task.w}
        for number, task in enumerate(record.tasks, 1)
    ]
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"images": [\n')
        file.write(",\n".join(json.dumps(image, ensure_ascii=False) for image in images))
        file.write('\n],\n"annotations": [')
        count = 0
        for number, task in enumerate(record.tasks, 1):
            for entry in _annotations(task):
                count += 1
                line = json.dumps({"id": count, "image_id": number, **entry}, ensure_ascii=False, allow_nan=False)
                file.write(("\n" if count == 1 else ",\n") + line)
        file.write("\n]}\n")
    return [path]


def _annotations(task: Task) -> Iterator[dict[str, Any]]:
    for head in task.heads:
        mask = task.local(head).tight()
        if not mask.mask.size:
            continue
        h, w = mask.mask.shape
        yield {
            "category_id": 1,
            "iscrowd": 0,
            "area": mask.area,
            "bbox": [mask.x0, mask.y0, w, h],
            "segmentation": {"size": [task.h, task.w], "counts": rle.full_counts(mask, task.h, task.w).decode("ascii")},
            "attributes": {POINT_ID: head.point_id},
            POINT_ID: head.point_id,
            "point": [head.x - task.x0, head.y - task.y0],
        }


_KEYS = tuple(re.compile(rb'"' + key + rb'"\s*:\s*\[') for key in (b"images", b"annotations"))


def belongs(file: File) -> bool:
    """Whether the file is a JSON object with lists `images` and `annotations`; it is not parsed, and may be damaged."""
    start = file.content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"{" and all(key.search(file.content) for key in _KEYS)


def read(file: File) -> Iterator[Picture]:
    """Pictures and shapes of a COCO file, the shapes of one picture at a time.

    Segmentations may be rings, compressed or uncompressed run lengths, with `iscrowd` 0 or 1; images and annotations in
    any order; further keys are passed over. `point` (pixels of the picture, centres at integers), our own key, is the
    head point where it came back. Several rings of one annotation are its fragments; see `outlines.readings`. A line of
    pixels that a tool could not write as a polygon is a shape without a pixel.

    Raises:
        DataError: not such a file; with the annotation: an unknown or faulty image, a box without mask, run lengths or
            rings that do not fit or are too costly.
    """
    raw = jsons.parse(file.content, c.Checks(file, _WAY_OUT))
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), list) for key in ("images", "annotations")):
        raise DataError(file.name, "not a COCO file: no lists `images` and `annotations`", _WAY_OUT)
    images = _images(file, raw["images"])
    found: dict[int, list[tuple[str, dict[str, Any]]]] = {number: [] for number in images}
    for index, entry in enumerate(raw["annotations"]):
        where = f"annotations[{index}]"
        if not isinstance(entry, dict):
            raise DataError(file.name, f"{where} is no object", _WAY_OUT)
        if (number := runs.whole(entry.get("id"))) is not None:
            where = f"annotation {number}"
        image = runs.whole(entry.get("image_id"))
        if image not in found:
            raise DataError(file.name, f"{where} is of an image that is not listed", _WAY_OUT)
        found[image].append((where, entry))
        if len(found[image]) > MAX_SHAPES:
            raise DataError(file.name, f"image {image} has more than {MAX_SHAPES} annotations", _WAY_OUT)
    author, time = _provenance(raw.get("info"))
    budget = Budget(len(file.content))
    for number, (name, height, width) in images.items():
        budget.new_picture()
        shapes = [_shape(file, where, entry, height, width, budget) for where, entry in found.pop(number)]
        yield Picture(f"image {number}", name, height, width, shapes, "COCO", author, time)


def _images(file: File, entries: list[Any]) -> dict[int, tuple[str, int, int]]:
    """Name, height and width by id."""
    images: dict[int, tuple[str, int, int]] = {}
    for index, entry in enumerate(entries):
        where = f"images[{index}]"
        try:
            number, name, height, width = image_of(entry, where, images)
        except ValueError as error:
            raise DataError(file.name, str(error), _WAY_OUT) from None
        images[number] = name, height, width
    return images


def image_of(entry: Any, where: str, known: Container[int]) -> tuple[int, str, int, int]:
    """Id, name, height and width of an entry of `images`.

    Args:
        entry: As it stands in the file.
        where: Place in the file, for messages.
        known: Ids of the entries before.

    Raises:
        ValueError: what is wrong with it, and where.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no object")
    number = runs.whole(entry.get("id"))
    if number is None:
        raise ValueError(f"{where} has no whole number as `id`")
    if number in known:
        raise ValueError(f"{where} has the id {number} of another image")
    name, height, width = entry.get("file_name"), runs.whole(entry.get("height")), runs.whole(entry.get("width"))
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: image {number} has no `file_name`")
    if height is None or width is None or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"{where}: image {number} needs `height` and `width`, whole numbers from 1 to {MAX_SIDE}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{where}: image {number} claims {height} x {width}, more than {MAX_PIXELS} pixels")
    return number, name, height, width


def _shape(file: File, where: str, entry: dict[str, Any], height: int, width: int, budget: Budget) -> Shape:
    drawn = entry.get("segmentation")
    if _is_lost_line(entry):
        nothing = outlines.readings([], height, width, corner=True)
        return Shape(where, nothing, False, id_of(entry), point_of(entry.get("point")))
    if not drawn:
        fix = "Turn the boxes into masks or polygons in the tool, or delete them there; then export again."
        raise DataError(file.name, f"{where} has no mask, at most a box", fix)
    try:
        if isinstance(drawn, dict):
            counts = runs.checked(runs.counts_of(drawn, height, width), height, width, budget)
            window = runs.window(counts, height, budget)
            budget.keep(window.mask.size)
            readings: tuple[rle.Window, ...] = (window,)
        elif isinstance(drawn, list):
            rings = [drawn] if isinstance(drawn[0], int | float) else drawn
            if len(rings) > outlines.MAX_RINGS:
                raise ValueError(f"an outline of {len(rings)} rings, more than {outlines.MAX_RINGS}")
            if any(isinstance(part, dict) for part in rings):
                raise ValueError("a list of run lengths; one mask has one")
            parts = [outlines.ring(part) for part in rings]
            if not any(map(len, parts)):
                raise ValueError("an outline without points")
            readings = outlines.readings(parts, height, width, True, budget)
        else:
            raise ValueError("a segmentation is neither run lengths nor a list of outlines")
    except ValueError as error:
        raise DataError(file.name, f"{where}: {error}", _WAY_OUT) from None
    return Shape(where, readings, isinstance(drawn, dict), id_of(entry), point_of(entry.get("point")))


def _is_lost_line(entry: dict[str, Any]) -> bool:
    """Whether a tool of polygons had a mask of a single line of pixels here: an empty list of rings is left of it.

    Such a mask has no more pixels than its longer side, which tools give as the distance of its outermost pixels. A box
    that a person drew has the area of a box.
    """
    box = entry.get("bbox")
    if entry.get("segmentation") != [] or not isinstance(box, list) or len(box) != 4:
        return False
    area, _, _, width, height = numbers = [entry.get("area"), *box]
    if not all(type(number) in (int, float) for number in numbers):
        return False
    return bool(0 < area <= max(width, height) + 1 and min(width, height) >= 0)


def id_of(entry: dict[str, Any]) -> int | None:
    """The head's id; where the attribute is there it counts, whatever it says, for it is what a person may change."""
    attributes = entry.get("attributes")
    holder = attributes if isinstance(attributes, dict) and POINT_ID in attributes else entry
    return c.point_id(holder.get(POINT_ID))


def point_of(value: Any) -> tuple[float, float] | None:
    """Head point (x, y), pixels, from the key `point` of an annotation; None for anything else."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) in (int, float) for number in value):
        return None
    if not all(-MAX_COORDINATE <= number <= MAX_COORDINATE for number in value):
        return None
    return float(value[0]), float(value[1])


def _provenance(info: Any) -> tuple[str | None, str | None]:
    """Author, and time where there is an author: tools fill the time in for themselves."""
    if not isinstance(info, dict):
        return None, None
    author, time = info.get("contributor"), info.get("date_created")
    author = author.strip() if isinstance(author, str) else ""
    if not author or len(author) > _MAX_AUTHOR or not author.isprintable():
        return None, None
    try:
        return author, datetime.fromisoformat(str(time).strip().replace("/", "-")).isoformat()
    except ValueError:
        return author, None
