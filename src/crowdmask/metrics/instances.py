"""How well one mask covers another, on windows: no full-frame mask is ever made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crowdmask.masks.rle import Window


def intersection(a: Window, b: Window) -> int:
    """Pixels that two masks share; windows may lie anywhere and be larger than their masks."""
    left, top = max(a.x0, b.x0), max(a.y0, b.y0)
    right = min(a.x0 + a.mask.shape[1], b.x0 + b.mask.shape[1])
    bottom = min(a.y0 + a.mask.shape[0], b.y0 + b.mask.shape[0])
    if left >= right or top >= bottom:
        return 0
    return int(
        np.count_nonzero(
            a.mask[top - a.y0 : bottom - a.y0, left - a.x0 : right - a.x0]
            & b.mask[top - b.y0 : bottom - b.y0, left - b.x0 : right - b.x0]
        )
    )


def intersect(a: Window, b: Window) -> Window:
    """Mask of the pixels that two masks share, on the window of `a`."""
    h, w = a.mask.shape
    return Window(a.x0, a.y0, a.mask & b.cut(a.x0, a.y0, w, h))


def window_iou(a: Window, b: Window) -> float:
    """Intersection over union of two masks, in [0, 1].

    Two empty masks have IoU 0: an instance without pixels is never counted as found (our choice).
    """
    shared = intersection(a, b)
    return shared / (a.area + b.area - shared) if shared else 0.0


def paired_iou(pred: Sequence[Window], true: Sequence[Window]) -> np.ndarray:
    """IoU of mask i of one list with mask i of the other.

    Args:
        pred: N masks.
        true: N masks in the same order.

    Returns:
        float64 (N,).

    Raises:
        ValueError: the lists differ in length.
    """
    if len(pred) != len(true):
        raise ValueError(f"{len(pred)} masks cannot be paired with {len(true)}")
    return np.array([window_iou(a, b) for a, b in zip(pred, true, strict=True)], np.float64)
