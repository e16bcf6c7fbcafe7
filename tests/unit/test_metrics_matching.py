"""Sparse overlaps and assignment against full frames and the dense Hungarian method."""

import numpy as np
import pytest
from crowds import EMPTY, box, dense_assignment, dense_iou, full, label_map, overlapping, shaken, windows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.metrics import matching
from crowdmask.metrics.matching import assignment, map_overlaps, overlaps

SEEDS = st.integers(0, 2**32 - 1)


def as_dense(found):
    made = np.zeros((len(found.pred_area), len(found.true_area)))
    made[found.pred, found.true] = found.iou
    return made


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, count=st.integers(0, 12), other=st.integers(0, 12))
def test_overlaps_equal_full_frames(seed, count, other):
    rng = np.random.default_rng(seed)
    pred, true = overlapping(rng, 30, 40, count), overlapping(rng, 30, 40, other)
    # Frames with room on all sides: a window may leave the image, and its pixels there count like all others.
    away = [[type(m)(m.x0 + 20, m.y0 + 20, m.mask) for m in side] for side in (pred, true)]
    found = overlaps(pred, true)
    dense = dense_iou(full(away[0], 80, 80), full(away[1], 80, 80))
    np.testing.assert_array_equal(as_dense(found), dense)
    assert (np.diff(found.pred * 1000 + found.true) > 0).all() and (found.shared > 0).all()
    chosen = found.iou[found.assigned]
    assert chosen.sum() == pytest.approx(dense_assignment(dense)[0].sum(), abs=1e-12)
    for side in (found.pred, found.true):
        assert len(np.unique(side[found.assigned])) == len(found.assigned)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, high=st.booleans())
def test_boxes_of_all_sizes_in_either_direction(seed, high):
    rng = np.random.default_rng(seed)

    def side():
        sizes = 2 ** rng.uniform(0, 7, (40, 2))
        places = rng.uniform(0, [40, 900], (40, 2))
        w, h = sizes.astype(int).T
        x, y = places.astype(int).T
        made = [box(*map(int, values)) for values in zip(x, y, w, h, strict=True)]
        return made if high else [box(m.y0, m.x0, *m.mask.shape) for m in made]

    pred, true = side(), side()
    found = overlaps(pred, true)
    expected = {
        (i, j)
        for i, a in enumerate(pred)
        for j, b in enumerate(true)
        if a.x0 < b.x0 + b.mask.shape[1]
        and b.x0 < a.x0 + a.mask.shape[1]
        and a.y0 < b.y0 + b.mask.shape[0]
        and b.y0 < a.y0 + a.mask.shape[0]
    }
    assert set(zip(found.pred.tolist(), found.true.tolist(), strict=True)) == expected


def test_chunks_do_not_change_anything(monkeypatch):
    rng = np.random.default_rng(3)
    pred, true = overlapping(rng, 60, 60, 80), overlapping(rng, 60, 60, 70)
    whole = overlaps(pred, true)
    for size in (1, 7, 300):
        monkeypatch.setattr(matching, "_CHUNK", size)
        part = overlaps(pred, true)
        np.testing.assert_array_equal(as_dense(part), as_dense(whole))


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(matching, "MAX_PAIRS", 8)
    with pytest.raises(ValueError, match="more than 8 pairs of masks meet"):
        overlaps([box(0, 0, 3, 3)] * 3, [box(1, 1, 3, 3)] * 3)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, count=st.integers(0, 30), gap=st.sampled_from([1, 1000]))
def test_label_maps_give_the_same_as_windows(seed, count, gap):
    rng = np.random.default_rng(seed)
    true = label_map(rng, 30, 40, count)
    pred = shaken(rng, true)
    by_map, by_window = map_overlaps(pred * gap, true * gap), overlaps(windows_of(pred), windows_of(true))
    for name in ("pred", "true", "shared", "pred_area", "true_area"):
        np.testing.assert_array_equal(getattr(by_map, name), getattr(by_window, name), err_msg=name)


