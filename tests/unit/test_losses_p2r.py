"""P2R's loss: published values, a slow version cell by cell, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from crowdmask.losses.grid import cell_centres, nearest_point
from crowdmask.losses.p2r import p2r_image_loss, p2r_loss, regions


def golden_logits() -> torch.Tensor:
    z = torch.zeros(4, 4, dtype=torch.float64)
    z[1, 1], z[2, 3] = 2, -1
    return z


POINTS = torch.tensor([[5.0, 5.0], [14.0, 10.0]], dtype=torch.float64)


def test_golden_values() -> None:
    z = golden_logits()
    assert float(p2r_image_loss(z, POINTS)) == pytest.approx(0.7865275, abs=5e-8)
    confident = torch.tensor([True, False])
    assert float(p2r_image_loss(z, POINTS, confident=confident)) == pytest.approx(0.4057613, abs=5e-8)
    assert float(p2r_image_loss(z, POINTS[:0])) == pytest.approx(0.3795079, abs=1.5e-7)


def test_golden_targets() -> None:
    assert regions(golden_logits(), POINTS, 4).target.tolist() == [1 * 4 + 1, 2 * 4 + 3]


def slow(
    z: np.ndarray,
    points: np.ndarray,
    stride: int,
    confident: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> float:
    """Cell by cell, from the formula."""
    h, w = z.shape
    if len(points) == 0:
        return float(np.mean([0.5 * math.log1p(math.exp(v)) for v in z.ravel()]))
    owner, distance = {}, {}
    for r in range(h):
        for c in range(w):
            x, y = stride * c + (stride - 1) / 2, stride * r + (stride - 1) / 2
            d = [math.hypot(x - px, y - py) for px, py in points]
            best = min(range(len(d)), key=lambda b: (d[b], b))
            if d[best] < 96:
                owner[r, c], distance[r, c] = best, d[best]
    targets = set()
    for b in range(len(points)):
        cells = [cell for cell, o in owner.items() if o == b]
        if not cells:
            continue
        rho = min(max(max(distance[cell] for cell in cells), 8), 96)
        targets.add(min(cells, key=lambda cell: (8 * distance[cell] / rho - z[cell], cell)))
    total = 0.0
    for r in range(h):
        for c in range(w):
            t = (r, c) in targets
            weight = 2.0 if t else 1.0
            if confident is not None and (r, c) in owner and not confident[owner[r, c]]:
                weight = 0.0
            if valid is not None:
                weight *= valid[r, c]
            total += weight * (math.log1p(math.exp(-z[r, c])) if t else math.log1p(math.exp(z[r, c])))
    return total / (h * w)


@pytest.mark.parametrize("seed", range(8))
def test_golden_slow_version_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, stride = int(rng.integers(1, 70)), int(rng.integers(1, 12)), int(rng.choice([2, 4, 8]))
    z = rng.normal(size=(h, w)) * 3
    points = rng.uniform(-4, [w * stride + 4, min(h * stride, 150) + 4], (int(rng.integers(0, 12)), 2))
    if len(points) > 2:
        points[1] = points[0]  # a duplicate has no region
    confident = rng.random(len(points)) < 0.5
    valid = (rng.random((h, w)) < 0.7).astype(float)
    args = torch.tensor(z), torch.tensor(points), stride
    assert float(p2r_image_loss(*args)) == pytest.approx(slow(z, points, stride), rel=1e-12)
    found = p2r_image_loss(*args, torch.tensor(confident), torch.tensor(valid))
    assert float(found) == pytest.approx(slow(z, points, stride, confident, valid if len(points) else None), rel=1e-12)


def test_batch_is_the_mean_of_its_images() -> None:
    z = torch.stack([golden_logits(), golden_logits() * 2])
    both = p2r_loss(z, [POINTS, POINTS[:0]])
    assert float(both) == pytest.approx(float(p2r_image_loss(z[0], POINTS) + p2r_image_loss(z[1], POINTS[:0])) / 2)
    with pytest.raises(ValueError, match="not one entry"):
        p2r_loss(z, [POINTS])


def test_own_targets_replace_the_matching() -> None:
    z = golden_logits()
    own = p2r_image_loss(z, POINTS, target=torch.tensor([0, 16]))  # the second point has none
    wanted = torch.zeros(4, 4, dtype=torch.float64)
    wanted[0, 0] = 1
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, wanted, reduction="none")
    assert float(own) == pytest.approx(float((entropy * (1 + wanted)).mean()))


def test_gradient() -> None:
    z = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    points = torch.tensor([[3.0, 4.0], [17.0, 12.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: p2r_image_loss(v, points), (z,))
    p2r_image_loss(z, points).backward()
    assert z.grad is not None and bool((z.grad != 0).all())


def test_nearest_point_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = cell_centres(7, 9, 4, torch.zeros(1))
    points = torch.tensor([[3.0, 4.0], [17.0, 12.0], [30.0, 1.0]])
    whole = nearest_point(centres, points)
    monkeypatch.setattr("crowdmask.losses.grid.CHUNK", 10)
    pieces = nearest_point(centres, points)
    assert torch.equal(whole[0], pieces[0]) and torch.equal(whole[1], pieces[1])
    assert centres[9 + 2].tolist() == [4 * 2 + 1.5, 4 * 1 + 1.5]
