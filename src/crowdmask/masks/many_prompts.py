"""SAM's mask decoder for many prompts on one image: the same weights, the same result, a fraction of the work.

segment-anything repeats the image embedding for every prompt, and projects, updates and normalises all its cells anew
in each layer. A prompt has only 6 to 12 tokens. What its transformer makes of the cells is therefore little more than
a mixture of a few vectors, and that mixture is all that has to be kept. With N cells, C channels, T tokens, h heads of
size d, and R = hT:

- Cells against tokens (image to token attention) adds to each cell a mixture of R vectors, one for each head and token:
  keys = X + A' M with weights A (R x N, a softmax over the tokens of each head) and vectors M (R x C). The weights of a
  head sum to 1, so biases join M.
- Layer norm keeps that form. Centring acts on X and M; the variance of cell n is
  (|x_n|^2 + 2 a_n' M x_n + a_n' (M M') a_n) / C; then keys = s X + A' M + beta with one scale s_n a cell. The next
  layer adds another R vectors.
- Tokens against cells: the scores q' Wk (keys + pe) are s (q' Wk X) + (q' Wk M') A + q' Wk pe, and what is read,
  sum_n p_n Wv keys_n, is Wv X (s p) + Wv M' (A p) + .... The key bias cancels in the softmax over the cells; the value
  bias passes through it.
- All that concerns X alone (Wk X, Wv X, the products with the vectors' basis, |x|^2) is shared by the prompts of an
  image, and all that concerns pe alone by the images.
- A mask prompt adds one constant vector to all cells but those it touches. The touched ones are each prompt's own: they
  are kept and updated one by one, and take the place of the shared ones.
- Upscaling. Both transposed convolutions have kernel 2 and stride 2 and the norm works on single pixels, so an output
  pixel depends on one cell only: only the cells that a window needs are written out and upscaled.
- Only the tokens asked for (the IoU token and the mask tokens in question) take part in the last attention.

This is exact algebra; only the order of the sums differs (our choice; tests compare with segment-anything).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from crowdmask.masks.cross_attention import Cross, add_by_head, by_head, read_by_head


@dataclass(frozen=True)
class Own:
    """Cells in which the dense prompts differ from the scene's.

    Attributes:
        index: int64 (B, m) cells, distinct in each row; None for all N in their order.
        change: (B, m, C) what they have on top of the scene's cells, before the first layer.
    """

    index: Tensor | None
    change: Tensor


@dataclass(frozen=True)
class Scene:
    """All that the prompts of one image share.

    Attributes:
        cells: (N, C) image embedding plus the constant part of the dense prompt.
        last: (N, C) shared part X of the keys after the last layer.
        read_on: (h, d, N) of each layer and of the last attention: X projected as keys.
        read_values: (h, N, d) likewise: X projected as values.
        write_on: (h, d, N) of each layer: X projected as queries.
        square: (N,) of each layer: squared norm of the centred X.
        against: for each layer, (h, d + 1, N) of each group of vectors: their basis times the centred X.
    """

    cells: Tensor
    last: Tensor
    read_on: list[Tensor]
    read_values: list[Tensor]
    write_on: list[Tensor]
    square: list[Tensor]
    against: list[list[Tensor]]


@dataclass
class Mixture:
    """Keys of the prompts in the form s X + A' M + beta, and the cells that prompts have to themselves.

    Attributes:
        own: (B, m, C) keys of the cells that are the prompts' own; None where there are none.
        index: int64 (B, m) which cells; None where all are, and nothing is shared.
        scale: (B, N) s; None where it is 1.
        weights: (B, R, N) A; None where R is 0.
        factors: (B, h, T, d + 1) of each group of vectors: M is `factors` times the group's basis.
    """

    own: Tensor | None
    index: Tensor | None
    scale: Tensor | None = None
    weights: Tensor | None = None
    factors: list[Tensor] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether there are cells that are not the prompts' own."""
        return self.own is None or self.index is not None


@dataclass(frozen=True)
class Answer:
    """The transformer's result for B prompts.

    Attributes:
        tokens: (B, n, C) the tokens asked for.
        keys: The cells.
        scene: What the keys refer to.
    """

    tokens: Tensor
    keys: Mixture
    scene: Scene


