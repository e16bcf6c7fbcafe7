"""PET's geometry: windows and back, positions by hand, attention from its formula, who sees whom."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from crowdmask.models import pet_transformer
from crowdmask.models.pet_splitter import DENSE, LEVELS, SPARSE, Splitter, active, belongs, windows_to_search
from crowdmask.models.pet_transformer import Decoder, Encoder, EncoderLayer, Heads
from crowdmask.models.pet_windows import enlarge, merge, partition, phases, query_phases, sine


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*(st.integers(1, 3) for _ in range(6))), st.integers(0, 1000))
def test_merge_is_the_inverse_of_partition(shape: tuple[int, ...], seed: int) -> None:
    batch, channels, rows, columns, high, wide = shape
    maps = random(batch, channels, rows * high, columns * wide, seed=seed)
    windows = partition(maps, (high, wide))
    assert windows.shape == (batch * rows * columns, high * wide, channels)
    back = merge(windows, (high, wide), (batch, rows * high, columns * wide))
    assert torch.equal(back, maps)
    # Cell by cell, from the definition.
    for n in range(len(windows)):
        image, row, column = n // (rows * columns), n // columns % rows, n % columns
        for cell in range(high * wide):
            y, x = row * high + cell // wide, column * wide + cell % wide
            assert torch.equal(windows[n, cell], maps[image, :, y, x])
    which = torch.from_numpy(np.random.default_rng(seed).permutation(len(windows))[: 1 + seed % len(windows)])
    assert torch.equal(partition(maps, (high, wide), which), windows[which])
    chosen = torch.zeros(len(windows), 1, 1, dtype=torch.float64).index_fill(0, which, 1)
    part = merge(windows[which], (high, wide), (batch, rows * high, columns * wide), which)
    assert torch.equal(part, merge(windows * chosen, (high, wide), (batch, rows * high, columns * wide)))


@pytest.mark.parametrize("side", [(33, 70), (1, 1), (64, 129)])
def test_windows_after_padding(side: tuple[int, int]) -> None:
    maps = random(2, 3, *side)
    padded = F.pad(maps, (0, -side[1] % 16, 0, -side[0] % 8))
    back = merge(partition(padded, (8, 16)), (8, 16), (2, *padded.shape[-2:]))
    assert torch.equal(back[..., : side[0], : side[1]], maps)


def test_golden_phases() -> None:
    valid = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    y, x = phases(valid)
    third, full = 2 * math.pi / 3, 2 * math.pi
    assert x[0, 0].tolist() == pytest.approx([third, 2 * third, full, full], rel=1e-6)
    assert y[0, :, 0].tolist() == pytest.approx([math.pi, full, full], rel=1e-6)
    assert y[0, :, 3].tolist() == [0, 0, 0]


def test_golden_positions() -> None:
    found = sine(torch.tensor(1.0), torch.tensor(2.0), 8)
    y = [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]
    x = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert found.tolist() == pytest.approx(y + x, rel=1e-6)
    # Published width: channel 2 i of a half has the wave 10000 ** (2 i / 128).
    found = sine(torch.tensor(3.0), torch.tensor(0.5), 256)
    assert len(found) == 256
    for half, phase in ((0, 3.0), (128, 0.5)):
        for i in range(64):
            angle = phase / 10000 ** (2 * i / 128)
            pair = [math.sin(angle), math.cos(angle)]
            assert found[half + 2 * i : half + 2 * i + 2].tolist() == pytest.approx(pair, abs=1e-6)


def test_golden_query_phases() -> None:
    valid = torch.ones(1, 256, 512, dtype=torch.bool)
    for stride in (4, 8):
        found = query_phases(valid, stride)
        assert found.shape == (1, 2, 256 // stride, 512 // stride)
        for k in (0, 3, 30):
            pixel = int((k + 0.5) * stride)
            assert float(found[0, 0, k, 7]) == pytest.approx(2 * math.pi * (pixel + 1) / 256, rel=1e-6)
            assert float(found[0, 1, 7, k]) == pytest.approx(2 * math.pi * (pixel + 1) / 512, rel=1e-6)


def attend(part: torch.nn.MultiheadAttention, query, key, value, padded=None) -> torch.Tensor:
    """Attention of one window head by head, from the formula."""
    width, heads = query.shape[-1], part.num_heads
    weights, biases = part.in_proj_weight.split(width), part.in_proj_bias.split(width)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    out = []
    for h in range(heads):
        one = slice(h * width // heads, (h + 1) * width // heads)
        score = q[:, one] @ k[:, one].T / math.sqrt(width // heads)
        if padded is not None:
            score[:, padded] = -math.inf
        out.append(score.softmax(1) @ v[:, one])
    return torch.cat(out, 1) @ part.out_proj.weight.T + part.out_proj.bias


def norm(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def feed(part: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    return (x @ part[0].weight.T + part[0].bias).clamp(min=0) @ part[3].weight.T + part[3].bias


def test_golden_encoder_layer() -> None:
    torch.manual_seed(1)
    layer = EncoderLayer(64, 0.0).double()
    x, position = random(2, 6, 64), random(2, 6, 64, seed=1)
    padded = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    found = layer(x, position, padded)
    for i in range(2):
        place = x[i] + position[i]
        one = norm(x[i] + attend(layer.attention, place, place, x[i], padded[i]))
        torch.testing.assert_close(found[i], norm(one + feed(layer.feed, one)), rtol=1e-9, atol=1e-9)


def test_golden_decoder() -> None:
    torch.manual_seed(2)
    decoder = Decoder(64, 0.0).double()
    queries, position, memory, memory_position = (random(1, n, 64, seed=n) for n in (5, 6, 7, 8))
    position, memory_position = position[:, :5], memory_position[:, :7]
    seen = torch.tensor([[True] * 5 + [False] * 2])
    found = decoder(queries, position, None, memory, memory_position, seen)[0]
    one = queries[0]
    for layer in decoder.layers:
        place = one + position[0]
        one = norm(one + attend(layer.own, place, place, one))
        key = memory[0] + memory_position[0]
        one = norm(one + attend(layer.cross, one + position[0], key, memory[0], ~seen[0]))
        one = norm(one + feed(layer.feed, one))
    torch.testing.assert_close(found, one, rtol=1e-9, atol=1e-9)


def test_golden_heads() -> None:
    heads = Heads(32)
    torch.nn.init.zeros_(heads.last.weight)
    heads.last.bias.data = torch.tensor([1.5, -0.3])
    found = heads(torch.zeros(1, 32))[0]
    sigmoid = [1 / (1 + math.exp(-v)) for v in (1.5, -0.3)]
    assert found[2:].tolist() == pytest.approx([2 * (s - 0.5) for s in sigmoid], rel=1e-6)
    assert found[:2].tolist() == pytest.approx(heads.person.bias.tolist())


def test_all_padding_is_no_nan() -> None:
    encoder = Encoder(32, 0.0)
    maps = torch.randn(1, 32, 32, 32)
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    assert bool(torch.isfinite(encoder(maps, torch.zeros_like(maps), valid)).all())


def test_encoder_sees_its_windows_only_and_no_padding() -> None:
    torch.manual_seed(3)
    encoder = Encoder(32, 0.0).double()
    maps, position = random(1, 32, 32, 64).requires_grad_(), random(1, 32, 32, 64, seed=1)
    valid = torch.ones(1, 32, 64, dtype=torch.bool)
    valid[:, :, 60:] = False
    encoder(maps, position, valid)[0, :, 18, 40].square().sum().backward()
    seen = (maps.grad != 0).any(1)[0]
    window = torch.zeros(32, 64, dtype=torch.bool)
    window[16:32, 32:60] = True
    assert torch.equal(seen, window)
    other = torch.where(valid[:, None], maps.detach(), 1e3)
    with torch.no_grad():
        pair = [encoder(x, position, valid)[:, :, :, :60] for x in (maps, other)]
    torch.testing.assert_close(*pair, rtol=0, atol=1e-12)


def test_encoder_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(32, 0.0).double()
    maps, position = random(2, 32, 32, 64), random(2, 32, 32, 64, seed=1)
    valid = torch.ones(2, 32, 64, dtype=torch.bool)
    valid[1, 20:] = False
    whole = encoder(maps, position, valid)
    most = []
    encoder.layers[0].register_forward_hook(lambda _, inputs, __: most.append(inputs[0].shape[:2].numel()))
    monkeypatch.setattr(pet_transformer, "CHUNK", 1600)
    with torch.no_grad():
        torch.testing.assert_close(encoder(maps, position, valid), whole, rtol=0, atol=1e-12)
    assert most == [1536, 1536, 1024]  # windows of 512 cells


def test_golden_splitter() -> None:
    splitter = Splitter(32).double()
    memory, valid = random(2, 32, 16, 32), torch.ones(2, 16, 32, dtype=torch.bool)
    valid[1, 3:] = False  # 3 of 8 rows of two regions, none of the two below
    with torch.no_grad():
        found = splitter(memory, valid)
    assert found.shape == (2, 2, 2)
    weight, bias = splitter.unit.weight.detach()[0, :, 0, 0], splitter.unit.bias.detach()
    for i, rows in enumerate((8, 3)):
        for column in range(2):
            mean = memory[i, :, :rows, column * 16 : column * 16 + 16].mean((1, 2))
            assert float(found[i, 0, column]) == pytest.approx(float((mean @ weight + bias).sigmoid()), rel=1e-6)
    assert found[1, 1].tolist() == pytest.approx([float(bias.sigmoid())] * 2)


def test_levels_share_their_geometry() -> None:
    assert (SPARSE.memory_window, SPARSE.region_windows, SPARSE.region_queries) == ((8, 16), (1, 1), (8, 16))
    assert (DENSE.memory_window, DENSE.region_windows, DENSE.region_queries) == ((2, 4), (4, 4), (16, 32))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_each_region_belongs_to_one_level(seed: int) -> None:
    rng = np.random.default_rng(seed)
    split = torch.from_numpy(rng.choice([0.0, 0.3, 0.5, 0.5000001, 0.9, 1.0], (2, 4, 2))).float()
    valid = torch.ones(2, 256, 256, dtype=torch.bool)
    valid[1, int(rng.integers(0, 257)) :] = False
    assert bool((belongs(split, SPARSE) ^ belongs(split, DENSE)).all())
    assert bool((active(split, SPARSE) == enlarge(split < 1, (8, 16))).all())
    assert bool((active(split, DENSE) == enlarge(split > 0.5, (16, 32))).all())
    covered = torch.zeros(2, 256, 256, dtype=torch.int64)
    for level in LEVELS:
        seen = valid[:, :: level.stride, :: level.stride]
        which = windows_to_search(split, seen, level)
        cells = level.window[0] * level.window[1]
        shape = (2, 256 // level.stride, 256 // level.stride)
        part = merge(torch.ones(len(which), cells, 1), level.window, shape, which)[:, 0]
        assert bool((part.bool() <= enlarge(belongs(split, level), level.region_queries)).all())
        covered += enlarge(part.long(), (level.stride, level.stride))
    assert int(covered.max()) <= 1
    assert bool((covered[valid] == 1).all())
