"""All measures of masks against true masks, as sums that add up over images, and what follows from the sums.

`measure` gives the sums of one image, `pooled` the measures of any sum of them: of a data set, a split, a bootstrap
sample, or one image. Everything is pooled over instances ("micro"), but for the errors of counts, which are means over
images. docs/evaluation.md has every formula with its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from crowdmask import geometry
from crowdmask.masks.rle import Window
from crowdmask.metrics import boundary, counting, localisation
from crowdmask.metrics.instances import intersection, window_iou
from crowdmask.metrics.matching import Overlaps, boxes, overlaps

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))
"""Least IoU of a true positive: 0.5, 0.55, ..., 0.95."""

SIZES = (0, 64, 256, 1024)
"""Lower limits of the classes of true area, pixels; each ends where the next begins."""

DENSITIES = (0, 8, 16, 32, 64)
"""Lower limits of the classes of the distance from a true head to the nearest other one, pixels; a head alone in its
image is in the last (our choice)."""

CLASS_SUMS = ("true", "paired", "paired_iou", "assigned_iou", "tp_50")
"""What is summed in each class of size or density."""

_TP = tuple(f"tp_{round(100 * t)}" for t in THRESHOLDS)

NAMES: tuple[str, ...] = (
    "images",
    "images_with_true",
    "pred",
    "true",
    "paired",
    "paired_iou",
    "paired_50",
    "assigned",
    "assignable",
    "assigned_iou",
    *_TP,
    "segments",
    "segments_iou",
    "boundary_paired",
    "boundary_px_paired",
    "boundary_assigned",
    "boundary_px_assigned",
    "count_error",
    "count_error_squared",
    "count_error_relative",
    *(f"game_{level}" for level in counting.LEVELS),
    "found_s",
    "found_l",
    *(f"found_s_{name}" for name in localisation.LEVEL_NAMES),
    *(f"found_l_{name}" for name in localisation.LEVEL_NAMES),
    *(f"true_{name}" for name in localisation.LEVEL_NAMES),
    *(f"size_{low}_{name}" for low in SIZES for name in CLASS_SUMS),
    *(f"density_{low}_{name}" for low in DENSITIES for name in CLASS_SUMS),
)
"""Names of the sums, in the order of a table's columns; see `measure`."""


