"""Verbs for people: `datasets`, `corrections`, `evaluate`."""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from crowdmask import cli_audit, tables
from crowdmask import config as settings
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import batch_holding, batches_of
from crowdmask.errors import CrowdmaskError, DataError, SettingsError


def add(verbs: Any) -> None:
    """Add the verbs."""
    made = _verb(
        verbs,
        "datasets",
        "list data sets, or find out what a folder holds",
        "crowdmask datasets --configfile my.yaml\n"
        "  crowdmask datasets demo                      short for: crowdmask datasets list demo\n"
        "  crowdmask datasets inspect /data/ShanghaiTech\n"
        "  crowdmask datasets audit demo",
    )
    kinds = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = _verb(
        kinds, "list", "list the data sets of the configuration", "crowdmask datasets list --configfile my.yaml"
    )
    listed.add_argument("name", nargs="?", help="only this one, with its images")
    _config_option(listed)
    listed.set_defaults(run=datasets)
    inspected = _verb(
        kinds,
        "inspect",
        "say which data sets a folder holds, and how to enter them in the configuration",
        "crowdmask datasets inspect /data/ShanghaiTech",
    )
    inspected.add_argument("folder", help="folder of a data set as downloaded, or one above", metavar="FOLDER")
    inspected.add_argument("--json", action="store_true", help="everything, for machines")
    inspected.set_defaults(run=inspect_folder)
    cli_audit.add(kinds)

    made = _verb(
        verbs,
        "corrections",
        "check edit files, or start one",
        "crowdmask corrections template demo test/scene-0002 --points 3,4\n"
        "  crowdmask corrections check corrections/demo",
    )
    kinds = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _verb(
        kinds, "check", "read edit files and say what is wrong", "crowdmask corrections check corrections/demo"
    )
    check.add_argument("files", nargs="+", help="edit files, or folders of them", metavar="FILE")
    check.set_defaults(run=check_corrections)
    template = _verb(
        kinds,
        "template",
        "print an edit file that holds the present masks of some heads",
        "crowdmask corrections template demo test/scene-0001 --points 3,4",
    )
    template.add_argument("name", help="data set")
    template.add_argument("image", help="split/image_id")
    template.add_argument("--points", required=True, help="point ids, with commas")
    template.add_argument("--author", default=_user(), help="your name (default: %(default)s)")
    template.add_argument(
        "--output", metavar="FILE", help="new file to write instead of printing; never an existing one"
    )
    _config_option(template)
    template.set_defaults(run=print_template)

    made = _verb(verbs, "evaluate", "show how good the masks of a data set are", "crowdmask evaluate demo")
    made.add_argument("name", help="data set")
    made.add_argument("--json", action="store_true", help="the whole file, for machines")
    made.set_defaults(run=evaluate)


DATASETS_ACTIONS = ("list", "inspect", "audit")
"""What `crowdmask datasets` can do; anything else after it is the name of a data set to list."""


def complete(arguments: Sequence[str]) -> list[str]:
    """Arguments with the action `list` put in where `datasets` is followed by none, as in `crowdmask datasets demo`."""
    result = list(arguments)
    if result[:1] == ["datasets"] and (len(result) < 2 or result[1] not in (*DATASETS_ACTIONS, "-h", "--help")):
        result.insert(1, "list")
    return result


def _verb(verbs: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _user() -> str:
    """Name of the account."""
    try:
        return getpass.getuser() or "unknown"
    except (OSError, KeyError):  # an account without a name, as in some containers
        return "unknown"


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--configfile", nargs="*", default=[], help="files added to config.yaml, as given to snakemake", metavar="FILE"
    )


def read_config(extra: list[str], base: str = "config.yaml") -> settings.Config:
    """The configuration as Snakemake sees it: `base`, then the files of --configfile, later ones over earlier ones.

    Raises:
        CrowdmaskError: a file is missing, no YAML, or refused by the settings.
    """
    merged: dict[str, Any] = {}
    for path in [base, *extra]:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            fix = "Run in the project's folder." if path == base else "Write a data set's name before --configfile."
            raise DataError(path, "file not found", fix) from None
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", "Name a YAML file.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(path, f"no valid YAML ({error})", "Correct the file.") from None
        if not isinstance(loaded, dict):
            raise DataError(path, "holds no settings", "Write `key: value` lines as in config.yaml.")
        _update(merged, loaded)
    return settings.load(merged)


