"""Masks of any two files or folders against each other: `crowdmask evaluate PRED TRUTH`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from crowdmask.metrics import figures, measures
from crowdmask.metrics.figures import Collected
from crowdmask.metrics.mask_files import LabelMaps, Masks, Name, Source, joined, open_sources
from crowdmask.metrics.matching import Overlaps, map_overlaps, overlaps

Pair = tuple[Name, Name]


def run(pred: Path, truth: Path, missing: str, shown: Callable[[list[Pair]], Iterable[Pair]] = iter) -> dict[str, Any]:
    """Measure predictions against the truth.

    Args:
        pred: Predictions, a file or a folder; see `mask_files`.
        truth: The truth.
        missing: error or ignore, for images that only one side has.
        shown: Lets the pairs of images pass, as a progress bar does.

    Returns:
        `pred`, `truth` (paths), `images`, `true_masks`, `predictions`, `left_out` (images of one side only), `paired`
        (masks belong together by point id), `median_iou` by point, what `figures.Collected.figures` gives, and
        `per_image`.

    Raises:
        DataError: a file cannot be used, or the two sides do not fit.
    """
    sources = open_sources(pred, truth)
    try:
        return _compared(*sources, missing, shown)
    finally:
        for source in sources:
            source.close()


def _compared(
    pred: Source, true: Source, missing: str, shown: Callable[[list[Pair]], Iterable[Pair]]
) -> dict[str, Any]:
    pairs = joined(pred, true, missing)
    collected, per_image, ious = Collected(), [], []
    by_point: bool | None = None
    for first, second in shown(pairs):
        found, truths, meet = _read(pred, true, first, second)
        chosen = _by_id(found, truths)
        if truths.windows:
            # One image without ids would make a mean of others: then there is none at all.
            by_point = chosen is not None and by_point is not False
        height, width = _size(pred, true, first, second, found, truths)
        try:
            meet = overlaps(found.windows, truths.windows) if meet is None else meet
            sums = measures.measure(
                found.windows,
                truths.windows,
                chosen,
                height,
                width,
                true_xy=truths.points_xy,
                found=meet,
            )
        except ValueError as error:
            raise DataError(pred.path, f"image {first.full}: {error}", "Are these masks of single heads?") from None
        collected.add(sums, meet, found.scores)
        if chosen is not None:
            own, ids = np.zeros(len(truths.windows)), np.array(chosen, np.int64).reshape(-1, 2)
            own[ids[:, 1]] = meet.iou_of(ids)
            ious.append(own)
        per_image.append(
            {"image": second.full, "true_masks": len(truths.windows)} | figures.of_image(collected.rows[-1])
        )
    if not by_point:
        _forget_points(collected, per_image)
        ious = []
    every = np.concatenate([np.zeros(0), *ious])
    sums = collected.sums()
    return {
        "pred": str(pred.path),
        "truth": str(true.path),
        "images": len(pairs),
        "true_masks": int(sums["true"]),
        "predictions": int(sums["pred"]),
        "left_out": len(pred.names()) + len(true.names()) - 2 * len(pairs),
        "paired": bool(by_point),
        "median_iou": figures.rounded(float(np.median(every))) if every.size else None,
        **collected.figures(),
        "per_image": per_image,
    }


def _read(pred: Source, true: Source, first: Name, second: Name) -> tuple[Masks, Masks, Overlaps | None]:
    """Masks of both sides; of two label maps also which masks meet, which one count says."""
    found, truths = pred.read(first), true.read(second)
    if isinstance(pred, LabelMaps) and isinstance(true, LabelMaps) and found.size_hw == truths.size_hw:
        return found, truths, map_overlaps(pred.labels(first), true.labels(second))
    return found, truths, None


def _by_id(found: Masks, truths: Masks) -> list[tuple[int, int]] | None:
    """Pairs by point id; None where a side has no ids."""
    if found.point_ids is None or truths.point_ids is None:
        return None
    places = {number: k for k, number in enumerate(found.point_ids)}
    return [(places[number], k) for k, number in enumerate(truths.point_ids) if number in places]


def _size(pred: Source, true: Source, first: Name, second: Name, found: Masks, truths: Masks) -> tuple[int, int]:
    """Height and width of an image, which both sides agree on and all masks keep to."""
    size = found.size_hw or truths.size_hw
    if size is None:
        fix = "Leave the tables where the workflow has put them: results/NAME/datasets has the sizes."
        raise DataError(true.path, f"nothing says how large the image {second.full} is", fix)
    if truths.size_hw is not None and truths.size_hw != size:
        problem = f"image {first.full} has {size[1]} x {size[0]} pixels, in {true.path} {truths.size_hw[1]} x "
        raise DataError(pred.path, f"{problem}{truths.size_hw[0]}", "Give masks at the size of the image.")
    for side, name, masks in ((pred, first, found), (true, second, truths)):
        if any(_leaves(window, *size) for window in masks.windows):
            problem = f"a mask of image {name.full} leaves the image of {size[1]} x {size[0]} pixels"
            raise DataError(side.path, problem, "Are both sides of the same data set?")
    return size


def _leaves(window: Window, height: int, width: int) -> bool:
    h, w = window.mask.shape
    return bool(window.mask.size) and (
        window.x0 < 0 or window.y0 < 0 or window.x0 + w > width or window.y0 + h > height
    )


def _forget_points(collected: Collected, per_image: list[dict[str, Any]]) -> None:
    """Make the measures by point undefined."""
    places = [k for k, name in enumerate(measures.NAMES) if name == "paired" or name.endswith("_paired")]
    for row, entry in zip(collected.rows, per_image, strict=True):
        row[places] = 0.0
        entry["mean_iou"] = None


SHOWN = (
    "mean_iou", "share_iou_50", "miou_matched", "miou_matched_all", "miou_gt", "precision_50", "recall_50", "f1_50",
    "precision_50_95", "recall_50_95", "f1_50_95", "ap", "ap_50", "ap_75", "pq", "sq", "rq", "boundary_iou",
    "boundary_iou_matched", "boundary_iou_px", "boundary_iou_px_matched", "precision_l", "recall_l", "f1_l",
    "precision_s", "recall_s", "f1_s", "mae", "rmse", "nae", "game_1", "game_2", "game_3",
)  # fmt: skip
"""Measures that the terminal shows."""


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The figures for a terminal: one measure a line, with its interval; undefined ones are left out."""
    for key in ("images", "left_out", "true_masks", "predictions"):
        yield f"{key:28s} {report[key]}"
    if not report["paired"]:
        yield "no point ids on both sides: measures by point are left out"
    yield from measure_lines(report)


def measure_lines(report: dict[str, Any]) -> Iterator[str]:
    """Of the keys `measures` and `intervals` of a report."""
    for name in SHOWN:
        value, ends = report["measures"].get(name), report["intervals"].get(name)
        if value is not None:
            yield f"{name:28s} {value:.4f}" + (f"   [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")
