"""The optimal-transport terms of DM-count, as EBC and ZIP may use them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crowdmask.losses.grid import cell_centres


@torch.no_grad()
def source_dual(source: Tensor, cost: Tensor, entropy: float = 10.0, rounds: int = 100) -> Tensor:
    """Dual of the source after Sinkhorn's iterations towards equally heavy points, (k,).

    In the logarithm: costs of squared pixels would underflow otherwise. Source: methods k.4.

    Args:
        source: (k,) masses, sum 1.
        cost: (m, k).
        entropy: Strength of the entropic term, in the cost's unit.
        rounds: Iterations.
    """
    kernel = -cost / entropy
    target = -torch.log(torch.tensor(float(len(cost)), dtype=cost.dtype, device=cost.device))
    mass = torch.log(source.clamp(min=torch.finfo(source.dtype).tiny))
    left, right = cost.new_zeros(len(cost)), cost.new_zeros(cost.shape[1])
    for _ in range(rounds):
        right = mass - torch.logsumexp(kernel + left[:, None], 0)
        left = target - torch.logsumexp(kernel + right[None], 1)
    return entropy * right


def transport_loss(density: Tensor, points_xy: Sequence[Tensor], stride: int) -> Tensor:
    """Optimal-transport term, summed over the images of a batch; images without points count nothing.

    Its gradient with respect to a block is beta / S - (density . beta) / S^2 with the source's dual beta and S the sum
    of the density. Source: methods k.4.

    Args:
        density: (B, h, w), not negative.
        points_xy: B times (m, 2), pixels of the input.
        stride: Pixels of the input a block.
    """
    total = density.new_zeros(())
    for one, points in zip(density, points_xy, strict=True):
        if len(points) == 0:
            continue
        flat = one.reshape(-1)
        fixed = flat.detach()
        sum_ = fixed.sum() + 1e-8
        centres = cell_centres(one.shape[0], one.shape[1], stride, fixed)
        cost = torch.cdist(points.to(fixed), centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        beta = source_dual(fixed / sum_, cost)
        total = total + (flat * (beta / sum_ - (fixed * beta).sum() / sum_**2)).sum()
    return total


def variation_loss(density: Tensor, counts: Tensor) -> Tensor:
    """Total variation between the two maps scaled to sum 1, times the true count, mean over the batch (methods k.4).

    Args:
        density: (B, h, w), not negative.
        counts: (B, h, w).
    """
    people = counts.sum((1, 2), keepdim=True)
    share = density / (density.sum((1, 2), keepdim=True) + 1e-8)
    difference = (share - counts / people.clamp(min=1e-8)).abs() * people
    return difference.sum((1, 2)).mean()
