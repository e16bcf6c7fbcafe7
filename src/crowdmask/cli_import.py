"""`crowdmask corrections import`: what annotation tools give back becomes edits."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the verb, but for --configfile."""
    parser.add_argument("name", help="data set")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files, folders or zips from the tool")
    parser.add_argument("--author", help="who drew (default: what the file says, else your account)")
    parser.add_argument("--time", help="when, ISO 8601 (default: what the file says, else now)")
    parser.add_argument(
        "--conflicts",
        default="refuse",
        metavar="POLICY",
        help="two authors, one head: refuse, newest, union or author:NAME (%(default)s)",
    )
    parser.add_argument(
        "--stale",
        choices=("keep", "rebase", "refuse"),
        default="keep",
        help="edits of masks that the pipeline has made anew since: written, and listed by the merge (keep); written "
        "as if drawn on the present mask (rebase); not written (refuse)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="PX",
        help="outlines that differ by no more are tracing noise, no edit (default: %(default)s)",
    )
    parser.add_argument("--accept-kept", action="store_true", help="masks that came back unchanged count as verified")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--json", action="store_true", help="counts and lists for machines")
