"""PET: point queries on two grids, a sparse and a dense one, and a splitter that says where to use which.

With supervision by masks or boxes its queries are matched by them: that is OPET of DPMO-RPS. Sources: methods d.1, d.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crowdmask.losses import pet as loss
from crowdmask.models.backbone import Backbone
from crowdmask.models.base import Batch, Counter, Prediction, Supervision
from crowdmask.models.pet_splitter import (
    DENSE,
    LEVELS,
    MEMORY_STRIDE,
    REGION,
    SPARSE,
    Level,
    Splitter,
    active,
    belongs,
    windows_to_search,
)
from crowdmask.models.pet_transformer import HEAD_WIDTH, Decoder, Encoder, Heads, in_chunks
from crowdmask.models.pet_windows import enlarge, merge, partition, phases, query_phases, sine

REACH_PX = 256.0
"""Largest offset of a point from its query. Published: the crop's side, which is 256, and the same in pixels at test
time; that it stays 256 for crops of another size is our choice."""
SPLIT_EPOCH = 5
"""First epoch whose losses follow the splitter."""
LEAST_CHANCE = 0.5
"""A query is a person above this probability."""


class Pyramid(nn.Module):
    """Features at strides 4 and 8, each with what coarser ones know (FPN), and a projection of each.

    1x1 lateral convolutions, the coarser map added by nearest neighbour, 3x3 smoothing, 1x1 projection. The published
    network also smooths at stride 16, 590,080 parameters at width 256, and uses it nowhere: left out.

    Args:
        channels: Of the backbone, by stride.
        width: Of the maps.
    """

    def __init__(self, channels: dict[int, int], width: int) -> None:
        super().__init__()
        self.lateral4, self.lateral8, self.lateral16 = (nn.Conv2d(channels[s], width, 1) for s in (4, 8, 16))
        self.smooth4, self.smooth8 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.project4, self.project8 = (nn.Conv2d(width, width, 1) for _ in range(2))

    def forward(self, features: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, width, H / 4, W / 4) and (B, width, H / 8, W / 8)."""
        sum8 = self.lateral8(features[8]) + F.interpolate(self.lateral16(features[16]), scale_factor=2.0)
        sum4 = self.lateral4(features[4]) + F.interpolate(sum8, scale_factor=2.0)
        return self.project4(self.smooth4(sum4)), self.project8(self.smooth8(sum8))


@dataclass(frozen=True)
class Candidates:
    """Points with what a later stage may choose by.

    Attributes:
        points_xy: float32 (n, 2), pixels of the image.
        scores: float32 (n,) probability of a person.
        levels: int64 (n,): 0 = found by a sparse query, 1 = by a dense one.
        features: float32 (n, 2 * width) at the points, see `features_at`.
    """

    points_xy: np.ndarray
    scores: np.ndarray
    levels: np.ndarray
    features: np.ndarray