def _update(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _update(target[key], value)
        else:
            target[key] = value


def _known(config: settings.Config, name: str) -> settings.Dataset:
    if name not in config.datasets:
        known = ", ".join(config.datasets)
        raise SettingsError(
            f"no data set {name!r} in the configuration; known: {known}. Correct the name, or add --configfile FILE."
        )
    return config.datasets[name]


def datasets(args: argparse.Namespace) -> None:
    """List data sets, or the images of one."""
    config = read_config(args.configfile)
    if args.name:
        refs = reader_for(args.name, _known(config, args.name), "results").list_images()
        for ref in refs:
            print(f"{ref.split}\t{ref.image_id}\t{ref.image}\t{ref.annotation}")
        return
    for name, entry in config.datasets.items():
        try:
            counts: dict[str, int] = {}
            for ref in reader_for(name, entry, "results").list_images():
                counts[ref.split] = counts.get(ref.split, 0) + 1
            text = ", ".join(f"{split}: {number} images" for split, number in counts.items())
        except CrowdmaskError as error:
            text = f"not usable: {error}"
        print(f"{name}\t{entry.format}\t{text}")


def inspect_folder(args: argparse.Namespace) -> None:
    """Say what a folder holds."""
    from crowdmask.datasets import inspect

    inspect.command(args.folder, args.json)


def check_corrections(args: argparse.Namespace) -> None:
    """Check edit files."""
    from crowdmask.corrections.template import check

    files: list[Path] = []
    for path in map(Path, args.files):
        found = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not found:
            raise DataError(path, "no edit files in this folder", "They end in .json: see docs/corrections.md.")
        files += found
    problems = check(files)
    for problem in problems:
        print(problem)
    if problems:
        raise CrowdmaskError(f"{len(problems)} faults in {len(files)} edit files")
    print(f"{len(files)} edit files are valid")


def print_template(args: argparse.Namespace) -> None:
    """Print an edit file with the present masks."""
    from crowdmask.corrections import native
    from crowdmask.corrections.template import template

    config = read_config(args.configfile)
    refs = reader_for(args.name, _known(config, args.name), "results").list_images()
    split, _, image_id = args.image.partition("/")
    batch = batch_holding(batches_of(refs, config.batches), split, image_id)
    if batch is None:
        raise SettingsError(f"no image {args.image!r} in the data set {args.name}; write split/image_id")
    try:
        points = [int(text) for text in args.points.split(",")]
    except ValueError:
        raise SettingsError(f"--points {args.points!r}: write point ids with commas, for example 3,4") from None
    folder = Path("results", args.name)
    images = tables.read(folder / "datasets" / split / f"{batch}.parquet", "images")
    image = next(row for row in images if row["image_id"] == image_id)
    merged, made = (
        [
            row
            for row in tables.stream(folder / stage / split / f"{batch}.parquet", "masks")
            if row["image_id"] == image_id
        ]
        for stage in ("merge", "exclude")
    )
    # An edit refers to the mask that the pipeline made, so that a neighbour's correction does not make it stale.
    text = native.dump(template(merged, image, points, args.author, source_rows=made))
    if args.output is None:
        print(text, end="")
        return
    target = Path(args.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise DataError(target, "there is a file already", "Add to it by hand, or name another one.") from None
    print(f"wrote {target}")


def evaluate(args: argparse.Namespace) -> None:
    """Print the evaluation of a data set."""
    path = Path("results", args.name, "evaluation.json")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            path,
            "not made yet",
            f"Run: snakemake --cores 2 {path} (with --configfile FILE -- before it, if the data set is in a file of "
            "yours); only data sets with true masks have one.",
        ) from None
    except ValueError as error:
        raise DataError(path, f"no valid JSON ({error})", "Delete it and run again.") from None
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            print(f"{key:28s} {value:.4f}" if isinstance(value, float) else f"{key:28s} {value}")
