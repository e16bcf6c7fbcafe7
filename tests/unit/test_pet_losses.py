"""PET's losses: each term against a slow version in double precision, gradients, matching, empty images."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from drawn import scene

from crowdmask.losses import pet as loss
from crowdmask.losses.assignment import hungarian


class Case:
    """A random batch of queries."""

    def __init__(self, seed: int, batch: int, n: int = 40) -> None:
        rng = np.random.default_rng(seed)
        self.logits = torch.from_numpy(rng.normal(size=(batch, n, 2)) * 3)
        self.xy = torch.from_numpy(rng.uniform(-20, 300, (batch, n, 2)))
        self.goals = torch.from_numpy(rng.uniform(0, 255, (batch, n, 2)))
        self.valid = torch.from_numpy(rng.random((batch, n)) < 0.8)
        self.wanted = torch.from_numpy(rng.random((batch, n)) < 0.3) & self.valid
        self.active = torch.from_numpy(rng.random((batch, n)) < 0.5)
        self.distance = rng.choice([3.0, 8.0, 20.0, 999.0], batch).tolist()
        self.size = (256, 512)

    def members(self, split: bool) -> torch.Tensor:
        return loss.groups(self.valid, self.active if split else None, self.distance)


def slow_members(case: Case, split: bool) -> list[set[tuple[int, int]]]:
    """The groups, query by query."""
    batch, n = case.valid.shape
    every = {(i, q) for i in range(batch) for q in range(n) if case.valid[i, q]}
    if not split:
        return [every]
    dense = set(sorted(range(batch), key=lambda i: (case.distance[i], i))[: batch // 2])
    on = {(i, q) for i, q in every if case.active[i, q]}
    return [{x for x in on if x[0] not in dense}, {x for x in on if x[0] in dense}, every - on]


def slow_class(case: Case, split: bool) -> float:
    total = 0.0
    for members in slow_members(case, split):
        above = below = 0.0
        for i, q in members:
            nobody, person = case.logits[i, q].tolist()
            right, wrong, weight = (person, nobody, 1.0) if case.wanted[i, q] else (nobody, person, 0.5)
            above += weight * math.log1p(math.exp(wrong - right))
            below += weight
        total += above / below if below else 0.0
    return total


def slow_points(case: Case, split: bool) -> float:
    total, (height, width) = 0.0, case.size
    for members in slow_members(case, split):
        errors = []
        for i, q in members:
            if case.wanted[i, q]:
                d = [abs(float(case.xy[i, q, a] - case.goals[i, q, a])) / (width, height)[a] for a in (0, 1)]
                errors.append(sum(0.5 * v * v if v < 1 else v - 0.5 for v in d))
        total += sum(errors) / len(errors) if errors else 0.0
    return total


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_golden_slow_version_agrees(seed: int, split: bool) -> None:
    case = Case(seed, 1 + seed % 5)
    members = case.members(split)
    found = loss.class_loss(case.logits, case.wanted, members)
    assert float(found) == pytest.approx(slow_class(case, split), rel=1e-12)
    found = loss.point_loss(case.xy, case.goals, case.wanted, members, case.size)
    assert float(found) == pytest.approx(slow_points(case, split), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_golden_slow_splitter_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = 1 + seed % 4
    split, valid = rng.random((batch, 4, 2)), rng.random((batch, 4, 2)) < (0.2 if seed > 5 else 0.8)
    distance = rng.choice([15.9, 16.0, 999.0], batch).tolist()
    lowest = [max(1 - s for s in split[i][valid[i]]) for i in range(batch) if valid[i].any()]
    highest = [max(split[i][valid[i]]) for i in range(batch) if valid[i].any() and distance[i] < 16]
    wanted = (1 - np.mean(lowest) if lowest else 0) + (1 - np.mean(highest) if highest else 0)
    found = loss.splitter_loss(torch.from_numpy(split), torch.from_numpy(valid), distance)
    assert float(found) == pytest.approx(float(wanted), rel=1e-12)


def test_golden_values_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]], dtype=torch.float64)
    wanted = torch.tensor([[True, False, False]])
    every = torch.ones(1, 1, 3, dtype=torch.bool)
    parts = [math.log(2), 0.5 * math.log1p(math.exp(2)), 0.5 * math.log1p(math.exp(-1))]
    assert float(loss.class_loss(logits, wanted, every)) == pytest.approx(sum(parts) / 2)
    xy = torch.tensor([[[10.0, 20.0], [0, 0], [0, 0]]], dtype=torch.float64)
    goals = torch.tensor([[[26.0, 20.0 + 384], [0, 0], [9, 9]]], dtype=torch.float64)
    # 16 / 256 is quadratic, 384 / 256 linear.
    found = loss.point_loss(xy, goals, wanted, every, (256, 256))
    assert float(found) == pytest.approx(0.5 * (16 / 256) ** 2 + 1.5 - 0.5)


def test_gradients() -> None:
    case = Case(3, 4, 12)
    members = case.members(True)
    logits, xy = case.logits.requires_grad_(), case.xy.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: loss.class_loss(v, case.wanted, members), (logits,))
    assert torch.autograd.gradcheck(lambda v: loss.point_loss(v, case.goals, case.wanted, members, (256, 256)), (xy,))
    split = torch.rand(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    every = torch.ones(3, 4, 2, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda v: loss.splitter_loss(v, every, [3.0, 20.0, 5.0]), (split,))


def test_groups_are_disjoint_and_cover_what_is_valid() -> None:
    case = Case(5, 5)
    members = case.members(True)
    assert torch.equal(members.sum(0) > 0, case.valid) and int(members.sum(0).max()) == 1
    # Equal distances: the first images are the dense ones; of three, one.
    case.distance = [4.0, 4.0, 999.0]
    part = loss.groups(torch.ones(3, 2).bool(), torch.ones(3, 2).bool(), case.distance)
    assert part[:, :, 0].tolist() == [[False, True, True], [True, False, False], [False, False, False]]


def test_golden_nearest_distance() -> None:
    assert loss.nearest_distance(torch.zeros(0, 2)) == loss.nearest_distance(torch.zeros(1, 2)) == 999
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 16.0]])
    assert loss.nearest_distance(points) == pytest.approx((5 + 5 + 12) / 3)
    assert loss.nearest_distance(torch.zeros(3, 2)) == 0  # marked three times


def grid(stride: int, side: int) -> torch.Tensor:
    line = torch.arange(side // stride) * stride + stride // 2
    return torch.cartesian_prod(line, line).flip(1).double()


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_golden_masks_match_as_hungarian_on_discs(seed: int, stride: int) -> None:
    """OPET equals PET where each query that is nearest to a head lies in its disc."""
    _, points, labels = scene(30, 256, seed, radius=6)
    xy = grid(stride, 256)[None]
    chance, valid = torch.full(xy.shape[:2], 0.3), torch.ones(xy.shape[:2], dtype=torch.bool)
    heads = [torch.from_numpy(points)]
    plain = loss.match(xy, chance, valid, heads)
    masks = loss.match(xy, chance, valid, heads, [torch.from_numpy(labels)])
    assert int(plain[0].sum()) == 30
    assert torch.equal(plain[0], masks[0]) and torch.equal(plain[1], masks[1])


def test_masks_match_otherwise_where_masks_say_so() -> None:
    labels = torch.zeros(256, 256, dtype=torch.int64)
    labels[:40, :40], labels[:40, 40:80] = 1, 2
    points = [torch.tensor([[38.0, 20.0], [70.0, 20.0]])]
    xy = torch.tensor([[[41.0, 20.0], [20.0, 20.0]]])  # both heads' nearest is the first, in the mask of the second
    chance, valid = torch.full((1, 2), 0.5), torch.ones(1, 2, dtype=torch.bool)
    wanted, goals = loss.match(xy, chance, valid, points, [labels])
    assert wanted.tolist() == [[True, True]] and goals[0, 0].tolist() == [70, 20] and goals[0, 1].tolist() == [38, 20]


@pytest.mark.parametrize("seed", range(3))
def test_golden_match_costs_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy, points, chance = rng.uniform(0, 60, (6, 2)), rng.uniform(0, 60, (4, 2)), rng.random(6)
    valid = torch.ones(1, 6, dtype=torch.bool)
    wanted, goals = loss.match(torch.tensor(xy[None]), torch.tensor(chance[None]), valid, [torch.tensor(points)])

    def cost(pairs) -> float:
        return sum(0.05 * math.dist(xy[q], p) - chance[q] for q, p in pairs)

    found = cost((q, goals[0, q].tolist()) for q in range(6) if wanted[0, q])
    best = min(cost(zip(order, points, strict=True)) for order in itertools.permutations(range(6), 4))
    assert found == pytest.approx(best)


def test_padding_is_never_matched() -> None:
    xy = grid(8, 64)[None].repeat(2, 1, 1)
    valid = (xy[..., 0] < 32) & torch.tensor([[True], [False]])
    points = [torch.tensor([[60.0, 60.0], [5.0, 5.0]]), torch.tensor([[5.0, 5.0]])]
    for labels in (None, [torch.zeros(64, 64, dtype=torch.int64)] * 2):
        wanted, goals = loss.match(xy, torch.zeros(xy.shape[:2]), valid, points, labels)
        assert wanted.sum(1).tolist() == [2, 0] and not bool((wanted & ~valid).any())
        assert sorted(goals[0][wanted[0]].tolist()) == [[5, 5], [60, 60]]


def test_more_heads_than_queries() -> None:
    xy = torch.tensor([[[5.0, 5.0], [9.0, 9.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    points = torch.tensor([[5.0, 6.0], [90.0, 90.0], [9.0, 8.0]])
    wanted, goals = loss.match(xy, torch.zeros(1, 2), valid, [points])
    assert wanted.tolist() == [[True, True]] and goals[0].tolist() == [[5, 6], [9, 8]]
    assert hungarian(xy[0].numpy(), None, points.numpy()).tolist() == [0, -1, 1]


def test_nobody_anywhere() -> None:
    case = Case(1, 2)
    wanted, goals = loss.match(case.xy, case.logits[..., 1], case.valid, [torch.zeros(0, 2)] * 2)
    assert not bool(wanted.any()) and not bool(goals.any())
    xy = case.xy.requires_grad_()
    found = loss.point_loss(xy, goals, wanted, case.members(True), case.size)
    found.backward()
    assert float(found.detach()) == 0 and not bool(xy.grad.any())
    empty = torch.zeros(3, 2, 40, dtype=torch.bool)
    assert float(loss.class_loss(case.logits, wanted, empty)) == 0
