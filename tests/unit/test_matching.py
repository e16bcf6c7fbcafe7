"""Which returned shape is which mask: every rule on a drawn example."""

from __future__ import annotations

import numpy as np
import pytest
from retrace import exact, outline

from crowdmask.corrections.exchange.base import Shape
from crowdmask.corrections.likeness import Noise, inner_point, losable
from crowdmask.corrections.matching import Decision, Known, match
from crowdmask.corrections.pairing import assign
from crowdmask.masks.rle import Window

H, W = 60, 90


def box(x: int, y: int, w: int, h: int) -> Window:
    return Window(x, y, np.ones((h, w), bool))


def join(*windows: Window) -> Window:
    return Window(0, 0, np.any([window.full(H, W) for window in windows], axis=0)).tight()


def without(window: Window, hole: Window) -> Window:
    return Window(0, 0, window.full(H, W) & ~hole.full(H, W)).tight()


def known(point_id: int, window: Window, point: tuple[float, float] | None = None) -> Known:
    return Known(point_id, point or inner_point(window), window)


def drawn(window: Window, where: str = "a", point_id: int | None = None, point_xy=None) -> Shape:
    """An outline that means exactly this mask."""
    return Shape(where, (window,), False, point_id, point_xy)


def empty(where: str = "a", point_id: int | None = None) -> Shape:
    return Shape(where, (box(0, 0, 0, 0),), False, point_id)


def kinds(decisions: list[Decision]) -> list[tuple[str, int | None]]:
    return [(one.kind, one.point_id) for one in decisions]


# Five 10 x 10 heads with gaps of 5, ids with gaps
HEADS = [known(10 * i + 3, box(2 + 15 * i, 20, 10, 10)) for i in range(5)]
REST = [exact(one.window, f"r{one.point_id}", point_id=one.point_id) for one in HEADS[1:]]
REST_LOST = [exact(one.window, f"r{one.point_id}") for one in HEADS[1:]]
KEPT = [("kept", one.point_id) for one in HEADS[1:]]


def first(*shapes: Shape, ids: bool = True) -> Decision:
    """What becomes of the first head when the other four come back; nothing else may happen."""
    decisions = match(HEADS, [*shapes, *(REST if ids else REST_LOST)], H, W)
    assert kinds(decisions)[1:] == KEPT
    return decisions[0]


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("make", [exact, drawn])
def test_equal_pixels_are_kept_without_a_word(make, ids):
    decision = first(make(HEADS[0].window, "a", point_id=3 if ids else None), ids=ids)
    assert decision == Decision("kept", 3, where=("a",))


@pytest.mark.parametrize("ids", [True, False])
def test_one_pixel_of_a_bitmap_is_an_edit_and_of_an_outline_is_noise(ids):
    changed = without(HEADS[0].window, box(2, 20, 1, 1))
    name = 3 if ids else None
    decision = first(exact(changed, "a", point_id=name), ids=ids)
    assert (decision.kind, decision.iou) == ("replaced", 99 / 100)
    assert np.array_equal(decision.window.full(H, W), changed.full(H, W))
    decision = first(drawn(changed, "a", point_id=name), ids=ids)
    assert decision == Decision("kept", 3, reason="differs by 1 px, within tracing noise", where=("a",))


def test_without_tolerance_only_equal_pixels_are_untouched():
    changed = without(HEADS[0].window, box(2, 20, 1, 1))
    for one, kind in ((changed, "replaced"), (HEADS[0].window, "kept")):
        assert match(HEADS[:1], [drawn(one)], H, W, tolerance=0)[0].kind == kind
    ring = without(HEADS[0].window, box(5, 23, 3, 3))
    decision = match([known(3, ring)], [drawn(HEADS[0].window)], H, W, tolerance=0)[0]
    assert decision.kind == "replaced" and "hole" in decision.reason


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize(
    ("window", "kind"),
    [
        (box(1, 20, 11, 10), "kept"),  # a side moved by 1
        (box(1, 19, 12, 12), "replaced"),  # grown on all sides by 1
        (box(3, 21, 8, 8), "replaced"),  # shrunk on all sides by 1
        (box(0, 20, 12, 10), "replaced"),  # a side moved by 2
        (box(3, 21, 10, 10), "kept"),  # moved by 1 both ways: half a pixel wrong twice
    ],
)
def test_edits_and_noise_of_outlines(window, kind, ids):
    assert first(drawn(window, "a", 3 if ids else None), ids=ids).kind == kind


