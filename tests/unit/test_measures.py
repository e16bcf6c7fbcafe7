"""The sums of an image and what is pooled from them: hand-made cases, full frames, torchmetrics."""

import numpy as np
import pytest
import torch
from crowds import EMPTY, box, dense_assignment, dense_iou, full, label_map, overlapping, shaken, windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics_boundary import naive as naive_boundary
from torchmetrics.detection import PanopticQuality

from crowdmask.metrics import measures
from crowdmask.metrics.matching import map_overlaps
from crowdmask.metrics.measures import METRICS, NAMES, THRESHOLDS, by_class, measure, pooled, total

SEEDS = st.integers(0, 2**32 - 1)
H, W = 48, 64


def test_names():
    assert len(set(NAMES)) == len(NAMES) and len(set(METRICS)) == len(METRICS)
    sums = measure([box(0, 0, 2, 2)], [box(0, 0, 2, 2)], [(0, 0)], H, W)
    assert tuple(sums) == NAMES and all(type(value) is float for value in sums.values())
    assert tuple(pooled(sums)) == METRICS


# ---- against full frames


def naive(pred, true, pairs, px=2):
    """Sums on full frames with the dense assignment; the disjoint case has one best assignment almost surely."""
    frames = full(pred, H, W), full(true, H, W)
    iou = dense_iou(*frames)
    values, chosen = dense_assignment(iou)
    d = max(1, int(0.02 * np.hypot(H, W) + 0.5))
    found = {
        "pred": len(pred),
        "true": len(true),
        "assigned": np.count_nonzero(values),
        "assignable": len(values),
        "assigned_iou": values.sum(),
    }
    found |= {f"tp_{round(100 * t)}": np.count_nonzero(values >= t) for t in THRESHOLDS}
    for name, width in (("boundary", d), ("boundary_px", px)):
        found[f"{name}_assigned"] = sum(
            naive_boundary(frames[0][i], frames[1][j], width) for i, j in chosen if iou[i, j]
        )
        found[f"{name}_paired"] = sum(naive_boundary(frames[0][i], frames[1][j], width) for i, j in pairs)
    own = np.array([iou[i, j] for i, j in pairs])
    found |= {"paired": len(true), "paired_iou": own.sum(), "paired_50": np.count_nonzero(own >= 0.5)}
    return found


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, count=st.integers(0, 25))
def test_sums_equal_full_frames(seed, count):
    rng = np.random.default_rng(seed)
    labels = label_map(rng, H, W, count)
    pred, true = windows_of(shaken(rng, labels)), windows_of(labels)
    size = int(rng.integers(0, min(len(pred), len(true)) + 1))
    pairs = list(
        zip(rng.permutation(len(pred))[:size].tolist(), rng.permutation(len(true))[:size].tolist(), strict=True)
    )
    sums = measure(pred, true, pairs, H, W)
    for name, value in naive(pred, true, pairs).items():
        assert sums[name] == pytest.approx(value, abs=1e-9), name


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_sums_of_overlapping_masks(seed):
    rng = np.random.default_rng(seed)
    pred, true = ([m.within(0, 0, W, H) for m in overlapping(rng, H, W, 10)] for _ in range(2))
    sums = measure(pred, true, None, H, W)
    expected = naive(pred, true, [])
    for name in ("assignable", "assigned_iou"):  # which of several best assignments is taken may differ
        assert sums[name] == pytest.approx(expected[name], abs=1e-9)
    assert sums["paired"] == sums["paired_iou"] == 0


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_label_maps_give_the_same_sums(seed):
    rng = np.random.default_rng(seed)
    true = label_map(rng, H, W, 15)
    pred = shaken(rng, true)
    masks = windows_of(pred), windows_of(true)
    assert measure(*masks, None, H, W) == measure(*masks, None, H, W, found=map_overlaps(pred, true))


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 25), images=st.integers(1, 3))
def test_panoptic_quality_against_torchmetrics(seed, count, images):
    rng = np.random.default_rng(seed)
    judge = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    rows = []
    for _ in range(images):
        true = label_map(rng, H, W, count)
        pred = shaken(rng, true)
        rows.append(measure(windows_of(pred), windows_of(true), None, H, W))
        judge.update(*(torch.from_numpy(np.stack([m > 0, m], axis=-1).astype(np.int64))[None] for m in (pred, true)))
    found = pooled(total(rows))
    # torchmetrics says 0 for the quality of segments where no segment matches.
    ours = [found["pq"], found["sq"] or 0.0, found["rq"]]
    if found["pq"] is not None:
        np.testing.assert_allclose(ours, judge.compute()[0], atol=1e-6)


