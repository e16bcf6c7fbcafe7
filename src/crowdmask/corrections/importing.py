"""Import: what annotation tools give back becomes edits, and nothing else changes.

`plan_file` compares the pictures of one file with what was handed out (`exchange.record`); `settle` puts the outcome
beside what the edit files say already; `import_run` reads and writes. Nothing is written before every
picture of every file has been checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crowdmask.corrections import conflicts, native
from crowdmask.corrections.conflicts import Conflict, Earlier
from crowdmask.corrections.exchange.base import Picture
from crowdmask.corrections.exchange.record import Head, Task
from crowdmask.corrections.matching import Decision, Known, match
from crowdmask.corrections.merge import new_ids
from crowdmask.corrections.present import Now
from crowdmask.errors import printable
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

StalePolicy = Literal["keep", "rebase", "refuse"]
"""`keep`: written with the mask that it was drawn on, so that the merge reports it; `rebase`: written as if drawn on
the present mask; `refuse`: not written."""

KINDS = ("kept", "replaced", "added", "deleted", "ambiguous", "refused")
SAME = 0.95
"""IoU from which two added masks are one drawing, imported twice."""
LONGEST = 98
"""Characters of each of two authors' names in that of their common edit, which has at most 200."""
TWICE = 0.5
"""IoU from which two added masks mean one head."""


@dataclass(frozen=True)
class Source:
    """Who gave back which file.

    Attributes:
        tool: Program and version.
        file: Name of the file.
        sha256: Of the file.
        author: Who drew.
        time: When, ISO 8601.
    """

    tool: str
    file: str
    sha256: str
    author: str
    time: str


@dataclass
class Change:
    """One decision about one head of one image.

    Attributes:
        kind: One of `KINDS`.
        point_id: The head; None for a new one until it has an id.
        reason: Why; empty where plain.
        source: Where it comes from.
        head: What was handed out; None for a new head.
        window: New mask in pixels of the image.
        point_xy: Head point of a new head, pixels of the image.
        iou: Of the old and the new mask.
        where: Places in the file.
        seen: Fingerprints of the edits that the masks handed out contained.
        base: Hash that the edit is based on.
        stale: The pipeline's own mask has changed since.
        conflict: With what another author says.
    """

    kind: str
    point_id: int | None
    reason: str
    source: Source
    head: Head | None = None
    window: Window | None = None
    point_xy: tuple[float, float] | None = None
    iou: float | None = None
    where: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()
    base: str | None = None
    stale: bool = False
    conflict: Conflict | None = None

    def summary(self) -> dict[str, Any]:
        """For the diff that machines read."""
        iou = None if self.iou is None else round(self.iou, 4)
        found = {"kind": self.kind, "point_id": self.point_id, "iou": iou, "reason": self.reason}
        return {**found, "where": list(self.where), "file": self.source.file, "author": self.source.author}


@dataclass
class Image:
    """What is known of one image now.

    Attributes:
        row: Of `tables.IMAGES`.
        made: Rows of `tables.MASKS` as the pipeline made them, by point_id.
        file: Its edit file; None = there is none.
        changes: What the import found, in order.
    """

    row: Mapping[str, Any]
    made: dict[int, dict[str, Any]]
    file: native.EditFile | None
    changes: list[Change] = field(default_factory=list)

    @property
    def added(self) -> dict[int, int]:
        """point_id of each head that the edit file adds, by the row of its edit."""
        return new_ids(self.file, max(self.made, default=-1) + 1, self.key) if self.file else {}

    @property
    def key(self) -> str:
        """split/image_id."""
        return f"{self.row['split']}/{self.row['image_id']}"


def mismatch(picture: Picture, task: Task, image: Mapping[str, Any]) -> str:
    """Why a picture is not the one that was handed out; empty where it is.

    Args:
        picture: From the tool's file.
        task: What was handed out under its name.
        image: The image's row of `tables.IMAGES` now.
    """
    silent = not picture.shapes and (picture.height, picture.width) == (0, 0)  # Label Studio, where nothing is drawn
    if not silent and (picture.height, picture.width) != (task.h, task.w):
        return (
            f"its size is {picture.width} x {picture.height} pixels (width x height), "
            f"{task.w} x {task.h} was handed out"
        )
    if image["sha256"] != task.sha256 or (image["height"], image["width"]) != (task.height, task.width):
        return f"the image {task.split}/{task.image_id} of the data set has been another one when it was handed out"
    return ""


