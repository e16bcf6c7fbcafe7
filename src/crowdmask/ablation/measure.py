"""Measures of one batch of masks, as sums of each image that add up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from crowdmask.metrics import measures
from crowdmask.metrics.evaluate import FALLBACKS
from crowdmask.tables import by_image, points_of

VERSION = 1


def rows(
    images: Iterable[dict[str, Any]], masks: Iterable[dict[str, Any]], truth: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.MEASURES` for rows of `tables.IMAGES`, `tables.MASKS` and `tables.TRUTH`.

    Heads of the truth are where they are annotated, those of the masks are the masks' centroids.

    Raises:
        DataError: a point has no true mask.
    """
    made, true = by_image(masks), by_image(truth)
    for image in images:
        key = image["split"], image["image_id"]
        found, known = made.get(key, []), true.get(key, [])
        points = points_of(image)
        if len(known) != len(points):
            raise DataError("/".join(key), f"{len(points)} points but {len(known)} true masks", "Run again.")
        at = {row["point_id"]: index for index, row in enumerate(known)}
        sums = measures.measure(
            [Window.from_columns(row) for row in found],
            [Window.from_columns(row) for row in known],
            [(index, at[row["point_id"]]) for index, row in enumerate(found) if row["point_id"] in at],
            image["height"],
            image["width"],
            true_xy=points[[row["point_id"] for row in known]] if known else None,
        )
        fallback = sum(row["source"] in FALLBACKS for row in found)
        yield {"split": key[0], "image_id": key[1], "fallback": fallback, "sums": list(sums.items())}