# ---- by hand


def test_mean_over_truth_against_mean_over_pairs():
    """Two heads found at IoU 1/2 and 1, one missed, one invented."""
    true = [box(0, 0, 10, 10), box(20, 0, 10, 10), box(40, 0, 10, 10)]
    pred = [box(0, 0, 5, 10), true[1], box(0, 30, 4, 4)]
    found = pooled(measure(pred, true, [(0, 0), (1, 1)], H, W))
    assert found["mean_iou"] == 0.5 and found["share_iou_50"] == pytest.approx(2 / 3)
    assert found["miou_matched"] == 0.75 and found["miou_matched_all"] == 0.5 and found["miou_gt"] == 0.5
    assert found["precision_50"] == found["recall_50"] == found["f1_50"] == pytest.approx(2 / 3)
    assert found["f1_50_95"] == pytest.approx((2 + 9 * 1) / 10 / 3)
    # IoU of exactly 1/2 is a true positive at 0.5, and no segment of panoptic quality.
    assert found["sq"] == 1.0 and found["rq"] == found["pq"] == pytest.approx(1 / 3)
    assert (found["mae"], found["rmse"], found["nae"]) == (0, 0, 0)


def test_a_pair_by_point_counts_even_where_another_mask_fits_better():
    """Two masks swapped: by point nothing is right, by the assignment all."""
    true = [box(0, 0, 10, 10), box(20, 0, 10, 10)]
    found = pooled(measure(true[::-1], true, [(0, 0), (1, 1)], H, W))
    assert found["mean_iou"] == found["boundary_iou"] == 0.0
    assert found["miou_gt"] == found["f1_50"] == found["pq"] == found["boundary_iou_matched"] == 1.0


@pytest.mark.parametrize("pairs", [None, []])
def test_empty_sides(pairs):
    head = [box(0, 0, 10, 10)]
    nothing = pooled(measure([], [], pairs, H, W))
    assert {name for name, value in nothing.items() if value is not None} == {
        "mae", "rmse", "game_0", "game_1", "game_2", "game_3",
    }  # fmt: skip
    lost = pooled(measure([], head, pairs, H, W))
    assert (lost["recall_50"], lost["precision_50"], lost["f1_50"], lost["pq"]) == (0, None, 0, 0)
    assert lost["miou_gt"] == 0 and lost["miou_matched"] is None and lost["miou_matched_all"] is None
    assert lost["mean_iou"] == (None if pairs is None else 0) and lost["recall_l_a1"] == 0
    assert (lost["mae"], lost["rmse"], lost["nae"], lost["game_3"]) == (1, 1, 1, 1)
    more = pooled(measure(head, [], pairs, H, W))
    assert (more["recall_50"], more["precision_50"], more["f1_50"], more["pq"]) == (None, 0, 0, 0)
    assert more["miou_gt"] is None and more["mean_iou"] is None and more["nae"] is None and more["f1_l"] == 0
    # Images without anything change no measure of masks.
    both = pooled(total([measure([], [], pairs, H, W), measure(head, head, pairs, H, W)]))
    one = pooled(measure(head, head, pairs, H, W))
    assert {k for k in both if both[k] != one[k]} == set()


def test_an_empty_prediction_finds_nothing_and_counts():
    found = pooled(measure([EMPTY], [box(0, 0, 10, 10)], [(0, 0)], H, W))
    assert found["mean_iou"] == found["precision_50"] == found["recall_50"] == found["pq"] == 0 and found["mae"] == 0


