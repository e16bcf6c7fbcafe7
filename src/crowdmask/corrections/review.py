"""Worst first: why a person should look at a mask, one number a reason, and one score of them all.

Pure functions of the tables' rows of one image. Every reason is a number from 0 (nothing odd) to 1; what is not known
(a mask without superpixel or SAM's answer) is 0. The formulas are our choice and are written down in docs/review.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from crowdmask.config import Review
from crowdmask.corrections.trend import size_deviation
from crowdmask.geometry import circle_box, clip_points, own_pixels, squared_distance
from crowdmask.masks.rle import Window
from crowdmask.metrics.instances import intersection, window_iou
from crowdmask.tables import REASONS

VERSION = 1
"""Raised when the table, the page or the numbers change for the same tables."""

RAMPS = {
    "fallback": (0.0, 1.0),
    "low_iou": (0.1, 0.7),
    "unstable": (0.1, 0.8),
    "cut": (0.0, 0.5),
    "lost": (0.0, 0.5),
    "small": (0.5, 6.0),
    "large": (0.5, 6.0),
    "edge": (0.1, 0.8),
    "superpixel": (0.1, 0.9),
    "ragged": (0.0, 0.25),
    "long": (0.2, 0.7),
}
"""What is measured, where a reason begins (0) and where it is full (1), linear between; our choice."""

NAMED, STRONG = 3, 0.25
"""Most reasons put into words, and the least that one must be."""

_STAND_IN = {"circle": "the exclusion circle stands in for SAM's mask", "pixel": "a single pixel is left of it"}


@dataclass(frozen=True)
class Made:
    """What the stages say of one mask.

    Attributes:
        mask: As merged, not empty.
        point_xy: Head point inside of the image, pixels.
        radius_px: Of its exclusion circle; 0 = none.
        source: One of `tables.SOURCES`.
        lost_px: Pixels given to others by the tie-break.
        predicted_iou: SAM's own estimate; None = none.
        stability: As in `tables.SEGMENT`; None = none.
        found: SAM's mask before the circle; None = none.
        part: The point's part of its superpixel; None = none.
        sharing: Points in that superpixel.
    """

    mask: Window
    point_xy: tuple[float, float]
    radius_px: float
    source: str
    lost_px: int
    predicted_iou: float | None = None
    stability: float | None = None
    found: Window | None = None
    part: Window | None = None
    sharing: int = 1

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        point_xy: tuple[float, float],
        segment: Mapping[str, Any] | None,
        superpixel: Mapping[str, Any] | None,
    ) -> Made:
        """From rows of the tables `masks`, `segment` and `superpixels`."""
        return cls(
            Window.from_columns(dict(row)).tight(),
            point_xy,
            row["radius_px"],
            row["source"],
            row["lost_px"],
            row["score"],
            segment["stability"] if segment else None,
            Window.from_columns(dict(segment)) if segment else None,
            Window.from_columns(dict(superpixel)) if superpixel else None,
            superpixel["sharing"] if superpixel else 1,
        )


def unit(value: float) -> float:
    """The value within [0, 1]."""
    return min(1.0, max(0.0, value))


def rim_share(mask: Window, point_xy: tuple[float, float], radius: float, height: int, width: int) -> float:
    """Share of the circle's outermost pixels that belong to a mask.

    The outermost pixels are those within the circle, and the image, that are farther from the point than the radius
    less one pixel. 0 for circles without such a pixel.
    """
    box = circle_box(*point_xy, radius, height, width)
    distance = squared_distance(*point_xy, *box)
    rim = (distance <= radius**2) & (distance > max(radius - 1, 0.0) ** 2)
    total = np.count_nonzero(rim)
    return float(np.count_nonzero(rim & mask.cut(*box)) / total) if total else 0.0


def outside_share(found: Window, point_xy: tuple[float, float], radius: float) -> float:
    """Share of SAM's mask that lies outside of the circle; 0 for an empty mask."""
    h, w = found.mask.shape
    area = found.area
    if not area:
        return 0.0
    inside = found.mask & (squared_distance(*point_xy, found.x0, found.y0, w, h) <= radius**2)
    return float(1 - np.count_nonzero(inside) / area)


