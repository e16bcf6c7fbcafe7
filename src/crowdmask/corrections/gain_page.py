"""The page of what people's edits changed: one file, bounded whatever the number of edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from crowdmask import pages
from crowdmask.corrections import gain
from crowdmask.corrections.gain_pictures import BLUE, GREEN, ORANGE, PINK, Panel, panels
from crowdmask.pages import count, text

CROPS_SHOWN, STALE_SHOWN = 60, 60
"""Most changed heads, and stale edits, with crops."""
ROWS_SHOWN, NOTE_SHOWN = 500, 300
"""Rows of a table, and characters of a note."""

Photo = Callable[[], np.ndarray]
"""Gives the pixels of an image, uint8 (H, W, 3) RGB."""

Row = dict[str, Any]
T = TypeVar("T")

_STYLE = """
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; white-space: nowrap; }
th, td { text-align: left; padding: .15rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4rem; max-width: 40rem; }
.panels img { width: 100%; } .panels figure { margin: .2rem 0; }
"""

_MORE = "more in corrections.json."


@dataclass
class Top(Generic[T]):
    """The `size` items of the highest keys so far; of equal keys the earlier."""

    size: int
    items: list[tuple[float, T]] = field(default_factory=list)
    seen: int = 0

    def takes(self, key: float) -> bool:
        """Whether an item with this key would be among them."""
        return len(self.items) < self.size or key > self.items[-1][0]

    def add(self, key: float, item: T) -> None:
        """Offer an item."""
        self.seen += 1
        if self.takes(key):
            place = next((n for n, (other, _) in enumerate(self.items) if key > other), len(self.items))
            self.items.insert(place, (key, item))
            del self.items[self.size :]


@dataclass
class Page:
    """What the page shows of the images so far; holds numbers and finished crops, no masks.

    Attributes:
        name: Of the data set.
        has_truth: Whether there are true masks.
    """

    name: str
    has_truth: bool
    rows: Top[Row] = field(default_factory=lambda: Top(ROWS_SHOWN))
    crops: Top[str] = field(default_factory=lambda: Top(CROPS_SHOWN))
    neighbours: Top[Row] = field(default_factory=lambda: Top(ROWS_SHOWN))
    stale: Top[str] = field(default_factory=lambda: Top(STALE_SHOWN))
    superseded: Top[Row] = field(default_factory=lambda: Top(ROWS_SHOWN))

    def add(self, found: gain.ImageGain, photo: Photo) -> None:
        """Take up one image.

        Args:
            found: What its edits did.
            photo: Its pixels; called only where a crop is shown.
        """
        for head in found.corrected:
            changed = head.record["changed_px"]
            self.rows.add(changed, head.record)
            if changed:
                shown = _crops_of_head(head, photo) if self.crops.takes(changed) else ""
                self.crops.add(changed, shown)
        for record in found.neighbours:
            self.neighbours.add(record["pixels"], record)
        for edit in found.stale:
            self.stale.add(0, _crops_of_stale(edit, photo) if self.stale.takes(0) else "")
        for record in found.superseded:
            self.superseded.add(0, record)

    def html(self, totals: Row) -> str:
        """The page.

        Args:
            totals: Of `gain.Totals.result`.
        """
        title = f"Corrections of {self.name}"
        parts = [f"<h1>{text(title)}</h1>", _summary(totals)]
        if totals["images"]:
            parts += [
                _truth(totals["truth"]) if totals["truth"] else "",
                self._largest(),
                self._corrected(),
                self._stale(),
                self._neighbours(),
                self._superseded(),
            ]
        return pages.document(title, parts, _STYLE)

    def _largest(self) -> str:
        note = f"<p>Each with the mask before, the mask in the result{', the true mask' if self.has_truth else ''}.</p>"
        return _section("Largest changes", self.crops, note + "".join(item for _, item in self.crops.items))

    def _corrected(self) -> str:
        names = ["image", "point", "action", "outcome", "author", "time", "tool", "area before", "after", "IoU old/new"]
        names += ["IoU with truth before", "after", "gain"] if self.has_truth else []
        names += ["accepted by", "note"]
        body = []
        for _, row in self.rows.items:
            cells = [_image(row), row["point_id"], *(row[key] for key in ("action", "outcome", "author", "time"))]
            cells += [row["tool"] or "", *map(_number, (row["area_before"], row["area_after"], row["iou"]))]
            if self.has_truth:
                cells += [_number(row["truth_before"]), _number(row["truth_after"]), _number(row["gain"], sign=True)]
            body.append([*cells, ", ".join(row["accepted_by"]), row["note"] or ""])
        return _section("Corrected heads, the largest change first", self.rows, _table(names, body))

    def _stale(self) -> str:
        note = (
            "<p>Made on a mask, or an image file, that has changed since. The photo is the present one; the mask as it "
            "was seen is shown where the edit holds it.</p>"
        )
        return _section("Stale edits", self.stale, note + "".join(item for _, item in self.stale.items))

    def _neighbours(self) -> str:
        names = ["image", "point", "pixels lost", "why", "edit", "author", "time", "area before", "after"]
        names += ["IoU with truth before", "after"] if self.has_truth else []
        body = []
        for _, row in self.neighbours.items:
            edit = f"{row['row']} ({row['action']})"
            cells = [
                _image(row),
                row["point_id"],
                _number(row["pixels"]),
                row["reason"],
                edit,
                row["author"],
                row["time"],
            ]
            cells += [_number(row["area_before"]), _number(row["area_after"])]
            cells += [_number(row["truth_before"]), _number(row["truth_after"])] if self.has_truth else []
            body.append(cells)
        return _section("Neighbours that lost pixels, most first", self.neighbours, _table(names, body))

    def _superseded(self) -> str:
        names = ["image", "point", "edit", "action", "author", "time", "tool", "why"]
        body = [
            [
                _image(row),
                row["point_id"],
                row["row"],
                *(row[key] or "" for key in ("action", "author", "time", "tool", "reason")),
            ]
            for _, row in self.superseded.items
        ]
        return _section("Superseded edits", self.superseded, _table(names, body))


def _summary(totals: Row) -> str:
    if not totals["images"]:
        return "<p>No edits: nobody has corrected a mask of this data set yet.</p>"
    edits, heads = totals["edits"], totals["heads"]
    cards = {**{f"edits {key}": value for key, value in edits.items()}, **{f"heads: {k}": v for k, v in heads.items()}}
    shown = "".join(f'<div class="card"><b>{value:,}</b>{text(key)}</div>' for key, value in cards.items())
    lines = [f"{count(sum(edits.values()), 'edit')} in {count(totals['images'], 'image')}."]
    if totals["mean_iou"] is not None:
        lines.append(f"Masks drawn anew: mean IoU of old and new {totals['mean_iou']:.3f}.")
    if totals["neighbours_cut"]:
        lines.append(f"{count(totals['neighbours_cut'], 'neighbour')} lost {count(totals['pixels_cut'], 'pixel')}.")
    return f'<p>{" ".join(lines)}</p><div class="cards">{shown}</div>'


def _truth(truth: Row) -> str:
    lines = []
    for what, found in (("corrected head", truth["corrected"]), ("cut neighbour", truth["neighbours"])):
        if found["heads"]:
            lines.append(
                f"<p>{count(found['heads'], what)}: mean IoU with the truth <strong>{found['mean_before']:.3f} → "
                f"{found['mean_after']:.3f}</strong> (mean gain {found['mean_gain']:+.3f}); "
                f"{found['better']:,} better, {found['worse']:,} worse.</p>"
            )
    if not lines:
        lines = ["<p>No corrected head has a true mask.</p>"]
    return "<h2>Against the truth</h2>" + "".join(lines)


def _section(title: str, top: Top[Any], body: str) -> str:
    """A heading, what is shown, and how many more there are."""
    if not top.seen:
        return f"<h2>{text(title)}</h2><p>None.</p>"
    left = top.seen - len(top.items)
    more = f"<p>{left:,} {_MORE}</p>" if left else ""
    return f"<h2>{text(title)} ({top.seen:,})</h2>{body}{more}"


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


class _Number(str):
    """Text of a number, which stands to the right."""


def _cell(value: Any) -> str:
    kind = ' class="number"' if isinstance(value, _Number | int) else ""
    return f"<td{kind}>{text(value, NOTE_SHOWN)}</td>"


def _number(value: float | None, sign: bool = False) -> _Number:
    """Whole numbers with commas, others with three digits; empty for None."""
    if value is None:
        return _Number("")
    return _Number(f"{value:,}" if isinstance(value, int) else f"{value:{'+' if sign else ''}.3f}")


def _image(row: Row) -> str:
    return f"{row['split']}/{row['image_id']}"


def _crops_of_head(head: gain.Corrected, photo: Photo) -> str:
    row = head.record
    shown: list[Panel] = [
        (f"before ({row['before']})" if head.before else "before: no mask", head.before, ORANGE),
        ("after" if head.after else "after: no mask", head.after, GREEN),
    ]
    if head.truth is not None:
        shown.append(("truth", head.truth, BLUE))
    point = (row["x"], row["y"]) if row["x"] is not None else None
    numbers = [f"{row['area_before'] or 0:,} → {row['area_after'] or 0:,} px"]
    if row["iou"] is not None:
        numbers.append(f"IoU old/new {row['iou']:.3f}")
    if row["gain"] is not None:
        numbers.append(f"IoU with truth {row['truth_before']:.3f} → {row['truth_after']:.3f}")
    return _figure(row, numbers, panels(photo(), shown, point), "note")


def _crops_of_stale(edit: gain.Stale, photo: Photo) -> str:
    row = edit.record
    shown: list[Panel] = [
        ("as seen" if edit.seen else "as seen: not in the edit", edit.seen, ORANGE),
        ("now" if edit.now else "now: no mask", edit.now, BLUE),
        ("drawing" if edit.drawing else "no drawing", edit.drawing, PINK),
    ]
    numbers = [row["reason"]]
    if row["iou_seen_now"] is not None:
        numbers.append(f"IoU seen/now {row['iou_seen_now']:.3f}")
    if row["iou_drawing_now"] is not None:
        numbers.append(f"IoU drawing/now {row['iou_drawing_now']:.3f}")
    if row["fault"]:
        numbers.append(row["fault"])
    return _figure(row, numbers, panels(photo(), shown), "warning")


def _figure(row: Row, numbers: Sequence[str], shown: Sequence[tuple[str, bytes]], kind: str) -> str:
    name = f"{_image(row)}, point {row['point_id']}"
    by = f"{row['action']} ({row['outcome']}) by {row['author']}, {row['time']}"
    note = f'<p class="small">{text(row["note"], NOTE_SHOWN)}</p>' if row["note"] else ""
    pictures = "".join(
        f'<figure>{pages.picture(data, f"{name}: {caption}")}<figcaption class="small">{text(caption)}</figcaption>'
        "</figure>"
        for caption, data in shown
    )
    return (
        f'<div class="item {kind}"><p><strong>{text(name)}</strong></p><p class="small">{text(by)}'
        f'</p><p class="small">{text("; ".join(numbers))}</p>{note}<div class="panels">{pictures}</div></div>'
    )
