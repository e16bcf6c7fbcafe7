"""The native edit file: what a person, or an importer, says about the masks of one image.

`corrections/{dataset}/{split}/{image_id}.json` holds the identity of the image and a list of edits, oldest first, each
keyed by `point_id`. Coordinates are (x, y) in pixels of the original image, pixel centres at integers. Everything in a
file is checked before a pixel is allocated: a file may come from anybody. How it is meant: docs/corrections.md.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from crowdmask.config import NAME
from crowdmask.corrections.drawing import fill_polygons, from_runs, parse_counts
from crowdmask.errors import DataError
from crowdmask.files import parse_json
from crowdmask.masks.rle import Window

VERSION = 1
"""Of the format; another number is refused."""

MAX_BYTES = 64 << 20
"""Largest edit file."""
MAX_SIDE = 65_535
"""Largest height and width of an image, pixels."""
MAX_PIXELS = 1 << 28
"""Largest image."""
MAX_POINTS = 100_000
"""Most polygon corners of one edit."""
MAX_COORDINATE = 1e6
"""Largest absolute polygon coordinate, pixels."""
MAX_COUNTS = 4 << 20
"""Longest run-length text, characters."""

_HEX = r"^[0-9a-f]{64}$"


class RowFault(ValueError):
    """A fault of one edit that only the whole file shows.

    Args:
        row: 0-based row of the edit.
        problem: What is wrong.
    """

    def __init__(self, row: int, problem: str) -> None:
        """Keep the row beside the text."""
        super().__init__(problem)
        self.row = row


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Image(_Model):
    """Which picture the edits were drawn on."""

    split: str = Field(pattern=NAME, description="split of the data set; also the name of the file's folder")
    image_id: str = Field(min_length=1, description="file name of the image without extension; also the file's name")
    height: int = Field(ge=1, le=MAX_SIDE, description="pixels")
    width: int = Field(ge=1, le=MAX_SIDE, description="pixels")
    sha256: str | None = Field(None, pattern=_HEX, description="hash of the image file; another one makes edits stale")

    @model_validator(mode="after")
    def _not_huge(self) -> Image:
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"{self.height} x {self.width} is more than {MAX_PIXELS} pixels")
        return self


class Rle(_Model):
    """COCO compressed run lengths of the whole image."""

    counts: str = Field(min_length=1, max_length=MAX_COUNTS, description="COCO compressed counts, column by column")
    size: tuple[int, int] = Field(strict=False, description="[height, width] of the image")


class Provenance(_Model):
    """Where an imported edit comes from."""

    tool: str = Field(min_length=1, description="program that exported the edit, with its version")
    file: str | None = Field(None, description="name of the imported file")
    sha256: str | None = Field(None, pattern=_HEX, description="hash of the imported file")


class _Edit(_Model):
    author: str = Field(min_length=1, max_length=200, description="who made the edit")
    time: str = Field(max_length=64, description="when, ISO 8601")
    note: str | None = Field(None, description="free text")
    provenance: Provenance | None = Field(None, description="of imported edits")

    @field_validator("time")
    @classmethod
    def _iso(cls, value: str) -> str:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO 8601 time such as 2025-03-01T12:00:00Z") from None
        return value


class _Drawn(_Edit):
    mask: Rle | None = Field(None, description="run lengths; or give `polygons`")
    polygons: Annotated[tuple[tuple[float, ...], ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="closed rings [x, y, x, y, ...]; a pixel counts inside an odd number of rings, or on a line"
    )

    @field_validator("polygons", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(tuple(r) if isinstance(r, list) else r for r in value) if isinstance(value, list) else value

    @field_validator("polygons")
    @classmethod
    def _rings(cls, value: tuple[tuple[float, ...], ...] | None) -> tuple[tuple[float, ...], ...] | None:
        for number, ring in enumerate(value or ()):
            if len(ring) % 2:
                raise ValueError(f"ring {number} has {len(ring)} numbers: an x lacks its y")
            if len(ring) < 6:
                raise ValueError(f"ring {number} has {len(ring) // 2} points, at least 3 are needed")
            if max(map(abs, ring)) > MAX_COORDINATE:
                raise ValueError(f"ring {number} has a coordinate beyond {MAX_COORDINATE:.0f} pixels")
        if sum(map(len, value or ())) > 2 * MAX_POINTS:
            raise ValueError(f"more than {MAX_POINTS} points; give it as `mask` (run lengths)")
        return value

    @model_validator(mode="after")
    def _one_shape(self) -> _Drawn:
        if (self.mask is None) == (self.polygons is None):
            raise ValueError("give either `mask` or `polygons`")
        return self


class _Based(_Edit):
    point_id: int = Field(ge=0, lt=2**31, description="0-based row of the point in the source annotation")
    base: str | None = Field(None, pattern=_HEX, description="sha256 of the mask that was edited; null = any")
    seen: Rle | None = Field(None, description="the mask as it was shown to the author, for before and after")


class Replace(_Based, _Drawn):
    """The point's mask is this one."""

    action: Literal["replace"]


