"""Does the score find the bad masks: against every pair, against scipy, and against what is known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from crowdmask import tables
from crowdmask.corrections import review_fit
from crowdmask.corrections.review_truth import Judge, Ranked


def every_pair(values, bad, weights):
    """Area by its definition."""
    won = total = 0.0
    for i in np.flatnonzero(bad):
        for j in np.flatnonzero(~bad):
            pair = weights[i] * weights[j]
            won += pair * (1.0 if values[i] > values[j] else 0.5 if values[i] == values[j] else 0.0)
            total += pair
    return won / total


def mean_of_orders(values, bad, count, rng):
    """Precision of the first `count`, averaged over random orders of equal values."""
    found = []
    for _ in range(4000):
        order = np.lexsort((rng.random(len(values)), -values))
        found.append(bad[order[:count]].mean())
    return np.mean(found)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_area_is_that_of_all_pairs_and_of_scipy(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 30))
    values, bad = rng.integers(0, 6, count) / 4, rng.random(count) < 0.4
    bad[:2] = True, False
    weights = rng.integers(0, 4, count).astype(float)
    weights[:2] = 1
    ranked = Ranked.of(values, bad)
    assert ranked.measures(weights)[0] == pytest.approx(every_pair(values, bad, weights))
    u = mannwhitneyu(values[bad], values[~bad], method="asymptotic").statistic
    assert ranked.measures(np.ones(count))[0] == pytest.approx(u / bad.sum() / (~bad).sum())
    # A weight of k is the mask k times.
    repeated = np.repeat(np.arange(count), weights.astype(int))
    again = Ranked.of(values[repeated], bad[repeated]).measures(np.ones(len(repeated)))
    assert ranked.measures(weights) == pytest.approx(again)


def test_precision_of_the_first_share():
    bad = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], bool)
    values = np.arange(10)[::-1].astype(float)
    ones = np.ones(10)
    assert [Ranked.of(values, bad).measures(ones, share)[1] for share in (0.1, 0.2, 0.4, 1.0)] == [
        1.0, 1.0, pytest.approx(0.75), pytest.approx(0.3)
    ]  # fmt: skip
    assert Ranked.of(values, bad).measures(ones, 0.25)[1] == pytest.approx(2 / 2.5)
    assert Ranked.of(ones, bad).measures(ones) == (0.5, pytest.approx(0.3))  # no order at all: as at random


def test_equal_values_count_by_proportion():
    rng = np.random.default_rng(5)
    values, bad = rng.integers(0, 3, 40).astype(float), rng.random(40) < 0.3
    expected = mean_of_orders(values, bad, 10, rng)
    assert Ranked.of(values, bad).measures(np.ones(40), 0.25)[1] == pytest.approx(expected, abs=0.01)


def test_nothing_to_tell_apart():
    area, precision = Ranked.of(np.arange(4.0), np.zeros(4, bool)).measures(np.ones(4))
    assert np.isnan(area) and precision == 0
    assert np.isnan(Ranked.of(np.arange(4.0), np.ones(4, bool)).measures(np.zeros(4))).all()


def row(image, true_iou, score, **values):
    return {
        "image_id": image, "verified": False, "true_iou": true_iou, "score": score, "predicted_iou": 0.5,
        **dict.fromkeys(tables.REASONS, 0.0), **values,
    }  # fmt: skip


def judged(images):
    judge = Judge()
    for rows in images:
        judge.add(rows)
    return judge


def test_result_of_known_masks():
    images = [
        [row("a", 0.2, 0.9, predicted_iou=0.9, edge=1.0), row("a", 0.8, 0.1), row("a", 0.1, 0.0, verified=True)],
        [row("b", 0.49, 0.8, edge=1.0), row("b", 0.5, 0.2), row("b", None, 0.99)],
        [],
    ]
    found = judged(images).result()
    assert {name: found[name] for name in ("images", "masks", "bad", "share_bad")} == {
        "images": 2, "masks": 4, "bad": 2, "share_bad": 0.5
    }  # fmt: skip
    measures = found["measures"]
    assert set(measures) == {"score", "predicted_iou", *tables.REASONS}
    assert measures["score"]["auc"] == measures["edge"]["auc"] == measures["score"]["precision_worst"] == 1.0
    assert measures["score"]["auc_95"] == [1.0, 1.0]
    assert measures["cut"]["auc"] == measures["cut"]["precision_worst"] == 0.5
    assert measures["predicted_iou"]["auc"] == 0.25  # one bad mask is the surest, the other like the good ones
    assert found["score_minus_predicted_iou"]["auc"] == 0.75


def test_a_mask_without_predicted_iou_counts_as_the_mean_one():
    rows = [row("a", 0.9, 0.5, predicted_iou=0.4), row("a", 0.1, 0.5, predicted_iou=None)]
    rows += [row("a", 0.9, 0.5, predicted_iou=0.8)]
    assert judged([rows]).result()["measures"]["predicted_iou"]["auc"] == 0.5


def test_intervals_are_those_of_the_images_and_repeat():
    rng = np.random.default_rng(0)
    # In half of the images the score is right, in the others it is upside down.
    images = [
        [row(k, 0.9 * (up == (v > 0.5)) + 0.05, v) for v in rng.random(20)] for k, up in enumerate([False, True] * 6)
    ]
    found = judged(images).result(300)
    low, high = found["measures"]["score"]["auc_95"]
    assert low < 0.35 < found["measures"]["score"]["auc"] < 0.65 < high
    assert judged(images).result(300) == found
    assert judged(images).result(300, seed=1) != found


@pytest.mark.parametrize("iou", [0.1, 0.9])
def test_all_bad_or_all_good_has_no_area(iou):
    found = judged([[row("a", iou, 0.5), row("a", iou, 0.6)]]).result(20)
    assert found["measures"]["score"]["auc"] is None and found["measures"]["score"]["auc_95"] is None
    assert found["measures"]["score"]["precision_worst"] == (iou < 0.5)


def test_without_masks_there_is_no_result():
    assert Judge().result() is None
    assert judged([[row("a", None, 0.5)], []]).result() is None


# ---- fitting of the weights


def test_fit_finds_what_makes_masks_bad():
    rng = np.random.default_rng(2)
    features = rng.random((4000, 4))
    logit = -3 + 4 * features[:, 0] - 3 * features[:, 2]
    bad = rng.random(4000) < 1 / (1 + np.exp(-logit))
    bias, weights = review_fit.fit(features, bad, np.full(4000, 1 / 4000))
    assert weights[0] > 2 and weights[0] > 4 * weights[1]
    assert weights[2] == pytest.approx(review_fit.LEAST)  # a reason never speaks for a mask
    # At the optimum the bias makes the mean score the share of bad ones.
    assert (1 / (1 + np.exp(-(bias + features @ weights)))).mean() == pytest.approx(bad.mean(), abs=1e-4)


def test_fit_prints_a_section_of_the_settings(tmp_path, capsys):
    rng = np.random.default_rng(3)
    rows = []
    for k in range(200):
        edge = float(rng.random())
        rows.append(
            {"split": "a", "image_id": "b", "point_id": k, "x": 0.0, "y": 0.0, "source": "sam", "verified": k == 0,
             "score": 0.5, **dict.fromkeys(tables.REASONS, 0.0), "edge": edge, "reasons": "", "predicted_iou": 0.5,
             "true_iou": 1 - edge}
        )  # fmt: skip
    path = tmp_path / "a.parquet"
    tables.write(path, "review", rows, version=1, settings="{}")
    assert review_fit.load(str(path))[0].shape == (199, len(tables.REASONS))
    assert review_fit.main([str(path)]) == 0
    said = dict(line.split(": ") for line in capsys.readouterr().out.splitlines()[1:])
    assert tuple(said) == ("  bias", *(f"  {name}" for name in tables.REASONS))
    assert float(said["  edge"]) > 3 and float(said["  cut"]) == review_fit.LEAST
    assert review_fit.main([str(tmp_path / "none.parquet")]) == 1
    assert "file not found" in capsys.readouterr().err
    assert review_fit.main([]) == 1
