"""Point-to-region loss (P2R): the cells around each point are its region, and one of them is to answer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from crowdmask.losses.grid import cell_centres, first_of_least, nearest_point

REACH_PX = 96.0
"""A cell farther from every point belongs to no region; also the largest scale of a region, pixels."""
SMALLEST_PX = 8.0
"""Smallest scale of a region, pixels."""


@dataclass(frozen=True)
class Regions:
    """The cells of one image by the point that they belong to.

    Attributes:
        owner: int64 (n,), index of the point; the number of points where a cell is in no region.
        target: int64 (m,), cell that is to answer for each point; n where the point has no region.
    """

    owner: Tensor
    target: Tensor


def regions(logits_hw: Tensor, points_xy: Tensor, stride: int, distance_weight: float = 8.0) -> Regions:
    """Regions of the points, and the cell of each that costs least: P2R's matching.

    A cell belongs to the nearest point within `REACH_PX`. Of a region with scale rho (its largest distance, from
    `SMALLEST_PX` to `REACH_PX`) the cell with the smallest `distance_weight * distance / rho - logit` is the target.
    No gradient. Source: methods f.2, steps 1 to 3.

    Args:
        logits_hw: (h, w) scores.
        points_xy: (m, 2), pixels of the input.
        stride: Pixels of the input for a cell.
        distance_weight: Of the distance in the cost.
    """
    h, w = logits_hw.shape
    n, m = h * w, len(points_xy)
    logits = logits_hw.detach().reshape(-1)
    if m == 0:
        return Regions(torch.zeros_like(logits, dtype=torch.int64), logits.new_zeros(0, dtype=torch.int64))
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    points = points_xy.detach().to(logits.device, kind)
    owner, distance = nearest_point(cell_centres(h, w, stride, points), points)
    owner = torch.where(distance < REACH_PX, owner, m)
    scale = distance.new_zeros(m + 1).scatter_reduce(0, owner, distance, "amax").clamp(SMALLEST_PX, REACH_PX)
    cost = distance_weight * distance / scale[owner] - logits.to(kind)
    return Regions(owner, first_of_least(cost, owner, m + 1)[:m].clamp(max=n))


def p2r_image_loss(
    logits_hw: Tensor,
    points_xy: Tensor,
    stride: int = 4,
    confident: Tensor | None = None,
    valid_hw: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """Loss of one image, a scalar.

    Cross-entropy of all cells, targets with weight 2 and others with 1; its mean counts every cell. Without points:
    half of the cross-entropy with nothing. Source: methods f.2, steps 4 and 5.

    Args:
        logits_hw: (h, w) scores.
        points_xy: (m, 2), pixels of the input.
        stride: Pixels of the input for a cell.
        confident: bool (m,); the region of a point that is not confident has weight 0. None = all are.
        valid_hw: (h, w) factor of the weights, 0 where the input was cut out; not used without points, as published.
        target: int64 (m,), cells that are to answer for the points instead of P2R's own matching (the cell count where
            a point has none), for mask-supervised matching.
    """
    flat = logits_hw.reshape(-1)
    if len(points_xy) == 0:
        return 0.5 * F.softplus(flat).mean()
    found = regions(logits_hw, points_xy, stride)
    wanted = flat.new_zeros(len(flat) + 1)
    wanted[found.target if target is None else target] = 1
    wanted = wanted[:-1]
    weight = 1 + wanted
    if confident is not None:
        known = torch.cat([confident.to(flat.device, torch.bool), confident.new_ones(1, dtype=torch.bool)])
        weight = weight * known[found.owner]
    if valid_hw is not None:
        weight = weight * valid_hw.reshape(-1)
    return (weight * F.binary_cross_entropy_with_logits(flat, wanted, reduction="none")).mean()


def p2r_loss(
    logits: Tensor,
    points_xy: Sequence[Tensor],
    stride: int = 4,
    confident: Sequence[Tensor] | None = None,
    valid: Tensor | None = None,
    targets: Sequence[Tensor] | None = None,
) -> Tensor:
    """Mean of `p2r_image_loss` over a batch.

    Args:
        logits: (B, h, w) scores.
        points_xy: B times (m, 2), pixels of the input.
        stride: Pixels of the input for a cell.
        confident: B times bool (m,).
        valid: (B, h, w) factor of the weights.
        targets: B times int64 (m,).

    Raises:
        ValueError: not one entry of each for every image.
    """
    if len({len(logits), *(len(x) for x in (points_xy, confident, valid, targets) if x is not None)}) > 1:
        raise ValueError("not one entry of points, confidences, cut-outs and targets for every image")
    return torch.stack(
        [
            p2r_image_loss(
                logits[i],
                points_xy[i],
                stride,
                None if confident is None else confident[i],
                None if valid is None else valid[i],
                None if targets is None else targets[i],
            )
            for i in range(len(logits))
        ]
    ).mean()
