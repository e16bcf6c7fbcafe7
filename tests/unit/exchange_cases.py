"""Records, masks and damage that the tests of the tools' formats share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from hypothesis import strategies as st

from crowdmask.corrections.exchange.base import File, Picture
from crowdmask.corrections.exchange.record import Head, Record, Task
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window

HEX = "0" * 64


def task(masks: dict[int, np.ndarray], name: str = "0001-a.png", crop: tuple[int, int, int, int] | None = None) -> Task:
    """A handed-out picture; masks of the whole image by id, the crop as x0, y0, w, h."""
    height, width = next(iter(masks.values())).shape if masks else (crop[3], crop[2])
    x0, y0, w, h = crop or (0, 0, width, height)
    heads = []
    for point_id, mask in masks.items():
        columns = Window(0, 0, mask).tight().columns()
        columns["counts"] = columns["counts"].decode()
        heads.append(Head(point_id=point_id, x=0, y=0, base=None, **columns))
    return Task(name=name, split="all", image_id="a", sha256=HEX, picture=HEX, thumb="0" * 128, height=height,
                width=width, x0=x0, y0=y0, w=w, h=h, edits=(), heads=tuple(heads))  # fmt: skip


def record(*tasks: Task, tool: str = "cvat") -> Record:
    return Record(tag="0123abcd", dataset="demo", tool=tool, time="2025-01-02T03:04:05Z", tasks=tasks)


def file(content: bytes | str, name: str = "x.dat") -> File:
    return File(name, content if isinstance(content, bytes) else content.encode(), HEX)


def label_maps() -> st.SearchStrategy[np.ndarray]:
    """Small label maps: masks of 1 pixel, rings, fragments and masks at the border come by themselves."""
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    return sizes.flatmap(
        lambda size: st.lists(st.integers(0, 4), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
            lambda values: np.array(values).reshape(size)
        )
    )


def masks_of(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Masks by id; the ids are far apart."""
    return {int(value) * 1000 + 7: labels == value for value in np.unique(labels) if value}


def tricky(height: int = 40, width: int = 60) -> dict[int, np.ndarray]:
    """One pixel, 3 x 3, ring with a hole, two fragments, and the four borders."""
    masks = {key: np.zeros((height, width), bool) for key in (0, 5, 17, 18, 2**31 - 1)}
    masks[0][7, 9] = True
    masks[5][20:23, 30:33] = True
    masks[17][3:10, 20:29] = True
    masks[17][5:8, 22:26] = False
    masks[18][30:33, 5:9] = True
    masks[18][34:36, 15:17] = True
    masks[2**31 - 1][0, :] = masks[2**31 - 1][-1, :] = masks[2**31 - 1][:, 0] = masks[2**31 - 1][:, -1] = True
    return masks


def full(picture: Picture, reading: int = 0) -> list[tuple[int | None, np.ndarray]]:
    """Id and mask on the whole picture of each shape."""
    size = picture.height, picture.width
    return [(shape.point_id, shape.readings[reading].full(*size)) for shape in picture.shapes]


def assert_same(picture: Picture, masks: dict[int, np.ndarray]) -> None:
    """The shapes are these masks, in order, each exact and on its own bounding box."""
    found = full(picture)
    assert [number for number, _ in found] == list(masks)
    for (_, mask), wanted in zip(found, masks.values(), strict=True):
        np.testing.assert_array_equal(mask, wanted)
    assert_sound(picture)
    assert all(shape.exact for shape in picture.shapes)


def assert_sound(picture: Picture) -> None:
    """What the contract says of every shape."""
    assert picture.name
    for shape in picture.shapes:
        assert shape.readings
        assert shape.point_id is None or 0 <= shape.point_id < 2**31
        for window in shape.readings:
            h, w = window.mask.shape
            assert window.mask.dtype == bool
            if window.mask.size:
                assert window.x0 >= 0 <= window.y0
                assert window.x0 + w <= picture.width and window.y0 + h <= picture.height
                assert window.tight().mask.shape == (h, w)
            else:
                assert (h, w) == (0, 0)


def picture_of(mask: str) -> np.ndarray:
    """A drawing with # and . as mask."""
    return np.array([[char == "#" for char in line] for line in mask.split()])


def label(value: object) -> str | None:
    """Name of a test's parameter, short also for a long text."""
    return repr(value[:30]) if isinstance(value, str | bytes) else None


def mutations(content: bytes, number: int, parts: Sequence[bytes]) -> Iterator[bytes]:
    """Damaged copies: bytes changed, removed, doubled, cut off, or replaced by some of the parts."""
    for seed in range(number):
        chance = random.Random(seed)
        changed = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed) + 1)
            span = chance.choice((0, 1, 1, 2, 5, 40))
            kind = chance.randrange(5)
            if kind == 0:
                changed[at : at + span] = b""
            elif kind == 1:
                changed[at : at + span] = bytes(chance.randrange(256) for _ in range(span))
            elif kind == 2:
                changed[at:at] = changed[at : at + span]
            elif kind == 3 and chance.random() < 0.2:
                del changed[at:]
            else:
                changed[at : at + span] = chance.choice(parts)
        yield bytes(changed)


def survive(read: Callable[[File], Iterator[Picture]], contents: Iterator[bytes]) -> tuple[int, int]:
    """Read every one: sound pictures or a DataError, nothing else. How many were read, and refused."""
    fine = refused = 0
    for content in contents:
        try:
            for picture in read(file(content)):
                assert_sound(picture)
            fine += 1
        except DataError as error:
            assert str(error).startswith("x.dat: ") and error.fix
            refused += 1
    return fine, refused