class Pet(Counter):
    """PET; OPET where it learns from masks or boxes.

    With VGG16-BN and width 256 it has 20,318,793 parameters, 20,908,873 with the smoothing that `Pyramid` leaves out.

    Args:
        backbone: Features.
        width: Hidden size, a multiple of 32; an attention head has 32 channels, a feed-forward net twice the width.
        dropout: Of the transformer.

    Raises:
        ValueError: no such width.
    """

    multiple = 256
    gives_points = True

    def __init__(self, backbone: Backbone, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        if width < 1 or width % HEAD_WIDTH:
            raise ValueError(f"a hidden size of {width}: not a multiple of {HEAD_WIDTH}")
        self.backbone = backbone
        self.pyramid = Pyramid(backbone.channels, width)
        self.encoder = Encoder(width, dropout)
        self.splitter = Splitter(width)
        self.decoder = Decoder(width, dropout)
        self.heads = nn.ModuleDict({level.name: Heads(width) for level in LEVELS})
        for module in (self.encoder, self.decoder):
            for weight in module.parameters():
                if weight.dim() > 1:
                    nn.init.xavier_uniform_(weight)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> dict[str, Any]:
        """Tensors, image by image.

        In training all queries are decoded, else those of the windows that the splitter gives to their level: the
        others have 0 everywhere.

        Args:
            images: (B, 3, H, W), sides multiples of 256.
            valid: bool (B, H, W), False where padded. None = wherever an image is not 0 in all channels: no pixel of
                8 bits is normalised to that, and batches are padded with it.

        Returns:
            `features4` and `features8` (B, width, H / stride, W / stride) of the pyramid, `memory` like the second,
            encoded; `valid`; `split` (B, H / 64, W / 128) probability that a region is dense; of each level, `sparse`
            (stride 8) and `dense` (stride 4), `_logits` of nobody and of a person and `_xy`, predicted points in
            pixels, all float32 (B, 2, H / stride, W / stride); `complete` bool (B,), whether all were decoded.

        Raises:
            ValueError: sides that are no multiples.
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise ValueError(f"an input of {width} x {height} pixels: sides must be multiples of {self.multiple}")
        valid = (images != 0).any(1) if valid is None else valid.bool()
        features4, features8 = self.pyramid(self.backbone(images))
        seen = valid[:, ::MEMORY_STRIDE, ::MEMORY_STRIDE]
        position = self._memory_position(valid, features8)
        memory = self.encoder(features8, position, None if bool(seen.all()) else seen)
        found = {
            "features4": features4,
            "features8": features8,
            "memory": memory,
            "valid": valid,
            "split": self.splitter(memory, seen),
            "complete": torch.full((len(images),), self.training, device=images.device),
        }
        for level in LEVELS:
            which = None
            if not self.training:
                which = windows_to_search(found["split"], valid[:, :: level.stride, :: level.stride], level)
            found |= self.decode(found, level, which)
        return found

    def _memory_position(self, valid: Tensor, like: Tensor) -> Tensor:
        """(B, width, H / 8, W / 8)."""
        y, x = phases(valid[:, ::MEMORY_STRIDE, ::MEMORY_STRIDE])
        return sine(y, x, like.shape[1]).permute(0, 3, 1, 2).to(like)

    def decode(self, found: dict[str, Any], level: Level, which: Tensor | None = None) -> dict[str, Tensor]:
        """`_logits` and `_xy` of a level, see `forward`.

        Args:
            found: What `forward` makes before.
            level: Which.
            which: int64 (n,) windows whose queries are wanted; None = all.
        """
        maps = found[f"features{level.stride}"]
        batch, width, h, w = maps.shape
        valid = found["valid"][:, :: level.stride, :: level.stride]
        seen = found["valid"][:, ::MEMORY_STRIDE, ::MEMORY_STRIDE]
        full = bool(found["valid"].all())
        place = query_phases(found["valid"], level.stride)
        memory_place = torch.stack(phases(seen), 1)

        def step(part: Tensor | None) -> Tensor:
            def cut(x: Tensor) -> Tensor:
                return partition(x, level.window, part)

            def cut_memory(x: Tensor) -> Tensor:
                return partition(x, level.memory_window, part)

            def encode(phase: Tensor) -> Tensor:
                return sine(phase[..., 0], phase[..., 1], width).to(maps)

            queries = self.decoder(
                cut(maps),
                encode(cut(place)),
                None if full else cut(valid[:, None])[..., 0],
                cut_memory(found["memory"]),
                encode(cut_memory(memory_place)),
                None if full else cut_memory(seen[:, None])[..., 0],
            )
            return self.heads[level.name](queries)

        if which is not None and len(which) == 0:
            out = torch.zeros(batch, 4, h, w, device=maps.device)
        else:
            out = merge(in_chunks(step, which, maps, level.window), level.window, (batch, h, w), which)
        grid = torch.stack(torch.meshgrid(*(torch.arange(n, device=maps.device) for n in (w, h)), indexing="xy"))
        grid = (grid * level.stride + level.stride // 2).float()
        return {f"{level.name}_logits": out[:, :2], f"{level.name}_xy": grid + REACH_PX * out[:, 2:]}

    def losses(self, found: dict[str, Any], batch: Batch, supervision: Supervision, epoch: int) -> dict[str, Tensor]:
        """`class_` and `points_` of `sparse` and `dense`, and `splitter`; see `crowdmask.losses.pet`."""
        if not bool(found["complete"].all()):
            found = found | self.decode(found, SPARSE) | self.decode(found, DENSE)
        split, valid = found["split"], found["valid"] & (batch.valid > 0)
        labels = None
        if supervision != "points":
            assert batch.labels is not None
            labels = batch.labels
        distance = [loss.nearest_distance(points) for points in batch.points_xy]
        terms = {}
        for level in LEVELS:
            logits, xy = (found[f"{level.name}_{key}"].flatten(2).transpose(1, 2) for key in ("logits", "xy"))
            counted = valid[:, :: level.stride, :: level.stride].flatten(1)
            wanted, goals = loss.match(xy, logits.softmax(2)[..., 1], counted, batch.points_xy, labels)
            chosen = active(split, level).flatten(1) if epoch >= SPLIT_EPOCH else None
            members = loss.groups(counted, chosen, distance)
            terms[f"class_{level.name}"] = loss.class_loss(logits, wanted, members)
            size = batch.images.shape[-2], batch.images.shape[-1]
            terms[f"points_{level.name}"] = loss.point_loss(xy, goals, wanted, members, size)
        regions = F.max_pool2d(valid[:, None].float(), REGION)[:, 0] > 0
        return terms | {"splitter": loss.splitter_loss(split, regions, distance)}

    def weights(self, supervision: Supervision, epoch: int) -> dict[str, float]:
        """1 for classes, 5 for points, 0.1 for the splitter from epoch 5 on, 0 before."""
        found: dict[str, float] = {}
        for level in LEVELS:
            found |= {f"class_{level.name}": 1.0, f"points_{level.name}": 5.0}
        return found | {"splitter": 0.1 if epoch >= SPLIT_EPOCH else 0.0}

    def read(self, found: dict[str, Any], height: int, width: int) -> Prediction:
        """The points of both levels: queries of the regions that are their level's, more probable than one half.

        Queries of cells that begin outside of the image are left out; points beyond its border are put onto it (our
        choices).
        """
        points, scores, _ = self._points(found, height, width)
        return Prediction(float(len(points)), points.cpu().numpy(), scores.cpu().numpy())

    def _points(self, found: dict[str, Any], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points, scores and levels of one image."""
        parts = []
        for level in LEVELS:
            chance = found[f"{level.name}_logits"][0].detach().float().softmax(0)[1]
            keep = (chance > LEAST_CHANCE) & enlarge(belongs(found["split"][:1], level), level.region_queries)[0]
            keep &= found["valid"][0, :: level.stride, :: level.stride]
            keep[-(-height // level.stride) :] = False
            keep[:, -(-width // level.stride) :] = False
            xy = found[f"{level.name}_xy"][0].detach().float()[:, keep].T
            xy = torch.minimum(xy.clamp(min=0), xy.new_tensor([width - 1, height - 1]))
            parts.append((xy, chance[keep], torch.full((len(xy),), level.number, device=xy.device)))
        points, scores, levels = (torch.cat(part) for part in zip(*parts, strict=True))
        return points, scores, levels

    def candidates(self, found: dict[str, Any], height: int, width: int) -> Candidates:
        """The points of `read`, in its order, with level and features.

        Args:
            found: What `forward` gave for one image (B = 1).
            height: Of the image without padding.
            width: Likewise.
        """
        points, scores, levels = self._points(found, height, width)
        features = features_at(found, points).detach()
        return Candidates(*(x.cpu().numpy() for x in (points, scores, levels, features)))

    @torch.no_grad()
    def predict_candidates(self, image: Tensor) -> Candidates:
        """Candidates of one image of any size, (3, H, W) normalised; call `eval()` before."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        return self.candidates(self(padded[None]), height, width)


def features_at(found: dict[str, Any], points_xy: Tensor) -> Tensor:
    """Features of the pyramid at points of one image, bilinear, float32 (n, 2 * width): stride 4, then stride 8.

    Args:
        found: What `Pet.forward` gave for one image (B = 1).
        points_xy: (n, 2), pixels.
    """
    maps = [found[f"features{level.stride}"].float() for level in (DENSE, SPARSE)]
    height, width = found["valid"].shape[-2:]
    place = (points_xy.to(maps[0]) + 0.5) / points_xy.new_tensor([width, height]).to(maps[0]) * 2 - 1
    read = [F.grid_sample(x, place[None, None], padding_mode="border", align_corners=False) for x in maps]
    return torch.cat(read, 1)[0, :, 0].T
