"""What the audit keeps of one image: measures and findings, as JSON values, so that they can be cached."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.audit import VERSION, checks, pictures
from crowdmask.audit.checks import Bars, Found
from crowdmask.audit.findings import Finding, Severity, finding
from crowdmask.config import canonical
from crowdmask.datasets.base import Annotation, ImageRef, Reader
from crowdmask.datasets.images import Exif, open_picture
from crowdmask.errors import DataError, printable
from crowdmask.files import sha256

MODES = {
    "1": "bilevel",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "colour with alpha",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
}
"""Colour modes in words; others are shown as Pillow names them."""

_KEYS = ("findings", "height", "width", "mode", "points", "nearest", "pixels", "bytes", "look", "median_nearest")


def key_of(entry: str, ref: ImageRef, root: str, annotation_sha256: Sequence[str]) -> str:
    """Identity of a record: image by path, size and time, annotation by content, and how both are read.

    Args:
        entry: Settings, of `listing.entry_text`.
        ref: The image.
        root: Folder of the data set.
        annotation_sha256: Hash of the annotation file, and of those beside it that it is read with.
    """
    try:
        status = os.stat(Path(root, ref.image))
        image = [status.st_size, status.st_mtime_ns]
    except OSError:
        image = [-1, -1]
    parts = [VERSION, entry, ref.split, printable(ref.image), image, printable(ref.annotation), *annotation_sha256]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file; empty where it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return ""


def is_record(value: Any) -> bool:
    """Whether a value read from the cache has the form of a record."""
    if not isinstance(value, dict) or not all(key in value for key in _KEYS):
        return False
    try:
        [Finding.from_json(item) for item in value["findings"]]
    except (KeyError, TypeError, ValueError):
        return False
    return True


def examine(reader: Reader, ref: ImageRef, exif: Exif) -> dict[str, Any]:
    """Decode an image, read its annotation, and check both.

    Args:
        reader: Reader of the data set.
        ref: The image.
        exif: EXIF policy of the data set.

    Returns:
        JSON values: height and width (pixels), colour mode, hashes of file and pixels, the small grey picture, number
        of points, nearest-neighbour distances (median and histogram), findings. None where it cannot be known.
    """
    path = Path(reader.root, ref.image)
    record: dict[str, Any] = dict.fromkeys(_KEYS)
    findings: list[Finding] = []

    def add(found: Found, severity: Severity | None = None) -> None:
        message = printable(found.message)
        findings.append(finding(found.kind, message, ref.split, ref.image_id, found.rows, severity=severity))

    size_hw, bars = None, Bars(0, 0, 0, 0)
    try:
        picture = open_picture(path, exif)
    except DataError as error:
        add(Found(_image_fault(error), f"{path.name}: {error.problem}"))
    else:
        pixels = picture.pixels
        size_hw, bars = (pixels.shape[0], pixels.shape[1]), pictures.flat_bars(pixels)
        record |= {"height": size_hw[0], "width": size_hw[1], "mode": picture.mode, "bytes": content_digest(path)}
        record["pixels"] = pictures.pixel_digest(pixels)
        record["look"] = base64.b64encode(pictures.look(pixels).tobytes()).decode()
        if picture.orientation != 1:
            done = "applied (exif: apply)" if exif == "apply" else "not applied (exif: stored)"
            add(
                Found("exif_rotation", f"orientation {picture.orientation}, {done}"),
                "note" if exif == "apply" else None,
            )
        bits = pictures.bits_of_png(path)
        if picture.mode != "RGB" or bits > 8:
            text = MODES.get(picture.mode, "colour" if picture.mode == "RGB" else picture.mode)
            add(Found("colour_mode", f"{text}, {bits} bits" if bits > 8 else text))
        for found in _border(bars, *size_hw):
            add(found)
    try:
        annotation = reader.read_annotation(ref)
    except DataError as error:
        rows = () if error.row is None else (error.row,)
        add(Found(_annotation_fault(error), f"{Path(error.path).name}: {error.problem}", rows))
    else:
        record |= _measures(annotation)
        for found in checks.check_annotation(annotation, size_hw, bars):
            add(found)
    return record | {"findings": [item.as_json() for item in findings]}


def picture_of(reader: Reader, ref: ImageRef, exif: Exif, findings: list[Finding]) -> bytes | None:
    """JPEG of an image with its points, those in findings ringed; None where the image cannot be read."""
    try:
        pixels = open_picture(Path(reader.root, ref.image), exif).pixels
    except DataError:
        return None
    try:
        points = reader.read_annotation(ref).points_xy
    except DataError:
        points = np.zeros((0, 2))
    flagged = np.zeros(len(points), bool)
    for item in findings:
        flagged[[row for row in item.rows if row < len(points)]] = True
    finite = np.isfinite(points).all(axis=1)
    return pictures.thumbnail(pixels, points[finite], flagged[finite])


def _measures(annotation: Annotation) -> dict[str, Any]:
    points = annotation.points_xy[np.isfinite(annotation.points_xy).all(axis=1)]
    distance = checks.nearest_distances(points)
    return {
        "points": len(annotation.points_xy),
        "nearest": checks.nearest_histogram(points),
        "median_nearest": round(float(np.median(distance)), 3) if len(distance) else None,
    }


def _border(bars: Bars, height: int, width: int) -> list[Found]:
    if bars.top == height and bars.left == width:
        return [Found("flat_image", f"all {width} x {height} pixels have one colour")]
    sides = [f"{side} {size} px" for side, size in bars._asdict().items() if size]
    return [Found("padding", f"flat border: {', '.join(sides)}")] if sides else []


def _image_fault(error: DataError) -> str:
    """Kind of a finding of an image that cannot be read."""
    problems = {
        "file not found": "broken_link",
        "the file is empty": "empty_file",
        "the image is truncated or corrupt": "truncated_image",
    }
    return next((kind for text, kind in problems.items() if error.problem.startswith(text)), "unreadable_image")


def _annotation_fault(error: DataError) -> str:
    """Kind of a finding of an annotation that cannot be read."""
    problems = {"file not found": "broken_link", "not finite": "not_finite", "the label map is": "label_map_size"}
    return next((kind for text, kind in problems.items() if text in error.problem), "unreadable_annotation")
