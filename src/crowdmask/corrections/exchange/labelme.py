"""labelme: a JSON file beside each picture, with a bitmap for each head; files of labelme 3 to 7 on the way back.

The id of a head is the shape's `group_id`, and once more in its description (`point_id=12`). A mask is a PNG on the
box between the centres of its first and last pixel.

On the way back shapes are drawn as labelme draws them, which is what Pillow does: coordinates cut to whole numbers
towards 0, these at pixel centres, lines included; for polygons the conventions of other programs are kept as further
readings. Polygons, masks, rectangles and circles are masks; points and lines are refused, as leaving them out would
lose somebody's work. labelme says neither author nor time.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crowdmask.corrections.exchange import checks as c
from crowdmask.corrections.exchange import jsons
from crowdmask.corrections.exchange.base import LABEL, MAX_SIDE, POINT_ID, File, Picture, Shape
from crowdmask.corrections.exchange.record import Record, Task
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.masks.rle import Window

TOOL = "labelme"
"""Name for `--to`."""

VERSION = "5.5.0"
"""Of labelme, whose files are written; newer ones read them."""

_WAY_OUT = "Open it in labelme and save it again."
_PLAIN = ("1", "L", "P", "I", "I;16")  # modes of one value a pixel


def write(folder: Path, record: Record) -> list[Path]:
    """Write `images/NAME.json` beside each picture of an export, as labelme wants them.

    A head without a pixel on its picture is left out, as labelme has no empty masks.

    Raises:
        DataError: two pictures differ in their ending only, so that labelme would take one file for both.
    """
    written: dict[Path, str] = {}
    for task in record.tasks:
        path = Path(folder, "images", task.name).with_suffix(".json")
        if path in written:
            raise DataError(path, f"is to be the file of both {written[path]} and {task.name}", "Rename one image.")
        with replacing(path) as temporary:
            temporary.write_text(_text(task), encoding="utf-8")
        written[path] = task.name
    return list(written)


def _text(task: Task) -> str:
    shapes = []
    for head in task.heads:
        window = task.local(head).tight()
        h, w = window.mask.shape
        if window.mask.size:
            shapes.append(
                {
                    "label": LABEL,
                    "points": [[window.x0, window.y0], [window.x0 + w - 1, window.y0 + h - 1]],
                    "group_id": head.point_id,
                    "description": f"{POINT_ID}={head.point_id}",
                    "shape_type": "mask",
                    "flags": {},
                    "mask": base64.b64encode(_png(window.mask)).decode("ascii"),
                }
            )
    content: dict[str, Any] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": task.name,
        "imageData": None,
        "imageHeight": task.h,
        "imageWidth": task.w,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _png(mask: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def belongs(file: File) -> bool:
    """Whether a file is labelme's JSON: a table with a list of shapes and a path of an image."""
    return jsons.begins(file.content) == b"{" and all(
        re.search(pattern, file.content) for pattern in (rb'"shapes"\s*:', rb'"image(?:Path|Data|Height)"\s*:')
    )


def read(file: File) -> Iterator[Picture]:
    """The picture of a file, with its shapes.

    Raises:
        DataError: with the place: not JSON, no labelme file, shapes that are no masks, numbers that do not fit.
    """
    checks = c.Checks(file, _WAY_OUT)
    raw = jsons.parse(file.content, checks)
    if not isinstance(raw, dict) or not isinstance(raw.get("shapes"), list):
        raise checks.error("", "not a labelme file: it has no list 'shapes'")
    path = raw.get("imagePath")
    name = path.replace("\\", "/") if isinstance(path, str) else ""
    if not PurePosixPath(name).name:
        raise checks.error("", "it does not say which picture it is of (imagePath)")
    height, width = checks.picture("imageHeight, imageWidth", raw.get("imageHeight"), raw.get("imageWidth"))
    media = None
    if raw.get("imageData") is not None:
        media = _bytes("imageData", raw["imageData"], checks)
    shapes = []
    for number, shape in enumerate(raw["shapes"]):
        checks.count(f"shape {number}", number)
        shapes.append(_shape(f"shape {number}", shape, height, width, checks))
    version = raw.get("version")
    tool = f"labelme {version}" if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version) else "labelme"
    yield Picture("", name, height, width, tuple(shapes), tool, media=media)


def _bytes(where: str, value: Any, checks: c.Checks) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):  # the latter for what is not ASCII
        raise checks.error(where, "it is no base64 text") from None


def _shape(where: str, shape: Any, height: int, width: int, checks: c.Checks) -> Shape:
    if not isinstance(shape, dict):
        raise checks.error(where, "it is no table")
    where += f" ({c.short(shape.get('label'))})"
    ring = checks.pairs(where, shape.get("points"))
    number = c.point_id(shape.get("group_id"))
    if number is None:
        number = c.point_id_in(shape.get("description"))
    kind = shape.get("shape_type") or ("point" if len(ring) == 2 else "polygon")  # early versions name no kind
    if kind in ("mask", "rectangle", "circle"):
        checks.ring(where, ring)
        if len(ring) != 4:
            raise checks.error(where, f"a {kind} of {len(ring) // 2} points, it needs 2", "Delete the shape.")
    if kind == "mask":
        return Shape(where, (_mask(where, ring, shape.get("mask"), height, width, checks),), True, number)
    if kind == "rectangle":
        return Shape(where, (_rectangle(where, ring, height, width, checks),), False, number)
    if kind == "circle":
        return Shape(where, (_circle(where, ring, height, width, checks),), False, number)
    if kind not in ("polygon", "oriented_rectangle"):
        raise checks.error(
            where,
            f"a shape of the type {c.short(kind)} is no mask",
            "Delete it in labelme, or draw it as polygon; then save it.",
        )
    further = checks.readings(where, ring, height, width, corner=False)
    own = _polygon(where, ring, height, width, checks)
    others = tuple(window for window in further if not _same(window, own))
    readings = (own, *others) if own.mask.size or not others else others
    return Shape(where, readings, False, number)


