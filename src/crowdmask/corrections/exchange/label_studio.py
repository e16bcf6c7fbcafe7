"""Label Studio: JSON tasks, with brush masks as predictions; full JSON exports of it on the way back.

A head is a region of type `brushlabels` (run lengths: `label_studio_rle`) with the id `p12` and the text `point_id=12`,
as the text stays with a region whose id is given anew. Pictures are local files, `/data/local-files/?d=images/NAME`,
below the document root, which has to be the export's folder; `label_config.xml` is the labeling interface.

On the way back each annotation that nobody cancelled is a picture of its own, so that two annotators of one task are
two pictures of one name; predictions count where a task has no annotation at all, drafts (not submitted) never.
Polygons are in percent of width and height, pixel corners at 0. A pixel belongs to a brush mask where its alpha is more
than half of the mask's highest, as brushes have blurred edges. The picture's name is the last part of its address,
without the eight hex digits and dash that Label Studio puts before what is uploaded. Regions of other shapes are
refused, as leaving them out would lose somebody's work; answers without a place (choices, texts, ratings) are left out.

Only regions tell the size of their picture: an annotation without one (somebody has deleted all heads, or submitted an
empty task) takes it from its task's other annotations and predictions; where they have none either, it is 0 x 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from crowdmask.corrections.exchange import checks as c
from crowdmask.corrections.exchange import jsons, label_studio_rle
from crowdmask.corrections.exchange.base import LABEL, POINT_ID, File, Picture, Shape
from crowdmask.corrections.exchange.record import Record, Task
from crowdmask.files import replacing
from crowdmask.masks.rle import Window

TOOL = "label-studio"
"""Name for `--to`."""

LARGEST = 100 << 20
"""A tasks file gets no further task beyond so many bytes: Label Studio takes at most 250 MB at once."""

_IMAGE = "image"
_BRUSH, _OUTLINE = "mask", "outline"
_CONFIG = f"""<View>
  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true" zoomControl="true"/>
  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">
    <Label value="{LABEL}" background="#33ddff"/>
  </BrushLabels>
  <PolygonLabels name="{_OUTLINE}" toName="{_IMAGE}">
    <Label value="{LABEL}" background="#33ddff"/>
  </PolygonLabels>
</View>
"""
_WAY_OUT = "Export from Label Studio again, format JSON (the full one)."
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)", re.ASCII)
_PICTURE = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp|gif)$", re.IGNORECASE)
_ANSWERS = {"choices", "text", "rating", "number", "datetime", "taxonomy", "ranker", "selected", "labels", "ocrtext"}


def write(folder: Path, record: Record) -> list[Path]:
    """Write `tasks.json` and `label_config.xml` into the folder of an export; very many masks give `tasks-2.json`, ...

    A head without a pixel on its picture is left out, as there are no empty brush masks.
    """
    folder = Path(folder)
    config = folder / "label_config.xml"
    with replacing(config) as temporary:
        temporary.write_text(_CONFIG, encoding="utf-8")
    written, waiting, size = [config], list[str](), 0

    def flush() -> None:
        path = folder / ("tasks.json" if len(written) == 1 else f"tasks-{len(written)}.json")
        with replacing(path) as temporary:
            temporary.write_text("[\n" + ",\n".join(waiting) + "\n]\n", encoding="utf-8")
        written.append(path)
        waiting.clear()

    for task in record.tasks:
        text = json.dumps(_task(task), separators=(",", ":"))
        if waiting and size + len(text) > LARGEST:
            flush()
            size = 0
        waiting.append(text)
        size += len(text)
    flush()
    return [*written[1:], config]


def _task(task: Task) -> dict[str, Any]:
    result = []
    for head in task.heads:
        window = task.local(head).tight()
        if not window.mask.size:
            continue
        code = label_studio_rle.encode(*_runs(window, task.w), task.w * task.h)
        result.append(
            {
                "id": f"p{head.point_id}",
                "type": "brushlabels",
                "from_name": _BRUSH,
                "to_name": _IMAGE,
                "original_width": task.w,
                "original_height": task.h,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": list(code), "brushlabels": [LABEL]},
                "meta": {"text": [f"{POINT_ID}={head.point_id}"]},
            }
        )
    address = f"/data/local-files/?d={quote(f'images/{task.name}')}"
    return {"data": {_IMAGE: address}, "predictions": [{"model_version": "crowdmask", "result": result}]}


def _runs(window: Window, width: int) -> tuple[Any, Any]:
    """Runs of a tight window in its picture, row by row; those that meet over the end of a row are one."""
    import numpy as np

    h, w = window.mask.shape
    padded = np.zeros((h, w + 2), np.int8)
    padded[:, 1:-1] = window.mask
    steps = np.diff(padded, axis=1)
    (row, begin), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    base = (row + window.y0) * width + window.x0
    begin, end = base + begin, base + end
    apart = begin[1:] != end[:-1]
    return begin[np.concatenate(([True], apart))], end[np.concatenate((apart, [True]))]


def belongs(file: File) -> bool:
    """Whether a file is Label Studio's JSON: tasks with `data`, or regions as only it writes them."""
    if jsons.begins(file.content) not in (b"[", b"{"):
        return False
    has = [re.search(rb'"(?:%s)"\s*:' % names, file.content) for names in (b"data", b"annotations|predictions")]
    return all(has) or re.search(rb'"(?:brushlabels|polygonlabels|original_width)"', file.content) is not None


