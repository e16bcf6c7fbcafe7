"""Which masks meet, by how much, and the one-to-one assignment with the largest sum: sparse from end to end.

Only pairs that share a pixel are ever held, so 5,000 masks against 5,000 cost about as much as their pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from crowdmask.masks.rle import Window

MAX_PAIRS = 20_000_000
"""Most pairs of masks of one image whose windows meet: bounds the time."""

_CHUNK = 4_000_000
"""Pairs of windows that are compared together."""
_ROWS = 1000
"""Rows that are assigned together: the solver's time grows with rows times columns, however sparse they are."""


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a predicted and a true mask that share at least one pixel, ordered by prediction, then truth.

    Attributes:
        pred: int64 (E,), index of the prediction.
        true: int64 (E,), index of the true mask.
        shared: int64 (E,), pixels in both.
        pred_area: int64 (P,), pixels of every prediction.
        true_area: int64 (G,), pixels of every true mask.
    """

    pred: np.ndarray
    true: np.ndarray
    shared: np.ndarray
    pred_area: np.ndarray
    true_area: np.ndarray

    @cached_property
    def iou(self) -> np.ndarray:
        """float64 (E,), above 0."""
        return self.shared / (self.pred_area[self.pred] + self.true_area[self.true] - self.shared)

    @cached_property
    def assigned(self) -> np.ndarray:
        """int64, indices of the pairs of the assignment with the largest sum of IoU (DPMO-RPS, section 4.1)."""
        return assignment(self.pred, self.true, self.iou)

    @cached_property
    def segments(self) -> np.ndarray:
        """int64, indices of the pairs that panoptic quality matches: IoU above 1/2 (Kirillov et al. 2019).

        Disjoint masks have at most one such partner each. Of masks that overlap, the assignment with the largest sum
        among these pairs counts (our choice).
        """
        over = np.flatnonzero(self.iou > 0.5)
        return over[assignment(self.pred[over], self.true[over], self.iou[over])]


def overlaps(pred: Sequence[Window], true: Sequence[Window]) -> Overlaps:
    """Pairs of masks that share pixels.

    Args:
        pred: P masks; windows may lie anywhere and be larger than their masks.
        true: G masks.

    Raises:
        ValueError: the windows of more than `MAX_PAIRS` pairs meet.
    """
    found: list[tuple[int, int, int]] = []
    count = np.count_nonzero
    p_boxes, t_boxes = boxes(pred), boxes(true)
    for at_pred, at_true in _meeting(p_boxes, t_boxes):
        low = np.maximum(p_boxes[at_pred, :2], t_boxes[at_true, :2])
        high = np.minimum(p_boxes[at_pred, 2:], t_boxes[at_true, 2:])
        from_pred, to_pred = low - p_boxes[at_pred, :2], high - p_boxes[at_pred, :2]
        from_true, to_true = low - t_boxes[at_true, :2], high - t_boxes[at_true, :2]
        places = np.concatenate([from_pred, to_pred, from_true, to_true], axis=1).tolist()
        for i, j, (a, b, c, d, e, f, g, h) in zip(at_pred.tolist(), at_true.tolist(), places, strict=True):
            shared = count(pred[i].mask[b:d, a:c] & true[j].mask[f:h, e:g])
            if shared:
                found.append((i, j, int(shared)))
    found.sort()
    table = np.array(found, np.int64).reshape(-1, 3)
    return Overlaps(table[:, 0], table[:, 1], table[:, 2], areas(pred), areas(true))


def map_overlaps(pred: np.ndarray, true: np.ndarray) -> Overlaps:
    """The same of two label maps, from one count of the pairs of labels that meet in a pixel.

    Args:
        pred: Integers (H, W), 0 = background, P other values; index i is the i-th by ascending value.
        true: Integers (H, W) with G other values.

    Raises:
        ValueError: the maps differ in size.
    """
    if pred.shape != true.shape:
        raise ValueError(f"label maps of {pred.shape} and {true.shape} pixels")
    p_ids, p_rank, p_area = _ranks(pred)
    t_ids, t_rank, t_area = _ranks(true)
    both = (p_rank > 0) & (t_rank > 0)
    pairs = (p_rank[both] - 1) * np.int64(max(len(t_ids), 1)) + (t_rank[both] - 1)
    # A dense count for few pairs of labels, a sorted one for many: the matrix of 5,000 x 5,000 is never made.
    if len(p_ids) * len(t_ids) <= 4 * both.size:
        counts = np.bincount(pairs, minlength=1)
        keys = np.flatnonzero(counts)
        shared = counts[keys]
    else:
        keys, shared = np.unique(pairs, return_counts=True)
    return Overlaps(keys // max(len(t_ids), 1), keys % max(len(t_ids), 1), shared.astype(np.int64), p_area, t_area)


def _ranks(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascending ids, the map with rank + 1 in place of each id, and the area of each."""
    ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    some = ids > 0
    shift = len(ids) - int(some.sum())
    rank = np.maximum(inverse.reshape(-1).astype(np.int64) - shift + 1, 0)
    return ids[some], rank, counts[some].astype(np.int64)


