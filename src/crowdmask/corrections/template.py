"""Help for people who write edit files by hand: a file to start from, and a check of what they wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from crowdmask.corrections import native
from crowdmask.corrections.drawing import trace
from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.masks import rle


def template(
    masks_rows: Iterable[dict[str, Any]],
    images_row: dict[str, Any],
    point_ids: Sequence[int],
    author: str,
    *,
    time: str | None = None,
    form: Literal["polygons", "rle"] = "polygons",
    source_rows: Iterable[dict[str, Any]] | None = None,
) -> native.EditFile:
    """An edit file with one `replace` for each point, holding its present mask, ready to be changed.

    Args:
        masks_rows: The image's rows of `tables.MASKS`: the masks that the file shows.
        images_row: The image's row of `tables.IMAGES`.
        point_ids: Points wanted, in the order of the edits.
        author: Who is going to edit.
        time: ISO 8601; None = now, UTC.
        form: `polygons` where they give the mask back pixel by pixel, else run lengths; `rle`: always run lengths.
        source_rows: The rows of exclude where `masks_rows` are those of merge: `base` is always the hash of the mask
            that the pipeline made, since that is what staleness is about. None = `masks_rows` are of exclude.

    Raises:
        DataError: the image has no such point.
    """
    rows = {row["point_id"]: row for row in masks_rows}
    source = rows if source_rows is None else {row["point_id"]: row for row in source_rows}
    stamp = time or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    height, width = images_row["height"], images_row["width"]
    edits = []
    for point_id in point_ids:
        if point_id not in rows:
            name = f"{images_row['split']}/{images_row['image_id']}"
            span = f"It has {len(rows)} masks" + (f", of the points {min(rows)} to {max(rows)}." if rows else ".")
            raise DataError(name, f"there is no mask of point {point_id}", span)
        window = rle.Window.from_columns(rows[point_id])
        rings = trace(window) if form == "polygons" and window.area else None
        shape: dict[str, Any] = {"polygons": rings}
        if rings is None:
            counts = rle.full_counts(window, height, width).decode("ascii")
            shape = {"mask": {"counts": counts, "size": (height, width)}}
        base = source[point_id]["sha256"] if point_id in source else None
        edits.append(native.Replace(action="replace", point_id=point_id, base=base, author=author, time=stamp, **shape))
    image = native.Image(
        split=images_row["split"],
        image_id=images_row["image_id"],
        height=height,
        width=width,
        sha256=images_row["sha256"],
    )
    return native.EditFile(version=1, image=image, edits=tuple(edits))


def check(paths: Iterable[str | Path], images: Collection[tuple[str, str]] | None = None) -> list[str]:
    """Faults of edit files that show without the masks: format, place, every drawing.

    Args:
        paths: Edit files, as {split}/{image_id}.json in any folder.
        images: (split, image_id) of the data set's images, to name files of images that it does not have.

    Returns:
        One line a fault, in the order of the files; empty where all are fine.
    """
    faults = []
    for path in paths:
        try:
            file = native.load(path)
            native.check_location(path, file)
            if images is not None and (file.image.split, file.image.image_id) not in images:
                named = f"{file.image.split}/{file.image.image_id}"
                raise DataError(path, f"there is no image {named}", "Correct the name of the file, or remove it.")
        except CrowdmaskError as error:
            faults.append(str(error))
            continue
        for number, edit in enumerate(file.edits):
            if not isinstance(edit, native.Replace | native.Add):
                continue
            try:
                native.to_mask(edit, file.image.height, file.image.width)
            except ValueError as error:
                faults.append(str(DataError(path, str(error), "Correct this edit or remove it.", row=number)))
    return faults
