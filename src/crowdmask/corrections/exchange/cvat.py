"""CVAT for images 1.1: one XML file with masks and polygons, and the labels that CVAT needs to keep their ids.

The id of a head is the attribute `point_id` of its shape. CVAT drops attributes that the labels of its task do not
declare, so `labels.json` goes with the file: its text is what CVAT's label editor (Raw) takes. A shape that is drawn
anew has the declared default, -1.

A mask is a box and run lengths of its pixels row by row, background first. Polygons have pixel corners at integers and
two decimals; those with the same id are shapes of their own here, of which the same head is made later. Boxes, points,
lines, ellipses, cuboids, skeletons and tracks are refused, as leaving them out would lose somebody's work; tags (labels
of the whole picture) are left out. Author is the assignee of the job or task, else its owner; time its last update.

A file is read in a stream, without document type or entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from crowdmask.corrections.exchange import checks as c
from crowdmask.corrections.exchange.base import LABEL, MAX_POINTS, POINT_ID, File, Picture, Shape
from crowdmask.corrections.exchange.record import Record, Task
from crowdmask.errors import DataError, printable
from crowdmask.files import replacing, write_json
from crowdmask.masks.rle import Window

TOOL = "cvat"
"""Name for `--to`."""

MAX_BYTES = 1 << 29
"""Largest file."""
MAX_ELEMENT = 1 << 26
"""Longest element with its attributes, bytes."""
MAX_DEPTH = 32
"""Deepest nesting; CVAT itself needs 8."""
MAX_RUNS = 1 << 22
"""Most run lengths of a mask."""
MAX_OWNERS = 10_000
"""Most tasks, jobs and projects whose owners are remembered."""

_NONE = -1
_ATTRIBUTE = {"input_type": "number", "default_value": str(_NONE), "values": [str(_NONE), str(2**31 - 1), "1"]}
_CHUNK = 8 << 20  # an element that is cut by a chunk's end is scanned again with the next one: not too small
_WAY_OUT = "Export from CVAT again, as `CVAT for images 1.1`."
_REFUSED = ("box", "points", "polyline", "ellipse", "cuboid", "skeleton")
_OWNERS = ("job", "task", "project")
_KEPT = {"id", "updated", "assignee.username", "assignee.email", "owner.username", "owner.email"}
_FOREIGN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RUNS = re.compile(r"\s*+\d{1,9}+\s*+(?:,\s*+\d{1,9}+\s*+)*+", re.ASCII)


def write(folder: Path, record: Record) -> list[Path]:
    """Write `annotations.xml` and `labels.json` into the folder of an export.

    A head without a pixel on its picture is left out, as CVAT has no empty masks.

    Raises:
        DataError: the name of a picture cannot stand in XML.
    """
    folder = Path(folder)
    labels, annotations = folder / "labels.json", folder / "annotations.xml"
    attribute = {"name": POINT_ID, "mutable": True, **_ATTRIBUTE}
    write_json(labels, [{"name": LABEL, "color": "#33ddff", "type": "any", "attributes": [attribute]}])
    with replacing(annotations) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.write(_meta(record))
        for number, task in enumerate(record.tasks):
            if _FOREIGN.search(task.name):
                raise DataError(annotations, f"the name {task.name!r} cannot stand in XML", "Rename the image.")
            file.write(
                f'  <image id="{number}" name={quoteattr(task.name)} width="{task.w}" height="{task.h}">\n'
                f"{''.join(_masks(task))}  </image>\n"
            )
        file.write("</annotations>\n")
    return [annotations, labels]


def _meta(record: Record) -> str:
    values = "\n".join(_ATTRIBUTE["values"])
    return (
        f"  <meta>\n    <task>\n      <name>{escape(_FOREIGN.sub('_', f'{record.dataset} {record.tag}'))}</name>\n"
        f"      <size>{len(record.tasks)}</size>\n      <mode>annotation</mode>\n      <labels>\n        <label>\n"
        f"          <name>{LABEL}</name>\n          <type>any</type>\n          <attributes>\n            <attribute>\n"
        f"              <name>{POINT_ID}</name>\n              <mutable>True</mutable>\n"
        f"              <input_type>{_ATTRIBUTE['input_type']}</input_type>\n"
        f"              <default_value>{_ATTRIBUTE['default_value']}</default_value>\n"
        f"              <values>{values}</values>\n            </attribute>\n          </attributes>\n"
        "        </label>\n      </labels>\n    </task>\n  </meta>\n"
    )


def _masks(task: Task) -> Iterator[str]:
    for head in task.heads:
        window = task.local(head).tight()
        h, w = window.mask.shape
        if window.mask.size:
            yield (
                f'    <mask label="{LABEL}" source="manual" occluded="0" '
                f'rle="{", ".join(map(str, c.row_runs(window.mask).tolist()))}" '
                f'left="{window.x0}" top="{window.y0}" width="{w}" height="{h}" z_order="0">\n'
                f'      <attribute name="{POINT_ID}">{head.point_id}</attribute>\n    </mask>\n'
            )


def belongs(file: File) -> bool:
    """Whether a file is CVAT's XML: it has an element `annotations`."""
    start = file.content[: 1 << 20]
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<" and bool(re.search(rb"<annotations[\s/>]", start))


