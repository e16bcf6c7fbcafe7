"""COCO's average precision of masks, by faster-coco-eval, without ever cutting the number of detections.

COCO's own limit of 100 detections an image caps the recall on 1,000 heads at 0.1; there is none here.

The library holds all IoUs of an image as a matrix, of gigabytes for 20,000 heads. So it is given groups of masks
between which no IoU reaches the lowest threshold in place of images, and ranks in place of scores: precision and recall
depend on the order of the detections and on nothing else, so the result is that of the whole images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from crowdmask.metrics.matching import Overlaps

LOWEST = 0.5
"""Pairs of lower IoU match at no threshold."""
_CELLS = 1 << 16
"""Largest matrix of IoUs for several groups together."""

_Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class Detections:
    """What is kept of a data set: a score for each prediction, and the pairs that might match.

    Attributes:
        scores: Of the predictions of each image.
        trues: Number of true masks of each image.
        edges: Prediction, true mask (both counted over all images) and IoU of each pair.
    """

    scores: list[np.ndarray] = field(default_factory=list)
    trues: int = 0
    edges: list[_Edges] = field(default_factory=list)
    _preds: int = 0

    def add(self, found: Overlaps, scores: np.ndarray | None = None) -> None:
        """Take an image.

        Args:
            found: Which masks meet.
            scores: float (P,), higher = surer; NaN or None = not known, which counts as 1. Of equal scores the image
                that comes first ranks first, then the prediction that comes first, as in COCO's own code.

        Raises:
            ValueError: not one score a prediction.
        """
        preds = len(found.pred_area)
        given = np.ones(preds) if scores is None else np.asarray(scores, np.float64)
        if given.shape != (preds,):
            raise ValueError(f"{given.shape} scores for {preds} predictions")
        near = found.iou >= LOWEST
        self.edges.append((found.pred[near] + self._preds, found.true[near] + self.trues, found.iou[near]))
        self.scores.append(np.where(np.isnan(given), 1.0, given))
        self._preds += preds
        self.trues += len(found.true_area)

    def result(self) -> dict[str, float | None]:
        """`ap` (mean over IoU 0.5, 0.55, ..., 0.95), `ap_50`, `ap_75`: the mean of the precision at 101 recalls.

        0 where nothing is predicted, None where nothing is there to be found.
        """
        if not self.trues:
            return {"ap": None, "ap_50": None, "ap_75": None}
        if not self._preds:
            return {"ap": 0.0, "ap_50": 0.0, "ap_75": 0.0}
        precision = self._precision()
        return {
            "ap": float(precision.mean()),
            "ap_50": float(precision[0].mean()),
            "ap_75": float(precision[5].mean()),
        }

    def _precision(self) -> np.ndarray:
        """float64 (10 thresholds, 101 recalls)."""
        from faster_coco_eval import COCO, COCOeval_faster

        order = np.argsort(-np.concatenate(self.scores), kind="stable")
        rank = np.empty(self._preds, np.int64)
        rank[order] = np.arange(self._preds)
        pred, true, iou = (np.concatenate(parts) for parts in zip(*self.edges, strict=True))
        pred_group, true_group = _groups(pred, true, self._preds, self.trues)
        images = 2 + max(pred_group.max(), true_group.max(), 1)
        of_group = np.argsort(pred_group[pred], kind="stable")
        bounds = np.searchsorted(pred_group[pred][of_group], np.arange(images + 1))

        class Known(COCOeval_faster):
            """The library with IoUs that are known already."""

            def computeIoU(self, imgId: int, catId: int) -> Any:  # its names
                some = of_group[bounds[imgId] : bounds[imgId + 1]]
                if not len(some):  # groups 0 and 1
                    return []
                rows = np.unique(pred[some])
                rows = rows[np.argsort(rank[rows])]
                columns = np.unique(true[some])
                matrix = np.zeros((len(rows), len(columns)))
                place = np.argsort(rows)
                at = place[np.searchsorted(rows[place], pred[some])]
                matrix[at, np.searchsorted(columns, true[some])] = iou[some]
                return matrix

        common: dict[str, Any] = {"category_id": 1, "area": 1.0, "iscrowd": 0, "bbox": [0.0, 0.0, 1.0, 1.0]}
        base: dict[str, Any] = {
            "images": [{"id": k, "height": 1, "width": 1} for k in range(images)],
            "categories": [{"id": 1, "name": "mask"}],
        }
        truths = [{"id": k + 1, "image_id": g, **common} for k, g in enumerate(true_group.tolist())]
        found = [
            {"id": k + 1, "image_id": g, "score": float(self._preds - r), **common}
            for k, (g, r) in enumerate(zip(pred_group.tolist(), rank.tolist(), strict=True))
        ]
        judge = Known(COCO(base | {"annotations": truths}), COCO(base | {"annotations": found}), "bbox")
        judge.params.maxDets = [self._preds]
        judge.params.areaRng, judge.params.areaRngLbl = [[0.0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
        return np.asarray(judge.eval["precision"])[:, :, 0, 0, 0]


def _groups(pred: np.ndarray, true: np.ndarray, preds: int, trues: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of each prediction and true mask: 0 and 1 for those without pair, then the groups of pairs."""
    graph = coo_matrix((np.ones(len(pred), np.int8), (pred, true + preds)), shape=(preds + trues,) * 2)
    count, part = connected_components(graph, directed=False)
    rows = np.bincount(part[:preds], minlength=count)
    columns = np.bincount(part[preds:], minlength=count)
    group = np.where(columns == 0, 0, 1)
    number, filled = 2, (0, 0)
    for k in np.flatnonzero((rows > 0) & (columns > 0)).tolist():
        grown = filled[0] + int(rows[k]), filled[1] + int(columns[k])
        if filled[0] and grown[0] * grown[1] > _CELLS:
            number, grown = number + 1, (int(rows[k]), int(columns[k]))
        group[k], filled = number, grown
    return group[part[:preds]], group[part[preds:]]
