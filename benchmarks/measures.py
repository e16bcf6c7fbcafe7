"""All measures of an image against the dense way: full frames, one product for all IoUs, scipy's dense assignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from segment_anything.modeling import Sam

from benchmarks.cases import Case
from benchmarks.inputs import SEED
from benchmarks.measure import Clock
from crowdmask.masks.rle import Window
from crowdmask.metrics import matching, measures


def crowd(case: Case) -> tuple[list[Window], list[Window]]:
    """Predictions and true masks: discs of radius 3 to 10 pixels, each prediction moved and resized a little."""
    rng = np.random.default_rng(SEED)
    places = rng.uniform(12, [case.width - 12, case.height - 12], (case.prompts, 2))
    radii = rng.uniform(3, 10, case.prompts)
    return (
        [_disc(x, y, r) for (x, y), r in zip(places + rng.normal(0, 1.5, places.shape), radii * 1.05, strict=True)],
        [_disc(x, y, r) for (x, y), r in zip(places, radii, strict=True)],
    )


def _disc(x: float, y: float, radius: float) -> Window:
    side = np.arange(-11, 12)
    left, top = int(x), int(y)
    mask = (side + left - x)[None, :] ** 2 + (side + top - y)[:, None] ** 2 <= radius * radius
    return Window(left - 11, top - 11, mask).tight()


class _Work:
    """The masks, and which pairs are assigned."""

    def __init__(self, case: Case, sam: Sam, precision: str, folder: Path) -> None:
        self.case, self.device = case, sam.device
        self.pred, self.true = crowd(case)
        self.pairs = np.zeros((0, 2), np.int64)

    def warm(self) -> None:
        """One untimed run."""
        self.run()

    def run(self) -> dict[str, float]:
        """Seconds of the image."""
        clock = Clock(self.device)
        with clock.part("whole_s"):
            self.work()
        return clock.seconds

    def work(self) -> None:
        """Measure."""
        raise NotImplementedError

    def masks(self) -> list[np.ndarray]:
        """One matrix: which prediction is assigned to which true mask; none where that is too large to compare."""
        if not self.case.baseline:
            return []
        chosen = np.zeros((len(self.pred), len(self.true)), bool)
        chosen[self.pairs[:, 0], self.pairs[:, 1]] = True
        return [chosen]

    def facts(self) -> dict[str, Any]:
        """Number of assigned pairs."""
        return {"assigned": len(self.pairs)}


class Ours(_Work):
    """`measures.measure` and `measures.pooled`: every measure but average precision."""

    def work(self) -> None:
        """Measure."""
        found = matching.overlaps(self.pred, self.true)
        by_point = [(k, k) for k in range(len(self.true))]
        case = self.case
        measures.pooled(measures.measure(self.pred, self.true, by_point, case.height, case.width, found=found))
        self.pairs = np.stack([found.pred[found.assigned], found.true[found.assigned]], axis=1)


class Baseline(_Work):
    """IoU of all pairs and the assignment alone."""

    def work(self) -> None:
        """Measure."""
        frames = [
            np.stack([mask.full(self.case.height, self.case.width).ravel() for mask in masks]).astype(np.float32)
            for masks in (self.pred, self.true)
        ]
        shared = frames[0] @ frames[1].T
        union = frames[0].sum(axis=1)[:, None] + frames[1].sum(axis=1)[None, :] - shared
        iou = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
        rows, columns = linear_sum_assignment(iou, maximize=True)
        some = iou[rows, columns] > 0
        self.pairs = np.stack([rows[some], columns[some]], axis=1)
