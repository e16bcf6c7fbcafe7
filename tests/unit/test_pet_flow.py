"""What flows through PET: pyramid, positions, windows, offsets, padding, features at points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pet_cases import mixed, small

from crowdmask.losses.grid import cell_centres
from crowdmask.models.pet import Pyramid, features_at
from crowdmask.models.pet_splitter import DENSE, LEVELS, SPARSE


def slow_position(y: float, x: float, width: int) -> list[float]:
    """Phases of one place -> its encoding, channel by channel."""
    out = []
    for phase in (y, x):
        for i in range(width // 2):
            angle = phase / 10000 ** (2 * (i // 2) / (width // 2))
            out.append(math.cos(angle) if i % 2 else math.sin(angle))
    return out


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_golden_what_the_decoder_is_given(level) -> None:
    """Features, positions, memory and padding of each window, query by query."""
    model = small().eval()
    image = torch.zeros(1, 3, 256, 512)
    image[..., :200, :300] = torch.randn(1, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    given: dict[str, tuple[torch.Tensor, ...]] = {}
    with torch.no_grad():
        model.encoder.register_forward_hook(lambda _, inputs, __: given.update(encoder=inputs))
        found = model(image)
        model.decoder.register_forward_hook(lambda _, inputs, __: given.update(decoder=inputs))
        model.decode(found, level)
    maps, place, seen = given["encoder"]
    assert torch.equal(maps, found["features8"])
    assert torch.equal(seen[0], (torch.arange(32) < 25)[:, None] & (torch.arange(64) < 38))
    full, stride = 2 * math.pi, level.stride
    for y, x in ((0, 0), (11, 37), (24, 2)):
        wanted = slow_position(full * (y + 1) / 25, full * (x + 1) / 38, 32)
        assert place[0, :, y, x].tolist() == pytest.approx(wanted, abs=1e-5)
    queries, position, valid, memory, memory_position, memory_valid = given["decoder"]
    high, wide = level.window
    across = 512 // (wide * stride)
    assert queries.shape == (256 * 512 // (high * wide * stride**2), high * wide, 32)
    rng = np.random.default_rng(1)
    for n, j in zip(rng.integers(0, len(queries), 40), rng.integers(0, high * wide, 40), strict=True):
        row, column = n // across * high + j // wide, n % across * wide + j % wide
        assert torch.equal(queries[n, j], found[f"features{stride}"][0, :, row, column])
        assert bool(valid[n, j]) == (row * stride < 200 and column * stride < 300)
        y, x = (min(int((k + 0.5) * stride) + 1, most) / most for k, most in ((row, 200), (column, 300)))
        if valid[n, j] and row * stride + stride // 2 < 200 and column * stride + stride // 2 < 300:
            assert position[n, j].tolist() == pytest.approx(slow_position(full * y, full * x, 32), abs=1e-5)
    high, wide = high * stride // 8, wide * stride // 8
    assert memory.shape == memory_position.shape == (len(queries), high * wide, 32)
    for n, j in zip(rng.integers(0, len(queries), 40), rng.integers(0, high * wide, 40), strict=True):
        row, column = n // across * high + j // wide, n % across * wide + j % wide
        assert torch.equal(memory[n, j], found["memory"][0, :, row, column])
        assert torch.equal(memory_position[n, j], place[0, :, row, column])
        assert bool(memory_valid[n, j]) == bool(seen[0, row, column])


def test_golden_pyramid() -> None:
    torch.manual_seed(4)
    made = Pyramid({4: 3, 8: 5, 16: 6}, 32).double()
    maps = {s: torch.randn(1, c, 64 // s, 32 // s, dtype=torch.float64) for s, c in ((4, 3), (8, 5), (16, 6))}

    def lateral(stride: int) -> torch.Tensor:
        part = getattr(made, f"lateral{stride}")
        return torch.einsum("oi,bihw->bohw", part.weight[..., 0, 0], maps[stride]) + part.bias[:, None, None]

    def twice(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    sum8 = lateral(8) + twice(lateral(16))
    sum4 = lateral(4) + twice(sum8)
    for found, smooth, project, one in (
        (made(maps)[0], made.smooth4, made.project4, sum4),
        (made(maps)[1], made.smooth8, made.project8, sum8),
    ):
        padded = torch.nn.functional.pad(one, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        one = torch.einsum("bihwkl,oikl->bohw", padded, smooth.weight) + smooth.bias[:, None, None]
        one = torch.einsum("oi,bihw->bohw", project.weight[..., 0, 0], one) + project.bias[:, None, None]
        torch.testing.assert_close(found, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_queries_see_their_window_only(level) -> None:
    model = small().train()
    found = model(torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)))
    found = {key: value.detach() for key, value in found.items()}
    found["memory"].requires_grad_()
    row, column = 100 // level.stride, 200 // level.stride
    model.decode(found, level)[f"{level.name}_logits"][0, :, row, column].sum().backward()
    high, wide = (n * level.stride for n in level.window)
    y, x = 100 // high * high // 8, 200 // wide * wide // 8
    window = torch.zeros(32, 32, dtype=torch.bool)
    window[y : y + high // 8, x : x + wide // 8] = True
    assert torch.equal((found["memory"].grad != 0).any(1)[0], window)


def test_golden_features_at_cell_centres() -> None:
    model = small().eval()
    with torch.no_grad():
        found = model(mixed().images[:1])
    for stride, part in ((4, slice(0, 32)), (8, slice(32, 64))):
        maps = found[f"features{stride}"][0]
        side = 256 // stride
        read = features_at(found, cell_centres(side, side, stride, maps))[:, part]
        torch.testing.assert_close(read, maps.flatten(1).T, rtol=1e-4, atol=1e-5)
    between = features_at(found, torch.tensor([[3.5, 1.5]]))[0, :32]  # between the first cells of a row
    torch.testing.assert_close(between, found["features4"][0, :, 0, :2].mean(1), rtol=1e-4, atol=1e-5)


def test_padding_is_found_by_itself_and_seen_by_nobody() -> None:
    """What lies in padding changes nothing of what is decoded of the image."""
    model = small().eval()
    image = torch.zeros(1, 3, 256, 512)
    image[..., :200, :300] = torch.randn(1, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(image)
        valid = torch.zeros(1, 256, 512, dtype=torch.bool)
        valid[:, :200, :300] = True
        assert torch.equal(found["valid"], valid)
        for key, value in model(image, valid).items():
            assert torch.equal(value, found[key])
        noisy = found | {
            f"features{s}": torch.where(valid[:, None, ::s, ::s], found[f"features{s}"], 77.0) for s in (4, 8)
        }
        noisy["memory"] = torch.where(valid[:, None, ::8, ::8], found["memory"], -50.0)
        for level in LEVELS:
            seen = valid[:, None, :: level.stride, :: level.stride].expand(-1, 2, -1, -1)
            plain, other = (model.decode(x, level) for x in (found, noisy))
            for key, value in plain.items():
                torch.testing.assert_close(value[seen], other[key][seen], rtol=1e-5, atol=1e-4)
        black = model(torch.zeros(1, 3, 256, 256))  # nothing but padding
        assert all(bool(torch.isfinite(value).all()) for value in black.values())
        assert model.read(black, 256, 256).count == 0


def test_golden_points_of_queries() -> None:
    """Query plus offset in units of 256 pixels, whatever the size: size * (query / size + offset / (size / 256))."""
    model = small().train()
    for level, shift in ((SPARSE, 0.5), (DENSE, -0.2)):
        torch.nn.init.zeros_(model.heads[level.name].last.weight)
        model.heads[level.name].last.bias.data[:] = torch.tensor([shift, 0.0])
    found = model(torch.ones(1, 3, 256, 512))
    for level, shift in ((SPARSE, 0.5), (DENSE, -0.2)):
        offset = 2 * (float(torch.tensor(shift).sigmoid()) - 0.5)
        xy = found[f"{level.name}_xy"][0]
        assert xy.shape == (2, 256 // level.stride, 512 // level.stride)
        for row, column in ((0, 0), (3, 17)):
            query = [int((k + 0.5) * level.stride) for k in (column, row)]
            x = 512 * (query[0] / 512 + offset / (512 / 256))
            assert xy[:, row, column].tolist() == pytest.approx([x, query[1]], rel=1e-5)