def measure(
    pred: Sequence[Window],
    true: Sequence[Window],
    pairs: Sequence[tuple[int, int]] | None,
    height: int,
    width: int,
    *,
    true_xy: np.ndarray | None = None,
    pred_xy: np.ndarray | None = None,
    boundary_px: int = boundary.WIDTH_PX,
    found: Overlaps | None = None,
) -> dict[str, float]:
    """The sums of one image.

    Args:
        pred: P masks; an empty one is a prediction that finds nothing.
        true: G masks.
        pairs: Which prediction belongs to which true mask, as indices, because both carry the same point; a true mask
            without pair has lost its prediction. None = not known: the measures by point are undefined.
        height: Of the image, pixels.
        width: Of the image, pixels.
        true_xy: float (G, 2), head points, pixels; None = centroids of the masks.
        pred_xy: float (P, 2), points that stand for the predictions; None = centroids of the masks.
        boundary_px: Width of the narrow band of the boundary IoU, pixels.
        found: Which masks meet, where that is known already.

    Returns:
        Keys `NAMES`, in order:

        - `images` 1, `images_with_true` 1 where G > 0, `pred` P, `true` G;
        - by point: `paired` G where pairs are known (else 0), `paired_iou` sum of the IoU of the pairs, `paired_50`
          how many have at least 0.5;
        - by the assignment with the largest sum of IoU: `assigned` pairs with IoU above 0, `assignable` min(P, G),
          `assigned_iou` their sum, `tp_50` ... `tp_95` pairs with at least that IoU;
        - `segments`, `segments_iou`: pairs of panoptic quality (IoU above 0.5), and their sum;
        - `boundary_*`: sums of boundary IoU over pairs by point and assigned ones; with `_px` for the narrow band;
        - `count_error*`: of P against G, absolute, squared, relative (0 where G = 0); `game_0` ... `game_3`;
        - `found_s`, `found_l`: heads with a point of their own within the small and the large radius, also by level of
          box area (`_a0` ... `_a5`), and `true_a0` ... the heads of each level;
        - `size_*`, `density_*`: `CLASS_SUMS` of the true masks of each class.

    Raises:
        ValueError: pairs that are not one to one or out of range, or more overlapping pairs than can be looked at.
    """
    meet = overlaps(pred, true) if found is None else found
    where = _points(true_xy, true)
    sums = dict.fromkeys(NAMES, 0.0)
    sums |= {
        "images": 1.0,
        "images_with_true": float(len(true) > 0),
        "pred": float(len(pred)),
        "true": float(len(true)),
    }

    by_point = np.zeros(len(true))
    usual = boundary.usual_width(height, width)
    if pairs is not None:
        chosen = _checked(pairs, len(pred), len(true))
        by_point[chosen[:, 1]] = [window_iou(pred[i], true[j]) for i, j in chosen.tolist()]
        sums |= {"paired": float(len(true)), "paired_iou": by_point.sum(), "paired_50": _count(by_point >= 0.5)}

    iou = meet.iou[meet.assigned]
    sums |= {"assigned": float(len(iou)), "assignable": float(min(len(pred), len(true))), "assigned_iou": iou.sum()}
    sums |= {name: _count(iou >= threshold) for name, threshold in zip(_TP, THRESHOLDS, strict=True)}
    sums |= {"segments": float(len(meet.segments)), "segments_iou": meet.iou[meet.segments].sum()}

    assigned = np.stack([meet.pred[meet.assigned], meet.true[meet.assigned]], axis=1)
    for name, d in (("boundary", usual), ("boundary_px", boundary_px)):
        bands = _Bands(pred, true, d)
        sums[f"{name}_assigned"] = bands.total(assigned)
        if pairs is not None:
            sums[f"{name}_paired"] = bands.total(chosen[by_point[chosen[:, 1]] > 0])

    error = counting.errors(len(pred), len(true))
    sums |= dict(zip(("count_error", "count_error_squared", "count_error_relative"), error, strict=True))
    seen = _points(pred_xy, pred)
    for level in counting.LEVELS:
        sums[f"game_{level}"] = counting.game(seen, where, height, width, level)
    sums |= _localised(seen, where, true)

    per_true = {"true": np.ones(len(true)), "paired_iou": by_point}
    per_true["paired"] = np.full(len(true), float(pairs is not None))
    per_true["assigned_iou"], per_true["tp_50"] = np.zeros(len(true)), np.zeros(len(true))
    per_true["assigned_iou"][assigned[:, 1]] = iou
    per_true["tp_50"][assigned[:, 1]] = iou >= THRESHOLDS[0]
    for kind, limits, values in (
        ("size", SIZES, meet.true_area),
        ("density", DENSITIES, geometry.neighbour_distances(where)),
    ):
        number = np.searchsorted(limits, values, side="right") - 1
        for name in CLASS_SUMS:
            totals = np.bincount(number, per_true[name], len(limits))
            sums |= {f"{kind}_{low}_{name}": total for low, total in zip(limits, totals, strict=True)}
    return {name: float(sums[name]) for name in NAMES}


def _count(flags: np.ndarray) -> float:
    return float(np.count_nonzero(flags))


def _checked(pairs: Sequence[tuple[int, int]], preds: int, trues: int) -> np.ndarray:
    chosen = np.array(pairs, np.int64).reshape(-1, 2)
    if len(chosen) and not ((chosen >= 0).all() and (chosen < [preds, trues]).all()):
        raise ValueError(f"a pair is out of range: there are {preds} predictions and {trues} true masks")
    if any(len(np.unique(side)) < len(side) for side in chosen.T):
        raise ValueError("a mask is in two pairs")
    return chosen


