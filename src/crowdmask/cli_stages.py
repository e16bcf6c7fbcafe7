"""`crowdmask stage NAME`: one job of the workflow. Heavy modules are imported by the stage that needs them."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crowdmask import cli_export, tables
from crowdmask.config import Config, Dataset, Exclusion, Prompt, Review, Sam, Superpixels, Tiles, TrainSam, canonical
from crowdmask.errors import DataError

T = TypeVar("T")

EXAMPLE = """example, in the folder where snakemake runs:
  crowdmask stage exclude --images results/demo/datasets/test/scene-0001.parquet \\
    --segment results/demo/segment/test/scene-0001.parquet \\
    --settings '{"exclusion":{},"version":1}' --output test.parquet

Snakemake prints this line for every job ("Shell command: ..."): copy it from there.
"""

COMMON: dict[str, Any] = {"settings": json.loads, "output": str}
"""Options of every stage that writes a table."""

_log = logging.getLogger(__name__)


def add(verbs: Any) -> Callable[..., None]:
    """Add the verb `stage` and its stages.

    Returns:
        What adds one more: called with its name, the function that runs it, a line of help, and its options with their
        types (list = any number of values, not required).
    """
    stage = verbs.add_parser(
        "stage",
        help="run one job of the workflow",
        description="One job of the workflow.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = stage.add_subparsers(dest="stage", required=True, metavar="NAME")

    def new(name: str, run: Callable[[argparse.Namespace], None], text: str, /, **options: Any) -> None:
        made = stages.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        for option, kind in options.items():
            many = kind is list
            made.add_argument(
                f"--{option.replace('_', '-')}",
                required=not many,
                nargs="*" if many else None,
                default=[] if many else None,
                type=None if many else kind,
            )

    new("render", render, "render one scene", index=int, image=str, labels=str, points=str, settings=json.loads)
    listed = {"name": str, "selection": json.loads, "split": str, "batch": str, "batches": int}
    new("datasets", datasets, "list the images and points of a batch", **listed, **COMMON)
    new("truth", truth, "true masks of a batch", **listed, **COMMON)
    new("splits", splits, "which images are for what", name=str, selection=json.loads, images=str, **COMMON)
    new("superpixels", superpixels, "superpixel of each point", images=str, root=str, **COMMON)
    new(
        "segment",
        segment,
        "SAM's mask of each point",
        images=str,
        superpixels=str,
        root=str,
        checkpoint=list,
        gpu=int,
        **COMMON,
    )
    new("exclude", exclude, "masks within the exclusion circle", images=str, segment=str, **COMMON)
    new("merge", merge, "apply people's corrections", images=str, masks=str, edits=list, edits_output=str, **COMMON)
    new("export", export, "write COCO", name=str, images=list, masks=list, edits=list, edits_output=str, **COMMON)
    new("formats", cli_export.stage, "one format", name=str, to=str, split=str, images=list, masks=list, **COMMON)
    new("overlay", overlay, "draw one image", images=str, masks=str, root=str, split=str, image_id=str, **COMMON)
    new("overlays", overlays, "page of pictures", pictures=list, output=str)
    new("overview", cli_export.overview, "first page", name=str, images=list, masks=list, pages=list, **COMMON)
    new(
        "evaluate",
        evaluate,
        "compare with true masks",
        name=str,
        images=list,
        masks=list,
        truth=list,
        superpixels=list,
        root=str,
        page=str,
        **COMMON,
    )
    new(
        "corrections",
        corrections,
        "what people's edits changed",
        name=str,
        images=list,
        made=list,
        masks=list,
        edits=list,
        truth=list,
        folder=str,
        root=str,
        page=str,
        **COMMON,
    )
    new(
        "review",
        review,
        "masks that a person should look at, worst first",
        name=str,
        images=list,
        masks=list,
        segment=list,
        superpixels=list,
        truth=list,
        root=str,
        page=str,
        report=str,
        **COMMON,
    )
    new("checkpoint", checkpoint, "download an official SAM checkpoint", model=str, output=str)
    new(
        "train-sam",
        train_sam,
        "train a SAM",
        images=list,
        truth=list,
        superpixels=list,
        roots=list,
        init=list,
        gpu=int,
        state=str,
        curve=str,
        **COMMON,
    )
    return new


def _dataset(settings: dict[str, Any], selection: dict[str, Any] | None = None) -> Dataset:
    """The data set's entry from its content settings and its selection of images."""
    return Config.model_validate({"datasets": {"it": {**settings["entry"], **(selection or {})}}}).datasets["it"]


