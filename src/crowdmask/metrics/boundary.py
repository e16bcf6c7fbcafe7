"""Boundary IoU: how well outlines agree, on windows.

Of each mask only the pixels count that lie within `d` steps of a pixel outside of it; the measure is the IoU of these
two bands (Cheng et al., Boundary IoU, CVPR 2021). A step goes to one of the eight neighbours, and what lies past
the image is outside, as in the authors' definition by repeated erosion with 3 x 3 pixels. The usual `d` is 2 % of the
image's diagonal: more than the half width of most heads, whose band is then the whole mask and whose boundary IoU is
the plain one. A second one with `d` in pixels tells small heads apart.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from crowdmask.masks.rle import Window
from crowdmask.metrics.instances import intersection

RATIO = 0.02
"""Usual width of the band over the image's diagonal."""
WIDTH_PX = 2
"""Width of the narrow band, pixels (our choice: what is left of a head of 10 pixels still has an inside)."""


def usual_width(height: int, width: int) -> int:
    """2 % of the diagonal, rounded half up, at least 1, pixels."""
    return max(1, math.floor(RATIO * math.hypot(height, width) + 0.5))


def band(mask: Window, d_px: int) -> Window:
    """The pixels of a mask that are at most `d_px` steps from a pixel outside of it.

    Args:
        mask: The mask.
        d_px: At least 1.

    Returns:
        A mask on the same window; the same object where the band is the whole mask.
    """
    h, w = mask.mask.shape
    if min(h, w) <= 2 * d_px:  # no pixel is farther inside than half of the narrower side
        return mask
    solid = mask.mask.astype(np.uint8)
    side = 2 * d_px + 1
    inner = cv2.erode(solid, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return Window(mask.x0, mask.y0, mask.mask & (inner == 0)) if inner.any() else mask


def boundary_iou(a: Window, b: Window, d_px: int) -> float:
    """Boundary IoU of two masks, in [0, 1]; 0 where a mask is empty."""
    first, second = band(a, d_px), band(b, d_px)
    shared = intersection(first, second)
    return shared / (first.area + second.area - shared) if shared else 0.0
