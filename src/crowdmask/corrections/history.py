"""Who corrected what, and what share of a data set a person has verified: from edit files and the tables of merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from crowdmask import tables
from crowdmask.corrections import native
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import DataError
from crowdmask.metrics.instances import window_iou

ACTIONS = ("replace", "add", "delete", "circle", "accept")
BY_HAND = "by hand"
"""Tool of edits without provenance."""
OUTCOMES = ("applied", "forced", "stale", "superseded")
"""Of edits, in the edits table."""


@dataclass
class Work:
    """Edits of one author, in one image or in all.

    Attributes:
        actions: Number of edits by action.
        first: Time of the earliest, as its file gives it.
        last: Time of the latest.
        tools: Programs that they come from, sorted; `BY_HAND` for those without provenance.
    """

    actions: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    tools: list[str] = field(default_factory=list)

    def add(self, edit: Any) -> None:
        """Count an edit (one of `native.Edit`)."""
        self.actions[edit.action] += 1
        if not self.first or moment(edit.time) < moment(self.first):
            self.first = edit.time
        if not self.last or moment(edit.time) > moment(self.last):
            self.last = edit.time
        tool = edit.provenance.tool if edit.provenance else BY_HAND
        if tool not in self.tools:
            self.tools = sorted([*self.tools, tool])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        actions = {action: self.actions[action] for action in ACTIONS}
        return {**actions, "first": self.first, "last": self.last, "tools": self.tools}


def moment(time: str) -> datetime:
    """Point in time of ISO 8601 text; without time zone it counts as UTC (our choice)."""
    found = datetime.fromisoformat(time)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def work_of(file: native.EditFile) -> dict[str, Work]:
    """What each author did in one image, in the order in which they first appear."""
    found: dict[str, Work] = {}
    for edit in file.edits:
        found.setdefault(edit.author, Work()).add(edit)
    return found


@dataclass
class Pair:
    """Heads that two authors edited.

    Attributes:
        heads: How many.
        ious: IoU of their drawings, where both drew one.
        opposed: Heads of which one says that there is none (`delete`), and the other not.
    """

    heads: int = 0
    ious: list[float] = field(default_factory=list)
    opposed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values; the mean is null where no head has two drawings."""
        mean = round(sum(self.ious) / len(self.ious), 6) if self.ious else None
        return {"heads": self.heads, "drawn_by_both": len(self.ious), "mean_iou": mean, "opposed": self.opposed}


def pairs_of(file: native.EditFile, path: str | Path) -> dict[tuple[str, str], Pair]:
    """Heads of one image that two authors edited, by their names in order.

    The last edit of each that draws or deletes counts; one who only accepts has edited nothing. Circles count as edits,
    not as drawings. An `add` without `point_id` is a head of its own.

    Args:
        file: The edits.
        path: Of their file, for messages.

    Raises:
        DataError: a drawing has no pixel in the image, or is too costly to draw.
    """
    latest: dict[int, dict[str, int]] = {}
    for number, edit in enumerate(file.edits):
        if edit.action != "accept" and edit.point_id is not None:
            latest.setdefault(edit.point_id, {})[edit.author] = number
    found: dict[tuple[str, str], Pair] = {}
    for by_author in latest.values():
        if len(by_author) < 2:
            continue
        drawn = {author: _drawing(file, number, path) for author, number in by_author.items()}
        deleted = {author for author, number in by_author.items() if file.edits[number].action == "delete"}
        for one, other in combinations(sorted(by_author), 2):
            pair = found.setdefault((one, other), Pair())
            pair.heads += 1
            pair.opposed += (one in deleted) != (other in deleted)
            a, b = drawn[one], drawn[other]
            if a is not None and b is not None:
                pair.ious.append(window_iou(a, b))
    return found


def _drawing(file: native.EditFile, number: int, path: str | Path) -> Any:
    edit = file.edits[number]
    if not isinstance(edit, native.Replace | native.Add):
        return None
    try:
        return native.to_mask(edit, file.image.height, file.image.width)
    except ValueError as error:
        raise DataError(path, str(error), "Correct this edit or remove it.", row=number) from None