def test_either_convention_of_an_outline_will_do():
    ring = np.array([[2, 20], [12, 20], [12, 30], [2, 30]], float)  # pixel corners
    assert first(outline([ring], H, W)) == Decision("kept", 3, where=("shape",))
    ring = np.array([[2, 20], [11, 20], [11, 29], [2, 29]], float)  # pixel centres
    assert first(outline([ring], H, W)) == Decision("kept", 3, where=("shape",))


def test_new_masks_are_read_by_the_convention_of_the_untouched():
    def line(window: Window, grow: float) -> np.ndarray:
        h, w = window.mask.shape
        x, y = window.x0, window.y0
        return np.array([[x, y], [x + w - 1 + grow, y], [x + w - 1 + grow, y + h - 1 + grow], [x, y + h - 1 + grow]])

    new = box(40, 40, 7, 5)
    for grow in (0.0, 1.0):  # centres, corners
        shapes = [outline([line(one.window, grow)], H, W, f"r{one.point_id}") for one in HEADS]
        decisions = match(HEADS, [*shapes, outline([line(new, grow)], H, W, "new")], H, W)
        assert decisions[-1].kind == "added"
        assert np.array_equal(decisions[-1].window.full(H, W), new.full(H, W))


def test_holes_that_an_outline_cannot_carry_are_kept():
    ring = without(HEADS[0].window, box(5, 23, 4, 4))
    decision = match([known(3, ring)], [drawn(HEADS[0].window, "a")], H, W)[0]
    assert decision == Decision("kept", 3, reason="its hole is kept: an outline carries none", where=("a",))
    assert match([known(3, ring)], [exact(HEADS[0].window)], H, W)[0].kind == "replaced"
    # the line of the hole as a shape of its own, by a converter that does not tell holes from parts
    for point_id in (3, None):
        shapes = [drawn(HEADS[0].window, "a", point_id), drawn(box(5, 23, 4, 4), "b", point_id)]
        assert kinds(match([known(3, ring)], shapes, H, W)) == [("kept", 3)]


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("make", [exact, drawn])
def test_fragments_in_shapes_of_their_own(make, ids):
    parts = box(2, 5, 10, 10), box(20, 5, 8, 8), box(12, 30, 2, 2)
    head = known(3, join(*parts))
    shapes = [make(part, name, point_id=3 if ids else None) for part, name in zip(parts, "abc", strict=True)]
    assert match([head], shapes, H, W) == [Decision("kept", 3, where=("a", "b", "c"))]
    left = match([head], shapes[:2], H, W)[0]  # 2 x 2 may be lost as an outline, not as a bitmap
    assert left.kind == ("replaced" if make is exact else "kept")


@pytest.mark.parametrize("ids", [True, False])
def test_a_mask_cut_in_two_may_be_two_heads(ids):
    halves = [exact(box(2 + 5 * i, 20, 5, 10), "ab"[i], point_id=3 if ids else None) for i in (0, 1)]
    decision = first(*halves, ids=ids)
    assert decision.kind == "ambiguous" and decision.where == ("a", "b") and "cut" in decision.reason


