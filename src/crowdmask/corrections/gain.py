"""What people's edits changed: masks before and after, against the truth where there is one. Pure, image by image.

Before is the mask that the author saw (`seen` of the edit), or else the pipeline's own (table of exclude); after is the
mask of the merged table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crowdmask.corrections import native
from crowdmask.corrections.drawing import disc, from_runs, parse_counts
from crowdmask.corrections.merge import new_ids
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from crowdmask.metrics.instances import intersection, window_iou

Row = dict[str, Any]

IN_FORCE = ("applied", "forced")
"""Outcomes of edits that made, or confirmed, what the result holds."""

DIGITS = 6
"""Of an IoU in the tables."""


@dataclass(frozen=True)
class Corrected:
    """A head with an edit in force.

    Attributes:
        record: What the table says of it, JSON values.
        before: Mask before; None = the head was added.
        after: Mask in the result; None = the head was deleted.
        truth: True mask, where there is one.
    """

    record: Row
    before: Window | None
    after: Window | None
    truth: Window | None


@dataclass(frozen=True)
class Stale:
    """An edit made on a mask, or an image file, that has changed since.

    Attributes:
        record: What the table says of it, JSON values.
        seen: The mask on which it was made, where the edit holds that.
        now: The head's mask now: in the result, or for a forced edit the pipeline's own; None = there is none.
        drawing: What the edit draws; None for `delete` and `accept`, or where it cannot be drawn.
    """

    record: Row
    seen: Window | None
    now: Window | None
    drawing: Window | None


@dataclass(frozen=True)
class ImageGain:
    """What the edits of one image did.

    Attributes:
        corrected: Heads with an edit in force, in order of their ids.
        neighbours: Records of masks that lost pixels to another because of an edit; in the order of the edits table.
        stale: Stale and forced edits, in file order.
        superseded: Records of edits that a later one replaced, in file order.
    """

    corrected: list[Corrected]
    neighbours: list[Row]
    stale: list[Stale]
    superseded: list[Row]

    def as_json(self) -> dict[str, list[Row]]:
        """All records."""
        return {
            "corrected": [item.record for item in self.corrected],
            "neighbours": self.neighbours,
            "stale": [item.record for item in self.stale],
            "superseded": self.superseded,
        }


def of_image(
    file: native.EditFile,
    edit_rows: Sequence[Row],
    made_rows: Sequence[Row],
    merged_rows: Sequence[Row],
    truth: Mapping[int, Window] | None,
    path: str | Path,
) -> ImageGain:
    """Compare the masks of one image before and after its edits.

    Args:
        file: The image's edit file.
        edit_rows: Its rows of `tables.EDITS`.
        made_rows: Its rows of `tables.MASKS` as exclude made them.
        merged_rows: The same after the edits.
        truth: True mask by point_id; None = the data set has none.
        path: Of the edit file, for messages.

    Raises:
        DataError: the edits table was made from other edits than these.
    """
    outcomes = [row for row in edit_rows if row["outcome"] != "cut"]
    told = [(row["row"], row["action"], row["author"], row["time"]) for row in outcomes]
    if told != [(number, edit.action, edit.author, edit.time) for number, edit in enumerate(file.edits)]:
        raise DataError(path, "the tables are not of these edits", "The file has changed: run Snakemake again.")
    made = {row["point_id"]: row for row in made_rows}
    merged = {row["point_id"]: row for row in merged_rows}
    ids = new_ids(file, max(made, default=-1) + 1, path)
    heads = [ids[n] if isinstance(edit, native.Add) else edit.point_id for n, edit in enumerate(file.edits)]

    in_force: dict[int, list[int]] = {}
    stale, superseded = [], []
    for number, (head, row) in enumerate(zip(heads, outcomes, strict=True)):
        if row["outcome"] in IN_FORCE:
            in_force.setdefault(head, []).append(number)
        if row["outcome"] in ("stale", "forced"):
            now = (merged if row["outcome"] == "stale" else made).get(head)
            stale.append(_stale(file, number, head, row, now, made.get(head)))
        if row["outcome"] == "superseded":
            superseded.append(_record(file, number, head, row))
    corrected = [
        _corrected(file, numbers, head, outcomes, made.get(head), merged.get(head), truth)
        for head, numbers in sorted(in_force.items())
    ]
    cuts = [row for row in edit_rows if row["outcome"] == "cut"]
    neighbours = [_neighbour(row, made, merged, None if row["point_id"] in in_force else truth) for row in cuts]
    return ImageGain(corrected, neighbours, stale, superseded)


def _record(file: native.EditFile, number: int, head: int, row: Row) -> Row:
    """What every table says of an edit."""
    edit = file.edits[number]
    return {
        "split": file.image.split,
        "image_id": file.image.image_id,
        "point_id": head,
        "row": number,
        **{key: row[key] for key in ("action", "outcome", "reason", "author", "time")},
        "tool": edit.provenance.tool if edit.provenance else None,
        "note": edit.note,
    }


def _corrected(
    file: native.EditFile,
    numbers: Sequence[int],
    head: int,
    outcomes: Sequence[Row],
    made: Row | None,
    merged: Row | None,
    truth: Mapping[int, Window] | None,
) -> Corrected:
    """One head; of its edits in force the one that set the mask speaks, or else the last that accepted it."""
    accepted = [number for number in numbers if file.edits[number].action == "accept"]
    number = next((number for number in numbers if number not in accepted), numbers[-1])
    edit = file.edits[number]
    seen = _seen(edit)
    before = seen or (Window.from_columns(made) if made else None)
    after = Window.from_columns(merged) if merged else None
    true = truth.get(head) if truth is not None else None
    place = merged or made
    record = {
        **_record(file, number, head, outcomes[number]),
        "x": place["x"] if place else None,
        "y": place["y"] if place else None,
        "accepted_by": sorted({file.edits[n].author for n in accepted}),
        "before": ("seen" if seen else "pipeline") if before else None,
        "area_before": before.area if before else None,
        "area_after": after.area if after else None,
        "changed_px": _different(before, after),
        "iou": _iou(before, after),
        **_with_truth(before, after, true),
    }
    return Corrected(record, before, after, true)


def _stale(file: native.EditFile, number: int, head: int, row: Row, now: Row | None, made: Row | None) -> Stale:
    edit = file.edits[number]
    fault = None
    drawn = None
    try:
        drawn = drawing(edit, made, file.image.height, file.image.width)
    except ValueError as error:  # merge draws no edit that is stale
        fault = str(error)
    seen = _seen(edit)
    mask = Window.from_columns(now) if now else None
    record = {
        **_record(file, number, head, row),
        "area_seen": seen.area if seen else None,
        "area_now": mask.area if mask else None,
        "area_drawing": drawn.area if drawn else None,
        "iou_seen_now": _iou(seen, mask),
        "iou_drawing_now": _iou(drawn, mask),
        "fault": fault,
    }
    return Stale(record, seen, mask, drawn)


def _neighbour(row: Row, made: Mapping[int, Row], merged: Mapping[int, Row], truth: Mapping[int, Window] | None) -> Row:
    """A cut of the edits table; with the truth for heads that no edit names, whose gain stands nowhere else."""
    head = row["point_id"]
    before, after = (Window.from_columns(rows[head]) if head in rows else None for rows in (made, merged))
    keys = ("split", "image_id", "point_id", "row", "action", "reason", "pixels", "author", "time")
    return {
        **{key: row[key] for key in keys},
        "area_before": before.area if before else None,
        "area_after": after.area if after else None,
        **_with_truth(before, after, truth.get(head) if truth is not None else None),
    }


def drawing(edit: Any, made: Row | None, height: int, width: int) -> Window | None:
    """What an edit draws; None = `delete` and `accept` draw nothing.

    Args:
        edit: One of `native.Edit`.
        made: The head's row of exclude, for circles; None = an added head.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: no pixel in the image, too costly, or a circle around a head without place or radius.
    """
    if isinstance(edit, native.Replace | native.Add):
        return native.to_mask(edit, height, width)
    if not isinstance(edit, native.Circle):
        return None
    if made is None:
        raise ValueError("a circle around an added head is not drawn here")
    radius = made["radius_px"] if edit.radius is None else edit.radius
    return disc(made["x"], made["y"], min(radius, float(height + width)), height, width)


def _seen(edit: Any) -> Window | None:
    runs = getattr(edit, "seen", None)
    return from_runs(parse_counts(runs.counts, *runs.size), runs.size[0]) if runs else None


def _iou(a: Window | None, b: Window | None) -> float | None:
    return round(window_iou(a, b), DIGITS) if a is not None and b is not None else None


def _different(a: Window | None, b: Window | None) -> int:
    """Pixels that belong to one of the two alone."""
    shared = intersection(a, b) if a is not None and b is not None else 0
    return sum(mask.area for mask in (a, b) if mask is not None) - 2 * shared


def _with_truth(before: Window | None, after: Window | None, true: Window | None) -> Row:
    """IoU with the truth; a mask that is missing has 0 (as in the evaluation)."""
    if true is None:
        return dict.fromkeys(("truth_before", "truth_after", "gain"))
    old, new = (window_iou(mask, true) if mask else 0.0 for mask in (before, after))
    return {"truth_before": round(old, DIGITS), "truth_after": round(new, DIGITS), "gain": round(new - old, DIGITS)}


@dataclass
class Gains:
    """Running sums of IoU with the truth, before and after."""

    heads: int = 0
    before: float = 0.0
    after: float = 0.0
    better: int = 0
    worse: int = 0

    def add(self, record: Row) -> None:
        """Count a head, once; nothing where it has no truth."""
        if record["gain"] is not None:
            self.heads += 1
            self.before += record["truth_before"]
            self.after += record["truth_after"]
            self.better += record["gain"] > 0
            self.worse += record["gain"] < 0

    def result(self) -> Row:
        """Means as JSON values; null over nothing."""
        means = {"mean_before": self.before, "mean_after": self.after, "mean_gain": self.after - self.before}
        return {
            **{key: getattr(self, key) for key in ("heads", "better", "worse")},
            **{key: round(total / self.heads, DIGITS) if self.heads else None for key, total in means.items()},
        }


@dataclass
class Totals:
    """Running sums over the images of a data set."""

    has_truth: bool
    images: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    changed: list[float] = field(default_factory=lambda: [0, 0.0])
    cuts: list[int] = field(default_factory=lambda: [0, 0])
    heads: Gains = field(default_factory=Gains)
    neighbours: Gains = field(default_factory=Gains)

    def add(self, edit_rows: Sequence[Row], found: ImageGain) -> None:
        """Count one image."""
        self.images += 1
        self.outcomes.update(row["outcome"] for row in edit_rows if row["outcome"] != "cut")
        for record in (item.record for item in found.corrected):
            self.actions[record["action"]] += 1
            if record["action"] != "accept":
                self.heads.add(record)
                if record["iou"] is not None:
                    self.changed[0] += 1
                    self.changed[1] += record["iou"]
        once = {record["point_id"]: record for record in found.neighbours}
        self.cuts[0] += len(once)
        self.cuts[1] += sum(record["pixels"] for record in found.neighbours)
        for record in once.values():
            self.neighbours.add(record)

    def result(self) -> Row:
        """JSON values.

        `images` with edits; `edits` by outcome; `heads` by the action that made them what they are; `mean_iou` of old
        and new mask over the heads that were drawn anew; `neighbours_cut` and `pixels_cut`; `truth`: null, or for
        `corrected` heads (all but the merely accepted) and for cut `neighbours` that no edit names: how many, how many
        of them better and worse, mean IoU with the truth before and after, mean gain.
        """
        drawn, total = self.changed
        return {
            "images": self.images,
            "edits": {name: self.outcomes[name] for name in ("applied", "forced", "stale", "superseded")},
            "heads": {name: self.actions[name] for name in ("replace", "circle", "add", "delete", "accept")},
            "mean_iou": round(total / drawn, DIGITS) if drawn else None,
            "neighbours_cut": self.cuts[0],
            "pixels_cut": self.cuts[1],
            "truth": {"corrected": self.heads.result(), "neighbours": self.neighbours.result()}
            if self.has_truth
            else None,
        }
