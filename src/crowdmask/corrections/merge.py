"""Merge: people's edits put into the masks of one image, every other mask left exactly as it was.

`merge_image` is pure; `run` reads and writes the tables. Who wins which pixel is in `crowdmask.corrections.contest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from crowdmask import tables
from crowdmask.corrections import native
from crowdmask.corrections.contest import NoPixelLeft, contest
from crowdmask.corrections.drawing import disc
from crowdmask.errors import DataError
from crowdmask.masks import rle

VERSION = 2
"""Raised when the stage's output changes for the same input."""

Row = dict[str, Any]
Stale = Literal["report", "apply"]


@dataclass
class _Head:
    """What the edits read so far make of one point.

    Attributes:
        row: Its row of the masks table; for an added head one without a mask.
        drawn: Mask that a person drew; None = that of `row`.
        setter: Edit that drew or deleted it.
        deleted: No mask at all.
        force: Edits in force; a person has drawn or accepted the mask where there is one.
        hashes: Of the masks that later edits of this file may be based on.
    """

    row: Row
    drawn: rle.Window | None = None
    setter: int = -1
    deleted: bool = False
    force: list[int] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)


def merge_image(
    rows: list[Row],
    edits: native.EditFile | None,
    height: int,
    width: int,
    image_sha256: str,
    stale: Stale = "report",
    disjoint: bool = True,
    *,
    path: str | Path | None = None,
) -> tuple[list[Row], list[Row]]:
    """Apply the edits of one image.

    Edits of one point work in file order: the later drawing or deletion holds, the earlier is `superseded`. Manual
    masks win contested pixels, among them the later edit; every instance keeps at least one pixel (our choices, see
    docs/corrections.md). A row whose mask and flags do not change is returned as the very same object.

    Args:
        rows: The image's rows of `tables.MASKS`, by point_id; disjoint where `disjoint`. Not changed.
        edits: The image's edit file; None = no edits.
        height: Of the image, pixels.
        width: Of the image, pixels.
        image_sha256: Hash of the image file.
        stale: What to do with edits made on another mask or image file.
        disjoint: False = masks may overlap, nothing is cut.
        path: Of the edit file, for messages.

    Returns:
        Rows of `tables.MASKS` without deleted heads, added ones last, and rows of `tables.EDITS`: one an edit in file
        order, then one for each mask that lost pixels and each mask that got them.

    Raises:
        DataError: another image size, a point that does not exist, a mask without a pixel in the image.
    """
    if edits is None or not edits.edits:
        return rows, []
    image = edits.image
    where = path or f"{image.split}/{image.image_id}.json"
    if (image.height, image.width) != (height, width):
        raise DataError(
            where,
            f"drawn on an image of {image.height} x {image.width} pixels (height x width), this one has "
            f"{height} x {width}",
            "The image is another one: draw the edits again, or remove the file.",
        )
    other_image = image.sha256 is not None and image.sha256 != image_sha256
    heads, outcomes = _apply(rows, edits, height, width, other_image, stale, where)

    kept: list[Row] = []
    changed: list[_Head | None] = []
    for row in rows:
        head = heads.pop(row["point_id"], None)
        if head is None or not head.deleted:
            kept.append(row)
            changed.append(head)
    added = sorted((head for head in heads.values() if not head.deleted), key=lambda head: head.row["point_id"])
    kept += [head.row for head in added]
    changed += added

    manual = {i: (head.drawn, head.setter) for i, head in enumerate(changed) if head and head.drawn is not None}
    try:
        result = contest(kept, manual, height, width) if disjoint else None
    except NoPixelLeft as error:
        raise DataError(where, str(error), "Delete heads or draw smaller masks.") from None
    made: list[Row] = []
    for i, (row, head) in enumerate(zip(kept, changed, strict=True)):
        window = result.masks.get(i) if result else None
        if i in manual:
            drawn = {"source": "manual", "score": None, "lost_px": 0}
            row = {**row, **drawn, **_mask_columns(window or manual[i][0])}
        elif window is not None and (columns := _mask_columns(window))["sha256"] != row["sha256"]:
            row = {**row, **columns}
            if result and i in result.rescued:
                row |= {"source": "pixel", "score": None}
        if head and head.force:
            row = {**row, "verified": True, "author": edits.edits[head.force[-1]].author}
        made.append(row)

    area = {row["point_id"]: row["area"] for row in made}
    table = []
    for number, (edit, outcome) in enumerate(zip(edits.edits, outcomes, strict=True)):
        pixels = area.get(outcome.point_id, 0)
        table.append(_edit_row(edits, number, edit.point_id, outcome.name, outcome.reason, pixels))
    for cut in result.cuts if result else []:
        loser, taker = made[cut.loser]["point_id"], made[cut.taker]["point_id"]
        reason = f"lost to point {taker}"
        if result and cut.taker in result.rescued:
            reason = f"gave a pixel to point {taker}, which would have had none"
        table.append(_edit_row(edits, cut.edit, loser, "cut", reason, cut.pixels))
    return made, table


