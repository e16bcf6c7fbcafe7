"""Random and drawn masks for the tests of measures, and the measures once more on full frames, the plain way."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from crowdmask.masks.rle import Window

EMPTY = Window(3, 3, np.zeros((0, 0), bool))


def box(x0, y0, w, h):
    return Window(x0, y0, np.ones((h, w), bool))


def disc(x, y, radius):
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return Window(x - radius, y - radius, xx**2 + yy**2 <= radius**2)


def windows_of(labels):
    """Masks of a label map, by ascending value."""
    return [Window(0, 0, labels == value).tight() for value in np.unique(labels) if value]


def label_map(rng, height, width, count, largest=9):
    """Disjoint masks: later rectangles over earlier ones, with holes and fragments; fewer than count may be left."""
    labels = np.zeros((height, width), np.int32)
    for value in rng.permutation(count) + 1:
        h, w = rng.integers(1, largest + 1, 2)
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        part = labels[y : y + h, x : x + w]
        part[rng.random((h, w)) < 0.9] = value
    return labels


def shaken(rng, labels):
    """A label map like another one: shifted, with some masks lost and some new."""
    made = np.roll(labels, rng.integers(-2, 3, 2), axis=(0, 1))
    values = np.unique(made)
    made[np.isin(made, rng.permutation(values)[: len(values) // 5])] = 0
    extra = label_map(rng, *labels.shape, 3)
    made[extra > 0] = extra[extra > 0] + labels.max() + 1
    return made


def overlapping(rng, height, width, count, largest=12):
    """Masks that overlap and may be empty, on windows that may be larger than they are, or leave the image."""
    made = []
    for _ in range(count):
        h, w = rng.integers(0, largest + 1, 2)
        y, x = rng.integers(-3, height - 2), rng.integers(-3, width - 2)
        made.append(Window(int(x), int(y), rng.random((h, w)) < rng.choice([0, 0.5, 1])))
    return made


def full(masks, height, width):
    return np.array([mask.full(height, width) for mask in masks], bool).reshape(len(masks), height, width)


def dense_iou(pred, true):
    """(P, G) from full frames (N, H, W); 0 for two empty masks."""
    shared = np.einsum("phw,ghw->pg", pred.astype(int), true.astype(int))
    union = pred.sum((1, 2))[:, None] + true.sum((1, 2))[None, :] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def dense_assignment(values):
    """IoU of the pairs of the assignment with the largest sum, zeros included, and the pairs."""
    rows, columns = linear_sum_assignment(values, maximize=True)
    return values[rows, columns], list(zip(rows.tolist(), columns.tolist(), strict=True))