def depth(mask: Window, pixel_xy: tuple[int, int], height: int, width: int) -> float:
    """Distance of a pixel to the nearest pixel of the image that does not belong to the mask, pixels.

    0 where the pixel itself does not; infinity where the mask fills the image. Beyond the image's border is nothing:
    a head that the border cuts is no deeper or shallower for it.
    """
    x0, y0 = max(mask.x0 - 1, 0), max(mask.y0 - 1, 0)
    h, w = mask.mask.shape
    x1, y1 = min(mask.x0 + w + 1, width), min(mask.y0 + h + 1, height)
    x, y = pixel_xy
    if not (mask.x0 <= x < mask.x0 + w and mask.y0 <= y < mask.y0 + h):
        return 0.0
    others = ~mask.cut(x0, y0, x1 - x0, y1 - y0)
    if not others.any():
        return math.inf
    return math.sqrt(squared_distance(x, y, x0, y0, x1 - x0, y1 - y0)[others].min())


def shape(mask: np.ndarray) -> tuple[float, float]:
    """How unlike a filled, round, whole thing a mask is.

    Args:
        mask: bool (h, w) with a pixel.

    Returns:
        Share of the pixels in the convex hull (of pixel centres) that are not mask: dents, holes, gaps between
        fragments; and 1 - shorter / longer axis of the ellipse with the same second moments, pixels being squares. A
        single pixel, and a filled disc, have (0, 0), the latter up to rounding.
    """
    ys, xs = np.nonzero(mask)
    area = len(xs)
    covariance = np.array([[xs.var(), 0.0], [0.0, ys.var()]]) + np.eye(2) / 12
    covariance[0, 1] = covariance[1, 0] = ((xs - xs.mean()) * (ys - ys.mean())).mean()
    small, large = np.linalg.eigvalsh(covariance)
    # The ends of each row have the same hull as all pixels; how many it holds says Pick's theorem.
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
    corners = cv2.convexHull(ends.astype(np.int32))[:, 0].astype(np.int64)
    x, y = (corners - corners[0]).T
    step_x, step_y = np.roll(x, -1) - x, np.roll(y, -1) - y
    doubled = abs(int((x * step_y - y * step_x).sum()))
    hull = (doubled + int(np.gcd(step_x, step_y).sum())) // 2 + 1
    return unit(1 - area / hull), unit(1 - math.sqrt(max(small, 0.0) / large))


def measure(made: Made, deviation: float, height: int, width: int) -> dict[str, float]:
    """What each reason is made from, before its ramp.

    Args:
        made: The mask.
        deviation: Of its size, in spreads; see `trend.size_deviation`.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        A number for each of `tables.REASONS`; 0 where nothing is known.
    """
    area = made.mask.area
    pixel = own_pixels(np.array(made.point_xy), height, width)[0]
    inner = depth(made.mask, (int(pixel[0]), int(pixel[1])), height, width)
    cut = 0.0
    if made.radius_px > 0:
        cut = rim_share(made.mask, made.point_xy, made.radius_px, height, width)
        if made.found is not None:
            cut = max(cut, outside_share(made.found, made.point_xy, made.radius_px))
    impure = 0.0
    if made.part is not None and made.part.area:
        impure = 1 - intersection(made.mask, made.part) / (made.part.area * max(made.sharing, 1))
    ragged, long = shape(made.mask.mask)
    return {
        "fallback": float(made.source in _STAND_IN),
        "low_iou": 0.0 if made.predicted_iou is None else 1 - made.predicted_iou,
        "unstable": 0.0 if made.stability is None else 1 - made.stability,
        "cut": cut,
        "lost": made.lost_px / (area + made.lost_px),
        "small": max(-deviation, 0.0),
        "large": max(deviation, 0.0),
        "edge": unit(1 - inner / math.sqrt(area / math.pi)),
        "superpixel": impure,
        "ragged": ragged,
        "long": long,
    }


def ramp(name: str, value: float) -> float:
    """Reason in [0, 1] of what was measured for it."""
    low, high = RAMPS[name]
    return unit((value - low) / (high - low))


