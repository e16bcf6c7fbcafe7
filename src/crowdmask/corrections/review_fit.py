"""Where the default weights of the review's score come from, and how to choose others.

Example:
    python -m crowdmask.corrections.review_fit results/a/review.parquet results/b/review.parquet

prints the section `review` of a configuration, fitted on tables of data sets with true masks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from crowdmask import tables
from crowdmask.corrections.review_truth import BAD
from crowdmask.errors import CrowdmaskError

STRENGTH = 0.003
"""Of the penalty: its share of the sum of squared weights is added to the mean loss (our choice)."""


LEAST = 0.2
"""Smallest weight: the tables may lack the fault that a reason is for, or name it by another reason (our choice)."""


def fit(features: np.ndarray, bad: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Logistic regression whose weights are at least `LEAST`: a reason never speaks for a mask.

    Args:
        features: float (N, K), reasons within [0, 1].
        bad: bool (N,).
        weights: float (N,), how much each mask counts; their sum is 1.

    Returns:
        Bias and float64 (K,) weights that minimise the weighted log-loss plus `STRENGTH` / K times the sum of squares.
    """
    count = features.shape[1]
    target = np.asarray(bad, float)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        logit = values[0] + features @ values[1:]
        value = weights @ (np.logaddexp(0, logit) - target * logit) + STRENGTH / count * (values[1:] @ values[1:])
        slope = weights * (1 / (1 + np.exp(-np.clip(logit, -500, 500))) - target)
        return value, np.concatenate([[slope.sum()], features.T @ slope + 2 * STRENGTH / count * values[1:]])

    bounds = [(None, None)] + [(LEAST, None)] * count
    found = minimize(
        loss, np.full(count + 1, LEAST), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000}
    )
    return float(found.x[0]), found.x[1:]


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reasons (N, K) and bad (N,) of the masks of a review table that nobody has verified and that have a true one."""
    rows = [row for row in tables.stream(path, "review") if not row["verified"] and row["true_iou"] is not None]
    features = np.array([[row[name] for name in tables.REASONS] for row in rows], float)
    return features.reshape(-1, len(tables.REASONS)), np.array([row["true_iou"] < BAD for row in rows], bool)


def main(paths: Sequence[str]) -> int:
    """Print the section; every table counts the same, however many masks it has."""
    try:
        loaded = [load(path) for path in paths]
    except CrowdmaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    loaded = [(features, bad) for features, bad in loaded if len(bad)]
    if not any(0 < bad.sum() for _, bad in loaded):
        print("error: give review tables of data sets with true masks, some of them bad", file=sys.stderr)
        return 1
    weights = np.concatenate([np.full(len(bad), 1 / len(bad) / len(loaded)) for _, bad in loaded])
    bias, found = fit(np.concatenate([f for f, _ in loaded]), np.concatenate([b for _, b in loaded]), weights)
    print("review:")
    for name, value in zip(("bias", *tables.REASONS), (bias, *found), strict=True):
        print(f"  {name}: {value:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
