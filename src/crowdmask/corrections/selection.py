"""Which images are handed out for correction: by name, or the worst first."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crowdmask.errors import DataError, SettingsError

Key = tuple[str, str]
"""Split and image id."""

HIGHEST = 10
"""Scores that make an image's own: a few bad masks are worth a look in a crowd of good ones."""


def named(texts: Iterable[str], known: Sequence[Key]) -> list[Key]:
    """Images that somebody names.

    Args:
        texts: Each one image, or several with commas or blanks between; split/image_id, or an image_id that only one
            split has. An id with commas or blanks in it stands alone.
        known: All images of the data set.

    Returns:
        Each once, in the order given.

    Raises:
        SettingsError: a name that no image has, with similar ones; or that images of several splits have.
    """
    splits: dict[str, list[str]] = {}
    for split, image_id in known:
        splits.setdefault(image_id, []).append(split)
    whole = {f"{split}/{image_id}": (split, image_id) for split, image_id in known}
    names: list[str] = []
    for text in texts:
        names += [text] if text in whole or text in splits else [part for part in re.split(r"[,\s]+", text) if part]
    unknown = [name for name in names if name not in whole and name not in splits]
    if unknown:
        raise SettingsError(" ".join(_near(name, whole, splits) for name in dict.fromkeys(unknown)))
    found: dict[Key, None] = {}
    for name in names:
        if name not in whole and len(splits[name]) > 1:
            several = ", ".join(f"{split}/{name}" for split in splits[name])
            raise SettingsError(f"several images are called {name!r}: write one of {several}")
        found[whole.get(name) or (splits[name][0], name)] = None
    if not found:
        raise SettingsError("--images names no image; write split/image_id")
    return list(found)


def _near(name: str, whole: Mapping[str, Key], splits: Mapping[str, Sequence[str]]) -> str:
    """Message for a name that no image has."""
    near = difflib.get_close_matches(name, whole, n=5, cutoff=0.5)
    for image_id in difflib.get_close_matches(name, splits, n=5, cutoff=0.5):
        near += [f"{split}/{image_id}" for split in splits[image_id]]
    similar = ", ".join(list(dict.fromkeys(near))[:5])
    return f"No image {name!r}" + (f"; similar: {similar}." if similar else " and none of a similar name.")


def review_scores(path: str | Path, way_out: str) -> Iterator[tuple[str, str, float | None]]:
    """Split, image_id and score of each mask of a review table.

    Args:
        path: The table.
        way_out: Command that makes it.

    Raises:
        DataError: missing, damaged, or without these columns.
    """
    names = ["split", "image_id", "score"]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            kinds = [schema.field(name).type for name in names if name in schema.names]
            if len(kinds) < 3 or kinds[:2] != [pa.string()] * 2 or not pa.types.is_floating(kinds[2]):
                raise DataError(path, "not a review table (split, image_id, score)", f"Delete it. {way_out}")
            for part in file.iter_batches(columns=names):
                yield from zip(*(part.column(name).to_pylist() for name in names), strict=True)
    except FileNotFoundError:
        raise DataError(path, "not made yet", way_out) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"damaged ({' '.join(str(error).split())})", f"Delete it. {way_out}") from None


def image_scores(rows: Iterable[tuple[str, str, float | None]]) -> dict[Key, float]:
    """Score of each image: the mean of its ten highest (of all where it has fewer); our choice.

    Args:
        rows: Split, image_id and score of masks, in any order; without a score (None) a mask does not count.
    """
    highest: dict[Key, list[float]] = {}
    for split, image_id, score in rows:
        if score is None or score != score:
            continue
        heap = highest.setdefault((split, image_id), [])
        if len(heap) < HIGHEST:
            heapq.heappush(heap, score)
        else:
            heapq.heappushpop(heap, score)
    return {key: sum(sorted(heap)) / len(heap) for key, heap in highest.items()}


def worst(scores: Mapping[Key, float], known: Iterable[Key], number: int) -> list[Key]:
    """The images of the highest scores, highest first, equal ones in the order of `known`.

    Args:
        scores: As `image_scores` gives them; images that are not known do not count.
        known: All images of the data set.
        number: Most images wanted.
    """
    scored = [key for key in known if key in scores]
    return sorted(scored, key=lambda key: -scores[key])[:number]