@dataclass
class _Outcome:
    point_id: int
    name: str
    reason: str = ""


def _apply(
    rows: list[Row],
    edits: native.EditFile,
    height: int,
    width: int,
    other_image: bool,
    stale: Stale,
    where: str | Path,
) -> tuple[dict[int, _Head], list[_Outcome]]:
    """Read the edits in order: the heads that they name, by point_id, and the outcome of each edit."""
    source = {row["point_id"]: row for row in rows}
    heads: dict[int, _Head] = {}
    added_ids = new_ids(edits, max(source, default=-1) + 1, where)
    outcomes: list[_Outcome] = []
    for number, edit in enumerate(edits.edits):
        if isinstance(edit, native.Add):
            head = heads[added_ids[number]] = _Head(_added_row(edits.image, edit, added_ids[number]), deleted=True)
        elif edit.point_id in heads:
            head = heads[edit.point_id]
        elif edit.point_id in source:
            head = heads[edit.point_id] = _Head(source[edit.point_id])
        else:
            raise DataError(
                where,
                f"point {edit.point_id} does not exist: the image has {len(rows)} points",
                "Give the point_id of masks.json; use `add` for a new head.",
                row=number,
            )
        outcome = _Outcome(head.row["point_id"], "applied")
        outcomes.append(outcome)
        reason = "the image file has changed since" if other_image else ""
        base = None if isinstance(edit, native.Add) else edit.base
        if not reason and base is not None and base != head.row["sha256"] and base not in head.hashes:
            reason = "the mask has changed since"
        if reason:
            outcome.reason = reason
            outcome.name = "forced" if stale == "apply" else "stale"
            if stale == "report":
                continue
        if isinstance(edit, native.Accept):
            if head.deleted:
                by = f"edit {head.setter} of this file deletes the point" if head.setter >= 0 else "it was not added"
                outcome.name, outcome.reason = "superseded", by
                continue
            head.force.append(number)
            continue
        try:
            head.drawn = drawing_of(edit, head.row, height, width)
        except ValueError as error:
            raise DataError(where, str(error), "Correct this edit or remove it.", row=number) from None
        for earlier in head.force:
            outcomes[earlier].name = "superseded"
            outcomes[earlier].reason = f"edit {number} of this file sets the mask anew"
        head.setter, head.deleted, head.force = number, head.drawn is None, [number]
        if head.drawn is not None:
            head.hashes.add(rle.digest(head.drawn))
    return heads, outcomes


def drawing_of(edit: native.Edit, row: Row | None, height: int, width: int) -> rle.Window | None:
    """Mask that an edit sets; None = it deletes.

    Args:
        edit: Any but `accept`.
        row: The head's row of `tables.MASKS`, for a circle; None = it has no exclusion circle.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: the drawing cannot be drawn, has no pixel, or is a circle without radius.
    """
    if isinstance(edit, native.Delete):
        return None
    if isinstance(edit, native.Circle):
        if row is None or (edit.radius is None and row["sha256"] == ""):
            raise ValueError("an added head has no exclusion circle: give a radius")
        radius = row["radius_px"] if edit.radius is None else edit.radius
        return disc(row["x"], row["y"], min(radius, float(height + width)), height, width)
    if isinstance(edit, native.Accept):
        raise ValueError("an accept draws nothing")
    return native.to_mask(edit, height, width)


def new_ids(edits: native.EditFile, first: int, where: str | Path) -> dict[int, int]:
    """point_id of each `add` by its row: the one it gives, else the next that no point and no edit has.

    Args:
        edits: The image's edit file.
        first: One more than the highest point_id of the annotation.
        where: The file, for messages.

    Raises:
        DataError: an edit wants an id of the annotation.
    """
    adds = {number: edit for number, edit in enumerate(edits.edits) if isinstance(edit, native.Add)}
    for number, edit in adds.items():
        if edit.point_id is not None and edit.point_id < first:
            raise DataError(
                where,
                f"the added head wants point_id {edit.point_id}, which belongs to the annotation (0 to {first - 1})",
                f"Give {first} or more, or leave it out.",
                row=number,
            )
    taken = {edit.point_id for edit in adds.values()}
    ids: dict[int, int] = {}
    for number, edit in adds.items():
        if edit.point_id is not None:
            ids[number] = edit.point_id
            continue
        while first in taken:
            first += 1
        ids[number] = first
        first += 1
    return ids


