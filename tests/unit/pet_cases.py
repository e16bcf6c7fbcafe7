"""Small PETs and batches for their tests."""

from __future__ import annotations

import torch
from drawn import scene

from crowdmask.models import backbone
from crowdmask.models.base import Batch, normalise
from crowdmask.models.pet import Pet


def small(seed: int = 0) -> Pet:
    torch.manual_seed(seed)
    return Pet(backbone.build("small", width=8), 32)


def mixed() -> Batch:
    """A dense image (its heads are 12 px apart), a sparse one, one with one head, one with nobody."""
    made = [scene(60, 256, 1, 3), scene(9, 256, 2), scene(1, 256, 3), scene(0, 256, 4)]
    return Batch(
        images=torch.stack([normalise(image) for image, _, _ in made]),
        points_xy=[torch.from_numpy(points) for _, points, _ in made],
        labels=[torch.from_numpy(labels) for _, _, labels in made],
        valid=torch.ones(4, 256, 256),
    )
