"""Pictures of training batches, drawn from what a model is given: to see that points, masks and pixels fit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from crowdmask.config.crops import CropGeometry, Look
from crowdmask.errors import DataError
from crowdmask.export.overlay import outline
from crowdmask.files import replacing
from crowdmask.models.base import MEAN, SPREAD, Batch
from crowdmask.training.crops import Loader, Plan
from crowdmask.training.source import Source

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""RGB of masks, in turn: Okabe and Ito's palette, which colour-blind people can tell apart."""

SIDE = 512
"""Crops are enlarged by a whole number, to at most that many pixels."""

_INK, _PAPER, _GREY = (34, 34, 34), (255, 255, 255), (150, 150, 150)
_FILL = 0.25
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def picture(batch: Batch, columns: int = 4) -> np.ndarray:
    """A batch as a grid of crops, with a legend below.

    Points are white dots; masks are outlined and lightly filled, neighbours in other colours. What belongs to nobody
    (label -1) is hatched one way, what is not valid (padding, cut out) both ways.

    Args:
        batch: As a model gets it, on the CPU.
        columns: Crops a row.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    side = batch.images.shape[-1]
    zoom = max(1, SIDE // side)
    cells = [_cell(batch, k, zoom) for k in range(len(batch.images))]
    columns = max(1, min(columns, len(cells)))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.hstack(cells[k : k + columns]) for k in range(0, len(cells), columns)]
    grid = np.vstack(rows)
    return np.vstack([grid, _legend(grid.shape[1], batch.labels is not None)])


def _cell(batch: Batch, k: int, zoom: int) -> np.ndarray:
    """One crop with its name above."""
    image = batch.images[k].permute(1, 2, 0).numpy() * np.array(SPREAD) + np.array(MEAN)
    canvas = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    valid = batch.valid[k].numpy() > 0
    canvas = _enlarged(np.where(valid[:, :, None], canvas, 235).astype(np.uint8), zoom)
    if batch.labels is not None:
        labels = _enlarged(batch.labels[k].numpy(), zoom)
        edge = _edges(labels)
        palette = np.array(COLOURS)
        some = labels > 0
        colour = palette[(labels[some] - 1) % len(palette)]
        share = np.where(edge[some], 1.0, _FILL)[:, None]
        canvas[some] = (canvas[some] * (1 - share) + colour * share + 0.5).astype(np.uint8)
        canvas[_hatch(labels.shape, 1) & (labels < 0)] = _GREY
        canvas[outline(labels < 0, 1)] = _GREY
    unseen = _enlarged(~valid, zoom)
    canvas[(_hatch(unseen.shape, 1) | _hatch(unseen.shape, -1)) & unseen] = _GREY
    for x, y in batch.points_xy[k].numpy() * zoom + (zoom - 1) / 2:
        centre = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        cv2.circle(canvas, centre, 2 if zoom > 1 else 1, _INK, -1)
        canvas[min(max(centre[1], 0), len(canvas) - 1), min(max(centre[0], 0), len(canvas) - 1)] = _PAPER
        if zoom > 1:
            cv2.circle(canvas, centre, 1, _PAPER, -1)
    name = batch.names[k] if k < len(batch.names) else f"crop {k}"
    return np.vstack(
        [
            _title(f"{name}: {len(batch.points_xy[k])}", canvas.shape[1]),
            cv2.copyMakeBorder(canvas, 0, 6, 0, 6, cv2.BORDER_CONSTANT, value=_PAPER),
        ]
    )


def _enlarged(array: np.ndarray, zoom: int) -> np.ndarray:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels of masks that touch, up, down, left or right, a pixel of another label; the crop's border does not."""
    padded = np.pad(labels, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    others = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return (middle > 0) & np.logical_or.reduce([middle != other for other in others])


def _hatch(shape: tuple[int, int], slope: int, step: int = 10) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (x + slope * y) % step == 0


def _title(text: str, width: int) -> np.ndarray:
    strip = np.full((20, width + 6, 3), 255, np.uint8)
    scale = 0.42
    while scale > 0.2 and cv2.getTextSize(text, _FONT, scale, 1)[0][0] > width:
        scale -= 0.04
    cv2.putText(strip, text, (2, 14), _FONT, scale, _INK, 1, cv2.LINE_AA)
    return strip


def _legend(width: int, labelled: bool) -> np.ndarray:
    words = "white dots: heads; the number after a name: how many. "
    if labelled:
        words += "Colours: their masks. Hatched one way: masks of heads outside of the crop, which no loss counts. "
    words += "Hatched both ways: padding, and what was cut out."
    lines = textwrap.wrap(words, max(20, width // 8))
    strip = np.full((18 * len(lines) + 8, width, 3), 255, np.uint8)
    for k, line in enumerate(lines):
        cv2.putText(strip, line, (4, 18 * k + 15), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return strip


def run(
    source: Source,
    geometry: CropGeometry,
    looks: Sequence[Look],
    output: str | Path,
    *,
    batch: int = 8,
    repeats: int = 1,
    epoch: int = 0,
    number: int = 0,
    seed: int = 0,
    columns: int = 4,
) -> dict[str, Any]:
    """Draw one batch to a PNG file, one grid for each look.

    Args:
        source: The images.
        geometry: Where crops lie.
        looks: Looks of each crop.
        output: PNG file to write.
        batch: Crops of the batch.
        repeats: Crops of each image in an epoch.
        epoch: From 0.
        number: Which batch of the epoch, from 0.
        seed: Of the run.
        columns: Crops a row.

    Returns:
        What is drawn: `crops`, `heads`, `names`.

    Raises:
        DataError: the epoch has no such batch, the images cannot be used, or the file cannot be written.
    """
    plan = Plan(len(source), batch, repeats=repeats, seed=seed)
    if not 0 <= number < plan.batches:
        raise DataError(output, f"epoch {epoch} has batches 0 to {plan.batches - 1}, not {number}", "Choose another.")
    found = next(Loader(source, plan, geometry, looks).looks(epoch, number))
    grids = [picture(one, columns) for one in found]
    if len(grids) > 1:
        heads_of = (f"look {k} of {len(grids)}" for k in range(1, len(grids) + 1))
        grids = [np.vstack([_title(text, grid.shape[1] - 6), grid]) for text, grid in zip(heads_of, grids, strict=True)]
    encoded, data = cv2.imencode(".png", cv2.cvtColor(np.vstack(grids), cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(output, "the picture could not be encoded", "Draw fewer crops.")
    with replacing(output) as temporary:
        temporary.write_bytes(data.tobytes())
    heads = int(torch.tensor([len(points) for points in found[0].points_xy]).sum())
    return {"crops": len(found[0].images), "heads": heads, "names": list(found[0].names)}
