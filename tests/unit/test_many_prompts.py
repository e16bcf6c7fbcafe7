"""SAM's decoder for many prompts against segment_anything's own, cell by cell and logit by logit."""

import copy
import hashlib

import numpy as np
import pytest
import torch

from crowdmask.datasets.synthetic import render_scene
from crowdmask.masks.decoder import fit
from crowdmask.masks.many_prompts import ManyPrompts, Own

CLOSE = 1e-5
"""Largest difference of normalised tokens and cells, which are of size 1 to 10."""
ALL = [0, 1, 2, 3, 4]


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """Prompts of one image: as `ManyPrompts` wants them, and spread out for segment_anything.

    Args:
        sam: The model.
        image: (N, C) image embedding.
        own: None, or which cells are the prompts' own: some, all, none (listed, but without any change), shuffled (all,
            listed in any order).
        count: Number of prompts.
        points: Of each; -1 for no prompt tokens at all (a mask alone).
    """

    def __init__(self, sam, image, own=None, count=3, points=1):
        self.sam = sam
        self.cells, self.channels = image.shape
        self.side = sam.prompt_encoder.image_embedding_size
        constant = normal(self.channels, seed=1, scale=0.5)
        dense = constant.expand(count, self.cells, -1).clone()
        self.own = None
        if own is not None:
            m = {"some": 7, "none": 3, "shuffled": self.cells, "all": self.cells}[own]
            order = torch.Generator().manual_seed(2)
            index = torch.stack([torch.randperm(self.cells, generator=order)[:m] for _ in range(count)])
            change = normal(count, m, self.channels, seed=3) * (own != "none")
            if own == "all":
                index = torch.arange(self.cells).expand(count, -1)
            dense.scatter_add_(1, index[..., None].expand_as(change), change)
            self.own = Own(None if own == "all" else index, change)
        with torch.inference_mode():
            self.sparse = torch.empty(count, 0, self.channels)
            if points >= 0:
                xy = normal(count, points, 2, seed=4).abs() * sam.image_encoder.img_size / 3
                labels = torch.ones(count, points, dtype=torch.int32)
                labels[:, 1::2], labels[:, 2::3] = 0, -1
                self.sparse = sam.prompt_encoder(points=(xy, labels), boxes=None, masks=None)[0]
        self.shared = image + constant
        self.grid = lambda x: x.transpose(1, 2).reshape(len(x), self.channels, *self.side)
        self.image, self.dense = self.grid(image[None]), self.grid(dense)

    @torch.inference_mode()
    def theirs(self, dtype=torch.float32):
        """Tokens and cells of segment_anything's transformer."""
        decoder = self.sam.mask_decoder
        transformer = decoder.transformer if dtype == torch.float32 else copy.deepcopy(decoder.transformer).to(dtype)
        first = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(self.sparse), -1, -1)
        pe = self.sam.prompt_encoder.get_dense_pe().to(dtype).expand(len(self.sparse), -1, -1, -1)
        src = (self.image + self.dense).to(dtype)
        tokens, cells = transformer(src, pe, torch.cat([first, self.sparse], 1).to(dtype))
        return tokens[:, :5], cells

    def masks(self):
        """Logits and scores of segment_anything's decoder: (B, 4, 4 E, 4 E) and (B, 4)."""
        pe = self.sam.prompt_encoder.get_dense_pe()
        with torch.inference_mode():
            return self.sam.mask_decoder.predict_masks(self.image, pe, self.sparse, self.dense)

    def ours(self, asked=ALL, dtype=torch.float32, sam=None):
        """The decoder and its answer."""
        many = ManyPrompts(sam or self.sam, dtype)
        return many, many.transform(many.scene(self.shared), self.sparse, self.own, asked)

    def corner(self):
        return torch.zeros(len(self.sparse), dtype=torch.long)

    def all_cells(self, many, answer):
        return many.cells(answer, self.corner(), self.corner(), self.side)


