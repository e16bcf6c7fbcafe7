"""Two people, one head: who drew what without having seen the other, and which drawing is to hold."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from crowdmask.corrections import likeness, native
from crowdmask.corrections.history import moment
from crowdmask.corrections.merge import drawing_of
from crowdmask.errors import SettingsError
from crowdmask.masks.rle import Window

Holds = Literal["earlier", "later", "union", "neither"]
"""`neither`: the incoming edit is not written; what the edit file says stays."""

POLICIES = "refuse, newest, union or author:NAME"


@dataclass(frozen=True)
class Earlier:
    """What an edit file says of a head already, without the incoming author having seen it.

    Attributes:
        row: Row of the edit that draws or deletes it.
        author: Who made it.
        time: When, ISO 8601.
        window: The mask; None = deleted.
    """

    row: int
    author: str
    time: str
    window: Window | None


@dataclass(frozen=True)
class Conflict:
    """Two authors' edits of one head.

    Attributes:
        point_id: The head; of a head that both added, the earlier one's id, or None where it has none.
        earlier: What is in the edit file.
        author: Of the incoming edit.
        time: Of the incoming edit.
        window: Of the incoming edit; None = it deletes.
        iou: Agreement of the two masks; 1 where both delete, 0 where one does.
        holds: What the policy says.
    """

    point_id: int | None
    earlier: Earlier
    author: str
    time: str
    window: Window | None
    iou: float
    holds: Holds

    def summary(self) -> dict[str, Any]:
        """For the table of conflicts."""
        return {
            "point_id": self.point_id,
            "earlier": {"row": self.earlier.row, "author": self.earlier.author, "time": self.earlier.time},
            "incoming": {"author": self.author, "time": self.time},
            "iou": round(self.iou, 4),
            "holds": self.holds,
        }


def check_policy(policy: str) -> str:
    """Return the policy.

    Raises:
        SettingsError: there is no such policy.
    """
    if policy not in ("refuse", "newest", "union") and not re.fullmatch(r"author:.+", policy):
        raise SettingsError(f"--conflicts {policy!r}: write {POLICIES}")
    return policy


def holds(policy: str, earlier: Earlier, author: str, time: str) -> Holds:
    """Whose edit is to hold.

    Args:
        policy: `refuse`: the earlier stays, the incoming one is not written. `newest`: the one with the later time, of
            equal times the incoming one. `union`: both masks together. `author:NAME`: that one's; `refuse` where
            neither is of that author.
        earlier: In the edit file.
        author: Of the incoming edit.
        time: Of the incoming edit, ISO 8601.
    """
    if policy == "newest":
        return "later" if moment(time) >= moment(earlier.time) else "earlier"
    if policy == "union":
        return "union"
    if policy.startswith("author:"):
        name = policy.removeprefix("author:")
        return "later" if author == name else "earlier" if earlier.author == name else "neither"
    return "neither"


def iou(a: Window | None, b: Window | None) -> float:
    """Intersection over union of two masks; None = no mask. Two of none agree: 1."""
    return float(a is b) if a is None or b is None else likeness.iou(a, b)


def union(a: Window | None, b: Window | None) -> Window | None:
    """Pixels of either mask."""
    return a or b if a is None or b is None else likeness.unite([a, b])


def drawn_since(file: native.EditFile, seen: Collection[str], rows: dict[int, dict[str, Any]]) -> dict[int, Earlier]:
    """The last drawing or deletion of each head that the incoming author has not seen, by point_id.

    Args:
        file: The image's edit file.
        seen: Fingerprints of the edits that the masks handed out contained.
        rows: The image's rows of `tables.MASKS` as the pipeline made them, by point_id, for circles.
    """
    found: dict[int, Earlier] = {}
    for number, edit in enumerate(file.edits):
        if isinstance(edit, native.Accept) or edit.point_id is None or native.fingerprint(edit) in seen:
            continue
        try:
            window = drawing_of(edit, rows.get(edit.point_id), file.image.height, file.image.width)
        except ValueError:
            continue  # the merge stops at it, with its name
        found[edit.point_id] = Earlier(number, edit.author, edit.time, window)
    return found
