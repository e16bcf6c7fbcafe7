"""Prompts of one picture, from arrays to run lengths: ours and segment-anything's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from segment_anything.modeling import Sam

from benchmarks import floors, inputs, plain
from benchmarks.cases import CALL, Case
from benchmarks.measure import Clock
from crowdmask.config import Prompt, Tiles
from crowdmask.config import Sam as SamSettings
from crowdmask.masks.decoder import Decoder
from crowdmask.masks.prompts import BLOCK
from crowdmask.masks.rle import Window, decode
from crowdmask.masks.sampling import Box, sampler
from crowdmask.masks.segment import Job, jobs

DECODE, MASKS = "decode_s", "masks_s"


class _Decode:
    """What both have in common: the same tile, prompts and embedding.

    Args:
        case: Sizes.
        sam: The model.
        precision: Of our decoder.
        folder: Not used.
    """

    def __init__(self, case: Case, sam: Sam, precision: str, folder: Path) -> None:
        self.case, self.sam = case, sam
        self.decoder = Decoder(sam, SamSettings().chunk, precision)
        picture = inputs.texture(case.height, case.width)
        points = inputs.points(case)
        parts = [inputs.square(x, y, case.height, case.width) for x, y in points.tolist()]
        self.job: Job = next(jobs(None, picture, points, parts.__getitem__, Prompt(), Tiles(mode="none"), self.decoder))
        if case.model == "small":
            self.embedding = self.decoder.embed([self.job.picture])[0]
        else:
            self.embedding = inputs.embedding(case, sam)
        self.windows: list[Box] = [box for group in self.job.groups for box in group.windows]

    def facts(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}


class Ours(_Decode):
    """Window logits, threshold, tight window, run lengths."""

    def warm(self) -> None:
        """One untimed run."""
        self.run()

    def run(self) -> dict[str, float]:
        """Seconds of all prompts."""
        clock = Clock(self.sam.device)
        self.rows: list[dict[str, Any]] = []
        with clock.part(DECODE):
            tile = self.decoder.tile(self.embedding, self.job.frame)
        sample = sampler(self.job.frame, self.decoder.mask_side)
        for group in self.job.groups:
            with clock.part(DECODE):
                patches = list(tile.decode(group.prompts, group.windows))
            with clock.part(MASKS):
                for patch, box in zip(patches, group.windows, strict=True):
                    mask = sample.window(patch, box) > 0
                    self.rows.append(Window(box[0], box[1], mask).tight().columns())
        return clock.seconds

    def masks(self) -> list[np.ndarray]:
        """The masks in their windows."""
        return [Window.from_columns(row).cut(*box) for row, box in zip(self.rows, self.windows, strict=True)]

    def facts(self) -> dict[str, Any]:
        """Floors: of our algorithm and of the plain one, FLOP and bytes of all prompts."""
        shape = self.shape()
        count = self.case.prompts
        return {
            "flop": count * floors.ours(shape) + floors.ours_once(shape),
            "bytes": count * floors.ours_bytes(shape, self.decoder.dtype.itemsize),
            "plain_flop": count * floors.plain(shape),
            "own_cells": round(shape.own, 2),
            "window_cells": round(shape.window, 2),
            "chunk": self.decoder.chunk,
        }

    def shape(self) -> floors.Shape:
        """Sizes, with what a prompt needs on average."""
        axes = sampler(self.job.frame, self.decoder.mask_side)
        window = 0
        for x0, y0, w, h in self.windows:
            (top, bottom), (left, right) = axes.rows.span(y0, h), axes.cols.span(x0, w)
            window += (-(-bottom // BLOCK) - top // BLOCK) * (-(-right // BLOCK) - left // BLOCK)
        own = 0
        for group in self.job.groups:
            assert group.prompts.masks is not None
            own += int(group.prompts.masks.inside.any(axis=(2, 3)).sum())
        count = len(self.windows)
        return floors.Shape.of(self.sam, sparse=2, own=own / count, window=window / count)


class Baseline(_Decode):
    """Masks on the whole picture in calls of 64, and their run lengths."""

    def warm(self) -> None:
        """One untimed call."""
        self._run(min(self.case.baseline, CALL))

    def run(self) -> dict[str, float]:
        """Seconds of the first prompts, scaled to all."""
        scale = self.case.prompts / self.case.baseline
        return {part: seconds * scale for part, seconds in self._run(self.case.baseline).items()}

    def _run(self, count: int) -> dict[str, float]:
        clock = Clock(self.sam.device)
        predictor = plain.predictor(self.sam, self.embedding, self.job.frame)
        self.counts: list[bytes] = []
        for group in self.job.groups:
            left = min(len(group.points), count - len(self.counts))
            for start in range(0, left, CALL):
                given = plain.inputs(group.prompts, slice(start, min(start + CALL, left)), self.sam.device)
                with clock.part(DECODE):
                    masks = predictor.predict_torch(**given)[0]  # type: ignore[arg-type]
                with clock.part(MASKS):
                    self.counts += [plain.run_lengths(mask[0]) for mask in masks.cpu().numpy()]
                del masks
        return clock.seconds

    def masks(self) -> list[np.ndarray]:
        """The masks in the windows that ours come in."""
        found = []
        for counts, box in zip(self.counts, self.windows, strict=False):
            found.append(Window(0, 0, decode(counts, self.case.height, self.case.width)).cut(*box))
        return found
