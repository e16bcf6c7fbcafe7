"""State of the global random generators, as tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the global random generators of Python, NumPy and torch, and of the device where it has one."""
    _, words, gauss = random.getstate()
    legacy = cast(dict[str, Any], np.random.get_state(legacy=False))  # noqa: NPY002, libraries still draw from it
    keys, position = legacy["state"]["key"], legacy["state"]["pos"]
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.append(keys.astype(np.int64), [position, legacy["has_gauss"]])),
        "normal": torch.tensor([gauss is not None, gauss or 0.0, legacy["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the random generators into a state of `random_state`."""
    known, gauss, value = state["normal"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss if known else None))
    *keys, position, cached = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, cached, value))  # noqa: NPY002
    # Clones: torch (2.14) reads a part of a tensor as if it were its beginning.
    torch.set_rng_state(state["torch"].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
