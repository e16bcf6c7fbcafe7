"""Intervals and comparisons by resampling images.

Images are drawn with replacement, as many as there are: the instances of one image are no independent samples. A
measure of a sample is that of the summed rows of its images, so a sample costs one product of draws and table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

Measures = Callable[[Mapping[str, float]], Mapping[str, float | None]]
"""From sums to measures, such as `measures.pooled`."""

SAMPLES = 1000
_CELLS = 1 << 24
"""Numbers of draws that are held together."""
_DIGITS = 12
"""Digits of a difference: what rounding leaves of sums in another order is none."""


def table(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """Sums of images as float64 (images, len(names))."""
    return np.array([[row[name] for name in names] for row in rows], np.float64).reshape(-1, len(names))


def _samples(tables: Sequence[np.ndarray], seed: int, samples: int) -> Iterator[list[np.ndarray]]:
    """Summed rows of samples of images, the same images from every table: (some, K) each."""
    images = len(tables[0])
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(images, 1))
    for start in range(0, samples, step):
        weights = rng.multinomial(images, np.full(images, 1 / images), size=min(step, samples - start))
        yield [weights.astype(np.float64) @ rows for rows in tables]


def _as_array(found: Mapping[str, float | None], metrics: Sequence[str]) -> list[float]:
    return [np.nan if (value := found[name]) is None else value for name in metrics]


def _measured(sums: np.ndarray, names: Sequence[str], function: Measures, metrics: Sequence[str]) -> np.ndarray:
    """float64 (rows, metrics), NaN where undefined."""
    return np.array(
        [_as_array(function(dict(zip(names, row, strict=True))), metrics) for row in sums.tolist()], np.float64
    ).reshape(-1, len(metrics))


def _percentiles(values: np.ndarray) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def intervals(
    table: np.ndarray, names: Sequence[str], pooled_function: Measures, seed: int, samples: int = SAMPLES
) -> dict[str, list[float] | None]:
    """95 % intervals: the 2.5th and 97.5th percentile over bootstrap samples of images (Efron and Tibshirani 1993).

    Args:
        table: float (images, K), sums of each image.
        names: Of its K columns.
        pooled_function: From sums to measures.
        seed: Of the draws; the same gives the same intervals.
        samples: Number of bootstrap samples.

    Returns:
        [low, high] of each measure, over the samples in which it is defined; None where that is none, or where there
        are fewer than 2 images, of which nothing can be learnt about other images.
    """
    table = np.asarray(table, np.float64)
    metrics = list(pooled_function(dict(zip(names, table.sum(axis=0).tolist(), strict=True))))
    if len(table) < 2:
        return dict.fromkeys(metrics)
    drawn = np.concatenate(
        [_measured(sums, names, pooled_function, metrics) for (sums,) in _samples([table], seed, samples)]
    )
    found = {name: _percentiles(drawn[:, k]) for k, name in enumerate(metrics)}
    return {name: None if ends is None else list(ends) for name, ends in found.items()}


def paired(
    table_a: np.ndarray,
    table_b: np.ndarray,
    names: Sequence[str],
    pooled_function: Measures,
    seed: int,
    samples: int = SAMPLES,
) -> dict[str, dict[str, float | None]]:
    """How two methods differ on the same images.

    Args:
        table_a: float (images, K), sums of each image of one method.
        table_b: The same of the other, image by image.
        names: Of the K columns.
        pooled_function: From sums to measures.
        seed: Of the draws, which take the same images from both.
        samples: Number of bootstrap samples.

    Returns:
        For each measure `difference` (a - b over all images), `low` and `high` (95 % percentile interval of it), `p`
        (two-sided: twice the smaller share of samples whose difference is at most, or at least, 0, with one more sample
        counted on either side so that it is never 0; at most 1) and `wilcoxon_p` (signed-rank test of the measure of
        each single image, where it is defined for both and some image differs). None where undefined.

    Raises:
        ValueError: the tables differ in shape.
    """
    a, b = np.asarray(table_a, np.float64), np.asarray(table_b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"tables of {a.shape} and {b.shape} are not of the same images and sums")
    metrics = list(pooled_function(dict(zip(names, a.sum(axis=0).tolist(), strict=True))))

    def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, other = (_measured(sums, names, pooled_function, metrics) for sums in (first, second))
        return np.round(one - other, _DIGITS)

    whole = differences(a.sum(axis=0, keepdims=True), b.sum(axis=0, keepdims=True))
    single = differences(a, b)
    drawn = np.full((0, len(metrics)), np.nan)
    if len(a) >= 2:
        drawn = np.concatenate([differences(first, second) for first, second in _samples([a, b], seed, samples)])
    found: dict[str, dict[str, float | None]] = {}
    for k, name in enumerate(metrics):
        difference = float(whole[0, k])
        ends = _percentiles(drawn[:, k])
        found[name] = {
            "difference": None if np.isnan(difference) else difference,
            "low": ends[0] if ends else None,
            "high": ends[1] if ends else None,
            "p": _two_sided(drawn[:, k]),
            "wilcoxon_p": wilcoxon_p(single[:, k]),
        }
    return found


def _two_sided(differences: np.ndarray) -> float | None:
    known = differences[~np.isnan(differences)]
    if not known.size:
        return None
    tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return float(min(1.0, 2 * (tail + 1) / (known.size + 1)))


def wilcoxon_p(differences: np.ndarray) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; images without difference left out (Wilcoxon 1945).

    Args:
        differences: float (images,), NaN where undefined.

    Returns:
        None where no image differs.
    """
    known = differences[~np.isnan(differences)]
    known = known[known != 0]
    return float(stats.wilcoxon(known).pvalue) if known.size else None