def _settings_text(args: argparse.Namespace) -> str:
    return canonical(args.settings)


def _shown(rows: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Rows as they pass, with a progress bar."""
    from tqdm import tqdm

    return iter(tqdm(rows, total=total, unit=unit, mininterval=1.0, dynamic_ncols=True))


def _write(args: argparse.Namespace, table: str, rows: Iterable[dict[str, Any]], total: int, unit: str) -> None:
    count = tables.write(
        args.output,
        table,
        _shown(rows, total, unit),
        version=args.settings["version"],
        settings=_settings_text(args),
    )
    _log.info("%s: %d rows", args.output, count)


def _points(images: Sequence[dict[str, Any]]) -> int:
    return sum(len(image["points"]) for image in images)


def render(args: argparse.Namespace) -> None:
    """Render one scene of a synthetic data set."""
    from crowdmask.datasets import rendered

    rendered.render(_dataset(args.settings), args.index, args.image, args.labels, args.points)  # type: ignore[arg-type]


def _batch(args: argparse.Namespace) -> tuple[Any, list[Any]]:
    """Reader of the data set and the images of the batch."""
    from crowdmask.datasets import reader_for
    from crowdmask.datasets.base import batches_of

    reader = reader_for(args.name, _dataset(args.settings, args.selection), "results")
    refs = batches_of(reader.list_images(), args.batches).get((args.split, args.batch))
    if refs is None:
        problem = f"the data set {args.name} has no batch {args.split}/{args.batch}"
        raise DataError(reader.root, problem, "Its images have changed since the job was planned: run Snakemake again.")
    return reader, refs


def datasets(args: argparse.Namespace) -> None:
    """Read the images and points of a batch."""
    from crowdmask.datasets import stage

    reader, refs = _batch(args)
    rows = stage.collect(reader, refs, args.settings["entry"].get("exif", "stored"))
    _write(args, "images", rows, len(refs), "image")


def truth(args: argparse.Namespace) -> None:
    """Read the true masks of a batch."""
    from crowdmask.datasets import stage

    reader, refs = _batch(args)
    rows = stage.truth_rows(reader, refs)
    count = tables.write(args.output, "truth", rows, version=args.settings["version"], settings=_settings_text(args))
    _log.info("%s: %d rows", args.output, count)


def splits(args: argparse.Namespace) -> None:
    """Splits, labelled subsets and folds of a data set."""
    from crowdmask.config import Protocols
    from crowdmask.datasets import protocols, reader_for
    from crowdmask.datasets.choosing import digest
    from crowdmask.files import write_json

    reader = reader_for(args.name, _dataset({"entry": args.selection}), "results")
    refs, hidden = reader.list_images(), reader.unlabelled()
    if digest(refs, hidden) != args.images:
        problem = f"the images of the data set {args.name} are not those that the job was planned for"
        raise DataError(reader.root, problem, "Run Snakemake again.")
    made = protocols.run(args.name, refs, hidden, Protocols.model_validate(args.settings["protocols"]))
    write_json(args.output, made.model_dump(mode="json", exclude_none=True))
    _log.info("%s: %s", args.output, ", ".join(f"{split} {found.count}" for split, found in made.splits.items()))


def superpixels(args: argparse.Namespace) -> None:
    """Superpixel parts of a batch."""
    from crowdmask.masks import superpixels as stage

    images = tables.read(args.images, "images")
    settings = Superpixels(**args.settings["superpixels"])
    _write(
        args, "superpixels", stage.rows(images, args.root, args.settings["exif"], settings), _points(images), "point"
    )


def decoder_for(settings: Sam, checkpoint: Sequence[str], device: str) -> Any:
    """A `masks.decoder.Decoder` with verified weights: of the one file in `checkpoint`, else those that ship."""
    import torch

    from crowdmask.masks import checkpoints, decoder, sam

    # Fixed, whatever cores the job was given: more threads would change the last bits.
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    path = Path(checkpoint[0]) if checkpoint else checkpoints.shipped()
    return decoder.Decoder(sam.load(settings, path, torch.device(device)), settings.chunk, settings.precision)


def segment(args: argparse.Namespace) -> None:
    """SAM's masks of a batch."""
    from crowdmask.gpu import device_slot

    settings = Sam(**args.settings["sam"])
    with device_slot(args.gpu) as device:
        from crowdmask.masks import segment as stage

        decoder = decoder_for(settings, args.checkpoint, device)
        images = tables.read(args.images, "images")
        rows = stage.rows(
            decoder,
            images,
            tables.stream(args.superpixels, "superpixels"),
            args.root,
            args.settings["exif"],
            Prompt(**args.settings["prompt"]),
            Tiles(**args.settings["tiles"]),
            settings.window,
        )
        _write(args, "segment", rows, _points(images), "point")


def exclude(args: argparse.Namespace) -> None:
    """Masks within their circles, disjoint."""
    from crowdmask.masks import exclusion as stage

    images = tables.read(args.images, "images")
    rows = stage.rows(images, tables.stream(args.segment, "segment"), Exclusion(**args.settings["exclusion"]))
    _write(args, "masks", rows, _points(images), "point")


def merge(args: argparse.Namespace) -> None:
    """Corrections applied."""
    from crowdmask.corrections import merge as stage

    done = stage.run(
        args.masks,
        args.images,
        args.edits,
        args.output,
        args.edits_output,
        args.settings["stale"],
        args.settings["disjoint"],
        _settings_text(args),
    )
    for outcome, number in sorted(done.items()):
        _log.info("edits %s: %d", outcome, number)


def export(args: argparse.Namespace) -> None:
    """COCO file of the data set and the table of its edits."""
    from crowdmask.export import edits

    batches = list(zip(args.images, args.masks, strict=True))
    written = cli_export.write("coco", Path(args.output), batches, args.name, "all", args.settings)
    _log.info("%s: %s", args.output, written)
    edits.write_csv(args.edits_output, args.edits)


def overlay(args: argparse.Namespace) -> None:
    """One picture."""
    from crowdmask.export import overlay as stage

    text = stage.run(args.root, args.settings["exif"], args.images, args.masks, args.split, args.image_id, args.output)
    _log.info("%s: %s", args.output, text)


def overlays(args: argparse.Namespace) -> None:
    """The page of all pictures of a data set, which lie in folders named by split beside it."""
    from crowdmask.export import overlay as stage

    paths = [Path(picture) for picture in args.pictures]
    folder = Path(args.output).parent
    stage.index(args.output, [(p.parent.name, p.stem, p.relative_to(folder).as_posix(), "") for p in paths])


def evaluate(args: argparse.Namespace) -> None:
    """Masks against truth."""
    from crowdmask.metrics import evaluate as stage

    batches = list(zip(args.images, args.masks, args.truth, args.superpixels, strict=True))
    stage.run(
        args.name,
        batches,
        args.root,
        args.settings["exif"],
        args.output,
        args.page,
        _settings_text(args),
        watershed=True,
        shown=lambda items: _shown(items, len(batches), "batch"),
    )


def corrections(args: argparse.Namespace) -> None:
    """What people's edits changed: a page, and JSON."""
    from crowdmask.corrections import gain_run as stage

    truth = args.truth or [None] * len(args.images)
    batches = [stage.Batch(*paths) for paths in zip(args.images, args.made, args.masks, args.edits, truth, strict=True)]
    found = stage.run(
        args.name,
        batches,
        args.folder,
        args.root,
        args.settings["exif"],
        _settings_text(args),
        args.output,
        args.page,
    )
    _log.info("%s: %d edits in %d images", args.output, sum(found["edits"].values()), found["images"])


def review(args: argparse.Namespace) -> None:
    """Table, page and numbers of the masks to look at."""
    from crowdmask.corrections import review_run as stage

    truth = args.truth or [None] * len(args.images)
    batches = [
        stage.Batch(*paths)
        for paths in zip(args.images, args.masks, args.segment, args.superpixels, truth, strict=True)
    ]
    stage.run(
        args.name,
        batches,
        args.root,
        args.settings["exif"],
        Review(**args.settings["review"]),
        _settings_text(args),
        stage.Outputs(args.output, args.page, args.report),
        lambda items: _shown(items, len(batches), "batch"),
    )


def checkpoint(args: argparse.Namespace) -> None:
    """Download an official checkpoint."""
    from crowdmask.masks import checkpoints

    checkpoints.download(args.model, Path(args.output))


def train_sam(args: argparse.Namespace) -> None:
    """Train a SAM on the tables of data sets with true masks."""
    from crowdmask.gpu import device_slot

    settings = TrainSam(**args.settings["train_sam"])
    with device_slot(args.gpu) as device:
        from crowdmask.training import train_sam as stage

        stage.run(
            [json.loads(text) for text in args.roots],
            list(zip(args.images, args.truth, args.superpixels, strict=True)),
            settings,
            Tiles(**args.settings["tiles"]),
            Prompt(**args.settings["prompt"]),
            Path(args.init[0]) if args.init else None,
            Path(args.output),
            Path(args.state),
            Path(args.curve),
            device,
        )