def read(file: File) -> Iterator[Picture]:
    """Pictures and shapes of a file, in its order; only one task is in memory.

    Raises:
        DataError: with the place: not JSON, no full export, shapes that are no masks, numbers that do not fit.
    """
    checks = c.Checks(file, _WAY_OUT)
    for number, task in enumerate(jsons.items(file.content, checks, "task")):
        yield from _pictures(f"task {number}", task, checks)


def _pictures(where: str, task: Any, checks: c.Checks) -> Iterator[Picture]:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        raise checks.error(where, "it has no table 'data', so this is not a full export (JSON-MIN has none)")
    annotations = [("annotation", given) for given in _list(where, task, "annotations", checks)]
    # Predictions may be exported as mere numbers.
    predictions = [("prediction", p) for p in _list(where, task, "predictions", checks) if isinstance(p, dict)]
    chosen = [
        (f"{where}, {kind} {number}", given)
        for number, (kind, given) in enumerate(annotations or predictions)
        if not (isinstance(given, dict) and given.get("was_cancelled"))
    ]
    if chosen:
        name = _name(where, data, checks)
        size = _size([given for _, given in (*annotations, *predictions)])
        for here, given in chosen:
            if not isinstance(given, dict):
                raise checks.error(here, "it is no table, so this is not a full export")
            yield _picture(here, name, size, given, checks)


def _size(given: list[Any]) -> tuple[Any, Any]:
    """Size that the first region tells which tells one; (0, 0) where none does."""
    for one in given:
        regions = one.get("result") if isinstance(one, dict) else None
        for region in regions if isinstance(regions, list) else []:
            if isinstance(region, dict) and "original_height" in region:
                return region["original_height"], region.get("original_width")
    return 0, 0


def _list(where: str, table: dict, key: str, checks: c.Checks) -> list:
    value = table.get(key)
    if value is not None and not isinstance(value, list):
        raise checks.error(where, f"its {key!r} is no list")
    return value or []


