"""`crowdmask stage NAME` of the ablation: other masks from the same points, measures, and the table."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from crowdmask import tables
from crowdmask.cli_stages import COMMON, _points, _settings_text, _shown, _write, decoder_for
from crowdmask.config import Candidates, Exclusion, Sam, Tiles

_log = logging.getLogger(__name__)


def add(new: Callable[..., None]) -> None:
    """Add the stages of the ablation with what `cli_stages.add` returns."""
    new(
        "candidates",
        candidates,
        "SAM's masks without points",
        images=str,
        root=str,
        checkpoint=list,
        gpu=int,
        **COMMON,
    )
    new(
        "baseline",
        baseline,
        "masks from the same points by other means",
        name=str,
        images=str,
        superpixels=str,
        truth=str,
        candidates=list,
        root=str,
        **COMMON,
    )
    new("measures", measures, "measures of a batch, as sums", images=str, masks=str, truth=str, **COMMON)
    new("ablation", ablation, "table and figures of all variants", name=str, **COMMON)


def candidates(args: argparse.Namespace) -> None:
    """Automatic masks of a batch."""
    from crowdmask.gpu import device_slot

    settings = Sam(**args.settings["sam"])
    with device_slot(args.gpu) as device:
        from crowdmask.ablation import candidates as stage

        decoder = decoder_for(settings, args.checkpoint, device)
        images = tables.read(args.images, "images")
        limits, tiles = Candidates(**args.settings["candidates"]), Tiles(**args.settings["tiles"])
        rows = stage.rows(
            decoder, _shown(images, len(images), "image"), args.root, args.settings["exif"], tiles, limits
        )
        count = tables.write(
            args.output, "candidates", rows, version=args.settings["version"], settings=_settings_text(args)
        )
    _log.info("%s: %d rows", args.output, count)


def baseline(args: argparse.Namespace) -> None:
    """Masks of a batch by one of the baselines."""
    from crowdmask.ablation import baselines as stage

    images = tables.read(args.images, "images")
    rows = stage.rows(
        args.name,
        images,
        tables.stream(args.superpixels, "superpixels"),
        tables.stream(args.truth, "truth"),
        tables.stream(args.candidates[0], "candidates") if args.candidates else (),
        args.root,
        args.settings["exif"],
        Exclusion(**args.settings["exclusion"]),
    )
    _write(args, "masks", rows, _points(images), "point")


def measures(args: argparse.Namespace) -> None:
    """Measures of a batch of masks."""
    from crowdmask.ablation import measure as stage

    images = tables.read(args.images, "images")
    masks, truth = tables.stream(args.masks, "masks"), tables.stream(args.truth, "truth")
    _write(args, "measures", stage.rows(images, masks, truth), len(images), "image")


def ablation(args: argparse.Namespace) -> None:
    """Table and figures of all variants and baselines."""
    from crowdmask.ablation import report as stage
    from crowdmask.ablation.plan import Row

    given = args.settings
    folder = Path(f"results/{args.name}/ablation")
    rows = []
    for entry in given["rows"]:
        row = Row(**entry)
        rows.append((row, [folder / "measures" / row.masks / f"{batch}.parquet" for batch in given["batches"]]))
    stage.write(
        args.name,
        rows,
        given["samples"],
        given["seed"],
        given["own"],
        Path(args.output).parent,
        lambda items: _shown(items, len(rows), "row"),
    )
    _log.info("%s: %d rows", args.output, len(rows))
