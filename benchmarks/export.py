"""Masks of a data set as large as NWPU-Crowd to COCO, and back: a process without torch, whose whole memory counts."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import crowd_tables, export_rows, host
from benchmarks.cases import Case
from crowdmask.export import coco
from crowdmask.export.coco_reader import CocoFile
from crowdmask.masks import rle

SETTINGS = '{"category":"head","version":2}'
COMPARED = 200
"""Masks that the two sides are compared by."""
DECODED = 500
"""Masks that pycocotools decodes; its seconds are scaled to all."""


def batches(folder: Path) -> list[tuple[Path, Path]]:
    """Paths of the tables that `prepare` wrote."""
    numbers = range(len(list(folder.glob("masks-*.parquet"))))
    return [(folder / f"images-{k}.parquet", folder / f"masks-{k}.parquet") for k in numbers]


def prepare(case: Case, folder: Path) -> None:
    """Write the tables, and for reading the COCO file."""
    made = crowd_tables.make(folder, case.prompts, case.images)
    if case.kind == "read":
        coco.write_coco(folder / "masks.json", made, "made-up", "head", SETTINGS)


class _Export:
    """Tables on disk.

    Args:
        case: Sizes.
        folder: From `prepare`.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.batches = case, batches(folder)
        self.output = folder / f"{type(self).__name__}.json"

    def warm(self) -> None:
        """One batch, untimed."""
        self.write(self.batches[:1], 1000)

    def run(self) -> dict[str, float]:
        """Seconds of all masks, and seconds of the processor."""
        start, begun = time.perf_counter(), time.process_time()
        done = self.write(self.batches, self.case.baseline or self.case.prompts)
        took = {"whole_s": time.perf_counter() - start, "cpu_s": time.process_time() - begun}
        return {part: seconds * self.case.prompts / done for part, seconds in took.items()}

    def write(self, made: list[tuple[Path, Path]], most: int) -> int:
        """Write the file; returns the number of masks."""
        raise NotImplementedError

    def masks(self) -> list[np.ndarray]:
        """The first masks of the file that was written last."""
        with open(self.output, encoding="utf-8") as file:
            lines = islice((line for line in file if line.startswith('{"id"') and '"counts"' in line), COMPARED)
            return [_mask(json.loads(line.rstrip(",\n"))["segmentation"]) for line in lines]

    def facts(self) -> dict[str, Any]:
        """How large it was."""
        return {"images": self.case.images, "bytes": self.output.stat().st_size}


def _mask(drawn: dict[str, Any]) -> np.ndarray:
    return rle.from_full(drawn["counts"].encode(), *drawn["size"]).mask


class Ours(_Export):
    """`coco.write_coco`: columns."""

    def write(self, made: list[tuple[Path, Path]], most: int) -> int:
        """All, whatever `most` says."""
        return coco.write_coco(self.output, made, "made-up", "head", SETTINGS)["annotations"]


class Rows(_Export):
    """The former way, row by row: the first masks, seconds scaled to all."""

    def write(self, made: list[tuple[Path, Path]], most: int) -> int:
        """Only so many."""
        return export_rows.write(self.output, made, "made-up", "head", SETTINGS, most)["annotations"]


class Read:
    """Our reader: every mask of the file as a window.

    Args:
        case: Sizes.
        folder: From `prepare`.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.path = case, folder / "masks.json"
        self.found: list[np.ndarray] = []

    def warm(self) -> None:
        """Nothing: a file of a gigabyte has no use for it."""

    def run(self) -> dict[str, float]:
        """Seconds until all masks are there, those of opening the file, and those of the processor."""
        self.found = []
        start, begun = time.perf_counter(), time.process_time()
        file = CocoFile(self.path)
        opened = time.perf_counter()
        count = 0
        for item in file.instances():
            count += len(item.windows)
            self.found += [window.mask for window in item.windows[: COMPARED - len(self.found)]]
        assert count == self.case.prompts
        whole = time.perf_counter() - start
        return {"whole_s": whole, "open_s": opened - start, "cpu_s": time.process_time() - begun}

    def masks(self) -> list[np.ndarray]:
        """The first ones."""
        return self.found

    def facts(self) -> dict[str, Any]:
        """How large the file is."""
        return {"images": self.case.images, "bytes": self.path.stat().st_size}


class Pycocotools(Read):
    """`COCO(path)`, and `annToMask` of some masks, scaled to all."""

    def run(self) -> dict[str, float]:
        """The same."""
        from pycocotools.coco import COCO

        start, begun = time.perf_counter(), time.process_time()
        loaded = COCO(str(self.path))
        opened, loading = time.perf_counter(), time.process_time() - begun
        ids = list(loaded.anns)
        chosen = ids[:: max(1, len(ids) // DECODED)]
        for number in chosen:
            loaded.annToMask(loaded.anns[number])
        scale = len(ids) / len(chosen)
        took, busy = (time.perf_counter() - opened) * scale, (time.process_time() - begun - loading) * scale
        self.found = [_mask(loaded.anns[number]["segmentation"]) for number in ids[:COMPARED]]
        return {"whole_s": opened - start + took, "open_s": opened - start, "cpu_s": loading + busy}


WORK: dict[tuple[str, str], Any] = {
    ("export", "ours"): Ours,
    ("export", "baseline"): Rows,
    ("read", "ours"): Read,
    ("read", "baseline"): Pycocotools,
}


def main(text: str) -> None:
    """Do what the JSON says; see `benchmarks.child.main`."""
    asked = json.loads(text)
    case, folder = Case(**asked["case"]), Path(asked["folder"])
    if asked["who"] == "prepare":
        prepare(case, folder)
        return
    with os.fdopen(os.dup(1), "w") as answers:  # nothing but answers goes to the runner
        os.dup2(2, 1)
        host.start_peak()
        work = WORK[case.kind, asked["who"]](case, folder)

        def end() -> dict[str, Any]:
            found = {"peak_mb": host.peak_mb(), "model_mb": 0.0, "device_peak_mb": None, "facts": work.facts()}
            host.save_masks(folder / asked["masks"], work.masks())
            return found | {
                "torch": None,
                "threads": 1,
                "device": "cpu",
                "machine": host.machine(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            }

        host.serve(work, end, answers)