def test_counts_over_images():
    rows = [measure([box(0, 0, 1, 1)] * p, [box(5, 5, 1, 1)] * g, None, H, W) for p, g in ((3, 0), (2, 4), (5, 4))]
    found = pooled(total(rows))
    assert found["mae"] == 2 and found["rmse"] == pytest.approx(np.sqrt(14 / 3)) and found["nae"] == (2 / 4 + 1 / 4) / 2


def test_classes_of_size_and_density():
    true = [box(0, 0, 7, 9), box(10, 0, 8, 8), box(30, 0, 16, 16), box(0, 20, 8, 8)]
    points = np.array([[3.0, 4.0], [11.0, 4.0], [30.0, 4.0], [3.0, 24.0]])  # nearest: 8, 8, 19, 20
    sums = measure([box(0, 0, 7, 9), true[2]], true, [(0, 0), (1, 2)], H, W, true_xy=points)
    sizes, densities = by_class(sums, "size"), by_class(sums, "density")
    assert [(row["area_from_px"], row["area_below_px"], row["count"]) for row in sizes] == [
        (0, 64, 1), (64, 256, 2), (256, 1024, 1), (1024, None, 0),
    ]  # fmt: skip
    assert [row["mean_iou"] for row in sizes] == [1, 0, 1, None] == [row["recall_50"] for row in sizes]
    assert [(row["count"], row["miou_gt"]) for row in densities] == [
        (0, None),
        (2, 0.5),
        (2, 0.5),
        (0, None),
        (0, None),
    ]
    alone = by_class(measure([], true[:1], None, H, W), "density")
    assert [row["count"] for row in alone] == [0, 0, 0, 0, 1] and alone[-1]["mean_iou"] is None
    for kind in ("size", "density"):
        assert sum(row["count"] for row in by_class(sums, kind)) == 4


def test_localisation_of_masks():
    """Centres 3 px off: within the large radius (half the diagonal of 8 x 6) but not within the small one."""
    true = [box(0, 0, 8, 6), box(20, 20, 8, 6), box(40, 20, 20, 20)]
    pred = [box(0, 4, 8, 6), box(20, 20, 8, 6), box(44, 20, 20, 20)]
    found = pooled(measure(pred, true, None, H, W))
    assert (found["recall_l"], found["recall_s"]) == (1, pytest.approx(2 / 3))
    assert (found["recall_s_a1"], found["recall_s_a2"], found["recall_s_a0"]) == (0.5, 1, None)
    assert found["recall_s_mean"] == 0.75 and found["f1_s"] == pytest.approx(2 / 3)
    # Given points count, not the masks.
    away = pooled(measure(pred, true, None, H, W, pred_xy=np.full((3, 2), 99.0)))
    assert away["recall_l"] == 0 and away["miou_gt"] == found["miou_gt"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 1)], "out of range"),
        ([(-1, 0)], "out of range"),
        ([(0, 0), (1, 0)], "two pairs"),
        ([(0, 0)] * 2, "two pairs"),
    ],
)
def test_impossible_pairs(pairs, message):
    with pytest.raises(ValueError, match=message):
        measure([box(0, 0, 1, 1)] * 2, [box(0, 0, 1, 1)], pairs, H, W)


def test_points_must_fit():
    with pytest.raises(ValueError, match="2 points for 1 masks"):
        measure([], [box(0, 0, 1, 1)], None, H, W, true_xy=np.zeros((2, 2)))


def test_pooling_is_micro():
    """Not the mean of the images' means: 9 heads at 1 and one image with one at 0."""
    good = [box(7 * k, 0, 5, 5) for k in range(9)]
    rows = [measure(good, good, [(k, k) for k in range(9)], H, W), measure([], [box(0, 0, 5, 5)], [], H, W)]
    assert pooled(total(rows))["mean_iou"] == pooled(total(rows))["miou_gt"] == 0.9
    assert measures.total([]) == dict.fromkeys(NAMES, 0.0)
