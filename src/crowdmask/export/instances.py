"""Masks of one image, whatever they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crowdmask.masks.rle import Window


@dataclass(frozen=True)
class Instances:
    """Masks of one image.

    Attributes:
        image_id: As the format tells it: our id, or the name of a file without its ending.
        height: Pixels.
        width: Pixels.
        ids: int64 (N,), `point_id` of each mask; where the format does not keep it, see the reader.
        windows: N masks, tight; of size 0 x 0 where empty.
        split: Of the data set, where the format tells it.
    """

    image_id: str
    height: int
    width: int
    ids: np.ndarray
    windows: Sequence[Window]
    split: str | None = None
