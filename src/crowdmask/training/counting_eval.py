"""How well a counting model counts and places heads on a list of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from crowdmask.errors import CrowdmaskError
from crowdmask.metrics import counting, localisation
from crowdmask.models.base import Counter, Prediction, normalise

RADII_PX = (4.0, 8.0)
"""Largest distances of a found point from its head, pixels, where heads have no boxes: those that the papers of point
models report on ShanghaiTech (methods d.1: PET is one)."""


class Image(Protocol):
    """What is evaluated, as `training.source.Sample` has it."""

    @property
    def name(self) -> str:
        """split/image_id."""

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (h, w, 3) RGB."""

    @property
    def points_xy(self) -> np.ndarray:
        """float (n, 2) heads, pixels."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions of all images, in their order, and what they are worth.

    Attributes:
        names: split/image_id.
        true: Heads of each image.
        predictions: Of each image.
        metrics: See `measures`.
    """

    names: tuple[str, ...]
    true: tuple[int, ...]
    predictions: tuple[Prediction, ...]
    metrics: dict[str, float]


@torch.no_grad()
def predict(model: Counter, image: Image, bf16: bool = False) -> Prediction:
    """The prediction for a whole image, on the model's device; call `eval()` before.

    Raises:
        CrowdmaskError: the count is not finite.
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        found = model.predict(normalise(image.pixels).to(device))
    if not math.isfinite(found.count):
        raise CrowdmaskError(f"the model counts {found.count} heads in image {image.name}: its weights are of no use")
    return found


def evaluate(
    model: Counter,
    images: Iterable[Image],
    *,
    radii_px: Sequence[float] = RADII_PX,
    bf16: bool = False,
    progress: bool = False,
    each: Callable[[Image, Prediction], None] = lambda image, prediction: None,
) -> Evaluation:
    """Predict every image and compare with its heads. The model is left in the mode (train, eval) that it was in.

    Args:
        model: On any device.
        images: A `Source`, or any list.
        radii_px: Of the localisation, pixels of the images.
        bf16: Whether the network runs in bfloat16.
        progress: Whether to show a bar.
        each: Called after each image.

    Raises:
        CrowdmaskError: no images, or a count that is not finite.
    """
    names, heads, predictions = [], [], []
    was = model.training
    model.eval()
    try:
        for image in tqdm(images, "evaluation", unit="image", disable=not progress):
            found = predict(model, image, bf16)
            each(image, found)
            names.append(image.name)
            heads.append(np.asarray(image.points_xy, np.float64).reshape(-1, 2))
            predictions.append(found)
    finally:
        model.train(was)
    metrics = measures(predictions, heads, radii_px)
    return Evaluation(tuple(names), tuple(len(points) for points in heads), tuple(predictions), metrics)


def measures(
    predictions: Sequence[Prediction], heads_xy: Sequence[np.ndarray], radii_px: Sequence[float] = RADII_PX
) -> dict[str, float]:
    """Errors of the counts, and of the places where the predictions have points.

    Args:
        predictions: Of each image.
        heads_xy: float (n, 2) true heads of each, pixels.
        radii_px: Largest distances of a point from its head.

    Returns:
        `mae`, `rmse` and `nae` (0 where no image has heads), see `crowdmask.metrics.counting.errors`; with points also
        `precision_4px`, `recall_4px`, `f1_4px` ... over the heads of all images, by a matching of maximum cardinality
        (`crowdmask.metrics.localisation`); 0 where nothing is to be divided by.

    Raises:
        CrowdmaskError: no images.
    """
    if not predictions:
        raise CrowdmaskError("no images to evaluate: give the validation at least one")
    errors = np.array(
        [counting.errors(one.count, len(heads)) for one, heads in zip(predictions, heads_xy, strict=True)]
    )
    absolute, square, relative = errors.sum(0).tolist()
    peopled = sum(len(heads) > 0 for heads in heads_xy)
    number = len(predictions)
    found = {"mae": absolute / number, "rmse": math.sqrt(square / number), "nae": relative / max(peopled, 1)}
    placed = [one.points_xy for one in predictions if one.points_xy is not None]
    if len(placed) < number:
        return found
    for radius in radii_px:
        hits = sum(
            int(localisation.found(points, heads, np.full(len(heads), radius)).sum())
            for points, heads in zip(placed, heads_xy, strict=True)
        )
        said, true = sum(map(len, placed)), sum(map(len, heads_xy))
        found |= {
            f"precision_{radius:g}px": hits / max(said, 1),
            f"recall_{radius:g}px": hits / max(true, 1),
            f"f1_{radius:g}px": 2 * hits / max(said + true, 1),
        }
    return found