class ManyPrompts:
    """SAM's mask decoder for the prompts of one image.

    Args:
        sam: The model; its weights are used as they are.
        dtype: Of everything as large as the image. Tokens, norms' scales and results stay in float32.
    """

    @torch.inference_mode()
    def __init__(self, sam: Sam, dtype: torch.dtype = torch.float32) -> None:
        self.sam = sam
        self.dtype = dtype
        decoder = sam.mask_decoder
        self.transformer = decoder.transformer
        self.pe = sam.prompt_encoder.get_dense_pe().flatten(2)[0].T.contiguous()
        self.output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        layers = self.transformer.layers
        last = self.transformer.final_attn_token_to_image
        readers = [*(layer.cross_attn_token_to_image for layer in layers), last]
        self.reads = [Cross(attention, cells_ask=False) for attention in readers]
        self.writes = [Cross(layer.cross_attn_image_to_token, cells_ask=True) for layer in layers]
        self.read_pe = [self._cast(cross.project(self.pe)) for cross in self.reads]
        self.write_pe = [self._cast(cross.project(self.pe)) for cross in self.writes]
        first, self.norm, self.act, second, self.last_act = decoder.output_upscaling
        self.spread = [_on_pixels(first), _on_pixels(second)]
        # Bases of the vectors M: a group for each layer, before and after the norm of each layer.
        self.centred: list[list[Tensor]] = []
        self.normed: list[list[Tensor]] = [[]]
        self.offsets = [torch.zeros_like(self.pe[0])]
        for layer, write in zip(layers, self.writes, strict=True):
            bias = (write.out_proj.bias + self.offsets[-1]) / write.heads
            basis = torch.cat([write.on_out, bias.expand(write.heads, 1, -1)], dim=1)
            groups = [group - group.mean(-1, keepdim=True) for group in [*self.normed[-1], basis]]
            self.centred.append(groups)
            self.normed.append([group * layer.norm4.weight for group in groups])
            self.offsets.append(layer.norm4.bias)

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    @torch.inference_mode()
    def scene(self, cells: Tensor) -> Scene:
        """What the prompts of an image share, from its cells (N, C) with the constant part of the dense prompt."""
        x = cells
        read_on, read_values, write_on, square, against = [], [], [], [], []
        for depth, layer in enumerate(self.transformer.layers):
            # Before the first norm the scale is 1, so position encodings join the cells.
            encoded = cells + self.pe if depth == 0 else x
            read_on.append(self._cast(self.reads[depth].project(encoded)))
            read_values.append(self._cast(self.reads[depth].values(x)))
            write_on.append(self._cast(self.writes[depth].project(encoded)))
            x = x - x.mean(1, keepdim=True)
            square.append(x.square().sum(1))
            against.append([self._cast(group @ x.T) for group in self.centred[depth]])
            x = x * layer.norm4.weight
        read_on.append(self._cast(self.reads[-1].project(x)))
        read_values.append(self._cast(self.reads[-1].values(x)))
        return Scene(cells, x, read_on, read_values, write_on, square, against)

    @torch.inference_mode()
    def transform(self, scene: Scene, sparse: Tensor, own: Own | None, asked: list[int]) -> Answer:
        """The two-way transformer.

        Args:
            scene: From `scene`.
            sparse: (B, n, C) prompt tokens.
            own: Where dense prompts differ from the scene's.
            asked: Tokens wanted: 0 is the IoU token, 1 to 4 are the mask tokens.
        """
        pe = torch.cat([self.output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        queries = pe
        keys = Mixture(None, None)
        if own is not None:
            base = scene.cells if own.index is None else scene.cells[own.index]
            keys = Mixture(base + own.change, own.index)
        for depth, layer in enumerate(self.transformer.layers):
            if layer.skip_first_layer_pe:
                queries = layer.norm1(layer.self_attn(q=queries, k=queries, v=queries))
            else:
                asking = queries + pe
                queries = layer.norm1(queries + layer.self_attn(q=asking, k=asking, v=queries))
            queries = layer.norm2(queries + self._read(scene, depth, keys, queries + pe))
            queries = layer.norm3(queries + layer.mlp(queries))
            self._write(scene, depth, keys, queries, queries + pe)
        queries, pe = queries[:, asked], pe[:, asked]
        got = self._read(scene, len(self.transformer.layers), keys, queries + pe)
        return Answer(self.transformer.norm_final_attn(queries + got), keys, scene)

    def _vectors(self, factors: list[Tensor], bases: list[Tensor]) -> Tensor:
        """M of all groups: (B, R, C)."""
        return torch.cat([(f @ basis).flatten(1, 2) for f, basis in zip(factors, bases, strict=True)], dim=1)

    def _scores(self, cross: Cross, shared: Tensor, pe: Tensor, depth: int, keys: Mixture, tokens: Tensor) -> Tensor:
        """Scores of projected tokens (B, h, T, d) and the shared cells, without the cells' bias: (B, h, T, N)."""
        small = self._cast(tokens)
        scores = by_head(small, shared)
        if keys.scale is not None and keys.weights is not None:
            scores.mul_(keys.scale[:, None, None])
            add_by_head(scores, small, pe)
            folded = cross.fold(tokens) @ self._vectors(keys.factors, self.normed[depth]).transpose(1, 2)
            scores.flatten(1, 2).baddbmm_(self._cast(folded), keys.weights)
        return scores

    def _own_scores(self, cross: Cross, keys: Mixture, tokens: Tensor) -> Tensor:
        """Scores of projected tokens and each prompt's own cells, without the cells' bias: (B, h, T, m)."""
        assert keys.own is not None
        cells = keys.own + (self.pe if keys.index is None else self.pe[keys.index])
        return (cross.fold(tokens) @ cells.transpose(1, 2)).view(*tokens.shape[:3], -1)

    def _offset_scores(self, cross: Cross, depth: int, tokens: Tensor) -> Tensor:
        """Scores of projected tokens and the bias of the norm before this layer: (B, h, T, 1)."""
        return tokens @ (cross.on_cells @ self.offsets[depth])[..., None]

    def _read(self, scene: Scene, depth: int, keys: Mixture, x: Tensor) -> Tensor:
        """Attention of the tokens x (B, T, C) to the cells: (B, T, C)."""
        cross = self.reads[depth]
        tokens = cross.tokens(x)
        if not keys.shared:
            assert keys.own is not None
            weights = self._own_scores(cross, keys, tokens).softmax(-1).flatten(1, 2)
            return cross.finish(cross.read(weights @ keys.own))
        scores = self._scores(cross, scene.read_on[depth], self.read_pe[depth], depth, keys, tokens)
        at = None
        if keys.index is not None:
            at = keys.index[:, None, None].expand(*tokens.shape[:3], -1)
            # The shared scores leave out what the norm's bias adds, which is the same for all cells.
            own_scores = self._own_scores(cross, keys, tokens) - self._offset_scores(cross, depth, tokens)
            scores.scatter_(3, at, self._cast(own_scores))
        weights = scores.softmax(-1)
        mixed = None
        rest: Tensor | float = 1.0
        if at is not None:
            assert keys.own is not None
            own = weights.gather(3, at).flatten(1, 2).float()
            weights.scatter_(3, at, 0.0)
            mixed = own @ keys.own
            rest = 1 - own.sum(-1, keepdim=True)
        if keys.scale is not None and keys.weights is not None:
            through = (weights.flatten(1, 2) @ keys.weights.transpose(1, 2)).float()
            vectors = self._vectors(keys.factors, self.normed[depth])
            shared = through @ vectors + rest * self.offsets[depth]
            mixed = shared if mixed is None else mixed + shared
            weights.mul_(keys.scale[:, None, None])
        read = read_by_head(weights, scene.read_values[depth]).float()
        return cross.finish(read if mixed is None else read + cross.read(mixed))

    def _write(self, scene: Scene, depth: int, keys: Mixture, values: Tensor, x: Tensor) -> None:
        """Attention of the cells to the tokens x (B, T, C) and the norm after it; changes `keys`."""
        cross, norm = self.writes[depth], self.transformer.layers[depth].norm4
        tokens = cross.tokens(x)
        factors = cross.split(cross.values_in(values))
        bias = torch.einsum("bhtd,hd->bht", tokens, cross.on_cells_bias)[..., None]
        if keys.own is not None:
            own = (self._own_scores(cross, keys, tokens) + bias).softmax(2).flatten(1, 2)
            made = torch.baddbmm(keys.own, own.transpose(1, 2), (factors @ cross.on_out).flatten(1, 2))
            made += cross.out_proj.bias
            keys.own = F.layer_norm(made, made.shape[-1:], norm.weight, norm.bias, norm.eps)
        if not keys.shared:
            return
        scores = self._scores(cross, scene.write_on[depth], self.write_pe[depth], depth, keys, tokens)
        if depth > 0:
            bias = bias + self._offset_scores(cross, depth, tokens)
        added = scores.add_(bias).softmax(2).flatten(1, 2)
        weights = added if keys.weights is None else torch.cat([keys.weights, added], dim=1)
        keys.factors = [*keys.factors, F.pad(factors, (0, 1), value=1.0)]
        # Layer norm: the variance of each cell, from the products of its vectors.
        vectors = self._vectors(keys.factors, self.centred[depth])
        products = torch.empty_like(weights)
        for group, (f, shared) in enumerate(zip(keys.factors, scene.against[depth], strict=True)):
            part = products[:, group * added.shape[1] : (group + 1) * added.shape[1]]
            by_head(self._cast(f), shared, part.unflatten(1, tokens.shape[1:3]))
        square = scene.square[depth]
        if keys.scale is None:
            products.mul_(2.0)
        else:
            products.mul_(2 * keys.scale[:, None])
            square = keys.scale.square() * square
        products.baddbmm_(self._cast(vectors @ vectors.transpose(1, 2)), weights)
        variance = (products.mul_(weights).sum(1, dtype=torch.float32) + square) / vectors.shape[-1]
        inverse = torch.rsqrt(variance.clamp_min_(0) + norm.eps)
        keys.weights = weights.mul_(inverse[:, None])
        keys.scale = inverse if keys.scale is None else keys.scale * inverse

    @torch.inference_mode()
    def scores(self, answer: Answer) -> Tensor:
        """IoU estimates (B, 4) of the mask tokens; the IoU token must be the first that was asked for."""
        return self.sam.mask_decoder.iou_prediction_head(answer.tokens[:, 0])

    @torch.inference_mode()
    def cells(self, answer: Answer, top: Tensor, left: Tensor, side: tuple[int, int]) -> Tensor:
        """Keys of a rectangle of cells of each prompt: (B, height * width, C)."""
        keys, scene = answer.keys, answer.scene
        wide = self.sam.prompt_encoder.image_embedding_size[1]
        everything = side == self.sam.prompt_encoder.image_embedding_size
        rows = top[:, None] + torch.arange(side[0], device=top.device)
        cols = left[:, None] + torch.arange(side[1], device=left.device)
        index = (rows[:, :, None] * wide + cols[:, None, :]).flatten(1)
        if not keys.shared:
            assert keys.own is not None
            return keys.own if everything else keys.own.gather(1, index[..., None].expand(-1, -1, keys.own.shape[2]))
        assert keys.scale is not None and keys.weights is not None
        weights, scale, last = keys.weights, keys.scale, scene.last
        if not everything:
            weights = weights.gather(2, index[:, None].expand(-1, weights.shape[1], -1))
            scale, last = scale.gather(1, index), last[index]
        out = torch.addcmul(self.offsets[-1], scale[..., None], last)
        out.baddbmm_(weights.transpose(1, 2).to(out.dtype), self._vectors(keys.factors, self.normed[-1]))
        if keys.index is None or keys.own is None:
            return out
        if everything:
            return out.scatter_(1, keys.index[..., None].expand_as(keys.own), keys.own)
        # Own cells replace; those outside of the rectangle go to a row that is cut off.
        row, col = keys.index // wide - top[:, None], keys.index % wide - left[:, None]
        inside = (row >= 0) & (row < side[0]) & (col >= 0) & (col < side[1])
        to = torch.where(inside, row * side[1] + col, side[0] * side[1])
        out = F.pad(out, (0, 0, 0, 1))
        return out.scatter_(1, to[..., None].expand_as(keys.own), keys.own)[:, :-1]

    @torch.inference_mode()
    def logits(self, tokens: Tensor, cells: Tensor, side: tuple[int, int], token: Tensor) -> Tensor:
        """Low-resolution logits on a rectangle of cells.

        Args:
            tokens: (B, C) mask token of each prompt from `transform`.
            cells: (B, height * width, C) from `cells`.
            side: Height and width of the rectangle, cells.
            token: int64 (B,) which of SAM's mask tokens each is, 0 to 3.

        Returns:
            float (B, 4 * height, 4 * width).
        """
        norm, channels = self.norm, len(self.norm.weight)
        z = F.linear(cells, *self.spread[0]).view(len(tokens), -1, channels)
        # segment-anything's LayerNorm2d is a layer norm over the channels.
        z = self.act(F.layer_norm(z, (channels,), norm.weight, norm.bias, norm.eps))
        z = self.last_act(F.linear(z, *self.spread[1])).view(len(tokens), -1, channels // 2)
        hyper = z.new_empty((len(tokens), z.shape[-1]))
        for k, mlp in enumerate(self.sam.mask_decoder.output_hypernetworks_mlps):
            which = token == k
            hyper[which] = mlp(tokens[which])
        flat = torch.bmm(z, hyper[..., None])
        # Each cell became 2 x 2 pixels and each of those 2 x 2 more.
        grid = flat.view(len(tokens), *side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return grid.reshape(len(tokens), 4 * side[0], 4 * side[1])


def _on_pixels(conv: torch.nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """A transposed convolution of kernel and stride 2 as a linear map of single pixels: (4 Cout, Cin), (4 Cout,)."""
    assert conv.bias is not None
    return conv.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), conv.bias.repeat(4)
