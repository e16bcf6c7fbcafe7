"""Whole images: end to end against segment-anything, and from files for the peak of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from segment_anything.modeling import Sam

from benchmarks import inputs, plain
from benchmarks.cases import CALL, Case
from benchmarks.measure import Clock
from crowdmask import tables
from crowdmask.config import Prompt, Tiles
from crowdmask.config import Sam as SamSettings
from crowdmask.masks.decoder import Decoder
from crowdmask.masks.rle import Window
from crowdmask.masks.segment import Job, jobs, rows, segment_image


class _Work:
    """Model and settings.

    Args:
        case: Sizes.
        sam: The model.
        precision: Of our decoder.
        folder: From `inputs.prepare`.
    """

    def __init__(self, case: Case, sam: Sam, precision: str, folder: Path) -> None:
        self.sam, self.folder = sam, folder
        self.prompt, self.tiles = Prompt(), Tiles(mode=case.tiles)
        self.decoder = Decoder(sam, SamSettings().chunk, precision)


class _Image(_Work):
    """Picture, points and superpixel parts in memory; see `_Work`."""

    def __init__(self, case: Case, sam: Sam, precision: str, folder: Path) -> None:
        super().__init__(case, sam, precision, folder)
        self.image, self.points, self.parts = inputs.read(folder)
        self.rows: list[dict[str, Any]] = []

    def jobs(self) -> Iterator[Job]:
        """Its tiles."""
        return jobs(None, self.image, self.points, self.parts.__getitem__, self.prompt, self.tiles, self.decoder)

    def warm(self) -> None:
        """One untimed run."""
        self.run()

    def run(self) -> dict[str, float]:
        """Seconds of the image."""
        clock = Clock(self.sam.device)
        with clock.part("whole_s"):
            self.rows = self.work()
        return clock.seconds

    def work(self) -> list[dict[str, Any]]:
        """Rows of all points, in order."""
        raise NotImplementedError

    def masks(self) -> list[np.ndarray]:
        """The masks in their windows, in order of the points."""
        found: dict[int, np.ndarray] = {}
        for job in self.jobs():
            for group in job.groups:
                for point, (x0, y0, w, h) in zip(group.points, group.windows, strict=True):
                    window = Window.from_columns(self.rows[point])
                    found[point] = window.cut(job.tile.x0 + x0, job.tile.y0 + y0, w, h)
        return [found[k] for k in range(len(found))]

    def facts(self) -> dict[str, Any]:
        """How many tiles there are."""
        return {"tiles": sum(1 for _ in self.jobs())}


class Ours(_Image):
    """`segment_image`."""

    def work(self) -> list[dict[str, Any]]:
        """Rows of all points, in order."""
        return segment_image(self.decoder, self.image, self.points, self.parts, self.prompt, self.tiles)


class Baseline(_Image):
    """The same tiles, prompts and embeddings; masks on whole tiles by segment-anything, then cut."""

    def work(self) -> list[dict[str, Any]]:
        """Rows of all points, in order."""
        found: dict[int, dict[str, Any]] = {}
        for job in self.jobs():
            predictor = plain.predictor(self.sam, self.decoder.embed([job.picture])[0], job.frame)
            for group in job.groups:
                for start in range(0, len(group.points), CALL):
                    part = slice(start, min(start + CALL, len(group.points)))
                    given = plain.inputs(group.prompts, part, self.sam.device)
                    masks = predictor.predict_torch(**given)[0].cpu().numpy()  # type: ignore[arg-type]
                    for point, (x0, y0, w, h), mask in zip(
                        group.points[part], group.windows[part], masks[:, 0], strict=True
                    ):
                        cut = Window(job.tile.x0 + x0, job.tile.y0 + y0, mask[y0 : y0 + h, x0 : x0 + w])
                        found[point] = cut.tight().columns()
        return [found[k] for k in range(len(found))]


class Stage(_Work):
    """The stage as the workflow runs it: tables and a picture in, a table out; see `_Work`."""

    def warm(self) -> None:
        """Nothing: the first run is the one whose peak counts."""

    def run(self) -> dict[str, float]:
        """Seconds from files to file."""
        clock = Clock(self.sam.device)
        with clock.part("whole_s"):
            self.write(self.made(self.superpixels()))
        return clock.seconds

    def superpixels(self) -> Iterator[dict[str, Any]]:
        """Rows of the table of superpixels."""
        return tables.stream(self.folder / "superpixels.parquet", "superpixels")

    def made(self, superpixels: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rows of the stage."""
        images = tables.read(self.folder / "images.parquet", "images")
        return rows(self.decoder, images, superpixels, str(self.folder), "stored", self.prompt, self.tiles)

    def write(self, made: Iterator[dict[str, Any]]) -> None:
        """Write the stage's table."""
        tables.write(self.folder / "segment.parquet", "segment", made, version=1, settings="{}")

    def masks(self) -> list[np.ndarray]:
        """None to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Number of tiles and how many masks are not empty."""
        done = tables.read(self.folder / "segment.parquet", "segment")
        return {"tiles": len({row["tile"] for row in done}), "not_empty": sum(row["w"] > 0 for row in done)}
