"""Verbs for people: `datasets`, `evaluate`; and what all such verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from crowdmask import cli_audit
from crowdmask import config as settings
from crowdmask.datasets import reader_for
from crowdmask.errors import CrowdmaskError, DataError, SettingsError


def add(verbs: Any) -> None:
    """Add the verbs."""
    made = verb(
        verbs,
        "datasets",
        "list data sets, or find out what a folder holds",
        "crowdmask datasets --configfile my.yaml\n"
        "  crowdmask datasets demo                      short for: crowdmask datasets list demo\n"
        "  crowdmask datasets inspect /data/ShanghaiTech\n"
        "  crowdmask datasets audit demo",
    )
    kinds = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = verb(
        kinds, "list", "list the data sets of the configuration", "crowdmask datasets list --configfile my.yaml"
    )
    listed.add_argument("name", nargs="?", help="only this one, with its images")
    config_option(listed)
    listed.set_defaults(run=datasets)
    inspected = verb(
        kinds,
        "inspect",
        "say which data sets a folder holds, and how to enter them in the configuration",
        "crowdmask datasets inspect /data/ShanghaiTech",
    )
    inspected.add_argument("folder", help="folder of a data set as downloaded, or one above", metavar="FOLDER")
    inspected.add_argument("--json", action="store_true", help="everything, for machines")
    inspected.set_defaults(run=inspect_folder)
    cli_audit.add(kinds)

    made = verb(
        verbs,
        "evaluate",
        "show how good the masks of a data set are, or compare any masks with true ones",
        "crowdmask evaluate demo\n"
        "  crowdmask evaluate mine.json truth.json      COCO files, folders of label maps, or of our tables\n"
        "  crowdmask evaluate results/demo/merge results/demo/truth --json",
    )
    made.add_argument("pred", help="data set with results/NAME/evaluation.json; or masks", metavar="NAME|PRED")
    made.add_argument("truth", nargs="?", help="true masks to compare PRED with", metavar="TRUTH")
    made.add_argument("--json", action="store_true", help="everything, for machines")
    made.add_argument(
        "--missing",
        choices=["error", "ignore"],
        default="error",
        help="with TRUTH, what to do about images that only one side has (default: error)",
    )
    made.set_defaults(run=evaluate)


DATASETS_ACTIONS = ("list", "inspect", "audit")
"""What `crowdmask datasets` can do; anything else after it is the name of a data set to list."""


def complete(arguments: Sequence[str]) -> list[str]:
    """Arguments with the action `list` put in where `datasets` is followed by none, as in `crowdmask datasets demo`."""
    result = list(arguments)
    if result[:1] == ["datasets"] and (len(result) < 2 or result[1] not in (*DATASETS_ACTIONS, "-h", "--help")):
        result.insert(1, "list")
    return result


def verb(verbs: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """Add a verb, or an action of one, with its help and an example."""
    return verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def config_option(parser: argparse.ArgumentParser) -> None:
    """Add --configfile."""
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


def known(config: settings.Config, name: str) -> settings.Dataset:
    """Entry of a data set.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in config.datasets:
        names = ", ".join(config.datasets)
        raise SettingsError(
            f"no data set {name!r} in the configuration; known: {names}. Correct the name, or add --configfile FILE."
        )
    return config.datasets[name]


def datasets(args: argparse.Namespace) -> None:
    """List data sets, or the images of one."""
    config = read_config(args.configfile)
    if args.name:
        refs = reader_for(args.name, known(config, args.name), "results").list_images()
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


def evaluate(args: argparse.Namespace) -> None:
    """Print the evaluation of a data set, or compare two files or folders."""
    from crowdmask.metrics import compare

    if args.truth is not None:
        from tqdm import tqdm

        report = compare.run(
            Path(args.pred),
            Path(args.truth),
            args.missing,
            lambda pairs: tqdm(pairs, unit="image", mininterval=1.0, dynamic_ncols=True, disable=len(pairs) < 10),
        )
        if args.json:
            print(json.dumps(report, indent=2))  # ASCII, whatever the terminal's encoding is
        else:
            print("\n".join(compare.lines(report)))
        return
    path = Path("results", args.pred, "evaluation.json")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            path,
            "not made yet",
            f"Run: snakemake --cores 2 {path} (with --configfile FILE -- before it, if the data set is in a file of "
            "yours); only data sets with true masks have one. To compare two files, name both: PRED TRUTH.",
        ) from None
    except ValueError as error:
        raise DataError(path, f"no valid JSON ({error})", "Delete it and run again.") from None
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            print(f"{key:28s} {value:.4f}" if isinstance(value, float) else f"{key:28s} {value}")
    if isinstance(result.get("measures"), dict) and isinstance(result.get("intervals"), dict):
        print("\n".join(line for line in compare.measure_lines(result) if line.split()[0] not in result))
