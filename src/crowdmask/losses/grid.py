"""Cells of an output map and the points of an image: where a cell lies, and which point is nearest to it."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 24
"""Most distances held at a time (64 MB in float32)."""


def cell_centres(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """Centres (x, y) of the cells of a map, row by row: (height * width, 2), pixels of the input.

    Cell k covers the pixels `stride * k` to `stride * k + stride - 1`, whose middle is `stride * k + (stride - 1) / 2`.
    """
    x = torch.arange(width, device=like.device, dtype=like.dtype) * stride + (stride - 1) / 2
    y = torch.arange(height, device=like.device, dtype=like.dtype) * stride + (stride - 1) / 2
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], 1)


def nearest_point(centres_xy: Tensor, points_xy: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest point of each cell, and its distance; of equally near points the first.

    Args:
        centres_xy: (n, 2), pixels.
        points_xy: (m, 2), pixels, m > 0.

    Returns:
        int64 (n,) index of the point and (n,) distance. Memory is bounded: never all n x m distances at once.
    """
    owner = torch.empty(len(centres_xy), dtype=torch.int64, device=centres_xy.device)
    distance = torch.empty(len(centres_xy), dtype=centres_xy.dtype, device=centres_xy.device)
    step = max(1, CHUNK // len(points_xy))
    for start in range(0, len(centres_xy), step):
        part = centres_xy[start : start + step]
        # Exact differences: the expanded square of cdist's fast mode loses small distances.
        found = torch.cdist(part, points_xy, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        owner[start : start + step], distance[start : start + step] = found.indices, found.values
    return owner, distance


def first_of_least(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Index of the smallest value of each group, the first of equal ones; `len(values)` for a group without any.

    Args:
        values: (n,).
        group: int64 (n,), each from 0 to groups - 1.
        groups: How many.

    Returns:
        int64 (groups,).
    """
    least = values.new_full((groups,), torch.inf).scatter_reduce(0, group, values, "amin")
    place = torch.arange(len(values), device=values.device)
    place = torch.where(values == least[group], place, len(values))
    return place.new_full((groups,), len(values)).scatter_reduce(0, group, place, "amin")
