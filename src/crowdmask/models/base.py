"""What every counting model takes, gives and can be asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Supervision = Literal["points", "masks", "boxes"]
"""What a model learns from beside its points: nothing, a mask of each head, or its box filled as if it were one."""

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet, red, green, blue in [0, 1]."""
SPREAD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet."""


@dataclass(frozen=True)
class Batch:
    """Crops of equal size with what is known of them.

    Attributes:
        images: float32 (B, 3, H, W), RGB normalised by `MEAN` and `SPREAD`; 0 where padded.
        points_xy: B times float32 (m, 2), pixels of the crop, inside of it.
        labels: B times int64 (H, W) label map: 0 background, i + 1 the mask of point i, -1 neither (a mask whose point
            is outside of the crop, and padding). None for supervision by points.
        valid: float32 (B, H, W): 0 where padded or cut out, else 1.
        names: B times split/image_id.
    """

    images: Tensor
    points_xy: Sequence[Tensor]
    labels: Sequence[Tensor] | None
    valid: Tensor
    names: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            points_xy=[points.to(device, non_blocking=True) for points in self.points_xy],
            labels=None if self.labels is None else [one.to(device, non_blocking=True) for one in self.labels],
            valid=self.valid.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        count: People.
        points_xy: float32 (n, 2), pixels of the image; None for a model that gives a density.
        scores: float32 (n,) probability of each point; None likewise.
        density_hw: float32 (h, w) people a block; None for a model that gives points.
        stride: Pixels of the image a block or cell.
    """

    count: float
    points_xy: np.ndarray | None = None
    scores: np.ndarray | None = None
    density_hw: np.ndarray | None = None
    stride: int = 1


class Counter(nn.Module, ABC):
    """A counting model.

    Attributes:
        multiple: Sides of an input must be whole multiples of this many pixels.
        gives_points: Whether it predicts points, else a density.
    """

    multiple: int
    gives_points: bool

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Any]:
        """Everything that losses and prediction need, of (B, 3, H, W) images with sides that are multiples."""

    @abstractmethod
    def losses(self, found: dict[str, Any], batch: Batch, supervision: Supervision, epoch: int) -> dict[str, Tensor]:
        """Named loss terms, unweighted scalars: exactly those that `weights` names.

        Args:
            found: What `forward` gave for the batch.
            batch: The batch, with labels unless the supervision is by points.
            supervision: What to learn from.
            epoch: From 0.
        """

    @abstractmethod
    def weights(self, supervision: Supervision, epoch: int) -> dict[str, float]:
        """Weight of each loss term in that epoch."""

    @abstractmethod
    def read(self, found: dict[str, Any], height: int, width: int) -> Prediction:
        """The prediction for one image (B = 1) whose unpadded size is given."""

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters that get the backbone's learning rate: those of `self.backbone`."""
        return list(self.backbone.parameters())  # type: ignore[operator, union-attr]

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        """Prediction for one image of any size, (3, H, W) normalised; call `eval()` before."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        return self.read(self(padded[None]), height, width)


def normalise(image_rgb: np.ndarray) -> Tensor:
    """float32 (3, H, W), normalised, of uint8 (H, W, 3)."""
    image = torch.from_numpy(np.ascontiguousarray(image_rgb)).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]