def _same(a: Window, b: Window) -> bool:
    return (a.x0, a.y0) == (b.x0, b.y0) and np.array_equal(a.mask, b.mask)


def _mask(where: str, ring: list[float], value: Any, height: int, width: int, checks: c.Checks) -> Window:
    """The bitmap on its box, which is dragged to fractions of a pixel now and then; then the bitmap's size holds."""
    left, top, right, bottom = (math.floor(number + 0.5) for number in ring)
    moved = any(number != int(number) for number in ring)
    content = _bytes(where, value, checks)
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
        raise checks.error(where, "its mask is no PNG")
    w, h = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    slack = 1 if moved else 0
    if w < 1 or h < 1 or abs(right - left + 1 - w) > slack or abs(bottom - top + 1 - h) > slack:
        told = f"{w} x {h} pixels, its points are the corners of {right - left + 1} x {bottom - top + 1}"
        raise checks.error(where, f"its mask has {told}", "Delete the shape in labelme, and draw it anew.")
    if w > MAX_SIDE or h > MAX_SIDE or w * h > 8 * 1032 * len(content):
        # Deflate makes at most 1032 bytes of one, and a pixel has at least one bit.
        raise checks.error(where, f"its mask claims {w} x {h} pixels, which so short a PNG cannot hold")
    checks.spend(where, w * h)
    return _tight(Window(left, top, _bitmap(where, content, (h, w), checks)), height, width)


def _bitmap(where: str, content: bytes, size: tuple[int, int], checks: c.Checks) -> np.ndarray:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=("PNG",)) as file:
                if file.mode not in _PLAIN or (file.size[1], file.size[0]) != size:
                    raise ValueError(f"colour mode {file.mode}")
                return np.asarray(file) != 0  # Pillow's one-bit pictures have bytes of 255
    except Exception as error:  # the decoder raises nearly anything on damaged files
        raise checks.error(where, f"its mask is no usable PNG ({error})") from None


def _tight(window: Window, height: int, width: int) -> Window:
    tight = window.within(0, 0, width, height).tight()
    return Window(tight.x0, tight.y0, tight.mask.copy()) if tight.mask.size else Window(0, 0, np.zeros((0, 0), bool))


def _rectangle(where: str, ring: list[float], height: int, width: int, checks: c.Checks) -> Window:
    (x0, x1), (y0, y1) = sorted(map(int, ring[0::2])), sorted(map(int, ring[1::2]))
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)
    if x0 > x1 or y0 > y1:
        return Window(0, 0, np.zeros((0, 0), bool))
    checks.spend(where, (x1 - x0 + 1) * (y1 - y0 + 1))
    return Window(x0, y0, np.ones((y1 - y0 + 1, x1 - x0 + 1), bool))


def _circle(where: str, ring: list[float], height: int, width: int, checks: c.Checks) -> Window:
    x, y, radius = ring[0], ring[1], math.dist(ring[:2], ring[2:])
    if radius > MAX_SIDE / 4:
        raise checks.error(where, f"a circle with a radius of {radius:.0f} pixels", "Delete it, or draw it as polygon.")
    box = [int(x - radius), int(y - radius), int(x + radius), int(y + radius)]
    return _painted(where, "ellipse", box, height, width, checks)


def _polygon(where: str, ring: list[float], height: int, width: int, checks: c.Checks) -> Window:
    whole = [int(value) for value in ring]
    if len(whole) < 6:
        return Window(0, 0, np.zeros((0, 0), bool))  # labelme does not draw it
    low, high = max(min(whole[1::2]), 0), min(max(whole[1::2]), height - 1)
    # For each row, Pillow looks at every edge; measured besides: 0.8 us an edge of 5,000, 6 us an edge of 50,000.
    edges = len(whole) // 2
    checks.spend(where, 0, edges * (2 * max(high - low + 1, 0) + 150 + edges // 40))
    return _painted(where, "polygon", whole, height, width, checks)


def _painted(where: str, kind: str, whole: list[int], height: int, width: int, checks: c.Checks) -> Window:
    """What Pillow paints for whole coordinates (x, y, x, y, ...), on the part of their box that is in the picture."""
    from PIL import Image, ImageDraw

    x0, y0 = max(min(whole[0::2]), 0), max(min(whole[1::2]), 0)
    x1, y1 = min(max(whole[0::2]), width - 1), min(max(whole[1::2]), height - 1)
    if x0 > x1 or y0 > y1:
        return Window(0, 0, np.zeros((0, 0), bool))
    checks.spend(where, (x1 - x0 + 1) * (y1 - y0 + 1))
    canvas = Image.new("L", (x1 - x0 + 1, y1 - y0 + 1))
    moved = [value - (y0 if i % 2 else x0) for i, value in enumerate(whole)]
    getattr(ImageDraw.Draw(canvas), kind)(moved, outline=1, fill=1)
    return _tight(Window(x0, y0, np.asarray(canvas) != 0), height, width)
