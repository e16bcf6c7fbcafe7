"""What is handed out for correction: the merged masks of images as the tables have them now.

Nothing is handed out that the edit files have overtaken: people would correct what is corrected already.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crowdmask import tables
from crowdmask.corrections import native
from crowdmask.corrections.exchange.record import Head
from crowdmask.corrections.merge import merge_image
from crowdmask.corrections.selection import Key
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import DataError

Row = dict[str, Any]

STAGES = ("datasets", "exclude", "merge", "edits")
"""Folders of the tables that are read of a batch."""


@dataclass(frozen=True)
class Source:
    """An image with its masks.

    Attributes:
        image: Its row of `tables.IMAGES`.
        heads: Its masks as merged, in table order.
        edits: Number of edits that they contain.
        way_out: What makes the tables of the image anew.
    """

    image: Row
    heads: tuple[Head, ...]
    edits: int
    way_out: str


def command(targets: Sequence[str], configfiles: Sequence[str] = ()) -> str:
    """Command line that makes these results.

    Args:
        targets: Files below `results`.
        configfiles: Files given with --configfile.
    """
    options = ["--configfile", *configfiles, "--"] if configfiles else []
    return f"Run: {shlex.join(['snakemake', '--cores', '2', *options, *targets])}"


def load(
    results: str | Path,
    corrections: str | Path,
    batches: Mapping[tuple[str, str], Sequence[ImageRef]],
    chosen: Collection[Key],
    run: Callable[[Sequence[str]], str],
) -> dict[Key, Source]:
    """The merged masks of images.

    Args:
        results: Results of the data set: `results/NAME`.
        corrections: Edit files of the data set, as {split}/{image_id}.json.
        batches: All images of the data set by split and batch.
        chosen: Images wanted.
        run: Way out that makes the targets given to it.

    Raises:
        DataError: a table is missing or damaged; an edit file is invalid; or the tables are older than an edit file.
    """
    wanted = {
        batch: keys
        for batch, refs in batches.items()
        if (keys := {(ref.split, ref.image_id) for ref in refs} & set(chosen))
    }
    _refuse_missing(Path(results), list(wanted), run)
    found: dict[Key, Source] = {}
    for (split, batch), keys in wanted.items():
        paths = {stage: Path(results, stage, split, f"{batch}.parquet") for stage in STAGES}
        way_out = run([paths["merge"].as_posix()])
        for source in _of_batch(paths, Path(corrections), keys, way_out):
            found[source.image["split"], source.image["image_id"]] = source
        if gone := sorted(keys - found.keys()):
            raise DataError(paths["datasets"], f"does not have the image {'/'.join(gone[0])}", way_out)
    return found


def _refuse_missing(results: Path, batches: Sequence[tuple[str, str]], run: Callable[[Sequence[str]], str]) -> None:
    absent = [
        Path(results, stage, split, f"{batch}.parquet")
        for split, batch in batches
        for stage in STAGES
        if not Path(results, stage, split, f"{batch}.parquet").is_file()
    ]
    if not absent:
        return
    targets = dict.fromkeys((results / "merge" / path.parent.name / path.name).as_posix() for path in absent)
    few = list(targets) if len(targets) <= 3 else [(results / "masks.json").as_posix()]
    raise DataError(absent[0], "not made yet", run(few))


def _of_batch(paths: Mapping[str, Path], corrections: Path, keys: Collection[Key], way_out: str) -> Iterator[Source]:
    """The wanted images of one batch."""

    def rows(stage: str, table: str) -> dict[Key, list[Row]]:
        stream = tables.stream(paths[stage], table)
        return tables.by_image(row for row in stream if (row["split"], row["image_id"]) in keys)

    made, merged, listed = rows("exclude", "masks"), rows("merge", "masks"), rows("edits", "edits")
    _, _, settings = tables.metadata(paths["merge"])
    for key, (image, *_) in rows("datasets", "images").items():
        path = corrections / key[0] / f"{key[1]}.json"
        file = None
        if path.is_file():
            file = native.load(path)
            native.check_location(path, file)
        source = sorted(made.get(key, []), key=lambda row: row["point_id"])
        try:
            stale, disjoint = settings["stale"], settings["disjoint"]
        except (KeyError, TypeError):
            raise DataError(paths["merge"], "its settings are not those of merge", f"Delete it. {way_out}") from None
        # The merge itself, once more, is the one sure answer to whether the table has these edits, and of this text.
        size = image["height"], image["width"]
        again, outcomes = merge_image(source, file, *size, image["sha256"], stale, disjoint, path=path)
        if _masks(again) != _masks(merged.get(key, [])) or outcomes != listed.get(key, []):
            edits = f"the edits in {path}" if file else "the masks of exclude, and there is no edit file"
            raise DataError(
                paths["merge"], f"the masks of the image {'/'.join(key)} are older than {edits}", f"{way_out} first."
            )
        base = {row["point_id"]: row["sha256"] for row in source}
        heads = tuple(Head.of(row, base.get(row["point_id"])) for row in merged.get(key, []))
        yield Source(image, heads, len(file.edits) if file else 0, way_out)


def _masks(rows: Sequence[Row]) -> list[Row]:
    """Rows without the score, which may be NaN and is no part of a mask."""
    return [{name: value for name, value in row.items() if name != "score"} for row in rows]


def review_scores(path: str | Path, way_out: str) -> Iterator[tuple[str, str, float | None]]:
    """Split, image_id and score of each mask of a review table.

    Args:
        path: The table.
        way_out: Command that makes it.

    Raises:
        DataError: missing, damaged, or without these columns.
    """
    names = ["split", "image_id", "score"]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            kinds = [schema.field(name).type for name in names if name in schema.names]
            if len(kinds) < 3 or kinds[:2] != [pa.string()] * 2 or not pa.types.is_floating(kinds[2]):
                raise DataError(path, "not a review table (split, image_id, score)", f"Delete it. {way_out}")
            for part in file.iter_batches(columns=names):
                yield from zip(*(part.column(name).to_pylist() for name in names), strict=True)
    except FileNotFoundError:
        raise DataError(path, "not made yet", way_out) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"damaged ({' '.join(str(error).split())})", f"Delete it. {way_out}") from None