class Add(_Drawn):
    """A head that the annotation lacks, with its mask."""

    action: Literal["add"]
    x: float = Field(description="head point, pixels")
    y: float = Field(description="head point, pixels")
    point_id: int | None = Field(
        None, ge=0, lt=2**31, description="id of the new head, above all source points; null = the next free one"
    )


class Delete(_Based):
    """There is no head at this point."""

    action: Literal["delete"]


class Circle(_Based):
    """The point's mask is a disc around it."""

    action: Literal["circle"]
    radius: float | None = Field(None, ge=0, le=MAX_SIDE, description="pixels; null = that of the exclusion circle")


class Accept(_Based):
    """The point's mask is right as it is."""

    action: Literal["accept"]


Edit = Annotated[Replace | Add | Delete | Circle | Accept, Field(discriminator="action")]


class EditFile(_Model):
    """All edits of one image, oldest first."""

    version: Literal[1]
    image: Image
    edits: tuple[Edit, ...] = Field(strict=False, description="in order: of two edits of one mask the later holds")

    @model_validator(mode="after")
    def _fits(self) -> EditFile:
        height, width = self.image.height, self.image.width
        added: dict[int, int] = {}
        for row, edit in enumerate(self.edits):
            for runs in (getattr(edit, "mask", None), getattr(edit, "seen", None)):
                if runs is None:
                    continue
                if runs.size != (height, width):
                    raise RowFault(row, f"mask of size {list(runs.size)} on an image of size {[height, width]}")
                try:
                    parse_counts(runs.counts, height, width)
                except ValueError as error:
                    raise RowFault(row, str(error)) from None
            if isinstance(edit, Add):
                if not (-0.5 <= edit.x <= width - 0.5 and -0.5 <= edit.y <= height - 0.5):
                    raise RowFault(row, f"the added head ({edit.x:g}, {edit.y:g}) is outside of the image")
                if edit.point_id is not None and edit.point_id in added:
                    raise RowFault(row, f"point_id {edit.point_id} is already given to edit {added[edit.point_id]}")
                if edit.point_id is not None:
                    added[edit.point_id] = row
        return self


def schema() -> dict[str, Any]:
    """JSON schema of an edit file."""
    return EditFile.model_json_schema()


_FIX = "Correct the file as docs/corrections.md says, or remove it."