def read(file: File) -> Iterator[Picture]:
    """Pictures and shapes of a file, in its order; only one picture's shapes are in memory.

    Raises:
        DataError: with the place: not XML, a document type or entity, kinds of shape that are no masks, numbers that do
            not fit.
    """
    checks = c.Checks(file, _WAY_OUT)
    if len(file.content) > MAX_BYTES:
        raise checks.error(
            "", f"{len(file.content)} bytes, more than the {MAX_BYTES} that are read", "Export in parts."
        )
    listener = _Listener(checks)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = listener.start
    parser.EndElementHandler = listener.end
    parser.CharacterDataHandler = listener.text
    parser.StartDoctypeDeclHandler = listener.refuse
    parser.EntityDeclHandler = listener.refuse
    for at in range(0, len(file.content) + 1, _CHUNK):
        fed = at + _CHUNK
        try:
            parser.Parse(file.content[at:fed], fed > len(file.content))
        except expat.ExpatError as error:
            raise checks.error(f"line {error.lineno}", f"not valid XML ({expat.ErrorString(error.code)})") from None
        for image in listener.images:
            yield _picture(image, listener, checks)
        listener.images.clear()
        if min(fed, len(file.content)) - parser.CurrentByteIndex > MAX_ELEMENT:
            raise checks.error(f"line {parser.CurrentLineNumber}", f"an element of more than {MAX_ELEMENT} bytes")


class _Element:
    """An image or shape as it is written."""

    def __init__(self, where: str, kind: str, values: dict[str, str]) -> None:
        self.where, self.kind, self.values = where, kind, values
        self.shapes: list[_Element] = []
        self.point_id: str | None = None


class _Listener:
    """What the XML parser tells, kept as far as it is needed."""

    def __init__(self, checks: c.Checks) -> None:
        self.images: list[_Element] = []  # complete ones, not yet made pictures
        self.owners: list[dict[str, str]] = []  # of jobs, tasks and projects
        self.dumped: str | None = None
        self._checks = checks
        self._path: list[str] = []
        self._read = 0
        self._image: _Element | None = None
        self._shape: _Element | None = None
        self._open: list[dict[str, str]] = []  # the owners that the present place of the meta data is in
        self._text: list[str] | None = None

    def refuse(self, *_: Any) -> None:
        problem = "it declares a document type or entities, which CVAT never does: they may stand for anything"
        raise self._checks.error("", problem)

    def start(self, kind: str, values: dict[str, str]) -> None:
        self._path.append(kind)
        depth, self._text = len(self._path), None
        if depth > MAX_DEPTH:
            raise self._checks.error("", f"nested deeper than {MAX_DEPTH}")
        if depth == 1 and kind != "annotations":
            raise self._checks.error("", f"not a CVAT file: its root is {printable(kind, 60)!r}, not 'annotations'")
        if depth == 2 and kind == "track":
            raise self._checks.error("", "it has tracks of a video")
        if depth == 2 and kind == "image":
            where = f"image {self._read} ({printable(values.get('name', ''), 100)})"
            self._checks.picture(where, values.get("height"), values.get("width"))
            self._image = _Element(where, kind, values)
            self._read += 1
        elif depth == 3 and self._image is not None:
            self._begin_shape(kind, values, self._image)
        elif depth == 4 and self._shape is not None:
            if kind == "attribute" and values.get("name") == POINT_ID:
                self._text = []
        elif self._path[1:2] == ["meta"]:
            self._text = []
            if kind in _OWNERS and len(self.owners) < MAX_OWNERS:
                self._open.append({"kind": kind})
                self.owners.append(self._open[-1])

    def _begin_shape(self, kind: str, values: dict[str, str], image: _Element) -> None:
        if kind == "tag":
            return
        where = f"{image.where}, {printable(kind, 60)} {len(image.shapes)}"
        if kind in _REFUSED:
            raise self._checks.error(
                where,
                f"a shape of the label {printable(values.get('label', ''), 60)!r} that is no mask",
                "Delete it in CVAT, or draw it as mask or polygon; then export again.",
            )
        if kind not in ("mask", "polygon"):
            raise self._checks.error(where, "this element is not known here")
        self._checks.count(where, len(image.shapes))
        self._shape = _Element(where, kind, values)
        image.shapes.append(self._shape)

    def text(self, text: str) -> None:
        if self._text is not None and len(self._text) < 100:
            self._text.append(text[:200])

    def end(self, kind: str) -> None:
        depth, text, self._text = len(self._path), "".join(self._text or ()).strip(), None
        if depth == 4 and self._shape is not None:
            self._shape.point_id = text or self._shape.point_id
        elif depth == 3:
            self._shape = None
        elif depth == 2 and self._image is not None:
            self.images.append(self._image)
            self._image = None
        if self._path[1:2] == ["meta"]:
            if self._open and kind == self._open[-1]["kind"]:
                self._open.pop()
            elif text and kind == "dumped":
                self.dumped = text
            elif text and self._open:
                person = f"{self._path[-2]}." if self._path[-2] in ("assignee", "owner") else ""
                if f"{person}{kind}" in _KEPT:
                    self._open[-1].setdefault(f"{person}{kind}", text)
        self._path.pop()

    def provenance(self, task: str | None) -> tuple[str | None, str | None]:
        """Author and time, of the task with this id where several are told of."""
        ranked = sorted(self.owners, key=lambda owner: _OWNERS.index(owner["kind"]))
        if task is not None:
            own = [owner for owner in ranked if owner["kind"] == "task" and owner.get("id") == task]
            ranked = own + [owner for owner in ranked if owner["kind"] != "task"] if own else ranked
        author = None
        if ranked:
            names = [owner.get(f"{person}.{key}") for person in ("assignee", "owner")
                     for owner in ranked[:2] for key in ("username", "email")]  # fmt: skip
            author = c.author(*names)
        return author, c.iso_time(*(owner.get("updated") for owner in ranked[:1]), self.dumped)


