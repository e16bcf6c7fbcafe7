"""P2R: one score for each cell of 4 x 4 pixels; a positive one is a head. The base of XMask, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crowdmask.losses.assignment import by_masks
from crowdmask.losses.grid import cell_centres
from crowdmask.losses.p2r import p2r_loss
from crowdmask.models.backbone import Backbone
from crowdmask.models.base import Batch, Counter, Prediction, Supervision

STRIDE = 4


class Neck(nn.Module):
    """Features at strides 8 and 16 as one map at stride 8; no norm, no activation (methods f.1).

    Args:
        channels: Of the backbone, by stride.
        width: Of the map.
    """

    def __init__(self, channels: dict[int, int], width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels[8], width, 1)
        self.coarse = nn.Conv2d(channels[16], width, 1)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: dict[int, Tensor]) -> Tensor:
        """(B, width, H / 8, W / 8)."""
        fine, coarse = self.fine(features[8]), self.coarse(features[16])
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.smooth(fine + coarse)


class P2R(Counter):
    """P2R (methods f.1): VGG16-BN with width 256 has 16.774 million parameters.

    Args:
        backbone: Features.
        width: Channels of neck and head.
    """

    multiple = 32
    gives_points = True

    def __init__(self, backbone: Backbone, width: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Neck(backbone.channels, width)
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 8, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, images: Tensor) -> dict[str, Any]:
        """`logits` (B, H / 4, W / 4): the second map less the first; `features` of the neck, at stride 8."""
        features = self.neck(self.backbone(images))
        pair = self.head(features)
        return {"logits": pair[:, 1] - pair[:, 0], "features": features}

    def losses(self, found: dict[str, Any], batch: Batch, supervision: Supervision, epoch: int) -> dict[str, Tensor]:
        """`p2r`, with masks matched by them (our extension of DPMO-RPS eq. 4 to 6 to P2R's cells)."""
        logits = found["logits"].float()
        targets = None
        if supervision != "points":
            assert batch.labels is not None
            targets = [
                mask_targets(one, points, labels)
                for one, points, labels in zip(logits, batch.points_xy, batch.labels, strict=True)
            ]
        valid = F.avg_pool2d(batch.valid[:, None], STRIDE)[:, 0]
        return {"p2r": p2r_loss(logits, batch.points_xy, STRIDE, valid=(valid >= 0.5).float(), targets=targets)}

    def weights(self, supervision: Supervision, epoch: int) -> dict[str, float]:
        """The only term has weight 1."""
        return {"p2r": 1.0}

    def read(self, found: dict[str, Any], height: int, width: int) -> Prediction:
        """A head in the middle of each positive cell that begins within the image."""
        logits = found["logits"][0, : -(-height // STRIDE), : -(-width // STRIDE)].float().cpu()
        rows, columns = torch.nonzero(logits > 0, as_tuple=True)
        points = torch.stack([columns, rows], 1).numpy() * STRIDE + (STRIDE - 1) / 2
        points = np.clip(points, 0, [width - 1, height - 1]).astype(np.float32)
        scores = logits[rows, columns].sigmoid().numpy()
        return Prediction(float(len(points)), points, scores, stride=STRIDE)


@torch.no_grad()
def mask_targets(logits_hw: Tensor, points_xy: Tensor, labels_hw: Tensor) -> Tensor:
    """Cell that is to answer for each point by the masks, int64 (m,); the number of cells where none is left."""
    h, w = logits_hw.shape
    cells = cell_centres(h, w, STRIDE, logits_hw.float()).cpu().numpy()
    chance = logits_hw.sigmoid().reshape(-1).cpu().numpy()
    found = by_masks(cells, chance, points_xy.cpu().numpy(), labels_hw.cpu().numpy())
    return torch.from_numpy(np.where(found < 0, h * w, found)).to(logits_hw.device)
