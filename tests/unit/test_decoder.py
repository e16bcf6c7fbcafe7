"""The decoder around windows against `SamPredictor.predict_torch`, and what it does when memory runs out."""

import logging
from typing import get_args

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.utils.transforms import ResizeLongestSide

from crowdmask.config import Prompt, PromptMode, Tiles
from crowdmask.datasets.synthetic import render_scene
from crowdmask.errors import DataError
from crowdmask.geometry import circle_box, neighbour_distances
from crowdmask.masks import decoder as module
from crowdmask.masks.decoder import Decoder, TileDecoder, fit, out_of_memory
from crowdmask.masks.prompts import Frame, MaskPrompts, Prompts, assemble
from crowdmask.masks.rle import Window
from crowdmask.masks.segment import segment_image, window_reach

MODES = get_args(PromptMode)
SIZES = {"portrait": 1.6, "landscape": 1.3, "square": 1.0, "enlarged": 0.2}
"""Longer side of an image, in frames."""


class Tile:
    """An image with some prompts, a random embedding, and windows of many sizes.

    Args:
        sam: The model.
        size: One of SIZES.
        prompt: Prompt mode.
        count: Number of prompts.
    """

    def __init__(self, sam, size="landscape", prompt=None, count=4):
        self.sam, self.prompt = sam, prompt or Prompt()
        rng = np.random.default_rng(len(size) + count)
        frame = sam.image_encoder.img_size
        long = round(SIZES[size] * frame)
        self.height, self.width = {"portrait": (long, long * 2 // 3), "square": (long, long)}.get(
            size, (long * 2 // 3, long)
        )
        limits = [self.width - 1, self.height - 1]
        self.points = rng.uniform(0, limits, (count, 2))
        self.points[0] = [0, limits[1]]
        self.parts, self.windows = [], []
        for k, (x, y) in enumerate(self.points):
            reach = rng.uniform(0.03, 0.2) * long
            x0, y0, w, h = circle_box(x, y, reach, self.height, self.width)
            self.parts.append(Window(x0, y0, rng.random((h, w)) < [1.0, 0.8][k % 2]))
            self.windows.append(circle_box(x, y, 2.5 * reach, self.height, self.width))
        self.windows[1] = 0, 0, self.width, self.height
        self.windows[2] = int(self.points[2][0]), int(self.points[2][1]), 1, 1
        self.frame = Frame(self.height, self.width, frame)
        side = sam.prompt_encoder.image_embedding_size
        noise = torch.Generator().manual_seed(7)
        self.embedding = torch.randn(1, sam.prompt_encoder.embed_dim, *side, generator=noise)
        mask_side = sam.prompt_encoder.mask_input_size[0]
        boxes = [[w.x0, w.y0, w.x0 + w.mask.shape[1] - 1, w.y0 + w.mask.shape[0] - 1] for w in self.parts]
        self.boxes = np.array(boxes, float)
        self.prompts = assemble(
            self.points, self.parts, self.points, (0, 0), self.frame, mask_side, self.prompt, self.boxes
        )

    def decode(self, decoder, windows=None):
        return list(decoder.tile(self.embedding, self.frame).decode(self.prompts, windows or self.windows))

    def logits(self, decoder):
        """Score and logits in the window of each prompt."""
        on, made = decoder.tile(self.embedding, self.frame), self.decode(decoder)
        return [(patch.score, on.sampler.window(patch, box)) for patch, box in zip(made, self.windows, strict=True)]

    def reference(self, made=None):
        """Scores (B,) and logits (B, height, width) of the official predictor."""
        made = made or self.prompts
        predictor = SamPredictor(self.sam)
        predictor.features, predictor.is_image_set = self.embedding, True
        predictor.original_size, predictor.input_size = (self.height, self.width), self.frame.input_hw
        points = None if made.points_xy is None else torch.from_numpy(made.points_xy)
        labels = None if made.points_xy is None else torch.from_numpy(made.point_labels)

        def predict(boxes, masks, multimask):
            full, scores, low = predictor.predict_torch(points, labels, boxes, masks, multimask, return_logits=True)
            best, every = scores.argmax(1), torch.arange(len(scores))
            return scores[every, best], full[every, best], low[every, best]

        masks = None if made.masks is None else torch.from_numpy(made.masks.dense())
        if self.prompt.mode == "two-pass":
            first = predict(None, None, True)[2][:, None]
            masks = first + torch.where(masks > 0, self.prompt.bias, -self.prompt.bias)
        boxes = None if made.boxes_xyxy is None else torch.from_numpy(made.boxes_xyxy)
        scores, full, _ = predict(boxes, masks, made.multimask)
        return scores.numpy(), full.numpy()


def check(tile):
    scores, full = tile.reference()
    shares = []
    for k, (score, logits) in enumerate(tile.logits(Decoder(tile.sam, 3))):
        x0, y0, w, h = tile.windows[k]
        true = full[k, y0 : y0 + h, x0 : x0 + w]
        assert score == pytest.approx(scores[k], abs=1e-5)
        np.testing.assert_allclose(logits, true, atol=1e-4 * max(1.0, np.abs(full[k]).max()))
        sure = np.abs(true) >= 1e-3
        np.testing.assert_array_equal((logits > 0)[sure], (true > 0)[sure])
        assert sure.mean() > 0.99
        for level in (-1, 1):  # what the stability counts
            edge = (np.abs(true - level) < 1e-3).sum()
            assert abs(int((logits > level).sum()) - int((true > level).sum())) <= edge
        shares.append((true > 0).mean())
    assert max(shares) > 0.01 and min(shares) < 0.98  # not of empty or full masks only


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_windows_are_those_of_the_official_predictor(shipped, size, mode, neighbours):
    check(Tile(shipped, size, Prompt(mode=mode, neighbours=neighbours)))


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize(("mode", "size"), list(zip(MODES, [*SIZES, *SIZES], strict=False)))
def test_windows_of_vit_b_are_those_of_the_official_predictor(models, mode, size, neighbours):
    check(Tile(models("vit_b"), size, Prompt(mode=mode, neighbours=neighbours)))


@pytest.mark.parametrize("name", ["shipped", "random", "vit_b"])
def test_all_three_masks_are_those_of_the_official_predictor(models, name):
    tile = Tile(models(name), "landscape", Prompt(mode="point"), count=5)
    on = (decoder := Decoder(tile.sam, 2)).tile(tile.embedding, tile.frame)
    made = list(on.decode_three(tile.prompts, tile.windows))
    predictor = SamPredictor(tile.sam)
    predictor.features, predictor.is_image_set = tile.embedding, True
    predictor.original_size, predictor.input_size = (tile.height, tile.width), tile.frame.input_hw
    points, labels = torch.from_numpy(tile.prompts.points_xy), torch.from_numpy(tile.prompts.point_labels)
    full, scores, _ = predictor.predict_torch(points, labels, None, None, True, return_logits=True)
    best = tile.decode(decoder)
    for k, ((x0, y0, w, h), three) in enumerate(zip(tile.windows, made, strict=True)):
        for token, patch in enumerate(three):
            true = full[k, token, y0 : y0 + h, x0 : x0 + w].numpy()
            assert patch.score == pytest.approx(float(scores[k, token]), abs=1e-5)
            limit = 1e-4 * max(1.0, float(full[k].abs().max()))
            np.testing.assert_allclose(on.sampler.window(patch, tile.windows[k]), true, atol=limit)
        assert max(patch.score for patch in three) == pytest.approx(best[k].score, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["shipped", "vit_b"])
def test_rows_are_those_of_the_official_predictor(models, monkeypatch, name, mode):
    """Score, stability and window of `segment_image`, with an embedding that both sides share."""
    tile = Tile(models(name), "enlarged", Prompt(mode=mode, clip_to_circle=False))
    decoder = Decoder(tile.sam)
    monkeypatch.setattr(decoder, "embed", lambda pictures: [tile.embedding] * len(pictures))
    image = np.zeros((tile.height, tile.width, 3), np.uint8)
    rows = segment_image(decoder, image, tile.points, tile.parts, tile.prompt, Tiles(mode="none"), tile.boxes)
    scores, full = tile.reference()
    reach = window_reach(neighbour_distances(tile.points), tile.height, tile.width)
    for k, row in enumerate(rows):
        x0, y0, w, h = circle_box(*tile.points[k], reach[k], tile.height, tile.width)
        true = full[k, y0 : y0 + h, x0 : x0 + w]
        assert row["score"] == pytest.approx(scores[k], abs=1e-5)
        firm, loose = int((true > 1).sum()), int((true > -1).sum())
        edge = (np.abs(np.abs(true) - 1) < 1e-3).sum()
        assert row["stability"] == pytest.approx(firm / max(loose, 1), abs=(2 * edge + 1e-9) / max(loose, 1))
        found = Window.from_columns(row)
        np.testing.assert_array_equal(found.cut(x0, y0, w, h)[np.abs(true) >= 1e-3], (true > 0)[np.abs(true) >= 1e-3])
        assert found.area == found.cut(x0, y0, w, h).sum()  # nothing outside of the window


@pytest.mark.parametrize("mode", MODES)
def test_a_window_is_cut_from_the_same_mask(shipped, mode):
    """A window alone, in a group with others, and as part of the whole tile."""
    tile = Tile(shipped, "landscape", Prompt(mode=mode))
    decoder = Decoder(shipped)
    on = decoder.tile(tile.embedding, tile.frame)
    whole = [on.sampler.window(p, tile.windows[1]) for p in tile.decode(decoder, [tile.windows[1]] * 4)]
    for k, (_, logits) in enumerate(tile.logits(decoder)):
        x0, y0, w, h = tile.windows[k]
        np.testing.assert_allclose(logits, whole[k][y0 : y0 + h, x0 : x0 + w], atol=1e-4)


# --- Pictures and embeddings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (40, 64), (33, 20), (7, 900), (1, 1), (1, 256)])
@pytest.mark.parametrize("side", [256, 1024])
def test_fit_is_what_segment_anything_does(size, side):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(image, side), ResizeLongestSide(side).apply_image(image))
    wide = np.concatenate([image, image], axis=1)
    np.testing.assert_array_equal(fit(wide[:, : size[1]], side), fit(image, side))  # a crop: rows are not contiguous


def test_fit_keeps_a_side_of_a_thin_picture():
    assert fit(np.zeros((1, 3000, 3), np.uint8), 256).shape == (1, 256, 3)
    assert fit(np.zeros((3000, 2, 3), np.uint8), 256).shape == (256, 1, 3)


@pytest.fixture(scope="module")
def pictures():
    sizes = [(240, 320), (320, 240), (256, 256), (240, 250), (260, 240)]
    return [render_scene(k, height=h, width=w, people=9).image for k, (h, w) in enumerate(sizes)]


def test_embeddings_are_the_predictors(shipped, pictures):
    decoder, predictor = Decoder(shipped), SamPredictor(shipped)
    for picture, made in zip(pictures, decoder.embed([fit(p, 256) for p in pictures]), strict=True):
        predictor.set_image(picture)
        assert made.shape == (1, 128, 32, 32) and made.dtype == torch.float32
        torch.testing.assert_close(made, predictor.features, rtol=0, atol=1e-5)


def test_an_embedding_does_not_depend_on_its_group(shipped, pictures):
    fitted = [fit(p, 256) for p in pictures]
    decoder = Decoder(shipped)
    one_by_one = decoder.embed(fitted)
    decoder.tiles = 3
    whole, last = decoder.embed(fitted), decoder.embed(fitted[4:])
    assert len(whole) == 5 and len(last) == 1 and decoder.embed([]) == []
    assert torch.equal(whole[4], last[0])  # the first of its group in both, beside others or beside black
    for a, b in zip(whole, one_by_one, strict=True):
        assert torch.equal(a, b) or (a - b).abs().max() < 1e-5


def test_half_precision_of_the_encoder_is_close(shipped, pictures):
    picture = fit(pictures[0], 256)
    (exact,), (made,) = Decoder(shipped).embed([picture]), Decoder(shipped, precision="bf16").embed([picture])
    assert made.dtype == torch.float32 and 0 < (made - exact).abs().mean() < 0.02 * exact.std()


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_which_errors_say_that_memory_ran_out():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50)
    with pytest.raises(MemoryError) as arrays:
        np.zeros(1 << 60, np.uint8)
    for error in (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
        real.value,
        arrays.value,
    ):
        assert out_of_memory(error)
    for error in (RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory"), OSError(12)):
        assert not out_of_memory(error)


def short_of_memory(monkeypatch, most, error=torch.cuda.OutOfMemoryError, calls=None):
    """Make the transformer fail with more than `most` prompts at once."""
    chunk = TileDecoder._chunk

    def limited(self, prompts, part, windows):
        if calls is not None:
            calls.append((part.start, part.stop))
        if part.stop - part.start > most:
            raise error("out of memory")
        return chunk(self, prompts, part, windows)

    monkeypatch.setattr(TileDecoder, "_chunk", limited)


def same(made, expected):
    assert len(made) == len(expected)
    for a, b in zip(made, expected, strict=True):
        assert (a.top, a.left, a.score) == (b.top, b.left, b.score)
        np.testing.assert_array_equal(a.logits, b.logits)


@pytest.fixture(scope="module")
def thirteen(shipped):
    return Tile(shipped, "enlarged", Prompt(mode="point+superpixel"), 13)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError, RuntimeError])
