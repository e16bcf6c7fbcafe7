"""A data set as it is now, for those who correct it: images, masks and edit files, one image at a time."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from crowdmask import tables
from crowdmask.config import Config
from crowdmask.corrections import native
from crowdmask.corrections.exchange.record import Head
from crowdmask.corrections.merge import merge_image
from crowdmask.corrections.selection import Key
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import ImageRef, batches_of
from crowdmask.errors import DataError

Row = dict[str, Any]

STAGES = {"datasets": "images", "exclude": "masks", "merge": "masks", "edits": "edits"}
"""Table of each stage that is read."""
_KEPT = 128
"""Most tables in memory, as Arrow has them (about 200 bytes a mask)."""


@dataclass(frozen=True)
class Now:
    """One image.

    Attributes:
        row: Of `tables.IMAGES`.
        made: Rows of `tables.MASKS` as the pipeline made them, by point_id.
        merged: Those with the corrections that had been merged at the last run, in table order.
        outcomes: Rows of `tables.EDITS` of that run.
        path: Place of the edit file.
        file: The edit file; None = there is none.
    """

    row: Row
    made: dict[int, Row]
    merged: list[Row]
    outcomes: list[Row]
    path: Path
    file: native.EditFile | None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The merged masks, each with the hash of the pipeline's own."""
        base = {point_id: row["sha256"] for point_id, row in self.made.items()}
        return tuple(Head.of(row, base.get(row["point_id"])) for row in self.merged)

    @property
    def edits(self) -> tuple[str, ...]:
        """Fingerprints of the edits that the merged masks contain, as far as the edit file still has them."""
        names = ("action", "point_id", "author", "time")
        merged = {tuple(row[name] for name in names) for row in self.outcomes if row["outcome"] != "cut"}
        edits = self.file.edits if self.file else ()
        return tuple(native.fingerprint(e) for e in edits if tuple(getattr(e, name) for name in names) in merged)


class Present:
    """Tables and edit files of a data set.

    Args:
        config: The whole configuration.
        name: Data set, one of the configuration.
        results: Folder of the results.
        configfiles: Files given with --configfile, for messages.

    Raises:
        DataError: its files cannot be listed.
    """

    def __init__(
        self, config: Config, name: str, results: str | Path = "results", configfiles: Sequence[str] = ()
    ) -> None:
        """List the images; nothing is opened."""
        self.name, self.results = name, Path(results, name)
        self.reader = reader_for(name, config.datasets[name], str(results))
        listed = self.reader.list_images()
        self.refs: dict[Key, ImageRef] = {(ref.split, ref.image_id): ref for ref in listed}
        self.corrections = Path(config.corrections.folder)
        self._configfiles = configfiles
        groups = batches_of(listed, config.batches)
        self._batch = {(ref.split, ref.image_id): batch for (_, batch), refs in groups.items() for ref in refs}
        self._table = lru_cache(maxsize=_KEPT)(self._read)

    def named(self, name: str) -> list[ImageRef]:
        """Images that a tool's file may mean by a file name: of equal path, else of equal last part."""
        exact = [ref for ref in self.refs.values() if ref.image == name]
        last = name.replace("\\", "/").rpartition("/")[2]
        return exact or [ref for ref in self.refs.values() if ref.image.rpartition("/")[2] == last]

    def by_batch(self, chosen: Collection[Key]) -> list[Key]:
        """These images in the order in which each table is read once."""
        return sorted(chosen, key=lambda key: (key[0], self._batch[key]))

    def image(self, split: str, image_id: str) -> Now:
        """All of one image.

        Args:
            split: Of an image of the data set.
            image_id: Of the same.

        Raises:
            DataError: a table is missing or damaged, or its edit file has faults.
        """
        rows = {stage: self._rows(stage, split, image_id) for stage in STAGES}
        if not rows["datasets"]:
            path = self.table("datasets", split, image_id)
            raise DataError(path, f"does not have the image {split}/{image_id}", self.way_out(split, image_id))
        path = self.corrections / self.name / split / f"{image_id}.json"
        file = native.load(path) if path.is_file() else None
        if file is not None:
            native.check_location(path, file)
        made = {row["point_id"]: row for row in sorted(rows["exclude"], key=lambda row: row["point_id"])}
        return Now(rows["datasets"][0], made, rows["merge"], rows["edits"], path, file)

    def refuse_unmerged(self, now: Now) -> None:
        """Stop where the edit file, or what exclude made, is not what the last merge had.

        Raises:
            DataError: the merged masks are older than these.
        """
        split, image_id = now.row["split"], now.row["image_id"]
        path, way_out = self.table("merge", split, image_id), self.way_out(split, image_id)
        _, _, settings = tables.metadata(path)
        try:
            stale, disjoint = settings["stale"], settings["disjoint"]
        except (KeyError, TypeError):
            raise DataError(path, "its settings are not those of merge", f"Delete it. {way_out}") from None
        # The merge itself, once more, is the one sure answer to whether the table has these edits, and of this text.
        size = now.row["height"], now.row["width"], now.row["sha256"]
        again, outcomes = merge_image(list(now.made.values()), now.file, *size, stale, disjoint, path=now.path)
        if _masks(again) != _masks(now.merged) or outcomes != now.outcomes:
            edits = f"the edits in {now.path}" if now.file else "the masks of exclude, and there is no edit file"
            raise DataError(
                path, f"the masks of the image {split}/{image_id} are older than {edits}", f"{way_out} first."
            )

    def refuse_missing(self, chosen: Sequence[Key]) -> None:
        """Stop, before any work, where a table of these images is missing.

        Raises:
            DataError: one is, with the command that makes all that are.
        """
        wanted = dict.fromkeys((split, self._batch[split, image_id]) for split, image_id in chosen)
        paths = [self._path(stage, split, batch) for split, batch in wanted for stage in STAGES]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            targets = list(dict.fromkeys(self._path("merge", path.parent.name, path.stem) for path in absent))
            few = targets if len(targets) <= 3 else [self.results / "masks.json"]
            raise DataError(absent[0], "not made yet", f"Run: {self.command(*few)}")

    def command(self, *targets: str | Path) -> str:
        """Command line that makes these files."""
        options = ["--configfile", *self._configfiles, "--"] if self._configfiles else []
        return shlex.join(["snakemake", "--cores", "2", *options, *(Path(target).as_posix() for target in targets)])

    def way_out(self, split: str, image_id: str) -> str:
        """What makes the tables of an image anew."""
        return f"Run: {self.command(self.table('merge', split, image_id))}"

    def table(self, stage: str, split: str, image_id: str) -> Path:
        """The table of a stage that holds an image."""
        return self._path(stage, split, self._batch[split, image_id])

    def _path(self, stage: str, split: str, batch: str) -> Path:
        return self.results / stage / split / f"{batch}.parquet"

    def _rows(self, stage: str, split: str, image_id: str) -> list[Row]:
        found = self._table(stage, split, self._batch[split, image_id])
        return found.filter(pc.equal(found["image_id"], image_id)).to_pylist()  # a batch is of one split

    def _read(self, stage: str, split: str, batch: str) -> pa.Table:
        path = self._path(stage, split, batch)
        if not path.is_file():
            raise DataError(path, "not made yet", f"Run: {self.command(self._path('merge', split, batch))}")
        return tables.load(path, STAGES[stage])


def _masks(rows: Sequence[Row]) -> list[Row]:
    """Rows without the score, which may be NaN and is no part of a mask."""
    return [{name: value for name, value in row.items() if name != "score"} for row in rows]
