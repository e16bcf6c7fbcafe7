"""How little arithmetic and memory traffic the decoders need: what their times are held against.

Counted is what matrix products multiply and add (two FLOP a pair), as torch counts it. Softmax, norms and other
steps on single numbers are left out, so a real program stays above its floor even at the machine's best speed. Names
are those of `crowdmask.masks.many_prompts`: N cells, C channels, T tokens, h heads of size d, R = hT; I = hd is the
inner width of cross attentions, F that of the MLPs, m the cells that a prompt has to itself, W those its window needs.

Ours, for a prompt, multiply-adds of what is as large as the image (K = vectors that the cells carry before the step):

    read, by tokens of r rows   r d N (scores) + r N d (values);  with K > 0 also r d N (positions) + 2 r K N (vectors)
    write, of R new rows        R d N;  with K > 0 also R d N + R K N;  its norm: (K + R) (d + 1) N + (K + R)^2 N

Layer 1 has K = 0, layer 2 has K = R, the last attention has K = 2R and only asks for the tokens wanted. To these come
the tokens' own layers, the prompt's own cells, and W cells written out (2 R C each) and upscaled (1.5 C^2 + 2 C each).
"""

from __future__ import annotations

from dataclasses import dataclass

from segment_anything.modeling import Sam

OUTPUT_TOKENS = 5
"""SAM's IoU token and four mask tokens."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder and of a prompt.

    Attributes:
        cells: N, of the image embedding.
        channels: C.
        heads: h.
        inner: I = hd of the cross attentions.
        hidden: F of the MLPs.
        depth: Two-way layers.
        tokens: T, SAM's five and the prompt's own.
        asked: Tokens that the last attention answers for.
        own: m, cells that the mask prompt touches.
        window: W, cells that the window is upscaled from.
    """

    cells: int
    channels: int
    heads: int
    inner: int
    hidden: int
    depth: int
    tokens: int
    asked: int
    own: float
    window: float

    @classmethod
    def of(cls, sam: Sam, sparse: int, own: float, window: float, multimask: bool = False) -> Shape:
        """Sizes of a model, for prompts of `sparse` tokens (a point without a box counts as two)."""
        transformer = sam.mask_decoder.transformer
        cross = transformer.final_attn_token_to_image
        high, wide = sam.prompt_encoder.image_embedding_size
        return cls(
            cells=high * wide,
            channels=transformer.embedding_dim,
            heads=cross.num_heads,
            inner=cross.internal_dim,
            hidden=transformer.mlp_dim,
            depth=transformer.depth,
            tokens=OUTPUT_TOKENS + sparse,
            asked=4 if multimask else 2,
            own=own,
            window=window,
        )

    @property
    def size(self) -> int:
        """d, of a head."""
        return self.inner // self.heads

    @property
    def rows(self) -> int:
        """R = hT."""
        return self.heads * self.tokens


def _tokens(s: Shape) -> float:
    """Multiply-adds of the tokens' own layers, in either algorithm."""
    t, c = s.tokens, s.channels
    attention = 4 * t * c * c + 2 * t * t * c
    cross = 4 * t * c * s.inner  # queries and results of one direction, keys and values of the other
    layer = attention + 2 * t * c * s.hidden + cross
    return s.depth * layer + 2 * s.asked * c * s.inner + 2 * c * c + 4 * c


def _read(s: Shape, rows: int, kept: int) -> float:
    """Tokens against cells that carry `kept` vectors each."""
    large = 2 * rows * s.size * s.cells
    small = 2 * rows * s.size * s.channels + 2 * rows * s.own * s.channels
    if kept:
        large += rows * s.size * s.cells + 2 * rows * kept * s.cells
        small += (2 * kept * (s.size + 1) + 2 * rows * kept + rows * s.size) * s.channels
    return large + small


def _write(s: Shape, kept: int) -> float:
    """Cells against tokens, and the norm."""
    rows, after = s.rows, kept + s.rows
    large = rows * s.size * s.cells + after * (s.size + 1) * s.cells + after * after * s.cells
    small = (2 * rows * s.size + 2 * rows * s.own + after * (s.size + 1) + after * after) * s.channels
    if kept:
        large += rows * s.size * s.cells + rows * kept * s.cells
        small += (kept * (s.size + 1) + rows * kept + rows * s.size) * s.channels
    return large + small


def _upscaling(s: Shape, cells: float) -> float:
    c = s.channels
    return cells * (c * c + c * c / 2 + 2 * c)


def _hyper(s: Shape) -> float:
    return 2 * s.channels**2 + s.channels**2 / 8


def ours(s: Shape) -> float:
    """FLOP of our decoder for a prompt, from its tokens to the logits around its window."""
    total = _tokens(s) + _hyper(s)
    for layer in range(s.depth):
        total += _read(s, s.rows, layer * s.rows) + _write(s, layer * s.rows)
    last = s.depth * s.rows
    total += _read(s, s.heads * s.asked, last)
    total += s.own * (64 + 256 + 16 * s.channels)  # the mask prompt's convolutions
    total += last * (s.size + 1 + s.window) * s.channels + _upscaling(s, s.window)
    return 2 * total


def ours_once(s: Shape) -> float:
    """FLOP of what our decoder does once for an image, however many prompts it has."""
    projections = (3 * s.depth + 2) * s.cells * s.channels * s.inner
    bases = s.depth * (s.depth + 1) / 2 * s.heads * (s.size + 1) * s.channels * s.cells
    return 2 * (projections + bases)


def ours_bytes(s: Shape, itemsize: int = 4) -> float:
    """Bytes that our decoder has to move for a prompt if each step keeps its own scores in the cache.

    These are the weights A of the cells' vectors, R rows of N after the first layer and R more after each other one:
    written when a layer adds to them (all are scaled by the norm), read by both attentions of the next layer.
    """
    passes = 0
    for layer in range(1, s.depth + 1):
        passes += layer  # written
        passes += layer * (2 if layer < s.depth else 1)  # read by the next layer, or by the last attention
    return passes * s.rows * s.cells * itemsize


def plain(s: Shape) -> float:
    """FLOP of segment-anything's decoder for a prompt, masks not enlarged: 3.6 GFLOP for the official models."""
    n, c, i = s.cells, s.channels, s.inner
    # All tokens go through the last attention, and all masks are made.
    token = _tokens(s) + 2 * (s.tokens - s.asked) * c * i
    attention = 2 * s.tokens * n * i
    layers = s.depth * (4 * n * c * i + 2 * attention) + 2 * n * c * i + attention
    masks = OUTPUT_TOKENS - 1
    upscaling = n * (c * c + c * c / 2) + masks * 2 * c * n + masks * _hyper(s)
    mask_prompt = n * (64 + 256 + 16 * c) if s.own else 0
    return 2 * (token + layers + upscaling + mask_prompt)