def test_many_labels_on_a_small_map_are_counted_without_a_matrix():
    rng = np.random.default_rng(0)
    pred, true = rng.integers(0, 60, (20, 20)), rng.integers(0, 60, (20, 20))
    found = map_overlaps(pred, true)
    assert len(found.pred_area) * len(found.true_area) > 4 * pred.size
    np.testing.assert_array_equal(as_dense(found), as_dense(overlaps(windows_of(pred), windows_of(true))))


def test_label_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="label maps of"):
        map_overlaps(np.zeros((2, 3), int), np.zeros((3, 2), int))


# ---- assignment


@settings(max_examples=200, deadline=None)
@given(
    seed=SEEDS,
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    share=st.sampled_from([0.1, 0.3, 1.0]),
    ties=st.booleans(),
    at_once=st.sampled_from([1, 3, 1000]),
)
def test_assignment_has_the_sum_of_the_dense_one(seed, rows, columns, share, ties, at_once):
    rng = np.random.default_rng(seed)
    values = (rng.integers(1, 4, (rows, columns)) / 4 if ties else rng.uniform(1e-9, 1, (rows, columns))) * (
        rng.random((rows, columns)) < share
    )
    row, column = np.nonzero(values)
    order = rng.permutation(len(row))
    row, column = row[order], column[order]
    before, matching._ROWS = matching._ROWS, at_once
    try:
        chosen = assignment(row * 7 + 3, column * 5, values[row, column])
    finally:
        matching._ROWS = before
    assert (np.diff(chosen) > 0).all()
    assert len(set(row[chosen].tolist())) == len(set(column[chosen].tolist())) == len(chosen)
    assert values[row, column][chosen].sum() == pytest.approx(dense_assignment(values)[0].sum(), abs=1e-12)


def test_assignment_of_thousands_in_one_group():
    """A chain in which every second row must leave its best column to its neighbour; best pairs first lose a third."""
    n = 4000
    row = np.repeat(np.arange(n), 2)[:-1]
    column = np.stack([np.arange(n), np.arange(n) + 1], axis=1).ravel()[:-1]
    value = np.where(column > row, np.where(row % 2, 0.1, 0.6), 0.55)
    chosen = assignment(row, column, value)
    assert len(chosen) == n and value[chosen].sum() == pytest.approx(0.55 * n)
    rng = np.random.default_rng(0)
    values = rng.random((700, 700)) * (rng.random((700, 700)) < 0.02)
    row, column = np.nonzero(values)
    expected = dense_assignment(values)[0].sum()
    assert values[row, column][assignment(row, column, values[row, column])].sum() == pytest.approx(expected)


def test_nothing_to_assign():
    none = np.zeros(0, int)
    assert assignment(none, none, np.zeros(0)).shape == (0,)
    for pred, true in (([], []), ([EMPTY], [EMPTY]), ([box(0, 0, 2, 2)], []), ([], [box(0, 0, 2, 2)])):
        found = overlaps(pred, true)
        assert len(found.iou) == len(found.assigned) == len(found.segments) == 0
        assert (len(found.pred_area), len(found.true_area)) == (len(pred), len(true))
    found = map_overlaps(np.zeros((3, 4), int), np.ones((3, 4), int))
    assert len(found.iou) == 0 and found.true_area.tolist() == [12]


def test_the_largest_sum_may_give_up_the_pair_above_one_half():
    """Panoptic quality and the assignment differ: 68 of 100 shared pixels are IoU .515, the two rests .32 each."""
    pred, true = [box(0, 0, 100, 1), box(100, 0, 32, 1)], [box(32, 0, 100, 1), box(0, 0, 32, 1)]
    found = overlaps(pred, true)
    pairs = {(p, t): iou for p, t, iou in zip(found.pred, found.true, found.iou, strict=True)}
    assert pairs == pytest.approx({(0, 0): 68 / 132, (0, 1): 0.32, (1, 0): 0.32})
    assert found.iou[found.assigned].tolist() == [0.32, 0.32]
    assert found.iou[found.segments].tolist() == [68 / 132]
