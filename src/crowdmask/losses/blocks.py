"""Blockwise losses: EBC's classification of counts (CLIP-EBC) and the zero-inflated Poisson model (ZIP).

An image is cut into blocks of `stride` pixels; a model says how many heads each holds. Sums go over the blocks, means
over the images of the batch, as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-8


def block_counts(points_xy: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Heads in each block, float32 (height, width).

    A point belongs to the block of its pixel (rounded half up), one outside of the map to the block at its border.

    Args:
        points_xy: (m, 2), pixels of the input.
        height: Blocks.
        width: Blocks.
        stride: Pixels a block.
    """
    found = torch.zeros(height * width, device=points_xy.device)
    if len(points_xy):
        cell = torch.div(torch.floor(points_xy + 0.5), stride, rounding_mode="floor").long()
        x, y = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
        found.index_add_(0, y * width + x, torch.ones(len(cell), device=found.device))
    return found.reshape(height, width)


def bin_of(counts: Tensor, starts: Sequence[int]) -> Tensor:
    """Index of the bin that holds each rounded count, int64.

    Args:
        counts: Heads a block, any shape.
        starts: First count of each bin, rising, from 0; the last bin has no end.
    """
    edges = torch.tensor(starts[1:], device=counts.device, dtype=counts.dtype)
    return torch.bucketize(counts.round(), edges, right=True)


def expected_count(logits: Tensor, centres: Tensor) -> Tensor:
    """Density (B, h, w): sum of the bins' centres weighted by their probabilities (methods e.1).

    Args:
        logits: (B, n, h, w).
        centres: (n,) mean count of each bin.
    """
    return torch.einsum("bnhw,n->bhw", logits.softmax(1), centres.to(logits))


def class_loss(logits: Tensor, counts: Tensor, starts: Sequence[int]) -> Tensor:
    """Cross-entropy of the bins, summed over the blocks, mean over the batch (EBC's part of DACE)."""
    return F.cross_entropy(logits, bin_of(counts, starts), reduction="sum") / len(logits)


def block_error(density: Tensor, counts: Tensor, power: int = 1) -> Tensor:
    """Absolute (power 1) or squared (2) error of the blocks, summed, mean over the batch.

    Args:
        density: (B, h, w).
        counts: (B, h, w).
        power: 1 or 2.
    """
    return (density - counts).abs().pow(power).sum((1, 2)).mean()


def count_error(density: Tensor, counts: Tensor) -> Tensor:
    """Absolute error of the image's count, mean over the batch."""
    return (density.sum((1, 2)) - counts.sum((1, 2))).abs().mean()


def multiscale_error(
    density: Tensor, counts: Tensor, scales: Sequence[int] = (1, 2, 4), least: float = 0.0, most: float = 1.0
) -> Tensor:
    """ZIP's msmae: absolute errors of average-pooled maps, summed over their cells, mean over the batch.

    A scale s weighs `least + (most - least) / 2 ** log2(largest / s)`. Source: methods e.2. Sides that a scale does not
    divide are cut, as average pooling does.
    """
    total = density.new_zeros(())
    for s in scales:
        weight = least + (most - least) * s / max(scales)
        error = F.avg_pool2d(density[:, None], s) - F.avg_pool2d(counts[:, None].to(density), s)
        total = total + weight * error.abs().sum((1, 2, 3)).mean()
    return total


def zip_parts(zero_logits: Tensor, bin_logits: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Probability that a block may hold somebody, and the Poisson rate of one that does: (B, h, w) each.

    Args:
        zero_logits: (B, 2, h, w): channel 0 = nobody can be there, 1 = somebody can.
        bin_logits: (B, n, h, w) of the bins above zero.
        centres: (n,) mean count of these bins.
    """
    return zero_logits.softmax(1)[:, 1], expected_count(bin_logits, centres)


def zip_loss(possible: Tensor, rate: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of the zero-inflated Poisson model, summed over the blocks, mean over the batch.

    The constant log(count!) is left out, as published. Source: methods e.2.

    Args:
        possible: (B, h, w) from `zip_parts`.
        rate: (B, h, w) from `zip_parts`.
        counts: (B, h, w) heads a block.
    """
    nobody = -torch.log(1 - possible + possible * torch.exp(-rate) + TINY)
    somebody = -torch.log(possible + TINY) - (counts * torch.log(rate + TINY) - rate)
    return torch.where(counts > 0, somebody, nobody).sum((1, 2)).mean()


def positive_class_loss(bin_logits: Tensor, counts: Tensor, starts: Sequence[int]) -> Tensor:
    """Cross-entropy of the bins above zero on the blocks that hold somebody, summed, divided by the batch size (ZIP).

    Args:
        bin_logits: (B, n, h, w) of the bins above zero.
        counts: (B, h, w).
        starts: First count of each bin, {0} included.
    """
    label = bin_of(counts, starts) - 1
    return F.cross_entropy(bin_logits, label, ignore_index=-1, reduction="sum") / len(bin_logits)
