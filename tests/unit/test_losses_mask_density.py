"""The mask loss on densities against a version pixel by pixel, and the traps of the printed formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crowdmask.losses.mask_density import OUTSIDE, Mode, mask_density_loss, masses


def slow(density: np.ndarray, labels: np.ndarray, people: int, mode: Mode) -> tuple[list[float], float]:
    s = labels.shape[0] // density.shape[0]
    found, background = [0.0] * people, 0.0
    for r in range(density.shape[0]):
        for c in range(density.shape[1]):
            part = labels[r * s : r * s + s, c * s : c * s + s].ravel().tolist()
            heads = [v for v in part if v != 0]
            for value in part:
                if mode == "pixel" or not heads:
                    mass = density[r, c] / len(part)
                else:
                    mass = density[r, c] / len(heads) if value != 0 else 0.0
                if value == 0:
                    background += mass
                elif value > 0:
                    found[value - 1] += mass
    return found, background


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    rng = np.random.default_rng(seed)
    h, w, s, people = *rng.integers(1, 6, 2), int(rng.choice([1, 4, 8])), int(rng.integers(0, 6))
    labels = np.zeros((h * s, w * s), np.int64)
    for value in [*range(1, people + 1), OUTSIDE]:
        y, x = rng.integers(0, labels.shape[0]), rng.integers(0, labels.shape[1])
        labels[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = value
    return torch.tensor(rng.random((h, w))), torch.tensor(labels), people


@pytest.mark.parametrize("mode", ["pixel", "block"])
@pytest.mark.parametrize("seed", range(6))
def test_golden_slow_version_agrees(seed: int, mode: Mode) -> None:
    density, labels, people = scene(seed)
    inside, background = masses(density, labels, people, mode)
    want, nothing = slow(density.numpy(), labels.numpy(), people, mode)
    assert inside.tolist() == pytest.approx(want, abs=1e-12)
    assert float(background) == pytest.approx(nothing, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_bilinear_keeps_the_sum(seed: int) -> None:
    density, labels, people = scene(seed)
    labels = labels.clamp(min=0)
    inside, background = masses(density, labels, people, "bilinear")
    assert float(inside.sum() + background) == pytest.approx(float(density.sum()))


def test_golden_small_head_in_a_block() -> None:
    """A head of 6 x 6 pixels covers 0.56 of a block of 8 x 8: by pixels it would have to hold 1.78 people."""
    labels = torch.zeros(8, 8, dtype=torch.int64)
    labels[1:7, 1:7] = 1
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(masses(one, labels, 1, "pixel")[0]) == 36 / 64
    assert float(masses(one * 64 / 36, labels, 1, "pixel")[0]) == pytest.approx(1)
    assert float(masses(one, labels, 1, "block")[0]) == 1


def test_terms_by_hand() -> None:
    labels = torch.tensor([[1, 1, 2, 2, 0, 0, OUTSIDE, OUTSIDE]] * 2)
    density = torch.tensor([[0.5, 1.5, 3.0, 9.0]], dtype=torch.float64)
    found = mask_density_loss(density[None], [labels], [2])
    assert float(found["mask"]) == 0.25 and float(found["background"]) == (3 / 2) ** 2
    alone = mask_density_loss(density[None], [labels.clamp(max=0)], [0])
    assert float(alone["mask"]) == 0 and float(alone["background"]) == (0.5 + 1.5 + 3.0) ** 2


def test_perfect_density_costs_nothing() -> None:
    labels = torch.zeros(16, 16, dtype=torch.int64)
    labels[0:6, 0:6], labels[8:16, 4:12] = 1, 2
    density = torch.tensor([[1.0, 0], [0.5, 0.5]])
    found = mask_density_loss(density[None], [labels], [2])
    assert {name: float(value) for name, value in found.items()} == {"mask": 0, "background": 0}


@pytest.mark.parametrize("mode", ["pixel", "block", "bilinear"])
def test_gradient(mode: Mode) -> None:
    density, labels, people = scene(3)

    def loss(value: torch.Tensor) -> torch.Tensor:
        found = mask_density_loss(value[None], [labels], [people], mode)
        return found["mask"] + found["background"]

    assert torch.autograd.gradcheck(loss, (density.requires_grad_(),))


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="label map of 9 x 8 does not fit a density map of 2 x 2"):
        masses(torch.zeros(2, 2), torch.zeros(8, 9, dtype=torch.int64), 0, "block")