def test_a_copy_with_the_same_id_elsewhere_is_ambiguous():
    decision = first(exact(HEADS[0].window, "a", point_id=3), exact(box(40, 45, 10, 10), "b", point_id=3))
    assert decision.kind == "ambiguous" and decision.where == ("a", "b") and "id 3" in decision.reason
    moved = first(exact(box(4, 22, 10, 10), "a", point_id=3), exact(box(40, 45, 10, 10), "b", point_id=3))
    assert moved.kind == "ambiguous" and moved.where == ("a", "b")
    small = first(exact(box(4, 22, 10, 10), "a", point_id=3), exact(box(40, 45, 2, 2), "b", point_id=3))
    assert small.kind == "replaced" and small.window.area == 104  # too small for a head of its own


def test_trusted_ids():
    new = box(1, 18, 9, 11)
    decision = first(exact(new, "a", point_id=3))
    assert decision.kind == "replaced" and decision.iou == pytest.approx(72 / (100 + 99 - 72))
    moved = first(exact(box(40, 45, 10, 10), "a", point_id=3))
    assert (moved.kind, moved.reason, moved.iou) == ("replaced", "moved", 0.0)
    # another shape lies where the mask was: which of them is the head?
    both = match(HEADS, [exact(box(40, 45, 10, 10), "a", point_id=3), exact(new, "b"), *REST], H, W)
    assert both[0].kind == "ambiguous" and both[0].where == ("a", "b") and len(both) == 5


def test_without_id_among_trusted_ids_is_new_unless_it_is_a_missing_head_redrawn():
    assert first(exact(box(1, 18, 9, 11), "a")).kind == "replaced"
    # a third of the overlap at least, and the point
    decisions = match(HEADS, [exact(box(5, 23, 5, 5), "a"), *REST], H, W)
    assert kinds(decisions) == [("deleted", 3), *KEPT, ("added", None)]
    # enough overlap without the point: neither is sure
    head = [known(3, HEADS[0].window, (2.0, 20.0)), *HEADS[1:]]
    decisions = match(head, [exact(box(4, 22, 9, 9), "a"), *REST], H, W)
    assert kinds(decisions) == [("ambiguous", 3), *KEPT]
    # an id of another picture is no id
    assert first(exact(HEADS[0].window, "a", point_id=999)).kind == "kept"


def test_renumbered_ids_are_lost_ids():
    shapes = [exact(one.window, f"s{i}", point_id=HEADS[(i + 1) % 5].point_id) for i, one in enumerate(HEADS)]
    decisions = match(HEADS, shapes, H, W)
    assert [(one.kind, one.where) for one in decisions] == [("kept", (f"s{i}",)) for i in range(5)]
    # two swapped among many right ones
    swapped = [exact(HEADS[0].window, "a", point_id=13), exact(HEADS[1].window, "b", point_id=3), *REST[1:]]
    assert {one.kind for one in match(HEADS, swapped, H, W)} == {"kept"}


def test_point_in_mask_without_ids():
    far = box(5, 10, 40, 16)  # hardly any overlap, but it holds the point
    decision = first(exact(far, "a"), ids=False)
    assert decision.kind == "replaced" and decision.iou < 0.1
    # two shapes hold it, none is clear
    two = [exact(box(3, 21, 6, 8), "a"), exact(box(5, 22, 6, 7), "b")]
    decision = first(*two, ids=False)
    assert decision.kind == "ambiguous" and decision.where == ("a", "b")


def test_overlap_without_ids_has_to_be_clear():
    heads = [known(0, box(10, 10, 10, 10)), known(1, box(20, 10, 10, 10))]
    decisions = match(heads, [exact(box(10, 10, 13, 12), "a"), exact(box(23, 10, 8, 12), "b")], H, W)
    assert [(one.kind, one.where) for one in decisions] == [("replaced", ("a",)), ("replaced", ("b",))]
    decisions = match(heads, [exact(box(11, 11, 18, 8), "a")], H, W)  # over both: merged, or one of them redrawn
    assert kinds(decisions) == [("ambiguous", 0), ("ambiguous", 1)]
    # over a lot of one and a bit of the other, both points in it
    decisions = match([heads[0], known(1, heads[1].window, (20.0, 15.0))], [exact(box(10, 10, 11, 11), "a")], H, W)
    assert kinds(decisions) == [("replaced", 0), ("deleted", 1)]


