"""Windows of mask logits against segment_anything's `postprocess_masks` on whole images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam

from crowdmask.masks.prompts import Frame
from crowdmask.masks.sampling import Patch, bilinear, sampler

FRAMES = {256: 128, 1024: 256}
"""Low-resolution side of each frame: the small SAM's and the official one's."""
SCALE = 20.0
CLOSE = 1e-4 * SCALE  # torch rounds positions its own way: up to 4e-5 of the scale

SIZES = [(300, 400), (400, 300), (333, 333), (1500, 2000), (40, 64), (33, 20), (7, 2000), (2000, 7), (1, 90), (90, 1)]
SIZES += [(1, 1), (1, 3000), (256, 256), (1024, 1024), (1023, 1025)]


def logits_of(size, seed=0):
    """Random low-resolution logits, and what segment_anything makes of them on a tile of a frame."""
    frame = Frame(*size)
    low = SCALE * torch.randn(FRAMES[frame.size], FRAMES[frame.size], generator=torch.Generator().manual_seed(seed))
    model = SimpleNamespace(image_encoder=SimpleNamespace(img_size=frame.size))
    full = Sam.postprocess_masks(model, low[None, None], frame.input_hw, (frame.height, frame.width))
    return frame, low.numpy(), full[0, 0].numpy()


def cut(low, on, box):
    """The rectangle of whole embedding cells (4 x 4 logits) that a window needs."""
    x0, y0, w, h = box
    top, bottom = on.rows.span(y0, h)
    left, right = on.cols.span(x0, w)
    top, left = top // 4 * 4, left // 4 * 4
    return Patch(low[top : -(-bottom // 4) * 4, left : -(-right // 4) * 4], top, left, 0.5)


def check(frame, low, full, box):
    x0, y0, w, h = box
    on = sampler(frame, len(low))
    whole = on.window(Patch(low, 0, 0, 0.5), box)
    assert whole.shape == (h, w) and whole.dtype == np.float32
    np.testing.assert_allclose(whole, full[y0 : y0 + h, x0 : x0 + w], rtol=0, atol=CLOSE)
    part = cut(low, on, box)
    np.testing.assert_allclose(on.window(part, box), whole, rtol=0, atol=1e-6 * SCALE)
    return part


@pytest.mark.parametrize("side", FRAMES)
@pytest.mark.parametrize("size", SIZES)
def test_windows_are_those_of_the_whole_image(size, side):
    frame, low, full = logits_of((*size, side))
    height, width = size
    check(frame, low, full, (0, 0, width, height))
    middle = width // 3, height // 3
    for x0, y0 in [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), middle]:
        check(frame, low, full, (x0, y0, 1, 1))
    for x0, y0, x1, y1 in [(0, 0, *middle), (*middle, width - 1, height - 1), (0, middle[1], width - 1, height // 2)]:
        check(frame, low, full, (x0, y0, x1 - x0 + 1, y1 - y0 + 1))


@given(st.data())
@settings(max_examples=60)
def test_any_window_of_any_tile(data):
    side = data.draw(st.sampled_from(sorted(FRAMES)))
    height, width = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 700))
    frame, low, full = logits_of((height, width, side), data.draw(st.integers(0, 99)))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    check(frame, low, full, (x0, y0, data.draw(st.integers(1, width - x0)), data.draw(st.integers(1, height - y0))))


def test_a_patch_holds_no_more_than_the_window_needs():
    frame, low, full = logits_of((768, 1024, 1024))
    part = check(frame, low, full, (401, 301, 20, 9))  # a logit is 4 x 4 pixels here
    assert part.logits.shape == (8, 12) and (part.top, part.left) == (72, 96)
    broken = part.logits.copy()
    broken[4, 4] += 1.0  # the comparison sees a single logit
    moved = sampler(frame, 256).window(Patch(broken, part.top, part.left, 0.5), (401, 301, 20, 9))
    assert np.abs(moved - full[301:310, 401:421]).max() > 0.5


@pytest.mark.parametrize(
    ("size_in", "size_out"), [(5, 5), (128, 256), (256, 1024), (1024, 37), (683, 600), (1, 9), (9, 1)]
)
def test_bilinear_is_torchs(size_in, size_out):
    at, weights = bilinear(size_in, size_out)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert at.min() >= 0 and at.max() < size_in and weights.min() >= 0
    line = np.random.default_rng(0).normal(size=size_in).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(line)[None, None], size_out, mode="linear")[0, 0].numpy()
    np.testing.assert_allclose((line[at] * weights).sum(1), theirs, atol=2e-6)
