"""Which images a training run of a counting model learns from, chooses by, and is tested on; and its model.

A run is named `fold0` (the layout's own splits) or `fold1`, `fold2`, ... (cross-validation), with `-seed3` where
another seed than the settings' is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crowdmask.config.counting import CountingModel, CountingRun
from crowdmask.datasets.choosing import order
from crowdmask.datasets.protocols import VALIDATION, Splits, fold_ids, split_ids
from crowdmask.errors import DataError
from crowdmask.losses.blocks import block_counts
from crowdmask.models import backbone
from crowdmask.models.base import Counter
from crowdmask.models.density import STARTS, DensityCounter, Terms, bin_centres
from crowdmask.models.p2r import P2R
from crowdmask.models.pet import Pet

NAME = r"fold\d+(-seed\d+)?"


@dataclass(frozen=True)
class Run:
    """Images of a run, as split/image_id.

    Attributes:
        fold: 0 = the layout's splits.
        seed: Of the training.
        train: To learn from.
        validation: To choose the best epoch by.
        test: Looked at once, at the end.
    """

    fold: int
    seed: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def parse(name: str, seed: int) -> tuple[int, int]:
    """Fold and seed of a run's name.

    Args:
        name: Matches `NAME`.
        seed: Where the name has none.
    """
    found = re.fullmatch(r"fold(\d+)(?:-seed(\d+))?", name)
    if not found:
        raise ValueError(f"'{name}' is no run: write fold1 or fold1-seed2")
    return int(found[1]), seed if found[2] is None else int(found[2])


def images_of(splits: Splits, name: str, share: float, seed: int) -> Run:
    """The images of a run.

    Fold 0 trains on `train`, chooses on `val`, or on a share of `train` where the layout has none, and tests on `test`
    (on `val` where nothing else has points, as for NWPU-Crowd: then a share of `train` chooses). A fold of a
    cross-validation gives a share of its training images to choose by. The share does not depend on the run's seed,
    so that runs with other seeds see the same images.

    Args:
        splits: Of the data set.
        name: Of the run.
        share: Of the training images.
        seed: Of the settings.

    Raises:
        DataError: there is no such fold, no split to train or test on, or too few images.
    """
    fold, own = parse(name, seed)
    where = f"datasets.{splits.dataset}"
    if fold:
        train, test = fold_ids(splits, fold)
        chosen: tuple[str, ...] = ()
    else:
        known = splits.splits
        if "train" not in known or not {"test", VALIDATION} & known.keys():
            problem = f"splits {', '.join(known)}: fold0 needs `train`, and `test` or `val`"
            raise DataError(where, problem, "Set `protocols: {folds: {k: 5}}` and ask for fold1 to fold5.")
        train = split_ids(splits, "train")
        test = split_ids(splits, "test" if "test" in known else VALIDATION)
        chosen = split_ids(splits, VALIDATION) if {"test", VALIDATION} <= known.keys() else ()
    if not chosen:
        number = max(1, round(share * len(train)))
        chosen = tuple(sorted(train, key=lambda image: order(0, "choose", image))[:number])
        train = tuple(image for image in train if image not in set(chosen))
    if not train or not test:
        raise DataError(where, f"{name} has {len(train)} images to train on and {len(test)} to test on", "Add images.")
    return Run(fold, own, train, chosen, test)


def build(
    model: CountingModel,
    settings: CountingRun,
    points: Iterable[np.ndarray],
    sizes: Sequence[tuple[int, int]],
    seed: int,
) -> Counter:
    """A network with random weights of that seed, or with those that its backbone starts from.

    Args:
        model: Which.
        settings: Of the run.
        points: Head points of each training image, (n, 2), pixels of the working copy: of them EBC and ZIP take
            the mean counts of their bins.
        sizes: Height and width of each.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    body = backbone.build(settings.backbone, settings.weights, settings.backbone_width)
    if model == "p2r":
        return P2R(body, settings.width)
    if model == "pet":
        return Pet(body, settings.width)
    terms = Terms(settings.count_loss, settings.multiscale, settings.mask, settings.background, settings.mask_mode)
    stride = settings.stride
    counts = (
        block_counts(torch.from_numpy(np.asarray(xy, np.float32)), -(-h // stride), -(-w // stride), stride).numpy()
        for xy, (h, w) in zip(points, sizes, strict=True)
    )
    centres = () if model == "density" else bin_centres(counts, STARTS[stride])
    return DensityCounter(body, model, centres, settings.width, stride, terms)