def test_a_part_of_a_redrawn_mask_joins_it():
    head = known(0, join(box(10, 10, 20, 20), box(34, 10, 6, 20)))
    other = known(1, box(60, 10, 10, 10))
    shapes = [exact(box(8, 10, 22, 20), "a"), exact(box(34, 10, 6, 22), "b"), exact(other.window, "c")]
    decisions = match([head, other], shapes, H, W)
    assert kinds(decisions) == [("replaced", 0), ("kept", 1)]
    assert decisions[0].where == ("a", "b") and decisions[0].window.area == 22 * 20 + 6 * 22
    whole = known(0, box(10, 10, 20, 20))  # in one piece before: the part may be a head
    cut = [exact(box(10, 10, 12, 20), "a"), exact(box(23, 10, 7, 20), "b"), exact(other.window, "c")]
    assert kinds(match([whole, other], cut, H, W)) == [("ambiguous", 0), ("kept", 1)]


def test_a_moved_part_joins_its_redrawn_mask_unless_it_may_be_a_head():
    head = known(0, join(box(10, 10, 20, 20), box(40, 10, 4, 10)))
    main = exact(box(8, 10, 22, 20), "a")
    for dx, kind in ((2, "replaced"), (3, "replaced")):  # a half and a quarter of the part are left where it was
        decisions = match([head], [main, exact(box(40 + dx, 10, 4, 10), "b")], H, W)
        assert kinds(decisions) == [(kind, 0)] and decisions[0].window.area == 22 * 20 + 40
    # far larger than the part: a new head over it, or the part grown
    decisions = match([head], [main, exact(box(40, 14, 12, 14), "b")], H, W)
    assert kinds(decisions) == [("ambiguous", 0)] and decisions[0].where == ("a", "b")
    # not on the part at all
    decisions = match([head], [main, exact(box(44, 10, 4, 10), "b")], H, W)
    assert kinds(decisions) == [("replaced", 0), ("added", None)]


@pytest.mark.parametrize(("side", "area"), [(3, 22 * 20 + 9), (4, 22 * 20)])
def test_crumbs_at_a_redrawn_mask_join_it(side, area):
    head = known(0, box(10, 10, 20, 20))
    shapes = [drawn(box(8, 10, 22, 20), "a"), drawn(box(30, 30, side, side), "b")]  # at its lower right corner
    decisions = match([head], shapes, H, W)
    assert decisions[0].kind == "replaced" and decisions[0].window.area == area
    assert kinds(decisions[1:]) == ([] if side == 3 else [("added", None)])


def test_lines_of_holes_join_a_redrawn_mask():
    ring = without(box(10, 10, 20, 20), box(16, 16, 6, 6))
    other = known(1, box(60, 10, 10, 10))
    shapes = [drawn(box(10, 10, 26, 20), "a"), drawn(box(16, 16, 5, 6), "b"), drawn(other.window, "c")]
    decisions = match([known(0, ring), other], shapes, H, W)
    assert kinds(decisions) == [("replaced", 0), ("kept", 1)]
    assert decisions[0].where == ("a", "b") and "hole" in decisions[0].reason
    # the reading of two rings that keeps the hole is taken, where there is one
    grown = box(10, 10, 26, 20)
    shapes[:2] = [Shape("a", (grown, without(grown, box(16, 16, 6, 6))), False)]
    decisions = match([known(0, ring), other], shapes, H, W)
    assert decisions[0].window.area == 26 * 20 - 36 and decisions[0].reason == ""


def test_pieces_that_touch_by_a_corner_only():
    head = known(0, join(box(10, 10, 1, 1), box(11, 11, 1, 1)))
    pixel = Window(0, 0, np.ones((1, 1), bool))
    shapes = [
        Shape(name, (Window(at, at, pixel.mask), Window(at, at, np.ones((2, 2), bool))), False)
        for name, at in (("a", 10), ("b", 11))
    ]
    assert kinds(match([head], shapes, H, W)) == [("kept", 0)]