def image_of(sam, seed=0):
    """Random cells of an image."""
    side = sam.prompt_encoder.image_embedding_size
    return normal(side[0] * side[1], sam.prompt_encoder.embed_dim, seed=seed)


def farthest(a, b):
    return (a - b).abs().max().item()


def check(case):
    """Every result of every mask token; logits are compared relative to their spread."""
    tokens, cells = case.theirs()
    many, answer = case.ours()
    assert farthest(answer.tokens, tokens) < CLOSE
    found = case.all_cells(many, answer)
    assert farthest(found, cells) < CLOSE
    low, scores = case.masks()
    assert farthest(many.scores(answer), scores) < CLOSE * max(1.0, scores.abs().max().item())
    for k in range(4):
        logits = many.logits(answer.tokens[:, 1 + k], found, case.side, torch.full((len(tokens),), k))
        assert logits.shape == low[:, k].shape and low[:, k].std() > 0.01
        assert farthest(logits, low[:, k]) < CLOSE * max(1.0, low[:, k].abs().max().item())


OWN = [None, "none", "some", "shuffled", "all"]


@pytest.mark.parametrize("own", OWN)
def test_it_is_segment_anythings_decoder(any_sam, own):
    check(Case(any_sam, image_of(any_sam), own, count=2))


@pytest.mark.parametrize("points", [-1, 0, 2, 5, 9])
@pytest.mark.parametrize("own", [None, "some", "all"])
def test_any_number_of_tokens(shipped, own, points):
    case = Case(shipped, image_of(shipped), own, count=2, points=points)
    assert case.sparse.shape[1] == points + 1  # segment_anything adds a filler where there is no box
    check(case)


@pytest.fixture(scope="module")
def crowd(shipped):
    """Embedding (N, C) of a rendered picture by the small SAM as it ships."""
    scene = render_scene(5, height=240, width=320, people=40)
    picture = torch.from_numpy(fit(scene.image, 256)).permute(2, 0, 1).float()[None]
    with torch.inference_mode():
        return shipped.image_encoder(shipped.preprocess(picture)).flatten(2)[0].T


@pytest.mark.parametrize("own", OWN)
def test_a_real_picture(shipped, crowd, own):
    check(Case(shipped, crowd, own, count=6, points=2))


def test_a_single_prompt_and_one_own_cell(shipped):
    case = Case(shipped, image_of(shipped), "some", count=1)
    assert case.sparse.shape[0] == 1
    check(case)