def verified(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How much of each split a person has verified.

    Args:
        rows: Rows of `tables.MASKS` after merge, those of an image together.

    Returns:
        By split: `masks`, `verified` masks, `images` with at least one mask, and of these `images_verified`, in which
        every mask is.
    """
    keys = ("masks", "verified", "images", "images_verified")
    found: dict[str, dict[str, int]] = {}
    image: tuple[str, str] | None = None
    whole = 0
    for row in rows:
        sums = found.setdefault(row["split"], dict.fromkeys(keys, 0))
        if (row["split"], row["image_id"]) != image:
            image, whole = (row["split"], row["image_id"]), 1
            sums["images"] += 1
            sums["images_verified"] += 1
        sums["masks"] += 1
        sums["verified"] += bool(row["verified"])
        if whole and not row["verified"]:
            whole = 0
            sums["images_verified"] -= 1
    return found


def edit_files(folder: str | Path) -> list[Path]:
    """Edit files of a data set, sorted; none where the folder is missing."""
    return sorted(Path(folder).rglob("*.json"))


def log(
    name: str, folder: str | Path, batches: Mapping[tuple[str, str], Sequence[ImageRef]], results: str | Path
) -> dict[str, Any]:
    """History of a data set's corrections.

    Args:
        name: Data set.
        folder: Of its edit files.
        batches: Its images by (split, batch), as `batches_of` gives them.
        results: Folder of the results of all data sets.

    Returns:
        JSON values: `dataset`, `folder`; `edits` and `images` (numbers); `work`: an entry for each image and author;
        `authors`: the same over all images, with the number of `images`; `pairs` of authors who edited the same heads;
        `outcomes` of the edits and `verified` (`splits` and `whole`), both null before a batch is merged; `batches` and
        `batches_made`; `outdated`: images whose edits are others than those that were merged.

    Raises:
        DataError: an edit file or a table is damaged, or a file is not at the place of its image.
    """
    work, images = [], 0
    authors: dict[str, Work] = {}
    images_of: Counter[str] = Counter()
    pairs: dict[tuple[str, str], Pair] = {}
    told: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for path in edit_files(folder):
        file = native.load(path)
        native.check_location(path, file)
        key = file.image.split, file.image.image_id
        told[key] = [(edit.action, edit.author, edit.time) for edit in file.edits]
        images += bool(file.edits)
        for author, done in work_of(file).items():
            work.append({"split": key[0], "image_id": key[1], "author": author, **done.as_json()})
            images_of[author] += 1
        for edit in file.edits:
            authors.setdefault(edit.author, Work()).add(edit)
        for names, pair in pairs_of(file, path).items():
            total = pairs.setdefault(names, Pair())
            total.heads += pair.heads
            total.ious += pair.ious
            total.opposed += pair.opposed
    made = {key: refs for key, refs in batches.items() if _table(results, name, "merge", *key).is_file()}
    return {
        "dataset": name,
        "folder": str(folder),
        "edits": sum(map(len, told.values())),
        "images": images,
        "work": work,
        "authors": [
            {"author": author, "images": images_of[author], **done.as_json()}
            for author, done in sorted(authors.items())
        ],
        "pairs": [{"authors": list(names), **pair.as_json()} for names, pair in sorted(pairs.items())],
        "batches": len(batches),
        "batches_made": len(made),
        **_of_results(name, made, results, told),
    }


def _table(results: str | Path, name: str, stage: str, split: str, batch: str) -> Path:
    return Path(results, name, stage, split, f"{batch}.parquet")


def _of_results(
    name: str,
    made: Mapping[tuple[str, str], Sequence[ImageRef]],
    results: str | Path,
    told: Mapping[tuple[str, str], list[tuple[str, str, str]]],
) -> dict[str, Any]:
    """What the tables say of the edits and the masks."""
    if not made:
        return {"outcomes": None, "verified": None, "outdated": []}
    outcomes: Counter[str] = Counter()
    splits: dict[str, dict[str, int]] = {}
    merged: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    images: set[tuple[str, str]] = set()
    for split, batch in made:
        for row in tables.stream(_table(results, name, "edits", split, batch), "edits"):
            if row["outcome"] != "cut":
                outcomes[row["outcome"]] += 1
                key = row["split"], row["image_id"]
                merged.setdefault(key, []).append((row["action"], row["author"], row["time"]))
        images |= {(ref.split, ref.image_id) for ref in made[split, batch]}
        for part, sums in verified(tables.stream(_table(results, name, "merge", split, batch), "masks")).items():
            whole = splits.setdefault(part, dict.fromkeys(sums, 0))
            for what, number in sums.items():
                whole[what] += number
    total = {what: sum(sums[what] for sums in splits.values()) for what in next(iter(splits.values()), {})}
    outdated = [key for key in sorted(images | merged.keys()) if told.get(key, []) != merged.get(key, [])]
    return {
        "outcomes": {outcome: outcomes[outcome] for outcome in OUTCOMES},
        "verified": {"splits": splits, "whole": total},
        "outdated": [f"{split}/{image_id}" for split, image_id in outdated],
    }