def test_fewer_prompts_where_memory_runs_out(thirteen, monkeypatch, caplog, error):
    expected = thirteen.decode(Decoder(thirteen.sam, 3))
    decoder = Decoder(thirteen.sam, 64)
    calls = []
    short_of_memory(monkeypatch, 3, error, calls)
    with caplog.at_level(logging.WARNING):
        same(thirteen.decode(decoder), expected)
        assert calls == [(0, 13), (0, 6), (0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]
        same(thirteen.decode(decoder), expected)  # the next tile
    assert [record.message for record in caplog.records] == [
        "out of memory with 13 prompts at once; going on with 6",
        "out of memory with 6 prompts at once; going on with 3",
    ]
    assert decoder.chunk == 3 and calls[7:] == calls[2:7]


def test_memory_that_runs_out_in_the_middle_keeps_the_order(thirteen, monkeypatch, caplog):
    decoder = Decoder(thirteen.sam, 5)
    expected = thirteen.logits(Decoder(thirteen.sam, 13))
    chunk = TileDecoder._chunk
    calls = []

    def limited(self, prompts, part, windows):
        calls.append((part.start, part.stop))
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return chunk(self, prompts, part, windows)

    monkeypatch.setattr(TileDecoder, "_chunk", limited)
    made = thirteen.logits(decoder)
    assert calls == [(0, 5), (5, 10), (5, 7), (7, 9), (9, 11), (11, 13)] and len(caplog.records) == 1
    for (score, logits), (true_score, true) in zip(made, expected, strict=True):
        assert score == pytest.approx(true_score, abs=1e-5)
        np.testing.assert_allclose(logits, true, atol=1e-4)


def test_not_even_one_prompt_fits(thirteen, monkeypatch, caplog):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(DataError, match=r"cpu: out of memory with one of SAM's prompts at once.*`sam.model`.*--cores"):
        thirteen.decode(Decoder(thirteen.sam, 4))
    assert len(caplog.records) == 2  # 4 -> 2 -> 1


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_are_not_swallowed(thirteen, monkeypatch, caplog, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(TileDecoder, "_chunk", broken)
    monkeypatch.setattr(Decoder, "_encode", broken)
    decoder = Decoder(thirteen.sam)
    with pytest.raises(type(error)):
        thirteen.decode(decoder)
    with pytest.raises(type(error)):
        decoder.embed([np.zeros((256, 256, 3), np.uint8)])
    assert caplog.records == []


def test_fewer_tiles_where_memory_runs_out(shipped, pictures, monkeypatch, caplog):
    fitted = [fit(p, 256) for p in pictures]
    decoder = Decoder(shipped)
    decoder.tiles = 2
    expected = decoder.embed(fitted)
    encode, sizes = Decoder._encode, []

    def limited(self, group):
        sizes.append(len(group))
        if len(group) > limit:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return encode(self, group)

    monkeypatch.setattr(Decoder, "_encode", limited)
    limit, decoder.tiles = 2, 8
    for _ in range(2):
        made = decoder.embed(fitted)
        assert len(made) == 5 and all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2] and decoder.tiles == 2
    assert [record.message for record in caplog.records] == [
        "out of memory with 8 tiles at once; going on with 4",
        "out of memory with 4 tiles at once; going on with 2",
    ]
    limit = 0
    with pytest.raises(DataError, match="out of memory with one of SAM's tiles at once"):
        decoder.embed(fitted)


def test_rows_do_not_depend_on_memory(shipped, pictures, monkeypatch):
    rng = np.random.default_rng(0)
    image, points = pictures[0], rng.uniform(0, [319, 239], (20, 2))
    parts = []
    for x, y in points:
        x0, y0, w, h = circle_box(x, y, 9, 240, 320)
        parts.append(Window(x0, y0, np.ones((h, w), bool)))
    arguments = image, points, parts, Prompt(), Tiles(mode="fixed", side=200)
    expected = segment_image(Decoder(shipped, 64), *arguments)
    short_of_memory(monkeypatch, 2)
    made = segment_image(Decoder(shipped, 64), *arguments)
    assert len(made) == 20
    for a, b in zip(made, expected, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-5) and a["tile"] == b["tile"]
        differ = Window.from_columns(a).full(240, 320) ^ Window.from_columns(b).full(240, 320)
        assert differ.sum() <= 1  # a logit of 0 within rounding


def test_upscaling_in_steps_changes_nothing(thirteen, monkeypatch):
    expected = thirteen.decode(Decoder(thirteen.sam))
    monkeypatch.setitem(module.UPSCALING_BYTES, "cpu", 1)
    for a, b in zip(thirteen.decode(Decoder(thirteen.sam)), expected, strict=True):
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-4)


