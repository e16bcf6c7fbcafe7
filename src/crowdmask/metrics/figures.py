"""What is said of a data set: measures with intervals, tables by size and density, and the numbers of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crowdmask.metrics import bootstrap, measures
from crowdmask.metrics.average_precision import Detections
from crowdmask.metrics.matching import Overlaps

SEED = 0
"""Of the bootstrap samples."""
DIGITS = 6
"""Of all figures that are written."""


def rounded(value: float | None) -> float | None:
    """A figure as it is written."""
    return None if value is None else round(float(value), DIGITS)


@dataclass
class Collected:
    """The images of a data set, one row of sums each.

    Attributes:
        rows: float64 (K,) each, in the order of `measures.NAMES`.
        detections: For the average precision.
    """

    rows: list[np.ndarray] = field(default_factory=list)
    detections: Detections = field(default_factory=Detections)

    def add(self, sums: Mapping[str, float], found: Overlaps, scores: np.ndarray | None = None) -> None:
        """Take an image: its sums, which masks meet, and the scores of the predictions."""
        self.rows.append(np.array([sums[name] for name in measures.NAMES]))
        self.detections.add(found, scores)

    def table(self) -> np.ndarray:
        """Sums of each image, float64 (images, K)."""
        return np.array(self.rows, np.float64).reshape(-1, len(measures.NAMES))

    def sums(self) -> dict[str, float]:
        """Sums of all images."""
        return dict(zip(measures.NAMES, self.table().sum(axis=0).tolist(), strict=True))

    def figures(self) -> dict[str, Any]:
        """`measures`, `intervals` (95 %, of all but average precision), `by_size`, `by_density`, `bootstrap`.

        The settings of the bootstrap are recorded. A figure that is undefined is null.
        """
        sums = self.sums()
        found = {**measures.pooled(sums), **self.detections.result()}
        ends = bootstrap.intervals(self.table(), measures.NAMES, measures.pooled, SEED)
        return {
            "measures": {name: rounded(value) for name, value in found.items()},
            "intervals": {name: pair and [rounded(end) for end in pair] for name, pair in ends.items()},
            "by_size": by_class(sums, "size"),
            "by_density": by_class(sums, "density"),
            "bootstrap": {"samples": bootstrap.SAMPLES, "seed": SEED},
        }


def by_class(sums: Mapping[str, float], kind: str) -> list[dict[str, Any]]:
    """`measures.by_class`, rounded."""
    return [
        {key: rounded(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in measures.by_class(sums, kind)
    ]


def of_image(row: np.ndarray) -> dict[str, Any]:
    """What is said of one image: `predictions`, `mean_iou`, `miou_gt`, `f1_50`."""
    sums = dict(zip(measures.NAMES, row.tolist(), strict=True))
    found = measures.pooled(sums)
    return {
        "predictions": int(sums["pred"]),
        **{name: rounded(found[name]) for name in ("mean_iou", "miou_gt", "f1_50")},
    }


COMPARED = ("mean_iou", "share_iou_50", "miou_gt", "f1_50", "f1_50_95", "pq", "boundary_iou", "boundary_iou_px")
"""Measures of the baselines."""


def against(ours: Collected, other: Collected) -> dict[str, Any]:
    """A baseline: `measures` and `intervals` of `COMPARED`, and `difference`, ours less the baseline's, of each."""
    names = measures.NAMES

    def few(sums: Mapping[str, float]) -> dict[str, float | None]:
        found = measures.pooled(sums)
        return {name: found[name] for name in COMPARED}

    ends = bootstrap.intervals(other.table(), names, few, SEED)
    differences = bootstrap.paired(ours.table(), other.table(), names, few, SEED)
    return {
        "measures": {name: rounded(value) for name, value in few(other.sums()).items()},
        "intervals": {name: pair and [rounded(end) for end in pair] for name, pair in ends.items()},
        "difference": {
            name: {key: rounded(value) for key, value in found.items()} for name, found in differences.items()
        },
    }
