"""What the audit can find, how bad that is, and what the workflow does about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error = the workflow stops at it; warning = it goes on, but the data look wrong; note = good to know."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_STOP_LIST = "stops with an error before any job of this data set"
_STOP_IMAGE = "the job of its batch stops with an error; with --keep-going the other batches are made"
_KEEP = "kept unmoved, in its row: one mask a point"
_IGNORE_BOX = "the box is stored as annotated and not used for masks; its point is kept"
_AS_IS = "used as it is"


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: How bad it is.
        title: What it is, for people.
        action: What the workflow does about it (`docs/bad-input.md`).
    """

    severity: Severity
    title: str
    action: str


KINDS: Mapping[str, Kind] = {
    # the list
    "layout": Kind("error", "layout that is not complete", _STOP_LIST),
    "missing_annotation": Kind("error", "image without annotation", _STOP_LIST),
    "orphan_annotation": Kind("error", "annotation without image", _STOP_LIST),
    "missing_image": Kind("error", "image that a list names is not there", _STOP_LIST),
    "duplicate_id": Kind("error", "two files, or two lines of lists, of one id", _STOP_LIST),
    "unsafe_id": Kind("error", "name that cannot be an image id", _STOP_LIST),
    "unknown_skip": Kind("error", "skip_images names what is not there", _STOP_LIST),
    "similar_ids": Kind(
        "warning",
        "ids that differ in case only",
        "each is its own image; such files cannot be told apart on some file systems",
    ),
    "skipped": Kind("note", "left out by skip_images", "left out: no masks, not audited"),
    "unselected": Kind("note", "left out by skip and limit", "left out: no masks, not audited"),
    "unlabelled": Kind("note", "images without annotation (hidden test)", "listed only: no masks"),
    # the image
    "broken_link": Kind("error", "link that leads nowhere", _STOP_IMAGE),
    "empty_file": Kind("error", "image file of 0 bytes", _STOP_IMAGE),
    "unreadable_image": Kind("error", "unreadable image", _STOP_IMAGE),
    "truncated_image": Kind("error", "truncated or corrupt image", _STOP_IMAGE),
    "size_mismatch": Kind("warning", "annotation made for another image size", "points are used unmoved and unscaled"),
    "label_map_size": Kind("error", "label map of another size than its image", _STOP_IMAGE),
    "exif_rotation": Kind("warning", "EXIF rotation", "pixels as stored, unless `exif: apply`; the workflow warns"),
    "colour_mode": Kind("note", "other than 8-bit RGB", "converted to 8-bit RGB once; alpha is ignored"),
    "flat_image": Kind("warning", "image of one colour", _AS_IS),
    "padding": Kind("note", "flat border", _AS_IS),
    "duplicate_image": Kind("warning", "same picture twice", "both are kept: each gets its masks"),
    "near_duplicate_image": Kind("warning", "nearly the same picture twice", "both are kept: each gets its masks"),
    "video_frames": Kind("note", "many nearly equal pictures, as of video", _AS_IS),
    # the annotation
    "unreadable_annotation": Kind("error", "unreadable annotation", _STOP_IMAGE),
    "not_finite": Kind("error", "coordinate that is NaN or infinite", _STOP_IMAGE),
    "no_points": Kind("note", "image without people", "an image with 0 masks"),
    "declared_differs": Kind(
        "warning", "declared number differs from the points", "the points count; the declared number is not used"
    ),
    "empty_but_declared": Kind("warning", "people declared, but no points", "an image with 0 masks"),
    "absurd_count": Kind("warning", "more points than heads can fit", _KEEP),
    "duplicate_points": Kind("warning", "points on the same spot", "kept, each in its row: a mask each"),
    "close_points": Kind("warning", "points less than 2 px apart", _KEEP),
    "outside": Kind(
        "warning", "point outside of the image", "kept unmoved, flagged `outside`; its prompt is clipped to the border"
    ),
    "beyond_edge": Kind(
        "note",
        "point less than 1 px beyond the edge",
        "kept unmoved, flagged `outside`; its prompt is clipped to the border",
    ),
    "swapped_axes": Kind("warning", "x and y look swapped", "kept unmoved; those outside are flagged `outside`"),
    "on_padding": Kind("warning", "point on a flat border", _KEEP),
    "box_count": Kind("error", "another number of boxes than of points", _STOP_IMAGE),
    "box_degenerate": Kind("warning", "box without area, or not finite", _IGNORE_BOX),
    "box_outside": Kind("warning", "box outside of the image", _IGNORE_BOX),
    "box_without_point": Kind("warning", "box that does not hold its point", _IGNORE_BOX),
    "box_absurd": Kind("warning", "box of absurd size", _IGNORE_BOX),
    # the data set
    "density_outlier": Kind("note", "density far from the rest of its split", _AS_IS),
    "known_defect": Kind(
        "warning",
        "known defect of the published data set",
        "kept as it is; leave it out with skip_images, or correct its annotation",
    ),
    "published_agrees": Kind("note", "agrees with the published numbers", "none needed"),
    "published_differs": Kind("warning", "differs from the published numbers", "the files count, as they are"),
}
"""Every kind, in the order of the report."""


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found.

    Attributes:
        kind: Key of `KINDS`.
        severity: `error`, `warning` or `note`.
        split: Split; empty for a finding on the whole data set.
        image_id: Image id; empty for a finding on a split or the data set.
        row: First 0-based row (point, box) at fault; None where it lies in none.
        message: What is wrong, with numbers.
        action: What the workflow does about it.
        rows: All rows at fault, ascending.
    """

    kind: str
    severity: Severity
    split: str
    image_id: str
    row: int | None
    message: str
    action: str
    rows: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return asdict(self) | {"rows": list(self.rows)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """Inverse of `as_json`.

        Raises:
            KeyError, TypeError, ValueError: not such a value.
        """
        rows = tuple(int(row) for row in value["rows"])
        row = None if value["row"] is None else int(value["row"])
        if value["kind"] not in KINDS or value["severity"] not in SEVERITIES:
            raise ValueError("unknown kind or severity")
        texts = {key: str(value[key]) for key in ("kind", "split", "image_id", "message", "action")}
        return cls(severity=value["severity"], row=row, rows=rows, **texts)


def finding(
    kind: str,
    message: str,
    split: str = "",
    image_id: str = "",
    rows: Iterable[int] = (),
    *,
    severity: Severity | None = None,
) -> Finding:
    """A finding with the severity and action of its kind.

    Args:
        kind: Key of `KINDS`.
        message: What is wrong.
        split: Split, where it lies in one.
        image_id: Image, where it lies in one.
        rows: Rows at fault, 0-based.
        severity: Another severity than the kind's.
    """
    known = KINDS[kind]
    found = tuple(sorted(int(row) for row in rows))
    first = found[0] if found else None
    return Finding(kind, severity or known.severity, split, image_id, first, message, known.action, found)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by kind as in `KINDS`, split, image and row."""
    kinds = {kind: place for place, kind in enumerate(KINDS)}

    def key(item: Finding) -> tuple[int, int, str, str, int, str]:
        row = -1 if item.row is None else item.row
        return SEVERITIES.index(item.severity), kinds[item.kind], item.split, item.image_id, row, item.message

    return sorted(findings, key=key)


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings of each kind that occurs, in the order given."""
    groups: dict[str, list[Finding]] = {}
    for item in findings:
        groups.setdefault(item.kind, []).append(item)
    return groups
