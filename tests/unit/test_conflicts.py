"""Two people, one head: whose drawing holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdmask.corrections import native
from crowdmask.corrections.conflicts import Earlier, check_policy, drawn_since, holds, iou, union
from crowdmask.errors import SettingsError
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

H, W = 20, 30
EARLIER = Earlier(0, "ada", "2025-01-01T12:00:00Z", Window(0, 0, np.ones((2, 2), bool)))


def square(x: int, y: int, side: int) -> Window:
    return Window(x, y, np.ones((side, side), bool))


@pytest.mark.parametrize(
    ("policy", "author", "time", "wanted"),
    [
        ("refuse", "bo", "2026-01-01T00:00:00Z", "neither"),
        ("newest", "bo", "2026-01-01T00:00:00Z", "later"),
        ("newest", "bo", "2024-01-01T00:00:00Z", "earlier"),
        ("newest", "bo", "2025-01-01T12:00:00", "later"),  # equal, and without a zone
        ("newest", "bo", "2025-01-01T13:30:00+02:00", "earlier"),  # 11:30 UTC
        ("union", "bo", "2024-01-01T00:00:00Z", "union"),
        ("author:bo", "bo", "2024-01-01T00:00:00Z", "later"),
        ("author:ada", "bo", "2026-01-01T00:00:00Z", "earlier"),
        ("author:cy", "bo", "2026-01-01T00:00:00Z", "neither"),
    ],
)
def test_each_policy(policy: str, author: str, time: str, wanted: str) -> None:
    assert holds(check_policy(policy), EARLIER, author, time) == wanted


@pytest.mark.parametrize("policy", ["", "oldest", "author:", "Newest", "author"])
def test_unknown_policies_are_refused(policy: str) -> None:
    with pytest.raises(SettingsError, match="refuse, newest, union or author:NAME"):
        check_policy(policy)


windows = st.builds(
    lambda x, y, bits: Window(x, y, np.array(bits, bool).reshape(3, 4)),
    st.integers(0, 12),
    st.integers(0, 10),
    st.lists(st.booleans(), min_size=12, max_size=12).filter(any),
)


@given(windows, windows)
def test_iou_and_union_are_those_of_whole_images(a: Window, b: Window) -> None:
    full_a, full_b = a.full(H, W), b.full(H, W)
    assert iou(a, b) == (full_a & full_b).sum() / (full_a | full_b).sum()
    both = union(a, b)
    assert both is not None and np.array_equal(both.full(H, W), full_a | full_b)


def test_a_deletion_is_no_mask() -> None:
    assert iou(None, None) == 1 and iou(None, square(0, 0, 2)) == 0
    assert union(None, EARLIER.window) is EARLIER.window and union(None, None) is None


def edit_file(*edits: dict) -> native.EditFile:
    image = {"split": "test", "image_id": "a", "height": H, "width": W}
    who = {"author": "ada", "time": "2025-01-01T12:00:00Z"}
    return native.EditFile.model_validate({"version": 1, "image": image, "edits": [{**who, **edit} for edit in edits]})


def runs(window: Window) -> dict:
    return {"counts": rle.full_counts(window, H, W).decode(), "size": [H, W]}


def test_only_what_the_other_has_not_seen_counts_and_of_that_the_last() -> None:
    file = edit_file(
        {"action": "replace", "point_id": 0, "mask": runs(square(1, 1, 3))},
        {"action": "replace", "point_id": 1, "mask": runs(square(5, 5, 3))},
        {"action": "accept", "point_id": 0, "author": "bo"},
        {"action": "replace", "point_id": 1, "mask": runs(square(5, 5, 4)), "author": "bo"},
        {"action": "delete", "point_id": 2},
        {"action": "circle", "point_id": 3},
    )
    rows = {3: {"x": 10.0, "y": 10.0, "radius_px": 2.0, "sha256": "0" * 64}}
    found = drawn_since(file, (), rows)
    names = [native.fingerprint(one) for one in file.edits]
    assert {point: (e.row, e.author, None if e.window is None else e.window.area) for point, e in found.items()} == {
        0: (0, "ada", 9),
        1: (3, "bo", 16),
        2: (4, "ada", None),
        3: (5, "ada", 13),
    }
    assert set(drawn_since(file, names[:4], rows)) == {2, 3}
    assert drawn_since(file, names, rows) == {}
    turned = edit_file(*(one.model_dump(exclude_none=True, mode="json") for one in reversed(file.edits)))
    assert set(drawn_since(turned, names[:4], rows)) == {2, 3}  # wherever they stand