def score(reasons: Mapping[str, float], settings: Review) -> float:
    """1 / (1 + exp(-(bias + sum of weight x reason))), in [0, 1]."""
    total = settings.bias + sum(getattr(settings, name) * reasons[name] for name in REASONS)
    return 1 / (1 + math.exp(-total)) if total >= 0 else math.exp(total) / (1 + math.exp(total))


def in_words(
    made: Made, measured: Mapping[str, float], reasons: Mapping[str, float], side: float, settings: Review
) -> str:
    """The strongest reasons for people, those first that raise the score most.

    Args:
        made: The mask.
        measured: See `measure`.
        reasons: After their ramps.
        side: Side of the mask over the expected one.
        settings: Weights.

    Returns:
        At most `NAMED` reasons of at least `STRONG` with a weight, separated by semicolons; may be empty.
    """
    weight = {name: getattr(settings, name) * reasons[name] for name in REASONS}
    named = [name for name in REASONS if reasons[name] >= STRONG and weight[name] > 0]
    named = sorted(named, key=lambda name: -weight[name])[:NAMED]
    axes = 1 - measured["long"]
    say = {
        "fallback": _STAND_IN.get(made.source, ""),
        "low_iou": f"SAM expects an IoU of {1 - measured['low_iou']:.2f} only",
        "unstable": f"changes with SAM's threshold (stability {1 - measured['unstable']:.2f})",
        "cut": f"the exclusion circle cuts it ({measured['cut']:.0%})",
        "lost": f"gave {measured['lost']:.0%} of its pixels to neighbours",
        "small": f"{side:.2f} of the side that its neighbours let expect",
        "large": f"{side:.1f} times the side that its neighbours let expect",
        "edge": "the point is near its edge, or outside",
        "superpixel": f"{made.sharing} heads share its superpixel"
        if made.sharing > 1
        else f"covers {1 - measured['superpixel']:.0%} of its superpixel only",
        "ragged": f"dents or holes ({measured['ragged']:.0%} of its hull)",
        "long": f"{1 / axes:.1f} times longer than wide" if axes > 0 else "a line",
    }
    return "; ".join(say[name] for name in named)


def image_rows(
    image: Mapping[str, Any],
    masks: Sequence[Mapping[str, Any]],
    segments: Mapping[int, Mapping[str, Any]],
    superpixels: Mapping[int, Mapping[str, Any]],
    truth: Mapping[int, Mapping[str, Any]] | None,
    settings: Review,
) -> list[dict[str, Any]]:
    """Rows of `tables.REVIEW` of one image.

    Args:
        image: Row of `tables.IMAGES`.
        masks: Its rows of `tables.MASKS`.
        segments: Its rows of `tables.SEGMENT` by point; heads that people added have none.
        superpixels: Its rows of `tables.SUPERPIXELS` by point.
        truth: Its rows of `tables.TRUTH` by point; None = the data set has none.
        settings: Weights.
    """
    height, width = image["height"], image["width"]
    points = clip_points(np.array([[row["x"], row["y"]] for row in masks], float), height, width)
    areas = np.array([row["area"] for row in masks], float)
    deviation, side = size_deviation(points, areas, settings.neighbours)
    rows = []
    for i, row in enumerate(masks):
        point = row["point_id"]
        xy = float(points[i, 0]), float(points[i, 1])
        made = Made.of(row, xy, segments.get(point), superpixels.get(point))
        measured = measure(made, float(deviation[i]), height, width)
        reasons = {name: ramp(name, measured[name]) for name in REASONS}
        seen = row["verified"]
        true = truth.get(point) if truth else None
        rows.append(
            {
                **{key: row[key] for key in ("split", "image_id", "point_id", "x", "y", "source", "verified")},
                "score": 0.0 if seen else score(reasons, settings),
                **reasons,
                "reasons": "" if seen else in_words(made, measured, reasons, float(side[i]), settings),
                "predicted_iou": row["score"],
                "true_iou": None if true is None else window_iou(made.mask, Window.from_columns(dict(true))),
            }
        )
    return rows
