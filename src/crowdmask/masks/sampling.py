"""Mask logits at the pixels of a window, straight from SAM's low-resolution logits.

segment-anything enlarges every mask to the whole image (`postprocess_masks`: low resolution -> model frame, crop of
the padding, -> original size, both bilinear) and thresholds there. Both steps are linear and work on each axis by
itself, so each original pixel is a weighted sum of four cells an axis, and any window can be had by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crowdmask.masks.prompts import Frame

Box = tuple[int, int, int, int]
"""A window: x0, y0, w, h."""


def bilinear(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Taps and weights of bilinear resizing along one axis, half-pixel centres (torch's align_corners=False).

    Returns:
        int64 (size_out, 2) source positions and float32 (size_out, 2) weights, rows summing to 1.
    """
    # In float32, as torch computes it: in float64 the logits would differ in the fourth digit.
    scale = np.float32(size_in) / np.float32(size_out)
    position = np.maximum(scale * (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    first = np.minimum(position.astype(np.int64), size_in - 1)
    second = np.minimum(first + 1, size_in - 1)
    share = (position - first).astype(np.float32)
    return np.stack([first, second], axis=1), np.stack([1 - share, share], axis=1)


@dataclass(frozen=True)
class Axis:
    """Composed resizing of one axis: low resolution -> model frame -> crop -> original size.

    Attributes:
        cells: int64 (size_out, 4) low-resolution cells that an original pixel is made of.
        weights: float32 (size_out, 4) their weights.
    """

    cells: np.ndarray
    weights: np.ndarray

    @classmethod
    def make(cls, low: int, frame: int, cropped: int, size_out: int) -> Axis:
        """Compose the two steps.

        Args:
            low: Side of the low-resolution logits, cells.
            frame: Side of the model's square, pixels.
            cropped: Pixels of the frame that hold the image.
            size_out: Pixels of the original.
        """
        up_at, up_weight = bilinear(low, frame)
        at, weight = bilinear(cropped, size_out)
        cells = up_at[at].reshape(size_out, 4)
        weights = (weight[:, :, None] * up_weight[at]).reshape(size_out, 4)
        return cls(cells, weights)

    def span(self, start: int, length: int) -> tuple[int, int]:
        """First cell, and one past the last, that the pixels [start, start + length) are made of."""
        part = self.cells[start : start + length]
        return int(part.min()), int(part.max()) + 1

    def apply(self, values: np.ndarray, start: int, length: int, first: int) -> np.ndarray:
        """Resize the first axis: float32 (cells, n) from cell `first` on -> (length, n), pixels from `start` on.

        Sums of four rows instead of a matrix product, whose last bits depend on the number of BLAS threads.
        """
        at, weights = self.cells[start : start + length] - first, self.weights[start : start + length]
        out = weights[:, 0, None] * values[at[:, 0]]
        for tap in range(1, 4):
            out += weights[:, tap, None] * values[at[:, tap]]
        return out


@dataclass(frozen=True)
class Patch:
    """Low-resolution logits of one prompt on a rectangle of cells.

    Attributes:
        logits: float32 (h, w).
        top: Row of the first.
        left: Column of the first.
        score: SAM's estimate of the IoU.
    """

    logits: np.ndarray
    top: int
    left: int
    score: float


@dataclass(frozen=True)
class Sampler:
    """Resizing of both axes of a tile.

    Attributes:
        rows: Vertical axis.
        cols: Horizontal axis.
    """

    rows: Axis
    cols: Axis

    def window(self, patch: Patch, box: Box) -> np.ndarray:
        """Logits at the original pixels of a window, float32 (h, w).

        Args:
            patch: Logits on at least the cells that the window is made of.
            box: Window in pixels of the tile, inside of it.
        """
        x0, y0, w, h = box
        tall = self.rows.apply(patch.logits, y0, h, patch.top)
        return self.cols.apply(tall.T, x0, w, patch.left).T


@lru_cache(maxsize=32)
def sampler(frame: Frame, low: int) -> Sampler:
    """Sampler of a tile's frame, for low-resolution logits of side `low`."""
    input_h, input_w = frame.input_hw
    return Sampler(
        Axis.make(low, frame.size, input_h, frame.height),
        Axis.make(low, frame.size, input_w, frame.width),
    )
