"""Blockwise losses against slow versions in plain Python, and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from crowdmask.losses import blocks, transport

STARTS = (0, 1, 2, 3, 4)
CENTRES = torch.tensor([0.0, 1, 2, 3, 4.29992], dtype=torch.float64)


def softmax(values: np.ndarray) -> np.ndarray:
    raised = [math.exp(v) for v in values]
    return np.array(raised) / sum(raised)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def counts_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 7, shape, generator=torch.Generator().manual_seed(seed)).double()


def test_golden_zip() -> None:
    zero = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]], dtype=torch.float64)
    possible = zero.softmax(1)[:, 1]
    rate = torch.tensor([[[2.0, 0.5]]], dtype=torch.float64)
    found = blocks.zip_loss(possible, rate, torch.tensor([[[3.0, 0.0]]], dtype=torch.float64))
    assert float(found) == pytest.approx(0.345668, abs=1e-6)
    assert (possible * rate).reshape(-1).tolist() == pytest.approx([1.462117, 0.134471], abs=5e-7)
    assert float(found) + math.log(math.factorial(3)) == pytest.approx(2.137428, abs=1e-6)


def test_golden_bins() -> None:
    found = blocks.bin_of(torch.tensor([0.0, 0.4, 1, 2.6, 4, 9]), STARTS)
    assert found.tolist() == [0, 0, 1, 3, 4, 4]
    wide = blocks.bin_of(torch.tensor([10.0, 11, 12, 13, 14, 15, 99]), (*range(11), 11, 13, 15))
    assert wide.tolist() == [10, 11, 11, 12, 12, 13, 13]


def test_golden_multiscale_weights() -> None:
    density, counts = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    parts = [float(blocks.multiscale_error(density, counts, (s,))) for s in (1, 2, 4)]
    assert parts == [16, 4, 1]  # cells of the map, each off by 1
    assert float(blocks.multiscale_error(density, counts)) == 0.25 * 16 + 0.5 * 4 + 1.0 * 1


def test_block_counts() -> None:
    points = torch.tensor([[0.0, 0.0], [7.4, 0.0], [7.5, 0.0], [8.0, 15.0], [99.0, -3.0], [3.0, 3.0]])
    assert blocks.block_counts(points, 2, 2, 8).tolist() == [[3, 2], [0, 1]]
    assert blocks.block_counts(points[:0], 2, 3, 8).tolist() == [[0] * 3] * 2


def test_golden_class_loss_slow() -> None:
    logits, counts = random(1, 2, 5, 3, 4), counts_of(2, 2, 3, 4)
    slow = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                slow -= math.log(softmax(logits[b, :, y, x].numpy())[min(int(counts[b, y, x]), 4)])
    assert float(blocks.class_loss(logits, counts, STARTS)) == pytest.approx(slow / 2, rel=1e-12)
    density = blocks.expected_count(logits, CENTRES)
    expected = sum(p * c for p, c in zip(softmax(logits[1, :, 2, 3].numpy()), CENTRES.tolist(), strict=True))
    assert float(density[1, 2, 3]) == pytest.approx(expected)
    off = sum(abs(float(density[b].sum() - counts[b].sum())) for b in range(2)) / 2
    assert float(blocks.count_error(density, counts)) == pytest.approx(off)
    squares = float(((density - counts) ** 2).sum()) / 2
    assert float(blocks.block_error(density, counts, 2)) == pytest.approx(squares)


def test_golden_zip_slow() -> None:
    zero, bins, counts = random(3, 2, 2, 3, 4), random(4, 2, 4, 3, 4), counts_of(5, 2, 3, 4)
    possible, rate = blocks.zip_parts(zero, bins, CENTRES[1:])
    slow = classes = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                pi = softmax(zero[b, :, y, x].numpy())
                share = softmax(bins[b, :, y, x].numpy())
                lam, n = float(share @ CENTRES[1:].numpy()), int(counts[b, y, x])
                if n == 0:
                    slow -= math.log(pi[0] + pi[1] * math.exp(-lam) + 1e-8)
                else:
                    slow -= math.log(pi[1] + 1e-8) + n * math.log(lam + 1e-8) - lam
                    classes -= math.log(share[min(n, 4) - 1])
    assert float(blocks.zip_loss(possible, rate, counts)) == pytest.approx(slow / 2, rel=1e-10)
    assert float(blocks.positive_class_loss(bins, counts, STARTS)) == pytest.approx(classes / 2, rel=1e-10)


@pytest.mark.parametrize("name", ["class", "zip", "positive", "multiscale", "variation", "count", "block"])
def test_gradients(name: str) -> None:
    counts, maps = counts_of(6, 2, 4, 4), random(7, 2, 4, 4).abs() + 0.1

    def zip_of(value: torch.Tensor) -> torch.Tensor:
        return blocks.zip_loss(*blocks.zip_parts(value[:, :2], value[:, 2:], CENTRES[1:]), counts)

    losses = {
        "class": (lambda v: blocks.class_loss(v, counts, STARTS), random(8, 2, 5, 4, 4)),
        "zip": (zip_of, random(9, 2, 6, 4, 4)),
        "positive": (lambda v: blocks.positive_class_loss(v, counts, STARTS), random(10, 2, 4, 4, 4)),
        "multiscale": (lambda v: blocks.multiscale_error(v, counts), maps),
        "variation": (lambda v: transport.variation_loss(v, counts), maps),
        "count": (lambda v: blocks.count_error(v, counts), maps),
        "block": (lambda v: blocks.block_error(v, counts), maps),
    }  # fmt: skip
    loss, value = losses[name]
    assert torch.autograd.gradcheck(loss, (value.requires_grad_(),))


def test_golden_transport_slow() -> None:
    """Sinkhorn in plain Python with costs that do not underflow; the gradient is that of the formula."""
    density = (random(11, 1, 3, 4).abs() + 0.05).requires_grad_()
    points = torch.tensor([[2.0, 3.0], [9.0, 8.0], [5.0, 1.0]], dtype=torch.float64)
    found = transport.transport_loss(density, [points], 4)
    (gradient,) = torch.autograd.grad(found, density)
    mass = density.detach().numpy().ravel()
    total = mass.sum() + 1e-8
    cost = np.array(
        [
            [((4 * (k % 4) + 1.5 - x) ** 2 + (4 * (k // 4) + 1.5 - y) ** 2) for k in range(12)]
            for x, y in points.tolist()
        ]
    )
    kernel = np.exp(-cost / 10)
    u = np.ones(3)
    for _ in range(100):
        v = (mass / total) / (kernel.T @ u)
        u = (1 / 3) / (kernel @ v)
    beta = 10 * np.log(v)
    want = beta / total - (mass * beta).sum() / total**2
    assert gradient.numpy().ravel() == pytest.approx(want, rel=1e-9)
    assert float(found.detach()) == pytest.approx(float(mass @ want), abs=1e-9)


def test_transport_pulls_mass_towards_the_points() -> None:
    density = torch.full((1, 4, 4), 0.1, requires_grad=True)
    point = torch.tensor([[1.5, 1.5]])
    (gradient,) = torch.autograd.grad(transport.transport_loss(density, [point], 4), density)
    assert int(gradient.argmin()) == 0 and int(gradient.argmax()) == 15
    assert float(transport.transport_loss(density, [point[:0]], 4)) == 0
    far = transport.transport_loss(torch.rand(1, 56, 56), [torch.tensor([[440.0, 440.0]])], 8)
    assert bool(torch.isfinite(far))


def test_variation_by_hand() -> None:
    density, counts = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[2.0, 0.0]]])
    assert float(transport.variation_loss(density, counts)) == pytest.approx((0.75 + 0.75) * 2)
    assert float(transport.variation_loss(density, counts * 0)) == 0