def prompts_of_size(points, boxes=False, blocks=0, bias=None):
    masks = MaskPrompts(np.zeros((1, blocks), np.int64), np.zeros((1, blocks, 4, 4), bool), 6.9, 128)
    return Prompts(
        np.zeros((1, points, 2), np.float32),
        np.zeros((1, points), np.int32),
        np.zeros((1, 4), np.float32) if boxes else None,
        masks if blocks else None,
        False,
        bias,
    )


def test_chunks_are_no_larger_than_asked_for_or_fit(any_sam, monkeypatch):
    few, many = prompts_of_size(1), prompts_of_size(17, boxes=True, blocks=400)
    for chunk in (1, 3):
        decoder = Decoder(any_sam, chunk)
        assert decoder.most == decoder.at_once(few) == decoder.at_once(many) == chunk and decoder.tiles == 1
    decoder = Decoder(any_sam, 4096)
    assert module.CPU_LEAST <= decoder.at_once(many) <= decoder.at_once(few) < 4096
    monkeypatch.setattr(module, "CPU_BYTES", 1 << 29)
    sizes = [
        decoder.at_once(p) for p in (few, prompts_of_size(1, blocks=9), many, prompts_of_size(1, blocks=9, bias=3.0))
    ]
    assert sizes[0] > sizes[1] > sizes[2] and sizes[1] > sizes[3]
    decoder.chunk = 2  # as after memory ran out
    assert decoder.at_once(few) == 2


def test_an_answer_that_is_no_number_is_an_error(thirteen, monkeypatch):
    monkeypatch.setattr(thirteen, "embedding", torch.full_like(thirteen.embedding, np.nan))
    with pytest.raises(DataError, match="not a number"):
        thirteen.decode(Decoder(thirteen.sam))