def _added_row(image: native.Image, edit: native.Add, point_id: int) -> Row:
    """A masks row without a mask; its radius is 0: an added head has no exclusion circle."""
    empty = {"score": None, "radius_px": 0.0, "lost_px": 0, "area": 0, "sha256": ""}
    window = {"x0": 0, "y0": 0, "w": 0, "h": 0, "counts": b""}
    key = {"split": image.split, "image_id": image.image_id, "point_id": point_id}
    return {**key, "x": edit.x, "y": edit.y, "source": "manual", "verified": False, "author": None, **empty, **window}


def _mask_columns(window: rle.Window) -> Row:
    tight = window.tight()
    return {"area": tight.area, "sha256": rle.digest(tight), **tight.columns()}


def _edit_row(file: native.EditFile, number: int, point_id: int | None, outcome: str, reason: str, pixels: int) -> Row:
    edit = file.edits[number]
    return {
        "split": file.image.split,
        "image_id": file.image.image_id,
        "point_id": point_id,
        "row": number,
        "action": edit.action,
        "outcome": outcome,
        "reason": reason,
        "pixels": pixels,
        "author": edit.author,
        "time": edit.time,
    }


def run(
    masks_path: str | Path,
    images_path: str | Path,
    correction_paths: Sequence[str | Path],
    output: str | Path,
    edits_output: str | Path,
    stale: Stale,
    disjoint: bool,
    settings: str,
) -> dict[str, int]:
    """Merge one batch: tables in, tables out, one image in memory at a time.

    Args:
        masks_path: `masks` table of exclude.
        images_path: `images` table of the same batch.
        correction_paths: Edit files of images of this batch, as {split}/{image_id}.json in any folder.
        output: `masks` table to write, in the order of the images, then point_id.
        edits_output: `edits` table to write.
        stale: As in `merge_image`.
        disjoint: As in `merge_image`.
        settings: Canonical JSON of the settings that the result depends on.

    Returns:
        Number of rows of the edits table by outcome.

    Raises:
        DataError: an edit file is invalid, at the wrong place or of an image that is not in the batch; or the tables do
            not belong together.
    """
    images = tables.read(images_path, "images")
    known = {(image["split"], image["image_id"]) for image in images}
    files: dict[tuple[str, str], tuple[str | Path, native.EditFile]] = {}
    for path in correction_paths:
        file = native.load(path)
        native.check_location(path, file)
        key = file.image.split, file.image.image_id
        if key in files:
            raise DataError(path, f"image {'/'.join(key)} has another edit file, {files[key][0]}", "Join them.")
        if key not in known:
            raise DataError(path, f"there is no image {'/'.join(key)}", "Correct the name of the file, or remove it.")
        files[key] = path, file
    table: list[Row] = []

    def merged() -> Iterator[Row]:
        for image, rows in _together(images, masks_path):
            path, file = files.get((image["split"], image["image_id"]), (None, None))
            size = image["height"], image["width"]
            rows, edit_rows = merge_image(rows, file, *size, image["sha256"], stale, disjoint, path=path)
            table.extend(edit_rows)
            yield from rows

    tables.write(output, "masks", merged(), version=VERSION, settings=settings)
    tables.write(edits_output, "edits", table, version=VERSION, settings=settings)
    return dict(Counter(row["outcome"] for row in table))


def _together(images: list[Row], masks_path: str | Path) -> Iterator[tuple[Row, list[Row]]]:
    """Each image with its masks, both in the order of the images table."""
    again = "Delete it and run again."
    groups = groupby(tables.stream(masks_path, "masks"), key=lambda row: (row["split"], row["image_id"]))
    waiting = next(groups, None)
    for image in images:
        key = image["split"], image["image_id"]
        rows: list[Row] = []
        if waiting is not None and waiting[0] == key:
            rows = sorted(waiting[1], key=lambda row: row["point_id"])
            waiting = next(groups, None)
        wanted = sorted(point["point_id"] for point in image["points"])
        if [row["point_id"] for row in rows] != wanted:
            raise DataError(masks_path, f"image {'/'.join(key)}: not one mask a point, in image order", again)
        yield image, rows
    if waiting is not None:
        raise DataError(masks_path, f"image {'/'.join(waiting[0])} is not in the images table, or out of order", again)