def _name(where: str, data: dict[str, Any], checks: c.Checks) -> str:
    """File name of a task's picture."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    names = [_last(texts[_IMAGE])] if _IMAGE in texts else list(filter(_PICTURE.search, map(_last, texts.values())))
    if len(names) != 1 or not names[0]:
        raise checks.error(
            where, f"which of its data is the picture? {c.short(sorted(texts))}", f"Name its address {_IMAGE!r}."
        )
    return names[0]


def _last(address: str) -> str:
    """The file name in an address, as the picture was called before it was uploaded."""
    path, found, local = address.partition("?d=")
    path = local.partition("&")[0] if found else re.split(r"[?#]", path, maxsplit=1)[0]
    return _UPLOADED.sub("", unquote(path).replace("\\", "/").rpartition("/")[2], count=1)


def _picture(where: str, name: str, told: tuple[Any, Any], given: dict[str, Any], checks: c.Checks) -> Picture:
    size = (0, 0) if told == (0, 0) else checks.picture(where, *told)
    shapes: list[Shape] = []
    known: dict[str, list[Any]] = {}
    for number, region in enumerate(_list(where, given, "result", checks)):
        here = f"{where}, region {number}"
        drawn = _drawn(here, region, checks)
        if drawn is None:
            continue
        checks.count(here, len(shapes))
        own = c.whole(region.get("original_height")), c.whole(region.get("original_width"))
        if own != size:
            told_here = f"{c.short(own[1])} x {c.short(own[0])} pixels"
            raise checks.error(
                here, f"its picture has {told_here}, that of the task's first region {size[1]} x {size[0]}"
            )
        if region.get("image_rotation") not in (None, 0):
            raise checks.error(here, "its picture was turned", "Turn it back in Label Studio, then export again.")
        key = region.get("id")
        if isinstance(key, str):
            # A region with an answer of its own (a label, a choice) is written once for each, with the same shape.
            if known.setdefault(key, drawn) is not drawn and known[key] == drawn:
                continue
        shapes.append(_shape(here, region, drawn, size, checks))
    author = _person(given.get("completed_by"))
    time = c.iso_time(given.get("updated_at"), given.get("created_at"))
    return Picture(where, name, *size, tuple(shapes), "Label Studio", author, time)


def _person(value: Any) -> str | None:
    """Name of a user: by number, or told about."""
    if isinstance(value, dict):
        found = c.author(value.get("email"), value.get("username"), value.get("first_name"))
        return found or _person(value.get("id"))
    number = c.whole(value)
    return c.author(value) if number is None or isinstance(value, str) else f"user {number}"


def _drawn(where: str, region: Any, checks: c.Checks) -> list[Any] | None:
    """The numbers of a region's shape; None where it is an answer without place."""
    if not isinstance(region, dict):
        raise checks.error(where, "it is no table")
    value = region.get("value")
    for key in ("rle", "points"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return value[key]
    if value is None or (isinstance(value, dict) and value.keys() <= _ANSWERS):
        return None
    raise checks.error(
        where,
        f"a region of the type {c.short(region.get('type'))} that is neither brush nor polygon",
        "Delete it in Label Studio, or draw it with brush or polygon; then export again.",
    )


def _shape(where: str, region: dict[str, Any], drawn: list[Any], size: tuple[int, int], checks: c.Checks) -> Shape:
    height, width = size
    number = _id(region)
    if drawn is not region["value"].get("rle"):
        corners = [v / 100 * (height if i % 2 else width) for i, v in enumerate(checks.pairs(where, drawn))]
        return Shape(where, checks.readings(where, corners, height, width, corner=True), False, number)
    try:
        begin, end = label_studio_rle.opaque(*label_studio_rle.decode(bytes(drawn), height * width))
    except TypeError:
        raise checks.error(where, "its rle is no list of whole numbers") from None
    except ValueError as error:
        what = "its rle holds numbers that are no bytes (0 to 255)" if "range(0, 256)" in str(error) else str(error)
        raise checks.error(where, what) from None
    return Shape(where, (checks.window(where, begin, end, width),), True, number)


def _id(region: dict[str, Any]) -> int | None:
    """Id of a region's head: of its text, else of its own id."""
    meta = region.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    for part in text if isinstance(text, list) else [text]:
        found = c.point_id_in(part)
        if found is not None:
            return found
    own = region.get("id")
    return c.point_id(own[1:]) if isinstance(own, str) and re.fullmatch(r"p\d{1,10}", own, re.ASCII) else None