def compare(picture: Picture, task: Task, source: Source, tolerance: float) -> list[Change]:
    """What a person did to one picture, in pixels of its image.

    Args:
        picture: From the tool's file, of the size that was handed out.
        task: What was handed out.
        source: For the edits.
        tolerance: Of tracing, pixels; see `matching.match`.
    """
    heads = {head.point_id: head for head in task.heads}
    seen = frozenset(task.edits)
    known = [Known(head.point_id, (head.x - task.x0, head.y - task.y0), task.local(head)) for head in task.heads]
    found = match(known, picture.shapes, task.h, task.w, tolerance)
    return [_change(decision, task, heads, source, seen) for decision in found]


def _change(decision: Decision, task: Task, heads: Mapping[int, Head], source: Source, seen: frozenset[str]) -> Change:
    window, point = decision.window, decision.point_xy
    head = None if decision.point_id is None else heads.get(decision.point_id)
    return Change(
        kind=decision.kind,
        point_id=decision.point_id,
        reason=decision.reason,
        source=source,
        head=head,
        window=None if window is None else Window(window.x0 + task.x0, window.y0 + task.y0, window.mask),
        point_xy=None if point is None else (point[0] + task.x0, point[1] + task.y0),
        iou=decision.iou,
        where=decision.where,
        seen=seen,
        base=None if head is None else head.base,
    )


def settle(image: Image, policy: str, stale: StalePolicy) -> None:
    """Put an image's changes beside its edit file, in place: already there, stale, in conflict, ids of new heads.

    Args:
        image: With its changes; they become final.
        policy: Of conflicts; see `conflicts.holds`.
        stale: What to do with changes of masks that the pipeline has made anew since.
    """
    taken = [change.point_id for change in image.changes if change.point_id is not None]
    free = max([-1, *image.made, *image.added.values(), *taken]) + 1
    new: list[Change] = []
    mine: dict[int, Change] = {}
    for change in image.changes:
        if change.kind == "added":
            _settle_added(image, change, new, policy)
            if change.kind == "added" and change.point_id is None:
                change.point_id, free = free, free + 1
            new.append(change)
        elif change.kind in ("replaced", "deleted"):
            _settle_known(image, change, mine, policy, stale)


def _settle_added(image: Image, change: Change, new: Iterable[Change], policy: str) -> None:
    for other in new:
        alike = conflicts.iou(change.window, other.window) if other.kind == "added" else 0.0
        if alike >= TWICE:
            if alike >= SAME:
                change.kind, change.reason = "kept", f"the same drawing as the new head {other.point_id}"
            elif other.source == change.source:  # from the overlap of two crops
                change.kind, change.reason = "ambiguous", f"a second drawing of the new head {other.point_id}"
            else:
                earlier = Earlier(-1, other.source.author, other.source.time, other.window)
                _contest(change, other.point_id, earlier, policy)
            return
    ids = image.added
    for number, edit in enumerate(image.file.edits if image.file else ()):
        if not isinstance(edit, native.Add):
            continue
        try:
            window = native.to_mask(edit, image.row["height"], image.row["width"])
        except ValueError:
            continue  # the merge stops at it, with its name
        alike = conflicts.iou(change.window, window)
        if alike >= SAME:
            change.kind, change.reason = "kept", f"imported before: edit {number} of the image's file"
            return
        if alike >= TWICE and native.fingerprint(edit) not in change.seen:
            _contest(change, ids[number], Earlier(number, edit.author, edit.time, window), policy)
            return


def _settle_known(image: Image, change: Change, mine: dict[int, Change], policy: str, stale: StalePolicy) -> None:
    assert change.point_id is not None
    now = image.made.get(change.point_id)
    if now is None and change.point_id not in image.added.values():
        change.kind = "refused"
        change.reason = "its point is no longer in the annotation, nor its head in the edit file"
        return
    earlier = None
    if change.point_id in mine:  # by another file of this import
        other = mine[change.point_id]
        earlier = Earlier(-1, other.source.author, other.source.time, other.window)
    elif image.file is not None:
        earlier = conflicts.drawn_since(image.file, change.seen, image.made).get(change.point_id)
    if earlier is not None and _same(earlier.window, change.window):
        change.kind = "kept"
        change.reason = (
            "imported before" if earlier.author == change.source.author else f"{earlier.author} drew the same"
        )
        return
    if change.base is not None and now is not None and now["sha256"] != change.base:
        change.stale = True
        change.reason = "the mask has changed since it was handed out"
        if stale == "refuse":
            change.kind = "refused"
            return
        if stale == "rebase":
            change.base = now["sha256"]
    if earlier is not None and earlier.author != change.source.author:
        _contest(change, change.point_id, earlier, policy)
    if change.kind in ("replaced", "deleted"):
        mine[change.point_id] = change


def _same(a: Window | None, b: Window | None) -> bool:
    if a is None or b is None:
        return a is b
    return rle.digest(a) == rle.digest(b)