@pytest.mark.parametrize("ids", [True, False])
def test_a_second_copy_is_not_added(ids):
    copy = exact(box(18, 20, 10, 10), "copy")  # a pixel beside head 13
    decisions = match(HEADS, [exact(HEADS[0].window, "a", point_id=3 if ids else None), copy, *REST], H, W)
    assert kinds(decisions) == [("kept", 3), *KEPT, ("ambiguous", 13)]
    assert decisions[-1].where == ("copy",) and "second copy of point 13" in decisions[-1].reason
    twice = [exact(box(40, 45, 5, 5), "x"), exact(box(40, 45, 5, 5), "y")]
    decisions = match(HEADS, [exact(HEADS[0].window, "a"), *REST_LOST, *twice], H, W)
    assert [(one.kind, one.where) for one in decisions[5:]] == [("added", ("x",)), ("ambiguous", ("y",))]


def test_added_heads_have_their_point():
    ring = without(box(40, 40, 9, 9), box(43, 43, 3, 3))
    shapes = [
        exact(ring, "a"),
        exact(box(60, 40, 4, 1), "b", point_xy=(61.5, 40.25)),
        exact(box(70, 40, 3, 3), "c", point_xy=(1e9, 2.0)),
    ]
    decisions = match(HEADS, [exact(HEADS[0].window, "z"), *REST, *shapes], H, W)[5:]
    assert [one.kind for one in decisions] == ["added"] * 3
    x, y = decisions[0].point_xy
    assert ring.full(H, W)[int(y), int(x)] and decisions[0].point_xy == inner_point(ring)
    assert [one.point_xy for one in decisions[1:]] == [(61.5, 40.25), (71.0, 41.0)]


def test_deleted_lost_and_empty():
    assert kinds(match(HEADS, REST, H, W)) == [("deleted", 3), *KEPT]
    tiny = [known(i, box(5 + 20 * i, 10, w, h)) for i, (w, h) in enumerate([(1, 1), (2, 1), (2, 9), (3, 3)])]
    outlines = [drawn(one.window, f"r{one.point_id}") for one in HEADS]
    decisions = match([*HEADS, *(Known(i, t.point_xy, t.window) for i, t in enumerate(tiny, 100))], outlines, H, W)
    assert kinds(decisions[5:]) == [("ambiguous", 100), ("ambiguous", 101), ("ambiguous", 102), ("deleted", 103)]
    assert "too small for an outline" in decisions[5].reason
    bitmaps = [exact(one.window, f"r{one.point_id}") for one in HEADS]
    decisions = match([*HEADS, Known(100, (5, 10), box(5, 10, 1, 1))], bitmaps, H, W)
    assert decisions[5].kind == "deleted"
    for nothing in ([], [empty("a"), empty("b", 3)]):
        decisions = match(HEADS, nothing, H, W)
        assert {(one.kind, one.reason) for one in decisions[:5]} == {("ambiguous", "the picture came back empty")}
        assert {name for one in decisions for name in one.where} == {one.where for one in nothing}
    assert match([], [], H, W) == []