def _picture(image: _Element, listener: _Listener, checks: c.Checks) -> Picture:
    values = image.values
    height, width = checks.picture(image.where, values.get("height"), values.get("width"))
    if not values.get("name"):
        raise checks.error(image.where, "it has no name")
    author, time = listener.provenance(values.get("task_id"))
    shapes = []
    for shape in image.shapes:
        exact = shape.kind == "mask"
        readings = _mask(shape, height, width, checks) if exact else _polygon(shape, height, width, checks)
        shapes.append(Shape(shape.where, readings, exact, c.point_id(shape.point_id)))
    return Picture(image.where, values["name"], height, width, tuple(shapes), "CVAT 1.1", author, time)


def _mask(shape: _Element, height: int, width: int, checks: c.Checks) -> tuple[Window, ...]:
    where, values = shape.where, shape.values
    box = [c.whole(values.get(key)) for key in ("left", "top", "width", "height")]
    left, top, w, h = (-1 if value is None else value for value in box)
    if left < 0 or top < 0 or w < 1 or h < 1 or left + w > width or top + h > height:
        told = ", ".join(f"{key} {c.short(values.get(key))}" for key in ("left", "top", "width", "height"))
        raise checks.error(where, f"its box ({told}) is not within the {width} x {height} pixels of the image")
    text = values.get("rle", "")
    if text.count(",") >= MAX_RUNS:
        raise checks.error(where, f"its rle has more than {MAX_RUNS} runs", "Is it a head? Draw it anew.")
    if "-" in text:
        raise checks.error(where, "its rle holds a negative run")
    if not _RUNS.fullmatch(text):
        raise checks.error(where, "its rle is no list of whole numbers of at most 9 digits")
    lengths = np.fromstring(text, np.int64, sep=",")
    if lengths.sum() != w * h:
        raise checks.error(where, f"its rle adds up to {lengths.sum()} pixels, its box has {w * h}")
    ends = np.cumsum(lengths)
    begin, end = ends[0::2][: lengths[1::2].size], ends[1::2]
    some = end > begin
    return (checks.window(where, begin[some], end[some], w, left, top),)


def _polygon(shape: _Element, height: int, width: int, checks: c.Checks) -> tuple[Window, ...]:
    text = shape.values.get("points", "")
    if text.count(";") > MAX_POINTS:
        raise checks.error(shape.where, f"an outline of more than {MAX_POINTS} points", "Draw it as a mask instead.")
    try:
        ring = [float(number) for pair in text.split(";") for number in _pair(pair)]
    except ValueError:
        raise checks.error(shape.where, "its points are not pairs of numbers x,y;x,y;...") from None
    return checks.readings(shape.where, ring, height, width, corner=True)


def _pair(text: str) -> list[str]:
    pair = text.split(",")
    if len(pair) != 2:
        raise ValueError
    return pair
