"""The verb `corrections`: masks out to people, and back."""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path
from typing import Any

from crowdmask import cli_history, cli_people
from crowdmask.cli_people import config_option, known, verb
from crowdmask.corrections.exchange import tools
from crowdmask.errors import CrowdmaskError, DataError, SettingsError


def add(verbs: Any) -> None:
    """Add the verb and its actions."""
    made = verb(
        verbs,
        "corrections",
        "hand out masks for correction and take them back; who did what; edit files by hand",
        "crowdmask corrections export demo --to cvat --images test/scene-0001\n"
        "  crowdmask corrections import demo annotations.xml --author ada\n"
        "  crowdmask corrections log demo\n"
        "  crowdmask corrections template demo test/scene-0002 --points 3,4\n"
        "  crowdmask corrections check corrections/demo",
    )
    kinds = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action in (_add_export, _add_import, cli_history.add_log, _add_check, _add_template):
        action(kinds)


def _add_import(kinds: Any) -> None:
    made = verb(
        kinds,
        "import",
        "take what a tool gives back: edits are found, masks that nobody touched stay as they are",
        "crowdmask corrections import demo annotations.xml --author ada --dry-run\n"
        "  crowdmask corrections import demo export.zip --conflicts newest",
    )
    made.add_argument("name", help="data set")
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files, folders or zips from the tool")
    made.add_argument("--author", help="who drew (default: what the file says, else your account)")
    made.add_argument("--time", help="when, ISO 8601 (default: what the file says, else now)")
    made.add_argument(
        "--conflicts",
        default="refuse",
        metavar="POLICY",
        help="two authors, one head: refuse, newest, union or author:NAME (%(default)s)",
    )
    made.add_argument(
        "--stale",
        choices=("keep", "rebase", "refuse"),
        default="keep",
        help="edits of masks that the pipeline has made anew since: written, and listed by the merge (keep); written "
        "as if drawn on the present mask (rebase); not written (refuse)",
    )
    made.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="PX",
        help="outlines that differ by no more are tracing noise, no edit (default: %(default)s)",
    )
    made.add_argument("--accept-kept", action="store_true", help="masks that came back unchanged count as verified")
    made.add_argument("--dry-run", action="store_true", help="write nothing")
    made.add_argument("--json", action="store_true", help="counts and lists for machines")
    config_option(made)
    made.set_defaults(run=import_corrections)


def _add_check(kinds: Any) -> None:
    check = verb(
        kinds, "check", "read edit files and say what is wrong", "crowdmask corrections check corrections/demo"
    )
    check.add_argument("files", nargs="+", help="edit files, or folders of them", metavar="FILE")
    check.set_defaults(run=check_corrections)


def _add_template(kinds: Any) -> None:
    template = verb(
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
    config_option(template)
    template.set_defaults(run=print_template)


def _add_export(kinds: Any) -> None:
    made = verb(
        kinds,
        "export",
        "make a folder with pictures and masks for a tool in which people correct them",
        "crowdmask corrections export demo --to cvat --images test/scene-0001,test/scene-0002\n"
        "  crowdmask corrections export demo --to labelme --worst 20 --output to-correct",
    )
    made.add_argument("name", help="data set", metavar="NAME")
    made.add_argument("--to", required=True, choices=list(tools.TOOLS), help="tool, or format of files (%(choices)s)")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--images", nargs="+", help="split/image_id, or an id that only one split has; several with commas or blanks"
    )
    which.add_argument("--worst", type=_positive, help="the images with the worst masks, by the review", metavar="N")
    which.add_argument("--all", action="store_true", help="all images")
    made.add_argument(
        "--output", help="new or empty folder (default: results/NAME/corrections/TOOL-TAG)", metavar="DIR"
    )
    made.add_argument(
        "--shapes",
        type=_positive,
        default=tools.LIMIT,
        help="most masks of a picture; an image with more is cut into crops (default: %(default)s)",
        metavar="N",
    )
    made.add_argument(
        "--margin",
        type=_pixels,
        default=tools.MARGIN,
        help="pixels shown around each crop (default: %(default)s)",
        metavar="PIXELS",
    )
    made.add_argument("--json", action="store_true", help="print what was written, for machines")
    config_option(made)
    made.set_defaults(run=export)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _pixels(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _user() -> str:
    """Name of the account."""
    try:
        return getpass.getuser() or "unknown"
    except (OSError, KeyError):  # an account without a name, as in some containers
        return "unknown"


def export(args: argparse.Namespace) -> None:
    """Hand out masks for correction."""
    from crowdmask.corrections import exporting

    config = cli_people.read_config(args.configfile)
    known(config, args.name)
    done = exporting.export(
        config,
        args.name,
        args.to,
        named=args.images,
        worst=args.worst,
        output=args.output,
        shapes=args.shapes,
        margin=args.margin,
        configfiles=args.configfile,
    )
    if args.json:
        print(json.dumps(done.summary(), indent=2, ensure_ascii=False))
        return
    print(f"folder: {done.folder} (README.txt says what to do)")
    print(f"pictures: {len(done.rows)}, of {len({(row['split'], row['image_id']) for row in done.rows})} images")
    print(f"masks: {done.masks}")
    print(f"record: {done.path} (keep it under version control: the way back needs it)")


def import_corrections(args: argparse.Namespace) -> None:
    """Import what a tool gave back."""
    from crowdmask.corrections import import_run
    from crowdmask.corrections.present import Present

    config = cli_people.read_config(args.configfile)
    known(config, args.name)
    import_run.run(args, Present(config, args.name, configfiles=args.configfile), _user())


def check_corrections(args: argparse.Namespace) -> None:
    """Check edit files."""
    from crowdmask.corrections.exchange.record import FOLDER
    from crowdmask.corrections.template import check

    files: list[Path] = []
    for path in map(Path, args.files):
        found = [path]
        if path.is_dir():  # records of exports lie among the edit files, but are none
            found = sorted(file for file in path.rglob("*.json") if FOLDER not in file.relative_to(path).parts)
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
    from crowdmask.corrections.present import Present
    from crowdmask.corrections.template import template

    config = cli_people.read_config(args.configfile)
    known(config, args.name)
    present = Present(config, args.name, configfiles=args.configfile)
    split, _, image_id = args.image.partition("/")
    if (split, image_id) not in present.refs:
        raise SettingsError(f"no image {args.image!r} in the data set {args.name}; write split/image_id")
    try:
        points = [int(text) for text in args.points.split(",")]
    except ValueError:
        raise SettingsError(f"--points {args.points!r}: write point ids with commas, for example 3,4") from None
    now = present.image(split, image_id)
    # An edit refers to the mask that the pipeline made, so that a neighbour's correction does not make it stale.
    text = native.dump(template(now.merged, now.row, points, args.author, source_rows=now.made.values()))
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