@pytest.mark.parametrize("asked", [[0, 1], [0, 2, 3, 4], [3], [4, 0, 1]])
@pytest.mark.parametrize("own", [None, "some", "all"])
def test_only_tokens_asked_for_are_made_and_they_are_the_same(shipped, own, asked):
    case = Case(shipped, image_of(shipped), own)
    (many, every), (_, some) = case.ours(), case.ours(asked)
    assert some.tokens.shape == (3, len(asked), 128)
    assert farthest(some.tokens, every.tokens[:, asked]) < CLOSE
    if asked[0] == 0:
        assert farthest(many.scores(some), many.scores(every)) < CLOSE
    assert torch.equal(case.all_cells(many, some), case.all_cells(many, every))


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("side", [(1, 1), (5, 9), (32, 3), (32, 32)])
def test_rectangles_are_parts_of_the_whole(shipped, own, side):
    case = Case(shipped, image_of(shipped), own, count=4)
    many, answer = case.ours()
    whole = case.all_cells(many, answer).view(4, 32, 32, -1)
    h, w = side
    top, left = torch.tensor([0, 32 - h, (32 - h) // 2, 32 - h]), torch.tensor([0, 32 - w, (32 - w) // 3, 0])
    which = torch.tensor([3, 0, 2, 0])
    tokens = answer.tokens[torch.arange(4), 1 + which]
    logits = many.logits(tokens, whole.flatten(1, 2), (32, 32), which)
    cells = many.cells(answer, top, left, side)
    part = many.logits(tokens, cells, side, which)
    assert part.shape == (4, 4 * h, 4 * w)
    for k, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        assert farthest(cells[k].view(h, w, -1), whole[k, y : y + h, x : x + w]) < CLOSE
        expected = logits[k, 4 * y : 4 * (y + h), 4 * x : 4 * (x + w)]
        assert farthest(part[k], expected) < CLOSE * max(1.0, logits.abs().max().item())


@pytest.mark.parametrize("own", [None, "some", "all"])
def test_a_prompt_does_not_depend_on_the_others(any_sam, own):
    case = Case(any_sam, image_of(any_sam), own, count=4)
    many, together = case.ours()
    scene = many.scene(case.shared)
    for k in (slice(0, 1), slice(1, 4)):
        mine = None
        if case.own is not None:
            mine = Own(None if case.own.index is None else case.own.index[k], case.own.change[k])
        apart = many.transform(scene, case.sparse[k], mine, ALL)
        corner = case.corner()[k]
        assert farthest(apart.tokens, together.tokens[k]) < CLOSE
        cells = many.cells(apart, corner, corner, case.side)
        assert farthest(cells, case.all_cells(many, together)[k]) < CLOSE


def test_a_scene_serves_many_calls_and_stays_as_it_was(shipped):
    case = Case(shipped, image_of(shipped), "some")
    many = ManyPrompts(shipped)
    scene = many.scene(case.shared)
    change = case.own.change.clone()
    first, second = (many.transform(scene, case.sparse, case.own, ALL) for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(case.all_cells(many, first), case.all_cells(many, second))
    assert torch.equal(case.own.change, change)


def digest(sam):
    state = sam.state_dict()
    return hashlib.sha256(b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_stays_as_it_was(shipped, dtype):
    before = digest(shipped)
    for own in OWN:
        case = Case(shipped, image_of(shipped), own)
        many, answer = case.ours(dtype=dtype)
        cells = case.all_cells(many, answer)
        many.logits(answer.tokens[:, 1], cells, case.side, torch.zeros(3, dtype=torch.long))
    assert digest(shipped) == before
    assert all(value.dtype == torch.float32 for value in shipped.state_dict().values())


TRANSFORMER = [
    "layers.0.self_attn.v_proj.bias",
    "layers.0.norm1.bias",
    "layers.0.cross_attn_token_to_image.q_proj.bias",
    "layers.0.cross_attn_token_to_image.v_proj.bias",
    "layers.1.cross_attn_token_to_image.k_proj.weight",
    "layers.0.cross_attn_image_to_token.q_proj.bias",
    "layers.1.cross_attn_image_to_token.q_proj.bias",
    "layers.0.cross_attn_image_to_token.out_proj.bias",
    "layers.1.cross_attn_image_to_token.out_proj.bias",
    "layers.0.norm4.weight",
    "layers.0.norm4.bias",
    "layers.1.norm4.bias",
    "layers.1.mlp.lin2.bias",
    "final_attn_token_to_image.q_proj.bias",
    "final_attn_token_to_image.v_proj.weight",
    "norm_final_attn.weight",
]


@pytest.mark.parametrize("own", [None, "some"])
@pytest.mark.parametrize("name", TRANSFORMER)
def test_the_comparison_sees_a_single_weight(shipped, own, name):
    """One number of one parameter, changed by a tenth, is seen: the tolerance is not what makes the tests pass."""
    case = Case(shipped, image_of(shipped), own)
    other = copy.deepcopy(shipped)
    parameter = dict(other.mask_decoder.transformer.named_parameters())[name]
    parameter.view(-1)[11] += 0.1 if parameter.ndim == 1 else 0.5
    tokens, cells = case.theirs()
    many, answer = case.ours(sam=other)
    seen = max(farthest(answer.tokens, tokens), farthest(case.all_cells(many, answer), cells))
    assert seen > 10 * CLOSE


@pytest.mark.parametrize(
    ("dtype", "mean", "most"), [(torch.bfloat16, 0.01, 0.1), (torch.float16, 0.002, 0.02)], ids=["bf16", "fp16"]
)
@pytest.mark.parametrize("own", [None, "some", "all"])
def test_half_precision_is_close(shipped, crowd, own, dtype, mean, most):
    case = Case(shipped, crowd, own, points=2)
    tokens, cells = case.theirs()
    many, answer = case.ours(dtype=dtype)
    found = case.all_cells(many, answer)
    assert answer.tokens.dtype == found.dtype == torch.float32
    for ours, true in ((answer.tokens, tokens), (found, cells)):
        assert (ours - true).abs().mean() < mean and farthest(ours, true) < most
    low, scores = case.masks()
    assert farthest(many.scores(answer), scores) < 0.01
    logits = many.logits(answer.tokens[:, 1], found, case.side, case.corner())
    assert ((logits > 0) != (low[:, 0] > 0)).float().mean() < 0.001


# --- Numbers that are hard on sums of products -----------------------------------------------------------------------


@pytest.mark.parametrize("own", [None, "some", "all"])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (30, 50), (1, 500), (1000, 0), (0.01, 0), (0, 0), (0, 5)])
def test_large_and_offset_embeddings(shipped, own, scale, offset):
    """The norms remove what all channels of a cell have in common; float64 is the judge of both."""
    case = Case(shipped, scale * image_of(shipped) + offset, own)
    tokens, cells = case.theirs(torch.float64)
    their_tokens, their_cells = case.theirs()
    many, answer = case.ours()
    assert farthest(answer.tokens, tokens) < max(2e-5, 5 * farthest(their_tokens, tokens))
    assert farthest(case.all_cells(many, answer), cells) < max(2e-5, 5 * farthest(their_cells, cells))


def first_update(case):
    """Cells before the first layer, what it adds to them, and each prompt's ratio of lengths before and after."""
    seen = {}
    attention = case.sam.mask_decoder.transformer.layers[0].cross_attn_image_to_token
    hook = attention.register_forward_hook(lambda module, inputs, output: seen.update(update=output))
    case.theirs()
    hook.remove()
    cells = (case.image + case.dense).flatten(2).transpose(1, 2)
    centred = [x - x.mean(-1, keepdim=True) for x in (cells, cells + seen["update"])]
    return cells, seen["update"], (centred[0].norm(dim=-1) / centred[1].norm(dim=-1)).max().item()


@pytest.mark.parametrize(("left", "ratio"), [(1.0, 3), (0.1, 30), (0.01, 300)])
def test_an_update_that_cancels_the_embedding_costs_digits(shipped, left, ratio):
    """The variance is a sum of products: its error grows with the square of how much a cell shrinks.

    1e-6 of that square is the bound here. Cells of pictures do not shrink: see the next test.
    """
    image = torch.zeros_like(image_of(shipped))
    for _ in range(20):  # the update depends on the cells: find those that are `left` after it
        cells, update, _ = first_update(Case(shipped, image, count=1))
        image = image + left * image_of(shipped) - (cells + update)[0]
    case = Case(shipped, image, count=1)
    shrinks = first_update(case)[2]
    assert ratio / 3 < shrinks < ratio
    tokens, cells = case.theirs(torch.float64)
    many, answer = case.ours()
    assert farthest(case.all_cells(many, answer), cells) < 2e-6 * max(shrinks, 3.0) ** 2
    assert farthest(answer.tokens, tokens) < 2e-6 * max(shrinks, 3.0) ** 2


def test_cells_of_pictures_do_not_cancel(shipped, crowd):
    assert first_update(Case(shipped, crowd, "some", count=6, points=2))[2] < 3


def test_no_result_is_nan_where_a_cell_is_constant(any_sam):
    case = Case(any_sam, torch.full_like(image_of(any_sam), 7.0), None, count=2)
    many, answer = case.ours()
    assert torch.isfinite(answer.tokens).all() and np.isfinite(case.all_cells(many, answer).numpy()).all()
