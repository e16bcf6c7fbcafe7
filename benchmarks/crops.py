"""Crops to train on: from working copies that are kept, against decoding the image for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from segment_anything.modeling import Sam

from benchmarks.cases import Case
from benchmarks.measure import Clock
from crowdmask import tables
from crowdmask.config.crops import CropGeometry, Look, WorkingCopy
from crowdmask.models.base import Batch
from crowdmask.training.crops import Loader, Plan
from crowdmask.training.source import Source

MAX_SIDE = 1536
"""Of the working copy: what papers use for UCF-QNRF."""
BATCH = 8
CROPS = 8
"""Of one run."""


class Ours:
    """Weak crops of 256 px with label maps, made by this process.

    Args:
        case: Sizes.
        sam: Not used.
        precision: Not used.
        folder: From `inputs.prepare`.
    """

    cache_gb = 64.0

    def __init__(self, case: Case, sam: Sam, precision: str, folder: Path) -> None:
        self.device, self.epoch = next(sam.parameters()).device, 0
        images = folder / "images.parquet"
        keys = [(row["split"], row["image_id"]) for row in tables.read(images, "images")]
        size = WorkingCopy(max_side=MAX_SIDE, cache_gb=self.cache_gb)
        source = Source(
            "scene",
            keys,
            folder,
            "stored",
            "masks",
            images=[images],
            masks=[folder / "masks.parquet"],
            size=size,
            cache=folder / f"copies-{type(self).__name__}",  # of their own: one would read what the other keeps
        )
        self.loader = Loader(source, Plan(len(source), BATCH, repeats=CROPS), CropGeometry(), (Look(),), pin=False)
        self.last: list[Batch] = []

    def warm(self) -> None:
        """One untimed run, which makes the copy."""
        self.run()

    def run(self) -> dict[str, float]:
        """Seconds of the same crops each time."""
        clock = Clock(self.device)
        with clock.part("whole_s"):
            self.last = list(self.loader.epoch(0))
        return clock.seconds

    def masks(self) -> list[np.ndarray]:
        """Where a crop shows a head, and its pixels above the mean."""
        found = []
        for batch in self.last:
            found += [labels.numpy() > 0 for labels in batch.labels or []]
            found += [image.numpy() > 0 for image in batch.images]
        return found

    def facts(self) -> dict[str, Any]:
        """How many crops a run makes."""
        return {"crops": CROPS, "max_side": MAX_SIDE}


class Baseline(Ours):
    """The same, with nothing kept."""

    cache_gb = 0.0
