"""Reading what the writers here made, as the tests of several formats do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crowdmask import config
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.errors import DataError


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def reader_of(kind: str, root: Path, **settings: Any) -> Reader:
    return reader({"format": kind, "root": str(root)}, **settings)


def ids(refs: list[ImageRef]) -> list[str]:
    return [f"{ref.split}/{ref.image_id}" for ref in refs]


def reader(entry: dict[str, Any], **settings: Any) -> Reader:
    loaded = config.load({"datasets": {"mine": {**entry, **settings}}})
    return reader_for("mine", loaded.datasets["mine"], "results")


def keys(made: Reader) -> list[str]:
    return ids(made.list_images())


def points_of(made: Reader) -> dict[str, list[list[float]]]:
    return {f"{ref.split}/{ref.image_id}": made.read_points(ref).tolist() for ref in made.list_images()}


def everything(made: Reader) -> None:
    for ref in made.list_images():
        made.read_annotation(ref)


def write(text: bytes, file: str = "annotations.json") -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes(text) and None


def check_fault(root: Path, entry: dict[str, Any], damage: Callable[[Path], None], words: str) -> None:
    everything(reader(entry))
    damage(root)
    with pytest.raises(DataError, match=words) as caught:
        everything(reader(entry))
    message = str(caught.value)
    assert message.startswith(str(root)) and message.endswith((".", "`.", ")")) and "\n" not in message
    message.encode()
