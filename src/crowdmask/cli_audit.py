"""The verb `crowdmask datasets audit`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crowdmask.errors import CrowdmaskError

EXAMPLE = """example:
  crowdmask datasets audit demo
  crowdmask datasets audit sha --configfile mine.yaml --json > findings.json
"""


def add(kinds: Any) -> None:
    """Add the action `audit` to those of `crowdmask datasets`."""
    made = kinds.add_parser(
        "audit",
        help="look for everything odd in a data set: files, pictures, points, boxes, numbers",
        description="Look for everything odd in a data set, without stopping at the first fault. Writes "
        "results/NAME/audit.html and audit.json. Exit code 1 where the workflow would stop.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", help="data set", metavar="NAME")
    made.add_argument("--json", action="store_true", help="print all findings, for machines")
    made.add_argument(
        "--jobs",
        type=_positive,
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        help="processes that read images (default: one a core, %(default)s here)",
        metavar="N",
    )
    made.add_argument(
        "--configfile", nargs="*", default=[], help="files added to config.yaml, as given to snakemake", metavar="FILE"
    )
    # For the rule: the entry itself instead of the configuration; and errors in the data are no failure of the job.
    made.add_argument("--selection", type=json.loads, help=argparse.SUPPRESS)
    made.add_argument("--report-only", action="store_true", help=argparse.SUPPRESS)
    made.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes of at least 1")
    return value


def run(args: argparse.Namespace) -> None:
    """Audit a data set and print what was found."""
    from crowdmask import cli_people
    from crowdmask import config as settings
    from crowdmask.audit.run import audit

    if args.selection is not None:
        config = settings.load({"datasets": {args.name: args.selection}})
    else:
        config = cli_people.read_config(args.configfile)
    entry = cli_people.known(config, args.name)
    report = audit(args.name, entry, "results", jobs=args.jobs)
    page = Path("results", args.name, "audit.html")
    if args.json:
        print(json.dumps(report, indent=2, sort_keys=True))  # ASCII, whatever the terminal's encoding is
    else:
        print(summary(report))
        print(f"\nreport: {page}")
    if report["totals"]["errors"] and not args.report_only:
        raise CrowdmaskError(
            f"{args.name}: {report['totals']['errors']} errors, at which the workflow stops: see {page}"
        )


SHOWN = 10
"""Errors that the terminal shows one by one."""


def summary(report: Mapping[str, Any]) -> str:
    """The report as a table for a terminal: totals, one line a kind, then the first errors."""
    totals = report["totals"]
    known = f", recognised as {report['recognised']}" if report["recognised"] else ""
    lines = [f"{report['dataset']}: format {report['format']}{known}"]
    lines += [
        f"  {split}: {sums['images']:,} images, {sums['points']:,} points" for split, sums in report["splits"].items()
    ]
    if totals["unlabelled"]:
        lines.append(f"  without annotation: {totals['unlabelled']:,} images")
    lines += ["", f"{'severity':9s}{'findings':>9s}{'images':>8s}{'rows':>9s}  kind"]
    for kind in report["kinds"].values():
        lines.append(f"{kind['severity']:9s}{kind['findings']:9,}{kind['images']:8,}{kind['rows']:9,}  {kind['title']}")
    if not report["kinds"]:
        lines.append("nothing found")
    errors = [item for item in report["findings"] if item["severity"] == "error"]
    lines += [""] if errors else []
    for item in errors[:SHOWN]:
        place = "/".join(name for name in (item["split"], item["image_id"]) if name)
        lines.append(f"{place or report['dataset']}: {item['message']}")
    lines += [f"... and {len(errors) - SHOWN} more errors: --json has them all"] if len(errors) > SHOWN else []
    numbers = ", ".join(f"{totals[f'{severity}s']:,} {severity}s" for severity in ("error", "warning", "note"))
    return "\n".join([*lines, "", numbers])