def areas(masks: Sequence[Window]) -> np.ndarray:
    """Pixels of each mask, int64 (N,)."""
    return np.array([np.count_nonzero(mask.mask) for mask in masks], np.int64)


def boxes(masks: Sequence[Window]) -> np.ndarray:
    """Windows as int64 (N, 4): left, top, right, bottom, the last two excluded."""
    return np.array([(m.x0, m.y0, m.x0 + m.mask.shape[1], m.y0 + m.mask.shape[0]) for m in masks], np.int64).reshape(
        -1, 4
    )


def _meeting(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of boxes that share a pixel, a chunk at a time.

    The second boxes are put in classes of height, each at most twice as high as its lowest, and sorted within: one
    very high box then costs no comparison for the others.
    """
    total = 0
    if not len(first) or not len(second):
        return
    axis = int(np.ptp(second[:, 0]) < np.ptp(second[:, 1]))  # sweep along the axis on which they are spread more
    sizes = second[:, axis + 2] - second[:, axis]
    classes = np.ceil(np.log2(np.maximum(sizes, 1))).astype(int)
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        members = members[np.argsort(second[members, axis], kind="stable")]
        starts, longest = second[members, axis], int(sizes[members].max())
        begin = np.searchsorted(starts, first[:, axis] - longest, side="right")
        end = np.searchsorted(starts, first[:, axis + 2], side="left")
        lengths = np.maximum(end - begin, 0)
        cuts = np.searchsorted(np.cumsum(lengths), np.arange(_CHUNK, lengths.sum(), _CHUNK))
        for part in np.split(np.arange(len(first)), cuts):
            n = lengths[part]
            i = np.repeat(part, n)
            j = members[np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(begin[part], n)]
            meet = (np.maximum(first[i, :2], second[j, :2]) < np.minimum(first[i, 2:], second[j, 2:])).all(axis=1)
            total += int(np.count_nonzero(meet))
            if total > MAX_PAIRS:
                raise ValueError(f"the boxes of more than {MAX_PAIRS} pairs of masks meet in one image")
            yield i[meet], j[meet]


def assignment(row: np.ndarray, column: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The one-to-one choice among possible pairs with the largest sum of values: exact, without a dense matrix.

    Each row also gets a column of its own that stands for "no partner", so that the largest sum is a matching of all
    rows; scipy's sparse solver (Jonker and Volgenant 1987) finds it for some connected groups of pairs at a time.

    Args:
        row: int (E,), no pair twice.
        column: int (E,).
        value: float (E,), above 0.

    Returns:
        int64, ascending indices of the chosen pairs. Of several choices with the same sum one is taken, the same for
        the same input.
    """
    if not len(row):
        return np.zeros(0, np.int64)
    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    size = len(rows) + len(columns)
    graph = coo_matrix((np.ones(len(row), np.int8), (row, column + len(rows))), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[row], kind="stable")
    edges = np.flatnonzero(np.diff(group[row[order]], prepend=-1))
    lengths = np.diff(edges, append=len(order))
    alone = order[edges[lengths == 1]]  # pairs that no other pair competes with
    rest = order[np.repeat(lengths > 1, lengths)]
    chosen = [alone]
    if len(rest):
        groups = group[row[rest]]
        # Groups are never cut: a part ends with the first group that fills it.
        _, at = np.unique(groups, return_inverse=True)
        rows_before = np.concatenate([[0], np.cumsum(np.bincount(at, _shares(row[rest])))])
        part = np.floor(rows_before[at] / _ROWS).astype(np.int64)
        for some in np.split(rest, np.flatnonzero(np.diff(part)) + 1):
            chosen.append(some[_solved(row[some], column[some], value[some])])
    return np.sort(np.concatenate(chosen))


def _shares(row: np.ndarray) -> np.ndarray:
    """For each pair one over the number of pairs of its row: their sum over some whole rows is the number of rows."""
    _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def _solved(row: np.ndarray, column: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the chosen pairs, in one call of the solver."""
    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    n, m, own = len(rows), len(columns), np.arange(len(rows))
    # 1 is added to all: the solver takes 0 for no edge. Each choice has n edges, so the best one stays the best.
    weights = np.concatenate([np.asarray(value, np.float64) + 1.0, np.ones(n)])
    graph = coo_matrix((weights, (np.concatenate([row, own]), np.concatenate([column, m + own]))), shape=(n, m + n))
    i, j = min_weight_full_bipartite_matching(graph.tocsr(), maximize=True)
    taken = np.full(n, -1)
    taken[i] = j
    return np.flatnonzero(taken[row] == column)
