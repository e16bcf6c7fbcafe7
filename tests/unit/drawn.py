"""A drawn scene for models: bright discs on a dark ground, their points and label map."""

from __future__ import annotations

import numpy as np
import torch

from crowdmask.models.base import Batch, normalise


def scene(people: int, side: int = 128, seed: int = 0, radius: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image uint8 (side, side, 3), points float32 (people, 2), labels int64 (side, side); discs lie apart."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 50, (side, side, 3)).astype(np.uint8)
    labels = np.zeros((side, side), np.int64)
    y, x = np.mgrid[:side, :side]
    points: list[np.ndarray] = []
    while len(points) < people:
        place = rng.uniform(radius, side - radius - 1, 2)
        if all(np.hypot(*(place - other)) > 3 * radius for other in points):
            points.append(place)
            disc = (x - place[0]) ** 2 + (y - place[1]) ** 2 <= radius**2
            image[disc] = rng.integers(150, 255, 3)
            labels[disc] = len(points)
    return image, np.array(points, np.float32).reshape(-1, 2), labels


def batch(*people: int, side: int = 128) -> Batch:
    """One scene for each number."""
    made = [scene(number, side, seed) for seed, number in enumerate(people)]
    return Batch(
        images=torch.stack([normalise(image) for image, _, _ in made]),
        points_xy=[torch.from_numpy(points) for _, points, _ in made],
        labels=[torch.from_numpy(labels) for _, _, labels in made],
        valid=torch.ones(len(made), side, side),
        names=tuple(f"train/{seed}" for seed in range(len(made))),
    )
