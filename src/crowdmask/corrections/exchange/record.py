"""The record of an export: which masks were handed out for correction, on which pictures.

It stays with the project (`corrections/.exports/{dataset}/{tag}.json`, for version control) and is what an import
compares with. Without it nobody could tell a deleted mask from one that was never shown, or an edit from re-encoding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdmask.config import NAME
from crowdmask.corrections.drawing import from_runs, parse_counts
from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SIDE
from crowdmask.errors import DataError
from crowdmask.files import read_bytes, replacing
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

FOLDER = ".exports"
"""Beside the data sets' folders of edit files; no data set can have this name."""

_HEX = r"^[0-9a-f]{64}$"
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Head(_Model):
    """A mask that was handed out.

    The window is in pixels of the original image.
    """

    point_id: int = Field(ge=0, lt=2**31)
    x: float = Field(description="head point, pixels of the original image")
    y: float
    base: str | None = Field(None, pattern=_HEX, description="hash of the pipeline's own mask; null for an added head")
    x0: int = Field(ge=0, le=MAX_SIDE)
    y0: int = Field(ge=0, le=MAX_SIDE)
    w: _Side
    h: _Side
    counts: str = Field(min_length=1, description="COCO compressed run lengths of the window")

    @classmethod
    def of(cls, row: dict, base: str | None) -> Head:
        """From a row of `tables.MASKS`."""
        window = {key: row[key] for key in ("x0", "y0", "w", "h")}
        counts = row["counts"].decode("ascii")
        return cls(point_id=row["point_id"], x=row["x"], y=row["y"], base=base, counts=counts, **window)

    def window(self) -> Window:
        """The mask, in pixels of the original image."""
        mask = from_runs(parse_counts(self.counts, self.h, self.w), self.h)
        return Window(self.x0 + mask.x0, self.y0 + mask.y0, mask.mask)

    def runs(self, height: int, width: int) -> dict:
        """The mask as `native.Rle` of the whole image."""
        return {"counts": rle.full_counts(self.window(), height, width).decode("ascii"), "size": (height, width)}


class Task(_Model):
    """A picture that was handed out: an image, or a crop of it."""

    name: str = Field(min_length=1, description="file name of the picture, unique in all exports")
    split: str = Field(pattern=NAME)
    image_id: str = Field(min_length=1)
    sha256: str = Field(pattern=_HEX, description="of the image file of the data set")
    picture: str = Field(pattern=_HEX, description="of the handed-out picture file")
    thumb: str = Field(pattern=r"^[0-9a-f]{128}$", description="means of the picture's 8 x 8 parts, grey: its looks")
    height: _Side = Field(description="of the image")
    width: _Side = Field(description="of the image")
    x0: int = Field(0, ge=0, description="left column of the crop in the image")
    y0: int = Field(0, ge=0)
    w: _Side = Field(description="width of the crop")
    h: _Side
    edits: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...] = Field(
        description="fingerprints of the edits that the masks contain: those of the edit file at that time"
    )
    heads: tuple[Head, ...]

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if self.height * self.width > MAX_PIXELS or self.x0 + self.w > self.width or self.y0 + self.h > self.height:
            raise ValueError("the crop leaves its image, or the image is too large")
        for head in self.heads:
            if head.x0 + head.w > self.width or head.y0 + head.h > self.height:
                raise ValueError(f"the mask of point {head.point_id} leaves the image")
            try:
                parse_counts(head.counts, head.h, head.w)
            except ValueError as error:
                raise ValueError(f"point {head.point_id}: {error}") from None
        return self

    def local(self, head: Head) -> Window:
        """Mask of a head in pixels of the picture, cut to it."""
        window = head.window()
        return Window(window.x0 - self.x0, window.y0 - self.y0, window.mask).within(0, 0, self.w, self.h)


class Record(_Model):
    """One export."""

    version: int = Field(1, ge=1, le=1)
    tag: str = Field(pattern=r"^[0-9a-f]{8}$", description="in every picture's name")
    dataset: str = Field(pattern=NAME)
    tool: str
    time: str = Field(description="ISO 8601")
    tasks: tuple[Task, ...]


def folder_of(corrections: str | Path, dataset: str) -> Path:
    """Where the records of a data set lie."""
    return Path(corrections, FOLDER, dataset)


def save(record: Record, corrections: str | Path) -> Path:
    """Write a record to its place, one picture a line."""
    path = folder_of(corrections, record.dataset) / f"{record.tag}.json"
    raw = record.model_dump(mode="json")
    tasks = ",\n".join(json.dumps(task, ensure_ascii=False) for task in raw.pop("tasks"))
    text = json.dumps(raw, ensure_ascii=False)[:-1] + f', "tasks": [\n{tasks}\n]}}\n'
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def load(path: str | Path) -> Record:
    """Read a record.

    Raises:
        DataError: missing, not JSON, or not a record.
    """
    fix = "Bring it back from version control, or export the images anew."
    try:
        return Record.model_validate_json(read_bytes(Path(path), fix))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise DataError(path, f"not the record of an export ({place}: {fault['msg']})", fix) from None


def load_all(corrections: str | Path, dataset: str) -> list[Record]:
    """All records of a data set, newest first."""
    paths = folder_of(corrections, dataset).glob("*.json")
    return sorted((load(path) for path in paths), key=lambda record: (record.time, record.tag), reverse=True)