def _points(given: np.ndarray | None, masks: Sequence[Window]) -> np.ndarray:
    """The points, or the masks' centroids; an empty mask has its window's corner."""
    if given is not None:
        points = np.asarray(given, np.float64).reshape(-1, 2)
        if len(points) != len(masks):
            raise ValueError(f"{len(points)} points for {len(masks)} masks")
        return points
    found = np.empty((len(masks), 2))
    for k, mask in enumerate(masks):
        y, x = np.nonzero(mask.mask)
        found[k] = (mask.x0 + x.mean(), mask.y0 + y.mean()) if len(x) else (mask.x0, mask.y0)
    return found


class _Bands:
    """Bands of the masks of an image, each made once."""

    def __init__(self, pred: Sequence[Window], true: Sequence[Window], d_px: int) -> None:
        self._masks, self._d = (pred, true), d_px
        self._made: dict[tuple[int, int], tuple[Window, int]] = {}

    def _of(self, side: int, index: int) -> tuple[Window, int]:
        if (side, index) not in self._made:
            made = boundary.band(self._masks[side][index], self._d)
            self._made[side, index] = made, made.area
        return self._made[side, index]

    def total(self, pairs: np.ndarray) -> float:
        """Sum of the boundary IoU of some pairs."""
        total = 0.0
        for i, j in pairs.tolist():
            (first, area), (second, other) = self._of(0, i), self._of(1, j)
            shared = intersection(first, second)
            total += shared / (area + other - shared) if shared else 0.0
        return total


def _localised(pred_xy: np.ndarray, true_xy: np.ndarray, true: Sequence[Window]) -> dict[str, float]:
    frames = boxes([mask.tight() for mask in true])
    sides = frames[:, 2:] - frames[:, :2]
    level = localisation.levels(sides)
    names = localisation.LEVEL_NAMES
    sums = {f"true_{n}": c for n, c in zip(names, np.bincount(level, minlength=len(names)), strict=True)}
    for which, sigma in zip("sl", localisation.sigmas(sides), strict=True):
        hit = localisation.found(pred_xy, true_xy, sigma)
        sums[f"found_{which}"] = _count(hit)
        by_level = np.bincount(level, hit, len(names))
        sums |= {f"found_{which}_{name}": value for name, value in zip(names, by_level, strict=True)}
    return sums


def ratio(part: float, whole: float) -> float | None:
    """Part over whole; None where there is nothing to divide by."""
    return part / whole if whole else None


def f1(matched: float, pred: float, true: float) -> float | None:
    """2 P R / (P + R) = 2 TP / (predictions + true): 0 where nothing matches, None where neither side has anything."""
    return ratio(2 * matched, pred + true)


