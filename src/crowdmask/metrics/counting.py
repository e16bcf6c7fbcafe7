"""How well heads are counted, image by image and cell by cell."""

from __future__ import annotations

import numpy as np

LEVELS = (0, 1, 2, 3)
"""Of the grid average mean absolute error."""


def game(pred_xy: np.ndarray, true_xy: np.ndarray, height: int, width: int, level: int) -> float:
    """Sum over the cells of a grid of the absolute difference of counts, one image's part of GAME(L).

    The image is cut into 2**L x 2**L cells of equal size, 4**L in all (Guerrero-Gomez-Olmedo et al., Extremely
    overlapping vehicle counting, IbPRIA 2015). A point belongs to the cell that its coordinates fall into, with the
    first pixel's outer edge at -1/2; a point on the line between two cells belongs to the right or lower one, a point
    outside of the image to the nearest cell (our choices). Level 0 is the absolute error of the count.

    Args:
        pred_xy: float (P, 2), pixels.
        true_xy: float (G, 2), pixels.
        height: Of the image, pixels.
        width: Of the image, pixels.
        level: L, from 0.
    """
    cells = 2**level
    difference = _counts(pred_xy, height, width, cells) - _counts(true_xy, height, width, cells)
    return float(np.abs(difference).sum())


def _counts(points_xy: np.ndarray, height: int, width: int, cells: int) -> np.ndarray:
    points = np.asarray(points_xy, np.float64).reshape(-1, 2)
    place = np.clip(np.floor((points + 0.5) * cells / [width, height]), 0, cells - 1).astype(np.int64)
    return np.bincount(place[:, 1] * cells + place[:, 0], minlength=cells * cells)


def errors(pred: float, true: int) -> tuple[float, float, float]:
    """Absolute, squared and relative error of one image's count; the last is 0 where nothing is to be counted.

    Means over images: MAE; RMSE, the root of the mean square, which many papers of the field call MSE; and NAE, over
    the images with at least one head.
    """
    error = abs(pred - true)
    return float(error), float(error * error), error / true if true else 0.0
