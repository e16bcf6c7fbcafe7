"""The verb `export`, and the job of the workflow that writes one format."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crowdmask import cli_people, stages
from crowdmask.cli_people import config_option, known, verb
from crowdmask.config import Config, canonical
from crowdmask.errors import DataError, SettingsError

FORMATS = ("coco", "xmask", "iim", "yolo", "label-map", "parquet")
"""What masks can be written as; docs/export.md."""

_log = logging.getLogger(__name__)


def add(verbs: Any) -> None:
    """Add the verb."""
    made = verb(
        verbs,
        "export",
        "write the masks of a data set in a format of other programs: docs/export.md",
        "crowdmask export demo --to yolo\n  crowdmask export demo --to xmask --split test --output masks-for-training",
    )
    made.add_argument("name", help="data set", metavar="NAME")
    made.add_argument("--to", required=True, choices=FORMATS, help="%(choices)s", metavar="FORMAT")
    made.add_argument("--split", help="only this one (default: all)")
    made.add_argument("--output", help="new or empty folder (default: results/NAME/export/FORMAT)", metavar="DIR")
    config_option(made)
    made.set_defaults(run=export)


def overview(args: argparse.Namespace) -> None:
    """First page of a data set's results."""
    from crowdmask import overview as stage

    numbers = stage.run(args.name, args.images, args.masks, args.pages, args.settings, args.output)
    _log.info("%s: %d masks of %d images", args.output, numbers["masks"], numbers["images"])


def write(
    to: str,
    output: Path,
    batches: Sequence[tuple[str | Path, str | Path]],
    dataset: str,
    split: str,
    settings: dict[str, Any],
) -> str:
    """Write one file, or the folder beside one report; returns what was written, in words.

    Args:
        to: One of `FORMATS`.
        output: The file, or the report.
        batches: Tables of every batch of the split; of the data set for parquet.
        dataset: Its name.
        split: Of the data set.
        settings: Of the stage `export` for coco, else of `formats`.
    """

    def shown(items: Any, unit: str = "image") -> Iterator[Any]:
        from tqdm import tqdm

        return iter(tqdm(items, unit=unit, mininterval=1.0, dynamic_ncols=True))

    if to == "coco":
        from crowdmask.export import coco

        text, category = canonical(settings), settings["category"]
        done = coco.write_coco(output, batches, dataset, category, text, lambda items: shown(items, "batch"))
        return f"{done['annotations']} masks in {done['images']} images"
    if to == "parquet":
        from crowdmask.export import parquet

        done = parquet.write(output, batches, settings["version"], canonical(settings), shown)
        return f"{done['masks']} masks in {done['images']} images"
    from crowdmask.export import files

    found = files.write(to, output, batches, dataset, split, settings, shown)
    odd = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in found["counts"].items() if value)
    return f"{found['masks']} masks in {found['images']} images{f'; {odd}' if odd else ''}"


def stage(args: argparse.Namespace) -> None:
    """One format of one split, or of the data set."""
    batches = list(zip(args.images, args.masks, strict=True))
    text = write(args.to, Path(args.output), batches, args.name, args.split, args.settings)
    _log.info("%s: %s", args.output, text)


def export(args: argparse.Namespace) -> None:
    """Write the masks as they are now."""
    config = cli_people.read_config(args.configfile)
    entry = known(config, args.name)
    splits = _tables(config, args.name, entry)
    if args.split is not None and args.split not in splits:
        raise SettingsError(f"the data set {args.name} has no split {args.split!r}; it has: {', '.join(splits)}")
    if args.to == "parquet" and args.split is not None:
        raise SettingsError("parquet is one file of the whole data set: leave out --split")
    root = Path(args.output or Path("results", args.name, "export", args.to))
    if args.output and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(root, "there is something already", "Name a new or empty folder.")
    settings = json.loads(stages.settings(config, args.name, "export" if args.to == "coco" else "formats"))
    if args.to == "parquet":
        jobs = {"all": (root / "masks.parquet", [batch for batches in splits.values() for batch in batches])}
    else:
        wanted = splits if args.split is None else {args.split: splits[args.split]}
        jobs = {split: (root / f"{split}.json", batches) for split, batches in wanted.items()}
    for split, (output, batches) in jobs.items():
        print(f"{output}: {write(args.to, output, batches, args.name, split, settings)}")


def _tables(config: Config, name: str, entry: Any) -> dict[str, list[tuple[str | Path, str | Path]]]:
    """Tables of images and masks of every batch, by split."""
    from crowdmask.datasets import reader_for
    from crowdmask.datasets.base import batches_of

    found: dict[str, list[tuple[str | Path, str | Path]]] = {}
    for split, batch in batches_of(reader_for(name, entry, "results").list_images(), config.batches):
        paths = [Path("results", name, stage, split, f"{batch}.parquet") for stage in ("datasets", "merge")]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            ask = (
                f"Run: snakemake --cores 2 results/{name}/masks.json (with --configfile FILE -- before it, if needed)."
            )
            raise DataError(missing, "not made yet", ask)
        found.setdefault(split, []).append((paths[0], paths[1]))
    return found
