"""Density models: people a block, by classified counts (EBC), a zero-inflated Poisson model (ZIP), or plainly.

The published models hang their heads on other backbones (VGG19, MobileNet, CLIP). Here all share the neck of P2R, one
3 x 3 and one 1 x 1 convolution (our choice), so that they differ by what they are taught alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crowdmask.losses import blocks, transport
from crowdmask.losses.mask_density import Mode, mask_density_loss
from crowdmask.models.backbone import Backbone
from crowdmask.models.base import Batch, Counter, Prediction, Supervision
from crowdmask.models.p2r import Neck

Head = Literal["ebc", "zip", "density"]
CountLoss = Literal["mae", "mse", "dmcount"]

STARTS: dict[int, tuple[int, ...]] = {8: (0, 1, 2, 3, 4), 16: (*range(11), 11, 13, 15)}
"""First count of each bin by block size (methods e.1, e.2: ShanghaiTech A)."""


@dataclass(frozen=True)
class Terms:
    """What a density model is taught beside its own likelihood.

    Attributes:
        count_loss: Of EBC and the plain head: error of the blocks, its square, or DM-count's terms. None = the error
            for EBC, its square for the plain head: most blocks hold nobody, so the least error alone is a map of zeros.
        multiscale: Weight of ZIP's multi-scale error.
        mask: Weight of (density of a mask - 1)^2.
        background: Weight of (density of the background / people)^2.
        mode: How blocks and masks meet.
    """

    count_loss: CountLoss | None = None
    multiscale: float = 1.0
    mask: float = 0.1
    background: float = 0.1
    mode: Mode = "block"


def bin_centres(counts: Iterable[np.ndarray], starts: Sequence[int]) -> tuple[float, ...]:
    """Mean of the block counts in each bin; the first count of a bin that nothing falls into.

    Args:
        counts: Block counts of the training images.
        starts: First count of each bin.
    """
    sums, numbers = np.zeros(len(starts)), np.zeros(len(starts))
    for one in counts:
        values = np.asarray(one, float).ravel()
        place = np.searchsorted(starts, np.round(values), side="right") - 1
        sums += np.bincount(place, values, len(starts))
        numbers += np.bincount(place, minlength=len(starts))
    return tuple(np.where(numbers > 0, sums / np.maximum(numbers, 1), starts).tolist())


class DensityCounter(Counter):
    """EBC, ZIP or a plain density head.

    Args:
        backbone: Features.
        head: Which of them.
        centres: Mean count of each bin, {0} included; see `bin_centres`. Not used by the plain head.
        width: Channels of the neck; the head has half as many.
        stride: Block size, 8 or 16 pixels.
        terms: What it is taught beside.
    """

    multiple = 32
    gives_points = False
    centres: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        centres: Sequence[float] = (),
        width: int = 256,
        stride: int = 8,
        terms: Terms = Terms(),
    ) -> None:
        super().__init__()
        if head != "density" and len(centres) != len(STARTS[stride]):
            raise ValueError(f"{len(centres)} bin centres for the {len(STARTS[stride])} bins of blocks of {stride}")
        self.backbone, self.kind, self.stride, self.terms = backbone, head, stride, terms
        self.count_loss = terms.count_loss or ("mse" if head == "density" else "mae")
        self.starts = STARTS[stride]
        self.neck = Neck(backbone.channels, width)
        channels = {"ebc": len(self.starts), "zip": len(self.starts) + 1, "density": 1}[head]
        self.head = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, channels, 1),
        )
        if head == "density":
            # A softplus of 0 would begin with 0.7 people a block, and learn to be blind before it learns to see.
            nn.init.constant_(self.head[3].bias, -3.0)  # type: ignore[arg-type]
        self.register_buffer("centres", torch.tensor(list(centres), dtype=torch.float32))

    def forward(self, images: Tensor) -> dict[str, Any]:
        """`density` (B, H / stride, W / stride) and what the losses need."""
        features = self.neck(self.backbone(images))
        if self.stride == 16:
            features = F.avg_pool2d(features, 2)
        out = self.head(features).float()
        if self.kind == "ebc":
            return {"logits": out, "density": blocks.expected_count(out, self.centres)}
        if self.kind == "zip":
            possible, rate = blocks.zip_parts(out[:, :2], out[:, 2:], self.centres[1:])
            return {"logits": out, "possible": possible, "rate": rate, "density": possible * rate}
        return {"density": F.softplus(out[:, 0])}

    def losses(self, found: dict[str, Any], batch: Batch, supervision: Supervision, epoch: int) -> dict[str, Tensor]:
        """The model's own terms and, where there are masks or boxes, `mask` and `background` (DPMO-RPS eq. 3)."""
        density = found["density"]
        h, w = density.shape[1:]
        counts = torch.stack([blocks.block_counts(points, h, w, self.stride) for points in batch.points_xy])
        terms: dict[str, Tensor] = {}
        if self.kind == "ebc":
            terms["class"] = blocks.class_loss(found["logits"], counts, self.starts)
        if self.kind == "zip":
            terms["class"] = blocks.positive_class_loss(found["logits"][:, 2:], counts, self.starts)
            terms["likelihood"] = blocks.zip_loss(found["possible"], found["rate"], counts)
            terms["multiscale"] = blocks.multiscale_error(density, counts)
            terms["count"] = blocks.count_error(density, counts)
        elif self.count_loss == "dmcount":
            terms["transport"] = transport.transport_loss(density, batch.points_xy, self.stride)
            terms["variation"] = transport.variation_loss(density, counts)
            terms["count"] = blocks.count_error(density, counts)
        else:
            terms["blocks"] = blocks.block_error(density, counts, 1 if self.count_loss == "mae" else 2)
            if self.kind == "density":
                terms["count"] = blocks.count_error(density, counts)
        if supervision != "points":
            assert batch.labels is not None
            people = [len(points) for points in batch.points_xy]
            terms |= mask_density_loss(density, batch.labels, people, self.terms.mode)
        return terms

    def weights(self, supervision: Supervision, epoch: int) -> dict[str, float]:
        """As published (methods e.1, e.2, k.4); those of the masks are settings."""
        found = {"class": 1.0} if self.kind != "density" else {}
        if self.kind == "zip":
            found |= {"likelihood": 1.0, "multiscale": self.terms.multiscale, "count": 1.0}
        elif self.count_loss == "dmcount":
            found |= {"transport": 0.1, "variation": 0.01, "count": 1.0}
        else:
            found |= {"blocks": 1.0} if self.kind == "ebc" else {"blocks": 1.0, "count": 0.1}
        if supervision != "points":
            found |= {"mask": self.terms.mask, "background": self.terms.background}
        return found

    def read(self, found: dict[str, Any], height: int, width: int) -> Prediction:
        """Density of the blocks that begin within the image, and its sum."""
        density = found["density"][0, : -(-height // self.stride), : -(-width // self.stride)].float().cpu()
        return Prediction(float(density.sum()), density_hw=density.numpy(), stride=self.stride)
