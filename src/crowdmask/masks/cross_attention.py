"""Cross attention between the few tokens of a prompt and the many cells of an image, its weights split by head."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling.transformer import Attention
from torch import Tensor


class Cross:
    """A cross attention between tokens and cells, its weights by head.

    Args:
        attention: The layer.
        cells_ask: True where the cells are the queries (image to token), False where the tokens are.
    """

    def __init__(self, attention: Attention, cells_ask: bool) -> None:
        self.heads = attention.num_heads
        self.size = attention.internal_dim // self.heads
        self.scale = 1 / math.sqrt(self.size)
        self.tokens_in = attention.k_proj if cells_ask else attention.q_proj
        self.values_in = attention.v_proj
        self.out_proj = attention.out_proj
        cells_in = attention.q_proj if cells_ask else attention.k_proj
        self.on_cells = cells_in.weight.view(self.heads, self.size, -1)
        self.on_cells_bias = cells_in.bias.view(self.heads, self.size)
        self.on_values = attention.v_proj.weight.view(self.heads, self.size, -1)
        self.on_out = attention.out_proj.weight.view(-1, self.heads, self.size).permute(1, 2, 0).contiguous()

    def project(self, cells: Tensor) -> Tensor:
        """Cells (N, C), projected without bias: (h, d, N)."""
        return self.on_cells @ cells.T

    def values(self, cells: Tensor) -> Tensor:
        """Values of cells (N, C) without bias: (h, N, d)."""
        return cells @ self.on_values.transpose(1, 2)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, h * d) -> (B, h, T, d)."""
        return x.view(x.shape[0], x.shape[1], self.heads, self.size).transpose(1, 2)

    def tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, T, C), projected and scaled: (B, h, T, d)."""
        return (self.split(self.tokens_in(x)) * self.scale).contiguous()

    def fold(self, tokens: Tensor) -> Tensor:
        """Projected tokens (B, h, T, d) as vectors to be multiplied with plain cells: (B, h * T, C)."""
        return torch.matmul(tokens, self.on_cells).flatten(1, 2)

    def read(self, mixed: Tensor) -> Tensor:
        """Values of mixtures of cells, (B, h * T, C) -> (B, h, T, d)."""
        b, _, c = mixed.shape
        return torch.matmul(mixed.view(b, self.heads, -1, c), self.on_values.transpose(1, 2))

    def finish(self, read: Tensor) -> Tensor:
        """Read values (B, h, T, d) without bias, through the output projection: (B, T, C)."""
        return self.out_proj(read.transpose(1, 2).flatten(2) + self.values_in.bias)


def by_head(tokens: Tensor, shared: Tensor, out: Tensor | None = None) -> Tensor:
    """Product by head with what all prompts share, (B, h, T, d) x (h, d, N) -> (B, h, T, N), into `out` if given."""
    if out is None:
        out = tokens.new_empty((*tokens.shape[:3], shared.shape[-1]))
    if tokens.is_cuda:
        b, h, t, d = tokens.shape
        flat = tokens.transpose(0, 1).reshape(h, b * t, d)
        return out.copy_(torch.bmm(flat, shared).view(h, b, t, -1).transpose(0, 1))
    for k in range(len(tokens)):  # one after the other writes in the order that is needed: nothing is moved
        torch.bmm(tokens[k], shared, out=out[k])
    return out


def add_by_head(out: Tensor, tokens: Tensor, shared: Tensor) -> None:
    """Add `by_head` to `out`."""
    if tokens.is_cuda:
        out.add_(by_head(tokens, shared))
        return
    for k in range(len(tokens)):
        out[k].baddbmm_(tokens[k], shared)


def read_by_head(weights: Tensor, values: Tensor) -> Tensor:
    """(B, h, T, N) x (h, N, d) -> (B, h, T, d)."""
    if weights.is_cuda:
        b, h, t, n = weights.shape
        return torch.bmm(weights.transpose(0, 1).reshape(h, b * t, n), values).view(h, b, t, -1).transpose(0, 1)
    out = weights.new_empty((*weights.shape[:3], values.shape[-1]))
    for k in range(len(weights)):
        torch.bmm(weights[k], values, out=out[k])
    return out
