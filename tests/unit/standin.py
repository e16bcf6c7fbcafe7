"""A small counter and random batches, for tests of the training loop that do not care what is learned."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from crowdmask.models.base import Batch, Counter, Prediction, Supervision
from crowdmask.training.fit import Plan, fit
from crowdmask.training.state import Identity, Progress

SIDE = 16
STRIDE = 4


class Standin(Counter):
    """Two convolutions that give a density; with batch norm and noise from every random generator, if asked."""

    multiple = STRIDE
    gives_points = False

    def __init__(self, norm: bool = False, noise: bool = False) -> None:
        super().__init__()
        self.noise = noise
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Conv2d(4, 1, STRIDE, STRIDE)

    def forward(self, images: Tensor) -> dict[str, Any]:
        x = self.norm(self.backbone(images)).relu()
        x = F.dropout(x, 0.2, self.training and self.noise)
        return {"density": self.head(x)[:, 0]}

    def losses(self, found: dict[str, Any], batch: Batch, supervision: Supervision, epoch: int) -> dict[str, Tensor]:
        density = found["density"]
        people = torch.tensor([float(len(points)) for points in batch.points_xy])
        count = F.smooth_l1_loss(density.sum((1, 2)), people)
        if self.noise:
            count = count * (1 + random.random() + np.random.standard_normal())  # noqa: NPY002
        return {"count": count, "blocks": density.square().sum((1, 2)).mean()}

    def weights(self, supervision: Supervision, epoch: int) -> dict[str, float]:
        return {"count": 0.5, "blocks": 0.1}

    def read(self, found: dict[str, Any], height: int, width: int) -> Prediction:
        density = found["density"][0].float().numpy()
        return Prediction(float(density.sum()), density_hw=density, stride=STRIDE)


def make(seed: int = 0, norm: bool = False, noise: bool = False) -> Standin:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return Standin(norm, noise)


def batch(seed: int, images: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        images=torch.from_numpy(rng.normal(size=(images, 3, SIDE, SIDE)).astype(np.float32)),
        points_xy=[
            torch.from_numpy(rng.uniform(0, SIDE, (int(rng.integers(5)), 2)).astype(np.float32)) for _ in range(images)
        ],
        labels=None,
        valid=torch.ones(images, SIDE, SIDE),
        names=tuple(f"train/{seed}-{index}" for index in range(images)),
    )


def epoch_batches(epoch: int) -> Iterator[Batch]:
    """Five batches, the last one smaller."""
    for step in range(5):
        yield batch(100 * epoch + step, 4 if step < 4 else 3)


def validate(model: Counter, epoch: int) -> dict[str, float]:
    """Error on three images; draws a random number, as a careless callback may."""
    torch.rand(1)
    images = batch(-1 % 2**31, 3)
    errors = [
        abs(model.predict(image).count - len(points))
        for image, points in zip(images.images, images.points_xy, strict=True)
    ]
    return {"mae": float(np.mean(errors)), "worst": max(errors)}


IDENTITY = Identity("standin", {"lr": 0.05, "sides": [1, 2]}, {"images": "3f"})


def train(
    folder: Path,
    plan: Plan | None = None,
    *,
    model: Counter | None = None,
    identity: Identity = IDENTITY,
    batches: Any = epoch_batches,
    validation: Any = validate,
    schedule: Any = None,
    optimiser: Any = torch.optim.AdamW,
    fabric: Fabric | None = None,
) -> tuple[Progress, Counter]:
    """`fit` of a stand-in with an average, noise and a schedule; what is not given is the same at every call."""
    model = model or make(norm=True, noise=True)
    made = optimiser(
        [
            {"params": model.backbone_parameters(), "lr": 0.01},
            {"params": [*model.norm.parameters(), *model.head.parameters()]},
        ],
        lr=0.05,
    )
    rates = (schedule or cosine)(made)
    plan = plan or Plan("points", epochs=5, clip=1.0, ema=0.9)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    done = fit(fabric, model, made, batches, validation, plan, folder, identity, rates, progress=False)
    return done, model


def cosine(optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 25)
