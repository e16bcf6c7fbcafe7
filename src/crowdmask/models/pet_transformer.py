"""PET's transformer: layers with the norm after each step, the windowed encoder, and the decoder of both levels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crowdmask.models.pet_windows import Size, merge, partition

HEAD_WIDTH = 32
"""Channels of an attention head: 8 heads at the published width of 256."""
ENCODER_WINDOWS: tuple[Size, ...] = ((16, 32), (16, 32), (8, 16), (8, 16))
"""Cells (height, width) of stride 8 of each encoder layer's windows: 128 x 256 and 64 x 128 pixels."""
DECODER_LAYERS = 2
CHUNK = 1 << 15
"""Most cells or queries at a time where no gradient is wanted: 32 MB for each tensor of the published width."""


def in_chunks(step: Callable[[Tensor | None], Tensor], which: Tensor | None, maps: Tensor, size: Size) -> Tensor:
    """`step` on windows of a map, at most `CHUNK` cells at a time where no gradient is wanted, else all at once.

    Args:
        step: Takes numbers of windows, int64 (n,), or None for all; gives (n, cells, C).
        which: Numbers of the windows wanted; None = all.
        maps: (B, C, h, w).
        size: Cells of a window.
    """
    cells = size[0] * size[1]
    windows = maps[:, 0].numel() // cells if which is None else len(which)
    if torch.is_grad_enabled() or windows * cells <= CHUNK:
        return step(which)
    numbers = torch.arange(windows, device=maps.device) if which is None else which
    return torch.cat([step(part) for part in numbers.split(max(1, CHUNK // cells))])


def padded_keys(valid: Tensor | None) -> Tensor | None:
    """Mask of the keys to leave out, bool (n, cells); None where there is nothing to leave out.

    A window that is all padding keeps its keys: a softmax of nothing is NaN, and nobody reads its result.

    Args:
        valid: bool (n, cells), or None.
    """
    return None if valid is None else ~valid & valid.any(1, keepdim=True)


def _attention(width: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, width // HEAD_WIDTH, dropout, batch_first=True)


def _feed(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(2 * width, width)
    )


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net of twice the width, each followed by a layer norm.

    Args:
        width: Channels.
        dropout: Of attention, hidden units and both steps.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed = _attention(width, dropout), _feed(width, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, padded: Tensor | None) -> Tensor:
        """(n, cells, width) -> the same; positions steer who attends to whom, but are not passed on."""
        place = x + position
        found, _ = self.attention(place, place, x, key_padding_mask=padded, need_weights=False)
        x = self.norms[0](x + self.dropout(found))
        return self.norms[1](x + self.dropout(self.feed(x)))


class DecoderLayer(nn.Module):
    """Self-attention of queries, attention to the encoded image, feed-forward net, each followed by a layer norm.

    Args:
        width: Channels.
        dropout: Of attention, hidden units and all steps.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross, self.feed = _attention(width, dropout), _attention(width, dropout), _feed(width, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        padded: Tensor | None,
        memory: Tensor,
        memory_position: Tensor,
        memory_padded: Tensor | None,
    ) -> Tensor:
        """Queries (n, q, width) of windows with memory (n, cells, width) -> (n, q, width)."""
        place = queries + position
        found, _ = self.own(place, place, queries, key_padding_mask=padded, need_weights=False)
        queries = self.norms[0](queries + self.dropout(found))
        found, _ = self.cross(
            queries + position, memory + memory_position, memory, key_padding_mask=memory_padded, need_weights=False
        )
        queries = self.norms[1](queries + self.dropout(found))
        return self.norms[2](queries + self.dropout(self.feed(queries)))


class Encoder(nn.Module):
    """The context encoder: each layer attends within windows of its own size.

    Args:
        width: Channels.
        dropout: See `EncoderLayer`.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, dropout) for _ in ENCODER_WINDOWS)

    def forward(self, maps: Tensor, position: Tensor, valid: Tensor | None) -> Tensor:
        """(B, width, h, w) of stride 8 -> the same.

        Args:
            maps: Features.
            position: (B, width, h, w).
            valid: bool (B, h, w), or None where all is.
        """
        batch, _, h, w = maps.shape
        for layer, size in zip(self.layers, ENCODER_WINDOWS, strict=True):

            def step(which: Tensor | None, layer: nn.Module = layer, size: Size = size, maps: Tensor = maps) -> Tensor:
                seen = None if valid is None else partition(valid[:, None], size, which)[..., 0]
                return layer(partition(maps, size, which), partition(position, size, which), padded_keys(seen))

            maps = merge(in_chunks(step, None, maps, size), size, (batch, h, w))
        return maps


class Decoder(nn.Module):
    """The decoder: one set of weights for the queries of both levels.

    Args:
        width: Channels.
        dropout: See `DecoderLayer`.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, dropout) for _ in range(DECODER_LAYERS))

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        valid: Tensor | None,
        memory: Tensor,
        memory_position: Tensor,
        memory_valid: Tensor | None,
    ) -> Tensor:
        """See `DecoderLayer.forward`; with valid keys, bool (n, q) and (n, cells), instead of padded ones."""
        padded, memory_padded = padded_keys(valid), padded_keys(memory_valid)
        for layer in self.layers:
            queries = layer(queries, position, padded, memory, memory_position, memory_padded)
        return queries


class Heads(nn.Module):
    """What one level says of its queries: class and offset.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.person = nn.Linear(width, 2)
        self.offset = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.ReLU(inplace=True)
        )
        self.last = nn.Linear(width, 2)
        # Our choice: at first every query predicts a point within a few pixels of itself, and not up to 100 away.
        nn.init.normal_(self.last.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.last.bias)

    def forward(self, queries: Tensor) -> Tensor:
        """(..., width) -> float32 (..., 4): logits of nobody and of a person, offset x and y from -1 to 1."""
        # In full precision: a step of bfloat16 near sigmoid's 0.5 is a pixel. 2 * (sigmoid(v) - 0.5) = tanh(v / 2).
        offset = torch.tanh(self.last(self.offset(queries)).float() / 2)
        return torch.cat([self.person(queries).float(), offset], -1)
