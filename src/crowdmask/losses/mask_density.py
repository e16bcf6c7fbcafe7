"""Density supervised by instance masks: each mask holds one person, the background nobody (DPMO-RPS eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Mode = Literal["block", "pixel", "bilinear"]

OUTSIDE = -1
"""Label of pixels that are neither background nor a head of the image: those of a mask whose point was cropped away,
and padding. They are left out (our choice: their people are counted elsewhere)."""


def masses(density_hw: Tensor, labels_hw: Tensor, people: int, mode: Mode) -> tuple[Tensor, Tensor]:
    """Density of each mask, (people,), and of the background, a scalar; time and memory follow the pixels.

    Modes (methods d.7): `pixel` spreads a block's density evenly over its pixels; `block` divides it among the masks
    in it by their pixels, so that only blocks without mask are background; `bilinear` enlarges the map and keeps its
    sum.

    Args:
        density_hw: (h, w), people a block.
        labels_hw: int64 (h * s, w * s) label map: 0 background, 1 to `people` the masks, `OUTSIDE` nothing of both.
        people: Number of masks.
        mode: How blocks and masks meet.

    Raises:
        ValueError: the label map is not a whole multiple of the density map.
    """
    h, w = density_hw.shape
    height, width = labels_hw.shape
    stride = height // h
    if (height, width) != (h * stride, w * stride):
        raise ValueError(f"a label map of {width} x {height} does not fit a density map of {w} x {h}")
    labels = torch.where(labels_hw < 0, people + 1, labels_hw)
    if mode == "bilinear":
        large = F.interpolate(density_hw[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
        large = large * (density_hw.sum() / (large.sum() + 1e-12))
        found = large.new_zeros(people + 2).index_add(0, labels.reshape(-1), large.reshape(-1))
        return found[1 : people + 1], found[0]
    block = torch.arange(h * w, device=labels.device).reshape(h, w)
    block = block.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    pair, pixels = torch.unique(block * (people + 2) + labels, return_counts=True)
    which, label = torch.div(pair, people + 2, rounding_mode="floor"), pair % (people + 2)
    share = pixels.to(density_hw) / stride**2
    if mode == "block":
        person = (label > 0).to(share)
        covered = share.new_zeros(h * w).index_add(0, which, share * person)
        share = torch.where(covered[which] > 0, share * person / covered[which].clamp(min=1e-12), share)
    found = density_hw.new_zeros(people + 2).index_add(0, label, share * density_hw.reshape(-1)[which])
    return found[1 : people + 1], found[0]


def mask_density_loss(
    density: Tensor, labels: Sequence[Tensor], people: Sequence[int], mode: Mode = "block"
) -> dict[str, Tensor]:
    """The two terms of the mask loss, each the mean over the batch.

    `mask`: mean over the masks of (density of the mask - 1)^2. `background`: (density of the background / people)^2,
    with one person at least. The paper's printed sum takes the background's square undivided, which is quadratic in all
    false mass of the image and drowns the other term; dividing is our choice (methods d.7).

    Args:
        density: (B, h, w), people a block.
        labels: B label maps; see `masses`.
        people: Number of masks of each image.
        mode: See `masses`.
    """
    inside, outside = [], []
    for one, map_hw, number in zip(density, labels, people, strict=True):
        mass, background = masses(one, map_hw, number, mode)
        inside.append((mass - 1).square().mean() if number else one.sum() * 0)
        outside.append((background / max(number, 1)).square())
    return {"mask": torch.stack(inside).mean(), "background": torch.stack(outside).mean()}