def load(path: str | Path) -> EditFile:
    """Read and check an edit file; no mask is decoded.

    Raises:
        DataError: unreadable, not JSON, a key twice, NaN, or against the format; with the edit's row where it has one.
    """
    try:
        size = Path(path).stat().st_size
        text = Path(path).read_text(encoding="utf-8-sig") if size <= MAX_BYTES else ""
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "Check the path.") from None
    except UnicodeDecodeError:
        raise DataError(path, "not UTF-8 text", _FIX) from None
    if size > MAX_BYTES:
        raise DataError(path, f"{size} bytes, more than the {MAX_BYTES} that are read", "Is it an edit file?")
    try:
        raw = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not valid JSON ({error})", _FIX) from None
    try:
        return EditFile.model_validate(raw)
    except ValidationError as error:
        row, problem = _first(error)
        raise DataError(path, problem, _FIX, row=row) from None


def check_location(path: str | Path, file: EditFile) -> None:
    """Refuse a file whose folder and name are not the split and image that it speaks of.

    Raises:
        DataError: they differ.
    """
    split, image_id = Path(path).parent.name, Path(path).stem
    if (split, image_id) != (file.image.split, file.image.image_id):
        named = f"{file.image.split}/{file.image.image_id}"
        raise DataError(path, f"it speaks of image {named}, its place is that of {split}/{image_id}", "Move it.")


def dump(file: EditFile) -> str:
    """Text of an edit file, one edit a line, keys in a fixed order: equal edits give equal bytes."""
    edits = ",\n".join("  " + _line(_plain(edit)) for edit in file.edits)
    image = _line(_plain(file.image))
    return (
        f'{{\n "version": {file.version},\n "image": {image},\n "edits": ['
        + (f"\n{edits}\n " if edits else "")
        + "]\n}\n"
    )


_ORDER = (
    *(
        "action",
        "point_id",
        "x",
        "y",
        "radius",
        "polygons",
        "mask",
        "base",
        "seen",
        "author",
        "time",
        "note",
        "provenance",
    ),
    *("split", "image_id", "height", "width", "sha256"),
)


def fingerprint(edit: Edit) -> str:
    """Of all that an edit says: 16 hex digits, the same wherever it stands in its file."""
    return hashlib.sha256(_line(_plain(edit)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain(model: BaseModel) -> dict[str, Any]:
    values = model.model_dump(exclude_none=True)
    return {key: values[key] for key in sorted(values, key=_ORDER.index)}


def _line(value: Any) -> str:
    return json.dumps(_short(value), ensure_ascii=False, allow_nan=False)


def _short(value: Any) -> Any:
    """Whole floats as integers: 3 instead of 3.0."""
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_short(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _first(error: ValidationError) -> tuple[int | None, str]:
    """Row and text of the first fault, and how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    loc = list(fault["loc"])
    row: int | None = None
    if len(loc) > 1 and loc[0] == "edits" and isinstance(loc[1], int):
        row, loc = loc[1], loc[2:]
        if loc and loc[0] in ("replace", "add", "delete", "circle", "accept"):
            loc = loc[1:]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, RowFault):
        row = cause.row
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key"
    elif fault["type"] not in ("value_error", "missing", "union_tag_not_found", "union_tag_invalid"):
        shown = repr(fault["input"])
        message += f" (got {shown[:60]}{'...' if len(shown) > 60 else ''})"
    place = ".".join(str(part) for part in loc)
    more = f"; and {len(faults) - 1} more faults" if len(faults) > 1 else ""
    return row, (f"{place}: {message}" if place else message).rstrip(".") + more


def to_mask(edit: Replace | Add, height: int, width: int) -> Window:
    """The drawn mask on its bounding box, cut to the image.

    Args:
        edit: Edit that holds a mask.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: the run lengths do not fit, the polygon is too costly to draw, or no pixel is inside of the image.
    """
    if edit.mask is not None:
        if edit.mask.size != (height, width):
            raise ValueError(f"mask of size {list(edit.mask.size)} on an image of size {[height, width]}")
        return from_runs(parse_counts(edit.mask.counts, height, width), height)
    window = fill_polygons(edit.polygons or (), height, width).tight()
    if window.area == 0:
        raise ValueError("the polygon covers no pixel centre inside of the image")
    return window
