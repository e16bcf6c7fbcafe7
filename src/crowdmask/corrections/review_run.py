"""Stage `review`: the table of all masks with their reasons, the page of the worst, and the numbers.

Batch after batch; what stays in memory is one batch, the worst masks (names only), and with truth a few numbers a mask.
The files of images are opened for the page alone, once each.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import files, geometry, tables
from crowdmask.config import Review
from crowdmask.corrections import review_page
from crowdmask.corrections.review import STRONG, VERSION, image_rows
from crowdmask.corrections.review_truth import Judge
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window

_AGAIN = "Delete it and run again."
BINS = 20
"""Bars of the histogram of scores."""


@dataclass(frozen=True)
class Batch:
    """Paths of the tables of one batch; `truth` None = the data set has none."""

    images: str | Path
    masks: str | Path
    segment: str | Path
    superpixels: str | Path
    truth: str | Path | None = None


@dataclass(frozen=True)
class Outputs:
    """Files to write."""

    table: str | Path
    page: str | Path
    report: str | Path


@dataclass
class Collected:
    """What is known when all rows have passed.

    Attributes:
        keep: Most masks to remember.
        worst: Heap of (score, order of arrival backwards, number of the batch, row).
    """

    keep: int
    worst: list[tuple[float, int, int, dict[str, Any]]] = field(default_factory=list)
    judge: Judge = field(default_factory=Judge)
    images: int = 0
    masks: int = 0
    verified: int = 0
    reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(tables.REASONS, 0))
    scores: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, number: int, rows: Sequence[dict[str, Any]], judged: bool) -> None:
        """Take the rows of one image of a batch."""
        self.images += 1
        for row in rows:
            self.masks += 1
            if row["verified"]:
                self.verified += 1
                continue
            for name in tables.REASONS:
                self.reasons[name] += row[name] >= STRONG
            self.scores[min(int(row["score"] * BINS), BINS - 1)] += 1
            # Of equal scores the one that came first is kept; the counter also ends every comparison before the row.
            entry = row["score"], -self.masks, number, row
            if len(self.worst) < self.keep:
                heapq.heappush(self.worst, entry)
            elif self.keep:
                heapq.heappushpop(self.worst, entry)
        if judged:
            self.judge.add(rows)

    def ranked(self) -> list[tuple[int, dict[str, Any]]]:
        """(number of the batch, row) of the worst masks, worst first."""
        return [(number, row) for _, _, number, row in sorted(self.worst, key=lambda entry: entry[:2], reverse=True)]


def run(
    dataset: str,
    batches: Sequence[Batch],
    root: str | Path,
    exif: Exif,
    settings: Review,
    settings_text: str,
    outputs: Outputs,
    shown: Callable[[Iterable[tuple[int, Batch]]], Iterator[tuple[int, Batch]]] = iter,
) -> dict[str, Any]:
    """Write the table, the page and the numbers of a data set.

    Args:
        dataset: Its name.
        batches: Tables of every batch.
        root: Folder that image paths are relative to.
        exif: EXIF policy of the data set.
        settings: Weights, and how many masks the page shows.
        settings_text: Canonical JSON of the settings to record.
        outputs: Files to write.
        shown: Lets the batches pass, as a progress bar does.

    Returns:
        What the report file holds: `images`, `masks`, `verified`, `reasons` (masks not verified of which each is
        strong), `scores` (how many lie in each of equal parts of 0 to 1) and `truth` (`Judge.result`; null without).

    Raises:
        DataError: a table is missing or damaged, its masks do not belong to its images, an annotated point lacks SAM's
            answer or its superpixel, or the file of an image on the page cannot be read.
    """
    collected = Collected(settings.crops)

    def rows() -> Iterator[dict[str, Any]]:
        for number, batch in shown(enumerate(batches)):
            for found in _reviewed(batch, settings):
                collected.add(number, found, batch.truth is not None)
                yield from found

    recorded = json.loads(settings_text)
    tables.write(outputs.table, "review", rows(), version=VERSION, settings=settings_text)
    report = {
        "version": VERSION,
        "dataset": dataset,
        "settings": recorded,
        "images": collected.images,
        "masks": collected.masks,
        "verified": collected.verified,
        "reasons": collected.reasons,
        "scores": collected.scores,
        "truth": collected.judge.result(),
    }
    crops = _crops(batches, collected.ranked(), root, exif)
    with files.replacing(outputs.page) as temporary:
        temporary.write_text(review_page.page(report, crops), encoding="utf-8")
    files.write_json(outputs.report, report)
    return report


def _reviewed(batch: Batch, settings: Review) -> Iterator[list[dict[str, Any]]]:
    """Rows of each image of a batch."""
    masks, segments, superpixels = (
        tables.by_image(tables.stream(path, name))
        for path, name in ((batch.masks, "masks"), (batch.segment, "segment"), (batch.superpixels, "superpixels"))
    )
    truth = tables.by_image(tables.stream(batch.truth, "truth")) if batch.truth else None
    for image in tables.stream(batch.images, "images", batch=64):
        key = image["split"], image["image_id"]
        own = masks.pop(key, [])
        answers, parts = _by_point(segments.pop(key, [])), _by_point(superpixels.pop(key, []))
        annotated = {point["point_id"] for point in image["points"]}
        for path, part, what in ((batch.segment, answers, "SAM mask"), (batch.superpixels, parts, "superpixel")):
            for row in own:
                if row["point_id"] in annotated and row["point_id"] not in part:
                    name = f"point {row['point_id']} of image {key[0]}/{key[1]}"
                    raise DataError(path, f"{name} has no {what}", _AGAIN)
        true = None if truth is None else _by_point(truth.pop(key, []))
        yield image_rows(image, own, answers, parts, true, settings)
    for split, image_id in masks:
        raise DataError(batch.masks, f"image {split}/{image_id} is not in {batch.images}", _AGAIN)


def _by_point(rows: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["point_id"]: row for row in rows}


def _crops(
    batches: Sequence[Batch], ranked: Sequence[tuple[int, dict[str, Any]]], root: str | Path, exif: Exif
) -> list[review_page.Crop]:
    """Pictures of the worst masks, in the same order; each image file is opened once."""
    wanted: dict[int, dict[tuple[str, str], list[int]]] = {}
    for rank, (number, row) in enumerate(ranked):
        wanted.setdefault(number, {}).setdefault((row["split"], row["image_id"]), []).append(rank)
    made: dict[int, review_page.Crop] = {}
    for number, images in sorted(wanted.items()):
        batch = batches[number]
        known = {
            (row["split"], row["image_id"]): row
            for row in tables.stream(batch.images, "images", batch=64)
            if (row["split"], row["image_id"]) in images
        }
        masks = tables.by_image(
            row for row in tables.stream(batch.masks, "masks") if (row["split"], row["image_id"]) in images
        )
        for key, ranks in images.items():
            photo = read_row(root, known[key], exif)
            windows = [Window.from_columns(row) for row in masks[key]]
            places = {row["point_id"]: i for i, row in enumerate(masks[key])}
            for rank in ranks:
                row = ranked[rank][1]
                place = places[row["point_id"]]
                point = geometry.clip_points(np.array([row["x"], row["y"]]), *photo.shape[:2])[0]
                made[rank] = review_page.Crop(row, review_page.picture(photo, windows, place, row["source"], point))
    return [made[rank] for rank in range(len(ranked))]
