"""Windows of a map and back, and the sine position encoding: the geometry of PET.

A map is (B, C, h, w). Its windows are numbered image by image and row by row; the cells of a window lie row by row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width."""

TEMPERATURE = 1e4
"""Longest wave of the position encoding, beside 2 pi."""


def partition(maps: Tensor, size: Size, which: Tensor | None = None) -> Tensor:
    """Windows of a map, (n, cells, C).

    Args:
        maps: (B, C, h, w); h and w are multiples of the window's sides.
        size: Cells of a window.
        which: int64 (n,) numbers of the windows wanted; None = all. Only these are copied.
    """
    tiled = _tiled(maps, size)
    if which is None:
        return tiled.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
    image, row, column = _places(which, tiled.shape[2], tiled.shape[4])
    return tiled[image, :, row, :, column].flatten(2).transpose(1, 2)


def merge(windows: Tensor, size: Size, shape: tuple[int, int, int], which: Tensor | None = None) -> Tensor:
    """The map that windows were cut from, (B, C, h, w): the inverse of `partition`.

    Args:
        windows: (n, cells, C).
        size: Cells of a window.
        shape: B, h and w.
        which: int64 (n,) numbers of the windows given, the map is 0 elsewhere; None = all of them, in order.
    """
    batch, h, w = shape
    rows, columns = h // size[0], w // size[1]
    if which is None:
        tiled = windows.reshape(batch, rows, columns, *size, -1).permute(0, 5, 1, 3, 2, 4)
        return tiled.flatten(4, 5).flatten(2, 3)
    maps = windows.new_zeros(batch, windows.shape[2], h, w)
    image, row, column = _places(which, rows, columns)
    _tiled(maps, size)[image, :, row, :, column] = windows.transpose(1, 2).unflatten(2, size)
    return maps


def _tiled(maps: Tensor, size: Size) -> Tensor:
    """A view (B, C, rows, height, columns, width)."""
    return maps.unflatten(3, (-1, size[1])).unflatten(2, (-1, size[0]))


def _places(which: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of windows by number."""
    line = torch.div(which, columns, rounding_mode="floor")
    return torch.div(line, rows, rounding_mode="floor"), line % rows, which % columns


def enlarge(maps: Tensor, size: Size) -> Tensor:
    """Each value of (B, rows, columns) for all cells of its window: (B, rows * height, columns * width)."""
    return maps.repeat_interleave(size[0], 1).repeat_interleave(size[1], 2)


def phases(valid: Tensor) -> tuple[Tensor, Tensor]:
    """How far down (y) and right (x) a cell lies among the valid ones of its column and row, 0 to 2 pi.

    The k-th of n valid cells has 2 pi k / n, so that padding changes nothing. Source: methods d.1.

    Args:
        valid: bool (B, h, w).

    Returns:
        float32 (B, h, w) each.
    """
    y, x = valid.cumsum(1, dtype=torch.float32), valid.cumsum(2, dtype=torch.float32)
    full = 2 * math.pi
    return full * y / (y[:, -1:] + 1e-6), full * x / (x[:, :, -1:] + 1e-6)


def query_phases(valid: Tensor, stride: int) -> Tensor:
    """Phases y and x of the queries of a grid: those of their pixels in the whole image: (B, 2, h, w).

    A query lies at ((k + 0.5) * stride), truncated. Source: methods d.1.

    Args:
        valid: bool (B, H, W).
        stride: Pixels between queries.
    """
    return torch.stack([phase[:, stride // 2 :: stride, stride // 2 :: stride] for phase in phases(valid)], 1)


def sine(y: Tensor, x: Tensor, width: int) -> Tensor:
    """Position encoding, (..., width): first half for y, second for x, sine and cosine in turns (methods d.1).

    Args:
        y: Phases, any shape.
        x: Likewise.
        width: A multiple of 4.
    """
    quarter = width // 4
    wave = TEMPERATURE ** (torch.arange(quarter, device=y.device, dtype=y.dtype) / quarter)
    angle = torch.stack([y, x], -1)[..., None] / wave
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-3)
