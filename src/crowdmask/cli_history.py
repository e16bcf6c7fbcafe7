"""The verb `crowdmask corrections log`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crowdmask.errors import printable
from crowdmask.pages import count

EXAMPLE = """example:
  crowdmask corrections log demo
  crowdmask corrections log sha --configfile mine.yaml --json > history.json
"""

_LONGEST = 40
"""Characters of a name in the tables."""


def add_log(kinds: Any) -> None:
    """Add the action `log` to those of `crowdmask corrections`."""
    made = kinds.add_parser(
        "log",
        help="who corrected what, and what share of a data set is verified",
        description="Who corrected what, and what share of a data set is verified.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", help="data set", metavar="NAME")
    made.add_argument("--json", action="store_true", help="everything, for machines")
    made.add_argument(
        "--configfile", nargs="*", default=[], help="files added to config.yaml, as given to snakemake", metavar="FILE"
    )
    made.set_defaults(run=log)


def log(args: argparse.Namespace) -> None:
    """Print the history of a data set's corrections."""
    from crowdmask import cli_people
    from crowdmask.corrections import history
    from crowdmask.datasets import reader_for
    from crowdmask.datasets.base import batches_of

    config = cli_people.read_config(args.configfile)
    reader = reader_for(args.name, cli_people.known(config, args.name), "results")
    batches = batches_of(reader.list_images(), config.batches)
    found = history.log(args.name, Path(config.corrections.folder, args.name), batches, "results")
    if args.json:
        print(json.dumps(found, indent=2, sort_keys=True))  # ASCII, whatever the terminal's encoding is
    else:
        print("\n".join(lines(found)))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The history as text for a terminal: a line for each image and author, then the sums.

    Args:
        found: As `history.log` returns it; names in it may be anything.
    """
    from crowdmask.corrections.history import ACTIONS

    totals = f"{count(found['edits'], 'edit')} in {count(found['images'], 'image')}"
    yield f"{printable(found['folder'])}: {totals} by {count(len(found['authors']), 'author')}"
    if found["work"]:
        yield ""
        yield from _table(
            ["image", "author", *ACTIONS, "first", "last", "tool"],
            [[f"{work['split']}/{work['image_id']}", work["author"], *_work(work)] for work in found["work"]],
        )
        yield ""
        yield from _table(
            ["author", "images", *ACTIONS, "first", "last", "tool"],
            [[work["author"], work["images"], *_work(work)] for work in found["authors"]],
        )
    yield ""
    yield from _results(found)
    for pair in found["pairs"]:
        one, other = (printable(name, _LONGEST) for name in pair["authors"])
        text = f"{one} and {other} edited the same {count(pair['heads'], 'head')}"
        if pair["mean_iou"] is not None:
            text += f"; both drew {pair['drawn_by_both']:,}, mean IoU of the two drawings {pair['mean_iou']:.3f}"
        if pair["opposed"]:
            text += f"; {pair['opposed']:,} deleted by one of them only"
        yield text


def _results(found: Mapping[str, Any]) -> Iterator[str]:
    """What the tables say."""
    again = f"snakemake --cores 2 results/{found['dataset']}/masks.json"
    if found["verified"] is None:
        yield f"results: not made yet; run: {again}"
        return
    if found["batches_made"] < found["batches"]:
        yield f"results: {found['batches_made']:,} of {found['batches']:,} batches are made; what follows is of these"
    if found["outdated"]:
        first = printable(found["outdated"][0])
        more = f" and {len(found['outdated']) - 1:,} more" if len(found["outdated"]) > 1 else ""
        yield f"results: older than the edits of {first}{more}; run: {again}"
    yield "edits in the results: " + ", ".join(f"{number:,} {name}" for name, number in found["outcomes"].items())
    splits = found["verified"]["splits"]
    for name, sums in [("verified", found["verified"]["whole"]), *((f"  {key}", splits[key]) for key in splits)]:
        if sums:
            yield (
                f"{printable(name)}: {sums['verified']:,} of {count(sums['masks'], 'mask')} "
                f"({100 * sums['verified'] / sums['masks']:.1f} %); every mask in {sums['images_verified']:,} of "
                f"{count(sums['images'], 'image')}"
            )


def _work(work: Mapping[str, Any]) -> list[Any]:
    from crowdmask.corrections.history import ACTIONS

    return [*(work[action] for action in ACTIONS), work["first"], work["last"], ", ".join(work["tools"])]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Columns as wide as they need, numbers to the right; what files say is made printable, and cut."""
    numbers = [isinstance(value, int) for value in rows[0]]
    texts = [names, *([f"{v:,}" if isinstance(v, int) else printable(v, _LONGEST) for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = [t.rjust(w) if number else t.ljust(w) for t, w, number in zip(row, widths, numbers, strict=True)]
        yield "  ".join(cells).rstrip()
