"""Intervals: against samples drawn one by one, coverage by simulation, scipy's tests."""

import numpy as np
import pytest
from scipy import stats

from crowdmask.metrics import bootstrap, measures

NAMES = ("sum", "count")


def mean(sums):
    return {"mean": measures.ratio(sums["sum"], sums["count"]), "sum": sums["sum"]}


def images(rng, number, shift=0.0):
    count = rng.integers(1, 20, number).astype(float)
    return np.stack([count * np.clip(rng.normal(0.6 + shift, 0.1, number), 0, 1), count], axis=1)


def test_intervals_are_percentiles_of_resampled_images():
    table = images(np.random.default_rng(0), 30)
    found = bootstrap.intervals(table, NAMES, mean, seed=5, samples=400)
    weights = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=400)
    drawn = []
    for row in weights:  # image by image
        some = np.repeat(table, row, axis=0)
        assert len(some) == 30
        drawn.append(some[:, 0].sum() / some[:, 1].sum())
    np.testing.assert_allclose(found["mean"], np.percentile(drawn, [2.5, 97.5]), rtol=1e-12)
    assert found["mean"][0] < table[:, 0].sum() / table[:, 1].sum() < found["mean"][1]
    assert bootstrap.intervals(table, NAMES, mean, seed=5, samples=400) == found
    assert bootstrap.intervals(table, NAMES, mean, seed=6, samples=400) != found


def test_intervals_agree_with_scipy():
    table = images(np.random.default_rng(1), 60)
    ours = bootstrap.intervals(table, NAMES, mean, seed=0, samples=4000)["mean"]
    theirs = stats.bootstrap(
        (table[:, 0], table[:, 1]), lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis), paired=True,
        vectorized=True, method="percentile", n_resamples=4000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=0.002)


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(3)
    inside = 0
    for k in range(200):
        low, high = bootstrap.intervals(images(rng, 40), NAMES, mean, seed=k, samples=200)["mean"]
        inside += low <= 0.6 <= high
    assert 176 <= inside <= 200  # 95 % of 200, within four standard deviations, and a little for few images


def test_parts_of_samples_do_not_change_the_draws(monkeypatch):
    table = images(np.random.default_rng(0), 30)
    whole = bootstrap.intervals(table, NAMES, mean, seed=1, samples=100)
    monkeypatch.setattr(bootstrap, "_CELLS", 70)
    for name, ends in bootstrap.intervals(table, NAMES, mean, seed=1, samples=100).items():
        assert ends == pytest.approx(whole[name], rel=1e-12)


def test_undefined_samples_are_left_out():
    table = np.array([[0.5, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = bootstrap.intervals(table, NAMES, mean, seed=0)
    assert found["mean"] == [0.5, 0.5] and found["sum"] == [0.0, 1.5]
    assert bootstrap.intervals(np.zeros((4, 2)), NAMES, mean, seed=0)["mean"] is None


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_images(number):
    table = np.ones((number, 2))
    assert bootstrap.intervals(table, NAMES, mean, seed=0) == {"mean": None, "sum": None}
    found = bootstrap.paired(table, table, NAMES, mean, seed=0)["mean"]
    assert found == {"difference": 0.0 if number else None} | dict.fromkeys(("low", "high", "p", "wilcoxon_p"))


def test_a_shift_of_all_images_is_found_and_none_is_not():
    rng = np.random.default_rng(4)
    table = images(rng, 40)
    better = table + [0.05, 0] * table[:, 1:]
    found = bootstrap.paired(better, table, NAMES, mean, seed=0)["mean"]
    # Each image differs by the same: the pairing leaves no spread at all, where the images themselves have 0.1.
    assert found["difference"] == found["low"] == found["high"] == 0.05
    assert found["p"] == pytest.approx(2 / 1001) and found["wilcoxon_p"] < 1e-6
    same = bootstrap.paired(table, table, NAMES, mean, seed=0)["mean"]
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "wilcoxon_p": None}
    turned = bootstrap.paired(table, better, NAMES, mean, seed=0)["mean"]
    assert turned["difference"] == -found["difference"] and turned["p"] == found["p"]


def test_p_of_no_difference_is_uniform():
    rng = np.random.default_rng(5)
    ps = [bootstrap.paired(images(rng, 30), images(rng, 30), NAMES, mean, k, 200)["mean"] for k in range(150)]
    for name in ("p", "wilcoxon_p"):
        below = sum(found[name] < 0.1 for found in ps)
        assert 3 <= below <= 32, name  # 15 expected


def test_sums_in_another_order_are_no_difference():
    """Rounding alone must not make a p: the same values, added up from other parts."""
    table = images(np.random.default_rng(8), 40)
    found = bootstrap.paired(table, table * (1 + 1e-15), NAMES, mean, seed=0)["mean"]
    assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "wilcoxon_p": None}


def test_wilcoxon_is_scipys_on_single_images():
    rng = np.random.default_rng(6)
    a, b = images(rng, 25, 0.03), images(rng, 25)
    single = a[:, 0] / a[:, 1] - b[:, 0] / b[:, 1]
    found = bootstrap.paired(a, b, NAMES, mean, seed=0)["mean"]["wilcoxon_p"]
    assert found == pytest.approx(stats.wilcoxon(single).pvalue)
    assert bootstrap.wilcoxon_p(np.array([np.nan, 0.0])) is None


def test_tables_of_other_images_are_refused():
    with pytest.raises(ValueError, match="not of the same images"):
        bootstrap.paired(np.ones((3, 2)), np.ones((4, 2)), NAMES, mean, seed=0)


def test_the_table_of_sums():
    rows = [{"count": 2.0, "sum": 1.0}, {"sum": 3.0, "count": 4.0}]
    np.testing.assert_array_equal(bootstrap.table(rows, NAMES), [[1, 2], [3, 4]])
    assert bootstrap.table([], NAMES).shape == (0, 2)
