"""Choosing images of a list: by share and seed, by a list of names, in groups; pure functions of `ImageRef`s."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import floor

from crowdmask.datasets.base import ImageRef
from crowdmask.datasets.images import SUFFIXES
from crowdmask.errors import DataError


def key_of(ref: ImageRef) -> str:
    """`split/image_id`, the name of an image in its data set."""
    return f"{ref.split}/{ref.image_id}"


def by_split(refs: Iterable[ImageRef]) -> dict[str, list[ImageRef]]:
    """Images of each split, in their order."""
    groups: dict[str, list[ImageRef]] = {}
    for ref in refs:
        groups.setdefault(ref.split, []).append(ref)
    return groups


def rank(refs: Iterable[ImageRef], seed: int, purpose: str) -> list[ImageRef]:
    """Images in an order that only their own names and the seed decide (our choice).

    By the SHA-256 of purpose, seed, split and id, so that an image keeps its place relative to all others whatever is
    added or left out, on every machine and in every version of Python.

    Args:
        refs: Images in any order.
        seed: Another seed is another order.
        purpose: Another purpose is another order of the same seed: a validation part says nothing on the subsets.
    """
    return sorted(refs, key=lambda ref: order(seed, purpose, key_of(ref)))


def order(seed: int, purpose: str, name: str) -> bytes:
    """Place of an image, `split/image_id`, among others; see `rank`."""
    return hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest()


def by_share(
    refs: Sequence[ImageRef], share: float, seed: int, purpose: str, total: int | None = None
) -> list[ImageRef]:
    """The first round(share * n) images by `rank`, halves rounded up; in the order of `refs`.

    Of one seed, a larger share holds every smaller one. One more image in `refs` changes the membership of at most one
    other image.

    Args:
        refs: The n images to draw from.
        share: 0 to 1, taken as the decimal number that it is written as.
        seed: See `rank`.
        purpose: See `rank`.
        total: n, where the share is of more images than may be drawn; None = those of `refs`.
    """
    size = floor(Fraction(str(share)) * (len(refs) if total is None else total) + Fraction(1, 2))
    chosen = set(rank(refs, seed, purpose)[:size])
    return [ref for ref in refs if ref in chosen]


def by_names(path: str, text: str, refs: Sequence[ImageRef], also: str = "") -> list[ImageRef]:
    """Images that a list names, in the order of `refs`.

    One name a line, with or without the suffix of an image, with or without `SPLIT/` before it. `#` starts a comment;
    blank lines count for nothing. Where the whole line is no name, its first word is taken: NWPU-Crowd's lists have two
    more columns.

    Args:
        path: The list file, for messages.
        text: Its content.
        refs: Images of one split.
        also: What else to say of a name that is not there.

    Raises:
        DataError: a name that is not among `refs` or is there twice (with its line), or no name at all.
    """
    known = {ref.image_id: ref for ref in refs}
    split = refs[0].split if refs else ""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        names = [_bare(word.removeprefix(f"{split}/"), known) for word in (entry, entry.split()[0])]
        image_id = next((name for name in names if name in known), None)
        if image_id is None:
            shown = repr(entry if len(entry) <= 80 else f"{entry[:80]}...")
            raise DataError(
                path,
                f"line {number}: {shown} is not an image of the split '{split}' ({len(refs)} images{also})",
                "Correct or remove the line; `skip_images`, `skip` and `limit` also leave images out.",
            )
        if image_id in lines:
            raise DataError(
                path, f"line {number}: {image_id} is in line {lines[image_id]} already", "Remove one of the lines."
            )
        lines[image_id] = number
    if not lines:
        raise DataError(path, "names no image", "Write one image name a line.")
    return [ref for ref in refs if ref.image_id in lines]


def groups_in_order(refs: Sequence[ImageRef], k: int) -> list[list[ImageRef]]:
    """Divide images into k groups of neighbours; the first n mod k groups have one more.

    Raises:
        ValueError: fewer images than groups.
    """
    if len(refs) < k:
        raise ValueError(f"{len(refs)} images cannot be divided into {k} folds")
    size, larger = divmod(len(refs), k)
    ends = [size * group + min(group, larger) for group in range(k + 1)]
    return [list(refs[start:end]) for start, end in pairwise(ends)]


def natural(refs: Iterable[ImageRef]) -> list[ImageRef]:
    """Images by name with numbers by value: 2 before 10, as the folds of UCF_CC_50 are counted."""

    def key(ref: ImageRef) -> tuple[list[tuple[int, int, str]], str]:
        words = re.findall(r"[0-9]+|[^0-9]+", ref.image_id)
        return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words], ref.image_id

    return sorted(refs, key=key)


def digest(refs: Iterable[ImageRef], hidden: Iterable[ImageRef]) -> str:
    """Hex SHA-256 of the names of images with and without annotation, in any order.

    Another one where an image comes, goes, changes its split or its annotation appears.
    """
    text = "\n".join([*sorted(map(key_of, refs)), "", *sorted(map(key_of, hidden))])
    return hashlib.sha256(text.encode()).hexdigest()


def _bare(name: str, known: Mapping[str, ImageRef]) -> str:
    """Name without the suffix of an image, unless it is an id as it stands (`a.png.jpg` has the id `a.png`)."""
    stem, dot, suffix = name.rpartition(".")
    return stem if name not in known and stem and f"{dot}{suffix}".lower() in SUFFIXES else name
