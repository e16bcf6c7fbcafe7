"""Command line: `crowdmask stage ...` for the rules, and verbs for people."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence

from crowdmask import cli_ablation, cli_corrections, cli_export, cli_people, cli_stages
from crowdmask.errors import CrowdmaskError

EXAMPLES = """examples:
  snakemake --cores 2 results/demo/masks.json       make the masks of a data set
  crowdmask datasets                                 what the configuration knows
  crowdmask datasets inspect /data/ShanghaiTech      which data sets a folder holds
  crowdmask corrections template demo test/scene-0002 --points 3,4
  crowdmask corrections check corrections/demo/test/scene-0001.json
  crowdmask corrections export demo --to cvat --images test/scene-0001
  crowdmask export demo --to yolo                    or coco, xmask, iim, label-map, parquet
  crowdmask evaluate demo                            how good the masks are

`crowdmask stage NAME ...` runs one job of the workflow by hand: copy the line from a log.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="crowdmask",
        description="Instance masks from head points.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    cli_people.add(verbs)
    cli_corrections.add(verbs)
    cli_export.add(verbs)
    cli_ablation.add(cli_stages.add(verbs))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (1 = an error that the message explains)."""
    args = parser().parse_args(cli_people.complete(sys.argv[1:] if arguments is None else arguments))
    for stream in (sys.stdout, sys.stderr):  # names in files may have letters that a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Before torch is loaded: its idle threads would spin, and take the core from the job beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        args.run(args)
    except CrowdmaskError as error:
        print(f"crowdmask: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("crowdmask: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