def _contest(change: Change, point_id: int | None, earlier: Earlier, policy: str) -> None:
    """Two authors mean one head: what the policy makes of the incoming change."""
    author, time = change.source.author, change.source.time
    holds = conflicts.holds(policy, earlier, author, time)
    agreement = conflicts.iou(earlier.window, change.window)
    change.conflict = Conflict(point_id, earlier, author, time, change.window, agreement, holds)
    if holds in ("neither", "earlier"):
        change.kind = "refused" if holds == "neither" else "kept"
        change.reason = f"{earlier.author} has edited this head: {'nobody wins' if holds == 'neither' else 'it holds'}"
    elif holds == "union":
        change.kind, change.window = "replaced", conflicts.union(earlier.window, change.window)
        change.source = replace(change.source, author=f"{earlier.author[:LONGEST]} + {author[:LONGEST]}")
    if change.kind == "added":
        change.kind = "replaced"  # of the head that the other one has added
    if change.kind == "replaced":
        change.point_id, change.base = point_id, change.base if change.head else None
    change.iou = agreement if change.iou is None else change.iou


def accepted(image: Image) -> list[Change]:
    """Changes that confirm the masks that came back as they were handed out, but for those that others have edited."""
    others = {change.point_id for change in image.changes if change.kind != "kept" or change.conflict is not None}
    kept = {change.point_id: change for change in image.changes if change.kind == "kept" and change.head is not None}
    found = []
    for point_id, change in kept.items():
        now = [
            edit
            for edit in (image.file.edits if image.file else ())
            if edit.point_id == point_id and native.fingerprint(edit) not in change.seen
        ]
        gone = point_id not in image.made and point_id not in image.added.values()
        drawn = any(not isinstance(edit, native.Accept) for edit in now)
        again = any(edit.author == change.source.author for edit in now)
        if not (point_id in others or gone or drawn or again):
            found.append(replace(change, kind="accepted"))
    return found


def edits_of(image: Image, changes: Iterable[Change]) -> list[native.Edit]:
    """Edits to append to the image's file, in order.

    A change that is stale and has not been rebased keeps the hash of the mask that it was drawn on, and with it the
    merge's own rules of staleness.
    """
    height, width = image.row["height"], image.row["width"]
    made: list[native.Edit] = []
    for change in changes:
        common: dict[str, Any] = {
            "author": change.source.author,
            "time": change.source.time,
            "note": change.reason or None,
            "provenance": native.Provenance(
                tool=change.source.tool, file=printable(change.source.file), sha256=change.source.sha256
            ),
        }
        based = {**common, "point_id": change.point_id, "base": change.base}
        if change.head is not None:
            based["seen"] = native.Rle.model_validate(change.head.runs(height, width))
        if change.kind == "deleted":
            made.append(native.Delete(action="delete", **based))
        elif change.kind == "accepted":
            made.append(native.Accept(action="accept", **based))
        elif change.window is not None and change.kind in ("replaced", "added"):
            counts = rle.full_counts(change.window, height, width).decode("ascii")
            mask = native.Rle(counts=counts, size=(height, width))
            if change.kind == "replaced":
                made.append(native.Replace(action="replace", mask=mask, **based))
            elif change.point_xy is not None:
                x, y = (round(value, 2) for value in change.point_xy)
                made.append(native.Add(action="add", x=x, y=y, point_id=change.point_id, mask=mask, **common))
    return made


def file_with(image: Image, edits: Iterable[native.Edit]) -> native.EditFile:
    """The image's edit file with more edits, checked as a whole."""
    names = ("split", "image_id", "height", "width", "sha256")
    old = image.file or native.EditFile(
        version=1, image=native.Image(**{name: image.row[name] for name in names}), edits=()
    )
    return native.EditFile(version=1, image=old.image, edits=(*old.edits, *edits))


def counts(images: Iterable[Image], refused: int = 0) -> dict[str, int]:
    """Number of changes of each kind.

    Args:
        images: With their changes.
        refused: Pictures and files that were refused as a whole.
    """
    found = dict.fromkeys(KINDS, 0)
    for image in images:
        for change in image.changes:
            found[change.kind] += 1
    found["refused"] += refused
    return found


def whole(now: Now) -> Task:
    """A task for an image that was handed out without a record: its masks as they are now.

    Args:
        now: The image.
    """
    row = now.row
    size = {"height": row["height"], "width": row["width"], "h": row["height"], "w": row["width"]}
    key = {"split": row["split"], "image_id": row["image_id"], "sha256": row["sha256"], "picture": row["sha256"]}
    return Task(name=row["path"], thumb="0" * 128, edits=now.edits, heads=now.heads, **key, **size)