def pooled(sums: Mapping[str, float]) -> dict[str, float | None]:
    """The measures that follow from sums over images; None where one is undefined.

    Args:
        sums: Keys `NAMES`, added over any images.

    Returns:
        - `mean_iou`, `share_iou_50`: over true masks by point, a missing prediction counts 0 (None without points);
        - `miou_matched` (DPMO-RPS): over assigned pairs with IoU above 0; `miou_matched_all`: over min(P, G) pairs of
          each image, those without overlap included; `miou_gt` (XMask): the same sum over all true masks;
        - `precision_50`, `recall_50`, `f1_50`; `precision_50_95` ...: means over IoU 0.5, 0.55, ..., 0.95;
        - `pq`, `sq`, `rq`: panoptic quality, its segmentation and its recognition part;
        - `boundary_iou` (2 % of the diagonal) and `boundary_iou_px` (narrow band) over the same masks as `mean_iou`;
          `boundary_iou_matched`, `boundary_iou_px_matched` over those of `miou_matched`;
        - `mae`, `rmse`, `nae`, `game_0` ... `game_3`: errors of counts;
        - `precision_s`, `recall_s`, `f1_s` and `_l`: localisation within the small and the large radius, `recall_l_a0`
          ... by level of box area, and `recall_l_mean`, the mean of those levels that have heads; `_s` likewise.
    """
    s = sums
    preds, trues = s["pred"], s["true"]
    found: dict[str, float | None] = {
        "mean_iou": ratio(s["paired_iou"], s["paired"]),
        "share_iou_50": ratio(s["paired_50"], s["paired"]),
        "miou_matched": ratio(s["assigned_iou"], s["assigned"]),
        "miou_matched_all": ratio(s["assigned_iou"], s["assignable"]),
        "miou_gt": ratio(s["assigned_iou"], trues),
        "precision_50": ratio(s["tp_50"], preds),
        "recall_50": ratio(s["tp_50"], trues),
        "f1_50": f1(s["tp_50"], preds, trues),
    }
    mean = sum(s[name] for name in _TP) / len(_TP)
    found |= {"precision_50_95": ratio(mean, preds), "recall_50_95": ratio(mean, trues)}
    found["f1_50_95"] = f1(mean, preds, trues)
    found["pq"] = ratio(2 * s["segments_iou"], preds + trues)
    found["sq"] = ratio(s["segments_iou"], s["segments"])
    found["rq"] = f1(s["segments"], preds, trues)
    for name in ("boundary", "boundary_px"):
        key = name.replace("boundary", "boundary_iou")
        found[key] = ratio(s[f"{name}_paired"], s["paired"])
        found[f"{key}_matched"] = ratio(s[f"{name}_assigned"], s["assigned"])
    square = ratio(s["count_error_squared"], s["images"])
    found["mae"] = ratio(s["count_error"], s["images"])
    found["rmse"] = None if square is None else math.sqrt(square)
    found["nae"] = ratio(s["count_error_relative"], s["images_with_true"])
    found |= {f"game_{level}": ratio(s[f"game_{level}"], s["images"]) for level in counting.LEVELS}
    for which in "sl":
        hits = s[f"found_{which}"]
        found[f"precision_{which}"], found[f"recall_{which}"] = ratio(hits, preds), ratio(hits, trues)
        found[f"f1_{which}"] = f1(hits, preds, trues)
        recalls = {n: ratio(s[f"found_{which}_{n}"], s[f"true_{n}"]) for n in localisation.LEVEL_NAMES}
        known = [value for value in recalls.values() if value is not None]
        found[f"recall_{which}_mean"] = sum(known) / len(known) if known else None
        found |= {f"recall_{which}_{name}": value for name, value in recalls.items()}
    return found


METRICS = tuple(pooled(dict.fromkeys(NAMES, 0.0)))
"""Names of what `pooled` gives, in order."""


def by_class(sums: Mapping[str, float], kind: str) -> list[dict[str, float | None]]:
    """The table of the classes of true masks.

    Args:
        sums: Keys `NAMES`, added over any images.
        kind: size (true area, pixels) or density (distance to the nearest other head, pixels).

    Returns:
        For each class `area_from_px`, `area_below_px` (density: `distance_...`; None = no limit), `count` of true
        masks, `mean_iou` by point, `miou_gt` and `recall_50` by the assignment.
    """
    limits, what = {"size": (SIZES, "area"), "density": (DENSITIES, "distance")}[kind]
    rows: list[dict[str, float | None]] = []
    for low, high in pairwise((*limits, None)):
        part = {name: sums[f"{kind}_{low}_{name}"] for name in CLASS_SUMS}
        rows.append(
            {
                f"{what}_from_px": low,
                f"{what}_below_px": high,
                "count": int(part["true"]),
                "mean_iou": ratio(part["paired_iou"], part["paired"]),
                "miou_gt": ratio(part["assigned_iou"], part["true"]),
                "recall_50": ratio(part["tp_50"], part["true"]),
            }
        )
    return rows


def total(table: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums of several images added up; zeros for none."""
    return {name: math.fsum(row[name] for row in table) for name in NAMES}