def test_most_masks_missing_is_no_deletion():
    many = [known(i, box(3 + 8 * (i % 10), 5 + 8 * (i // 10), 4, 4)) for i in range(20)]
    for gone, kind in ((10, "deleted"), (11, "ambiguous")):
        decisions = match(many, [exact(one.window, f"s{i}") for i, one in enumerate(many[gone:])], H, W)
        assert [one.kind for one in decisions] == [kind] * gone + ["kept"] * (20 - gone)


def test_shapes_without_a_pixel_are_named():
    decision = first(empty("a", 3))
    assert decision.kind == "ambiguous" and "without a pixel" in decision.reason and decision.where == ("a",)
    decisions = match(HEADS, [exact(HEADS[0].window), *REST, empty("b")], H, W)
    assert kinds(decisions)[5:] == [("ambiguous", None)] and decisions[5].where == ("b",)


def test_masks_without_a_pixel_in_the_picture_and_same_masks():
    outside = Known(7, (-3.0, -3.0), box(-5, -5, 3, 3))
    decisions = match([outside, *HEADS], [exact(one.window) for one in HEADS], H, W)
    assert kinds(decisions) == [("kept", 7), ("kept", 3), *KEPT]
    twins = [known(0, box(5, 5, 6, 6)), known(1, box(5, 5, 6, 6))]
    assert kinds(match(twins, [exact(box(5, 5, 6, 6))], H, W)) == [("ambiguous", 0), ("ambiguous", 1)]
    both = [exact(box(5, 5, 6, 6), "a"), exact(box(5, 5, 6, 6), "b")]
    assert kinds(match(twins, both, H, W)) == [("kept", 0), ("kept", 1)]
    with pytest.raises(ValueError, match="point_id"):
        match([twins[0], twins[0]], both, H, W)


def test_neighbours_within_noise_of_each_other_are_told_apart_by_the_best_fit():
    heads = [known(i, box(10 + i, 10, 8, 8)) for i in range(4)]  # overlapping, as `disjoint: false` allows
    shapes = [drawn(heads[i].window, f"s{i}") for i in (2, 0, 3, 1)]
    assert [one.where for one in match(heads, shapes, H, W)] == [("s0",), ("s1",), ("s2",), ("s3",)]


@pytest.mark.parametrize("ids", [True, False])
def test_hundreds_of_pieces_of_one_mask_are_not_sorted_out(ids, monkeypatch):
    comb = [box(10 + 3 * i, 10, 2, 20) for i in range(6)]
    head, shapes = (
        known(4, join(*comb)),
        [exact(tooth, f"s{i}", point_id=4 if ids else None) for i, tooth in enumerate(comb)],
    )
    assert kinds(match([head], shapes, H, W)) == [("kept", 4)]
    monkeypatch.setattr("crowdmask.corrections.likeness.MAX_PIECES", 5)
    assert kinds(match([head], shapes, H, W)) == [("ambiguous", 4)]


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr("crowdmask.corrections.likeness.MAX_PAIRS", 5)
    with pytest.raises(ValueError, match="more than 5 pairs"):
        match(HEADS[:1], [exact(HEADS[0].window, str(i)) for i in range(6)], H, W)


def test_assignment_of_each_group():
    values = {(0, 0): 0.9, (0, 1): 0.8, (1, 0): 0.8, (1, 1): 0.1, (7, 5): 0.2}
    assert assign(values) == [(0, 1), (1, 0), (7, 5)]
    assert assign({}) == []


def test_inner_point_is_as_far_from_the_border_as_can_be():
    assert inner_point(box(3, 4, 1, 1)) == (3.0, 4.0)
    assert inner_point(box(3, 4, 5, 5)) == (5.0, 6.0)
    assert inner_point(box(3, 4, 4, 2)) == (3.0, 4.0)
    assert inner_point(join(box(0, 0, 3, 3), box(20, 20, 7, 5))) == (22.0, 22.0)


def test_what_a_polygon_of_three_corners_cannot_hold():
    lens = join(box(3, 9, 4, 1), box(0, 10, 10, 1), box(3, 11, 4, 1)).mask  # lost by cv2 although 3 x 3 fit into it
    assert [losable(np.ones(size, bool)) for size in ((1, 1), (2, 30), (3, 3), (3, 30))] == [True, True, False, False]
    assert losable(lens)


def test_the_reach_of_noise():
    one = Noise(box(10, 10, 9, 9), 1.0)
    assert one.grown.full(40, 40).sum() == 11 * 11
    two = Noise(box(10, 10, 1, 1), 2.0).grown  # a disc of radius 2.5 around the centre
    assert two.area == 21
    assert one.difference(box(10, 10, 9, 10)) == (9, False)
    assert one.difference(box(10, 10, 9, 11)) is None
