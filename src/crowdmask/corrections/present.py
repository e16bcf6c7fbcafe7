"""A data set as it is now: its images, masks and edit files, one image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from crowdmask import tables
from crowdmask.config import Config
from crowdmask.corrections import native
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import ImageRef, batch_of
from crowdmask.errors import DataError, SettingsError


@dataclass(frozen=True)
class Now:
    """One image.

    Attributes:
        row: Of `tables.IMAGES`.
        merged: Rows of `tables.MASKS` with corrections, by point_id.
        made: Those that the pipeline made, by point_id.
        edit_path: Place of its edit file.
        edits: The edit file; None = there is none.
    """

    row: dict[str, Any]
    merged: list[dict[str, Any]]
    made: dict[int, dict[str, Any]]
    edit_path: Path
    edits: native.EditFile | None


class Present:
    """Tables and edit files of a data set.

    Args:
        config: The whole configuration.
        name: Data set.
        results: Folder of the results.

    Raises:
        SettingsError: no such data set.
        DataError: its files cannot be listed.
    """

    def __init__(self, config: Config, name: str, results: str | Path = "results") -> None:
        """List the images; nothing is opened."""
        if name not in config.datasets:
            known = ", ".join(config.datasets)
            raise SettingsError(
                f"no data set {name!r} in the configuration; known: {known}. Correct the name, or add "
                "--configfile FILE."
            )
        self.name, self.results = name, Path(results, name)
        self.reader = reader_for(name, config.datasets[name], str(results))
        self.refs = {(ref.split, ref.image_id): ref for ref in self.reader.list_images()}
        self.corrections = Path(config.corrections.folder)
        sizes: dict[str, int] = {}
        for split, _ in self.refs:
            sizes[split] = sizes.get(split, 0) + 1
        self._batch = {key: batch_of(ref, sizes[key[0]], config.batches) for key, ref in self.refs.items()}
        # One image after the other of the same batch is the rule.
        self._table = lru_cache(maxsize=6)(self._read)

    def named(self, name: str) -> list[ImageRef]:
        """Images that a tool's file may mean by a file name: of equal path, else of equal last part."""
        exact = [ref for ref in self.refs.values() if ref.image == name]
        last = name.replace("\\", "/").rpartition("/")[2]
        return exact or [ref for ref in self.refs.values() if ref.image.rpartition("/")[2] == last]

    def image(self, split: str, image_id: str) -> Now:
        """All of one image.

        Raises:
            DataError: no such image, its masks are not made yet, or its edit file has faults.
        """
        key = split, image_id
        if key not in self.refs:
            raise DataError(f"{split}/{image_id}", f"the data set {self.name} has no such image", "Correct the name.")
        images, merged, made = (
            self._table(stage, split, self._batch[key]) for stage in ("datasets", "merge", "exclude")
        )
        row = next((row for row in images.get(key, ())), None)
        if row is None:
            path = self._path("datasets", split, self._batch[key])
            raise DataError(path, f"it has no image {split}/{image_id}", f"Run: {self.command()}")
        path = self.corrections / self.name / split / f"{image_id}.json"
        edits = native.load(path) if path.is_file() else None
        if edits is not None:
            native.check_location(path, edits)
        by_id = {mask["point_id"]: mask for mask in made.get(key, ())}
        return Now(row, sorted(merged.get(key, ()), key=lambda mask: mask["point_id"]), by_id, path, edits)

    def command(self) -> str:
        """What makes the masks."""
        return f"snakemake --cores 2 results/{self.name}/masks.json"

    def _path(self, stage: str, split: str, batch: str) -> Path:
        return self.results / stage / split / f"{batch}.parquet"

    def _read(self, stage: str, split: str, batch: str) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
        path = self._path(stage, split, batch)
        if not path.is_file():
            raise DataError(path, "the masks are not made yet", f"Run: {self.command()}")
        return tables.by_image(tables.read(path, "images" if stage == "datasets" else "masks"))
