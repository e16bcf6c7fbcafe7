"""PET's quadtree splitter: whether a region of the image is searched with sparse or with dense queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crowdmask.models.pet_windows import Size, enlarge

REGION: Size = (64, 128)
"""Pixels of a region, height and width."""
MEMORY_STRIDE = 8
"""Pixels of the image a cell of the encoded map."""


@dataclass(frozen=True)
class Level:
    """Queries on a grid.

    Attributes:
        name: Of the level.
        number: 0 sparse, 1 dense.
        stride: Pixels between queries.
        window: Queries of a window of the decoder, height and width.
        threshold: A query is active in training where the level's split value is above.
    """

    name: str
    number: int
    stride: int
    window: Size
    threshold: float

    @property
    def memory_window(self) -> Size:
        """Cells of the encoded map in the same window."""
        return self.window[0] * self.stride // MEMORY_STRIDE, self.window[1] * self.stride // MEMORY_STRIDE

    @property
    def region_windows(self) -> Size:
        """Windows of a region, down and right."""
        return REGION[0] // (self.window[0] * self.stride), REGION[1] // (self.window[1] * self.stride)

    @property
    def region_queries(self) -> Size:
        """Queries of a region, down and right."""
        return REGION[0] // self.stride, REGION[1] // self.stride


SPARSE = Level("sparse", 0, 8, (8, 16), 0.0)
DENSE = Level("dense", 1, 4, (4, 8), 0.5)
LEVELS = (SPARSE, DENSE)


class Splitter(nn.Module):
    """Mean of the encoded map over each region, one linear unit, sigmoid: the probability that it is dense.

    Padded cells are left out of the mean (our choice: the published one averages all).

    Args:
        width: Channels of the encoded map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.unit = nn.Conv2d(width, 1, 1)

    def forward(self, memory: Tensor, valid: Tensor) -> Tensor:
        """Split values, float32 (B, H / 64, W / 128).

        Args:
            memory: (B, width, H / 8, W / 8).
            valid: bool (B, H / 8, W / 8).
        """
        size = REGION[0] // MEMORY_STRIDE, REGION[1] // MEMORY_STRIDE
        weight = valid[:, None].to(memory)
        share = F.avg_pool2d(weight, size)
        mean = F.avg_pool2d(memory * weight, size) / share.clamp(min=1 / (size[0] * size[1]))
        return self.unit(mean)[:, 0].float().sigmoid()


def belongs(split: Tensor, level: Level) -> Tensor:
    """Regions that are searched with the level's queries, bool like `split`: each belongs to exactly one level.

    A region is dense where its value is above 0.5, else sparse (methods d.1; 0.5 itself: our choice).
    """
    dense = split > 0.5
    return dense if level is DENSE else ~dense


def active(split: Tensor, level: Level) -> Tensor:
    """Queries that are active in training, bool (B, h, w): dense: `split` above 0.5; sparse: `1 - split` above 0."""
    value = split if level is DENSE else 1 - split
    return enlarge(value > level.threshold, level.region_queries)


def windows_to_search(split: Tensor, valid: Tensor, level: Level) -> Tensor:
    """Numbers of the decoder's windows with queries to evaluate at test time, int64 (n,); none that is all padding.

    Args:
        split: (B, H / 64, W / 128).
        valid: bool (B, h, w) of the level's queries.
        level: Which.
    """
    chosen = enlarge(belongs(split, level), level.region_windows)
    seen = F.max_pool2d(valid[:, None].float(), level.window)[:, 0] > 0
    return torch.nonzero((chosen & seen).flatten())[:, 0]
