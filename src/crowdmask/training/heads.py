"""What the tables say of each image to train on: its heads and their masks or boxes, checked against each other.

A `masks` table after merge says which heads there are: those that corrections added count, those that they deleted
are gone. It carries no size of the image and no hash of its file, so it is held against the `images` table: the same
points at the same places, every window inside of the image, and deletions only where the `edits` table has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crowdmask import tables
from crowdmask.corrections.drawing import from_runs, parse_counts
from crowdmask.datasets.stage import outside_image
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window, digest
from crowdmask.training.label_maps import Area

Key = tuple[str, str]

_AGAIN = "Delete it and run again."
_OTHER = "It was made from other points or images: delete it and run again from the images table on."
_WINDOW = ("x0", "y0", "w", "h")
_BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Masks:
    """Where the masks of an image stand, one a head and in the heads' order.

    Attributes:
        path: Their `masks` table.
        rows: int64 (n,), 0-based rows in it.
        digest: Of all that the rows say of the masks.
    """

    path: Path
    rows: np.ndarray
    digest: str


@dataclass(frozen=True)
class Entry:
    """One image and its heads.

    Attributes:
        split: Of the image.
        image_id: Of the image.
        path: Image file relative to the data set's root.
        height: Pixels.
        width: Pixels.
        sha256: Of the image file.
        table: The `images` table that has it.
        point_ids: int64 (n,), ascending.
        points_xy: float64 (n, 2), pixels, as annotated; may lie outside.
        boxes_xyxy: float64 (n, 4), pixels, NaN for a head without box.
        annotated: bool (n,), False for heads that corrections added.
        masks: None = no masks wanted.
    """

    split: str
    image_id: str
    path: str
    height: int
    width: int
    sha256: str
    table: Path
    point_ids: np.ndarray
    points_xy: np.ndarray
    boxes_xyxy: np.ndarray
    annotated: np.ndarray
    masks: Masks | None = None

    @property
    def name(self) -> str:
        """Such as train/IMG_1."""
        return f"{self.split}/{self.image_id}"

    @property
    def inside(self) -> np.ndarray:
        """Which heads lie in the image, bool (n,)."""
        return ~outside_image(self.points_xy, self.height, self.width)


def read_entries(
    wanted: Sequence[Key],
    images: Sequence[str | Path],
    masks: Sequence[str | Path] = (),
    edits: Sequence[str | Path] = (),
) -> list[Entry]:
    """Images of a list, in its order.

    Args:
        wanted: (split, image_id) of each.
        images: `images` tables that have them.
        masks: Merged `masks` tables of the same batches; none = the heads are those of the `images` tables.
        edits: `edits` tables of the same batches; without them, no head may have been deleted.

    Raises:
        DataError: an image is not in the tables, or is there twice; a point is not finite; or the masks do not fit.
        ValueError: the list names an image twice.
    """
    if len(set(wanted)) != len(wanted):
        raise ValueError("an image stands twice in the list")
    entries = _from_images(set(wanted), images)
    missing = [key for key in wanted if key not in entries]
    if missing:
        where = images[0] if len(images) == 1 else f"{len(images)} images tables"
        raise DataError(where, f"no image {'/'.join(missing[0])}, which is to be trained on", "Correct the list.")
    if masks:
        entries = _with_masks(entries, masks, edits)
    return [entries[key] for key in wanted]


_IMAGE_COLUMNS = ["split", "image_id", "path", "height", "width", "sha256"]


def _from_images(wanted: set[Key], paths: Sequence[str | Path]) -> dict[Key, Entry]:
    found: dict[Key, Entry] = {}
    for path in map(Path, paths):
        row = -1
        for part in tables.parts(path, "images", batch=64):
            plain = part.select(_IMAGE_COLUMNS).to_pylist()
            for number, image in enumerate(plain):
                row += 1
                key = image["split"], image["image_id"]
                if key not in wanted:
                    continue
                if key in found:
                    raise DataError(path, f"image {'/'.join(key)} is also in {found[key].table}", _AGAIN, row=row)
                points = part.column("points").slice(number, 1).flatten()
                found[key] = _entry(image, points, path, row)
    return found


def _entry(image: Mapping, points: pa.StructArray, path: Path, row: int) -> Entry:
    ids, x, y, *box = (
        pc.struct_field(points, name).to_numpy(zero_copy_only=False).astype(np.int64 if name == "point_id" else float)
        for name in ("point_id", "x", "y", *_BOX)
    )
    order = np.argsort(ids, kind="stable")
    entry = Entry(
        image["split"],
        image["image_id"],
        image["path"],
        image["height"],
        image["width"],
        image["sha256"],
        path,
        ids[order],
        np.column_stack([x, y])[order],
        np.column_stack(box)[order],
        np.ones(len(ids), bool),
    )
    name = entry.name
    if entry.height < 1 or entry.width < 1:
        raise DataError(path, f"image {name} has {entry.width} x {entry.height} pixels", _AGAIN, row=row)
    if len(ids) and (ids.min() < 0 or len(np.unique(ids)) < len(ids)):
        raise DataError(path, f"image {name} has a point_id twice, or a negative one", _AGAIN, row=row)
    if not np.isfinite(entry.points_xy).all():
        bad = int(entry.point_ids[~np.isfinite(entry.points_xy).all(1)][0])
        raise DataError(path, f"point {bad} of image {name} is not finite", _AGAIN, row=row)
    return entry


def _with_masks(
    entries: dict[Key, Entry], masks: Sequence[str | Path], edits: Sequence[str | Path]
) -> dict[Key, Entry]:
    deleted = _deleted(edits)
    done: dict[Key, Entry] = {}
    for path in map(Path, masks):
        for key, rows, part in _mask_rows(path, entries):
            if key in done:
                raise DataError(
                    path, f"image {'/'.join(key)} also has masks in another table", _AGAIN, row=int(rows[0])
                )
            done[key] = _fit(entries[key], path, rows, part, deleted.get(key, set()))
    where = masks[0] if len(masks) == 1 else f"{len(masks)} masks tables"
    for key, entry in entries.items():
        if key not in done:  # no row of its own: nobody in it, or all of them deleted
            gone = deleted.get(key, set())
            _check_gone(where, entry, sorted(set(entry.point_ids.tolist()) - gone))
            nobody = Masks(Path(masks[0]), np.zeros(0, np.int64), hashlib.sha256(b"").hexdigest())
            arrays = ("point_ids", "points_xy", "boxes_xyxy", "annotated")
            done[key] = replace(entry, **{name: getattr(entry, name)[:0] for name in arrays}, masks=nobody)
    return done


def _deleted(paths: Sequence[str | Path]) -> dict[Key, set[int]]:
    """Heads that edits in force delete."""
    gone: dict[Key, set[int]] = {}
    for path in paths:
        for row in tables.stream(path, "edits"):
            if row["action"] == "delete" and row["outcome"] in ("applied", "forced") and row["point_id"] is not None:
                gone.setdefault((row["split"], row["image_id"]), set()).add(row["point_id"])
    return gone


_MASK_COLUMNS = ["split", "image_id", "point_id", "x", "y", "source", "area", "sha256", *_WINDOW, "counts"]


def _mask_rows(path: Path, wanted: Mapping[Key, Entry]) -> Iterator[tuple[Key, np.ndarray, pa.Table]]:
    """Rows of each wanted image of a table, with their numbers."""
    found: dict[Key, list[tuple[np.ndarray, pa.RecordBatch]]] = {}
    start = 0
    for part in tables.parts(path, "masks", batch=20_000, columns=_MASK_COLUMNS):
        keys = list(zip(part.column("split").to_pylist(), part.column("image_id").to_pylist(), strict=True))
        changes = [k for k in range(len(keys)) if k == 0 or keys[k] != keys[k - 1]]
        for first, last in zip(changes, [*changes[1:], len(keys)], strict=True):
            if keys[first] in wanted:
                piece = np.arange(start + first, start + last), part.slice(first, last - first)
                found.setdefault(keys[first], []).append(piece)
        start += len(keys)
    for key, pieces in found.items():
        yield key, np.concatenate([rows for rows, _ in pieces]), pa.Table.from_batches([part for _, part in pieces])


def _numbers(part: pa.Table, name: str) -> np.ndarray:
    return part.column(name).to_numpy()


def _fit(entry: Entry, path: Path, rows: np.ndarray, part: pa.Table, deleted: set[int]) -> Entry:
    """The entry with the heads that its masks have, after all checks that need no mask decoded."""
    order = np.argsort(_numbers(part, "point_id"), kind="stable")
    rows, part = rows[order], part.take(pa.array(order))
    ids = _numbers(part, "point_id").astype(np.int64)
    points = np.column_stack([_numbers(part, "x"), _numbers(part, "y")])

    def refuse(bad: np.ndarray, problem: str, fix: str = _OTHER) -> None:
        if bad.any():
            k = int(bad.argmax())
            raise DataError(path, f"{problem.format(id=ids[k])} of image {entry.name}", fix, row=int(rows[k]))

    refuse(np.concatenate([[False], ids[1:] == ids[:-1]]), "a second mask of point {id}", _AGAIN)
    refuse(ids < 0, "point_id {id}", _AGAIN)
    refuse(~np.isfinite(points).all(1), "a place that is not finite, of point {id}", _AGAIN)
    known = np.isin(ids, entry.point_ids)
    beyond = ids > (entry.point_ids.max() if len(entry.point_ids) else -1)
    drawn = np.array([source == "manual" for source in part.column("source").to_pylist()], bool)
    refuse(~known & ~(beyond & drawn), "a mask of point {id}, which is not annotated,")
    own = entry.points_xy[np.searchsorted(entry.point_ids, ids[known])]
    moved = np.zeros(len(ids), bool)
    moved[known] = (points[known] != own).any(1)
    refuse(moved, "point {id} at another place than in the images table,")
    _check_gone(path, entry, sorted(set(entry.point_ids.tolist()) - set(ids.tolist()) - deleted))
    x0, y0, w, h = (_numbers(part, name).astype(np.int64) for name in _WINDOW)
    outside = (x0 < 0) | (y0 < 0) | (w < 0) | (h < 0) | (x0 + w > entry.width) | (y0 + h > entry.height)
    refuse(outside, f"the mask of point {{id}} leaves the {entry.width} x {entry.height} pixels")
    boxes = np.full((len(ids), 4), np.nan)
    boxes[known] = entry.boxes_xyxy[np.searchsorted(entry.point_ids, ids[known])]
    return replace(
        entry,
        point_ids=ids,
        points_xy=points,
        boxes_xyxy=boxes,
        annotated=known,
        masks=Masks(path, rows, _content(part)),
    )


def _check_gone(path: object, entry: Entry, lost: list[int]) -> None:
    if lost:
        raise DataError(
            path,
            f"no mask of point {lost[0]} of image {entry.name}, and no edit that deletes it"
            f"{f' ({len(lost)} such points)' if len(lost) > 1 else ''}",
            "Give the `edits` tables of the same batches; if they are given: it was made from other points, delete it "
            "and run again.",
        )


def _content(part: pa.Table) -> str:
    """Hash of which masks an image has, by point."""
    found = hashlib.sha256()
    for name in ("point_id", *_WINDOW):
        found.update(_numbers(part, name).astype("<i8").tobytes())
    for name in ("counts", "sha256"):
        for value in part.column(name).to_pylist():
            data = value if isinstance(value, bytes) else value.encode()
            found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def mask_areas(entry: Entry) -> Iterator[Area]:
    """The mask of each head, in order, decoded one after the other.

    Raises:
        DataError: the table has changed since `read_entries`; a mask cannot be decoded, or is not the one that its
            hash names.
    """
    masks = entry.masks
    if masks is None:
        raise ValueError(f"{entry.name} was read without masks")
    if not len(masks.rows):
        return
    wanted = {(entry.split, entry.image_id): entry}
    found = [(rows, part) for _, rows, part in _mask_rows(masks.path, wanted)]
    part = found[0][1] if found else None
    if part is not None:
        part = part.take(pa.array(np.argsort(_numbers(part, "point_id"), kind="stable")))
    if part is None or _content(part) != masks.digest:
        raise DataError(masks.path, "it has changed while it was used", "Run again.")
    for k, row in enumerate(part.select(["sha256", "area", *_WINDOW, "counts"]).to_pylist()):
        where = int(masks.rows[k])
        window = _decoded(row, entry, int(entry.point_ids[k]), masks.path, where)
        h, w = window.mask.shape
        yield Area(window.x0, window.y0, w, h, window.mask, (entry.points_xy[k, 0], entry.points_xy[k, 1]))


def _decoded(row: Mapping, entry: Entry, point_id: int, path: Path, number: int) -> Window:
    """Mask of a row. pycocotools would return whatever lies in memory for counts that end too early."""
    what = f"the mask of point {point_id} of image {entry.name}"
    h, w = row["h"], row["w"]
    if h == 0 or w == 0 or row["area"] == 0:
        window = Window(row["x0"], row["y0"], np.zeros((0, 0), bool))
    else:
        try:
            inner = from_runs(parse_counts(row["counts"].decode("ascii"), h, w), h)
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(path, f"{what}: {error}", _AGAIN, row=number) from None
        window = Window(row["x0"] + inner.x0, row["y0"] + inner.y0, inner.mask)
    if digest(window) != row["sha256"] or window.area != row["area"]:
        raise DataError(path, f"{what} is not the one that its hash or area names", _AGAIN, row=number)
    return window


def box_areas(entry: Entry) -> Iterator[Area]:
    """The annotated box of each head, filled.

    A pixel belongs to a box that holds the middle of its square, which is at (x + 0.5, y + 0.5) where the corner of
    the first pixel is (0, 0): as COCO and FDST count. Boxes that data sets give around a point (JHU-CROWD++) lie half a
    pixel off by that (our choice; the table does not say which they are). Heads that corrections added have no box:
    their own pixel is left to `keep_heads`.

    Raises:
        DataError: an annotated head has no box, or one that is not finite.
    """
    for k, box in enumerate(entry.boxes_xyxy):
        if not np.isfinite(box).all():
            if not entry.annotated[k]:
                yield Area(0, 0, 0, 0, None, (0.0, 0.0))
                continue
            raise DataError(
                entry.table,
                f"point {entry.point_ids[k]} of image {entry.name} has no box, or one that is not finite",
                "Leave the image out, or choose the supervision `points` or `masks`.",
            )
        low = np.ceil(np.clip(np.minimum(box[:2], box[2:]), 0, [entry.width, entry.height]) - 0.5).astype(int)
        high = np.ceil(np.clip(np.maximum(box[:2], box[2:]), 0, [entry.width, entry.height]) - 0.5).astype(int)
        x, y = (box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5
        w, h = (high - low).tolist()
        yield Area(int(low[0]), int(low[1]), w, h, None, (x, y))


def covers(area: Area, x: int, y: int) -> bool:
    """Whether an area has a pixel."""
    if not (area.x0 <= x < area.x0 + area.w and area.y0 <= y < area.y0 + area.h):
        return False
    return area.mask is None or bool(area.mask[y - area.y0, x - area.x0])


def check_boxes(entries: Sequence[Entry], dataset: str) -> None:
    """Refuse a data set without any box.

    Raises:
        DataError: it has heads, and no box at all.
    """
    some = [entry for entry in entries if len(entry.point_ids)]
    if some and not any(np.isfinite(entry.boxes_xyxy).any() for entry in some):
        raise DataError(
            some[0].table,
            f"data set {dataset} has no boxes, which the supervision `boxes` needs",
            "Choose the supervision `points` or `masks`.",
        )
