"""Does a score find the bad masks? Ranking measures against the truth, with intervals over images.

Bad is a mask whose IoU with the true one is below `BAD`. Everything here is for masks that nobody has verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crowdmask.tables import REASONS

BAD = 0.5
"""IoU with the true mask below which a mask is bad."""
WORST = 0.1
"""Share of the masks that a person looks at."""
REPLICATES, SEED = 1000, 0
"""Bootstrap samples of the images, and their seed."""


@dataclass(frozen=True)
class Ranked:
    """Masks in groups of equal value, highest first: what both measures need, sorted once.

    Attributes:
        group: int (N,) group of each mask, 0 = highest value.
        bad: bool (N,).
    """

    group: np.ndarray
    bad: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, bad: np.ndarray) -> Ranked:
        """From values (N,), higher = look first."""
        _, inverse = np.unique(-np.asarray(values, float), return_inverse=True)
        return cls(inverse.ravel(), np.asarray(bad, bool))

    def measures(self, weights: np.ndarray, share: float = WORST) -> tuple[float, float]:
        """Area under the ROC curve and precision of the worst share, each mask counted `weights` times.

        The area is the probability that a bad mask has a higher value than a good one, half for equal values. Of masks
        with equal values of which only some fit into the worst share, the bad ones fit in by their proportion. The
        worst share is `share` of the masks, not rounded.

        Returns:
            Area and precision; not a number where there are no bad or no good masks (area), or no masks (both).
        """
        total = np.bincount(self.group, weights)
        bad = np.bincount(self.group, weights * self.bad)
        good = total - bad
        pairs = bad.sum() * good.sum()
        below = good.sum() - np.cumsum(good)
        area = float((bad * (below + good / 2)).sum() / pairs) if pairs else float("nan")
        wanted = share * total.sum()
        if not wanted:
            return area, float("nan")
        before = np.cumsum(total) - total
        taken = np.clip(wanted - before, 0, total)
        found = np.divide(bad * taken, total, out=np.zeros_like(bad), where=total > 0).sum()
        return area, float(found / wanted)


@dataclass
class Judge:
    """Collects masks with truth, image by image: a few numbers a mask."""

    images: int = 0
    _parts: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the rows of `tables.REVIEW` of one image; those verified or without truth are left out."""
        kept = [row for row in rows if not row["verified"] and row["true_iou"] is not None]
        if not kept:
            return
        found = {name: [row[name] for row in kept] for name in ("score", *REASONS, "true_iou")}
        # What SAM does not say is as good as a mean mask to it: nobody looks there first, nor last.
        known = [row["predicted_iou"] for row in kept if row["predicted_iou"] is not None]
        middle = float(np.mean(known)) if known else 0.0
        found["predicted_iou"] = [-(middle if (v := row["predicted_iou"]) is None else v) for row in kept]
        for name, values in found.items():
            self._parts.setdefault(name, []).append(np.array(values, np.float32))
        self._parts.setdefault("image", []).append(np.full(len(kept), self.images, np.int32))
        self.images += 1

    def result(self, replicates: int = REPLICATES, seed: int = SEED) -> dict[str, Any] | None:
        """The measures as plain values, None without masks.

        `images`, `masks`, `bad`, `share_bad` (what random order finds), `bad_below_iou`, `worst_share`, and
        `measures`: for the score, for SAM's predicted IoU alone (lowest first) and for each reason alone `auc`,
        `precision_worst` and their 95 % intervals (percentiles over bootstrap samples of the images); and
        `score_minus_predicted_iou`: the same for the differences of score and predicted IoU in the same samples.
        """
        if not self.images:
            return None
        parts = {name: np.concatenate(values) for name, values in self._parts.items()}
        bad = parts["true_iou"] < BAD
        ranked = {name: Ranked.of(parts[name], bad) for name in ("score", "predicted_iou", *REASONS)}
        rng = np.random.default_rng(seed)
        ones = np.ones(len(bad))
        point = {name: np.array(one.measures(ones)) for name, one in ranked.items()}
        samples = {name: np.empty((replicates, 2)) for name in ranked}
        for k in range(replicates):
            drawn = np.bincount(rng.integers(self.images, size=self.images), minlength=self.images)
            weights = drawn[parts["image"]].astype(float)
            for name, one in ranked.items():
                samples[name][k] = one.measures(weights)
        first, second = "score", "predicted_iou"
        return {
            "images": self.images,
            "masks": len(bad),
            "bad": int(bad.sum()),
            "share_bad": round(float(bad.mean()), 6),
            "bad_below_iou": BAD,
            "worst_share": WORST,
            "replicates": replicates,
            "seed": seed,
            "measures": {name: _both(point[name], samples[name]) for name in ranked},
            "score_minus_predicted_iou": _both(point[first] - point[second], samples[first] - samples[second]),
        }


def _both(point: np.ndarray, samples: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, name in enumerate(("auc", "precision_worst")):
        found[name] = _plain(point[column])
        drawn = samples[np.isfinite(samples[:, column]), column]
        known = drawn.size and np.isfinite(point[column])
        found[f"{name}_95"] = [_plain(v) for v in np.percentile(drawn, [2.5, 97.5])] if known else None
    return found


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
