"""The table of all edits of a data set, for people: which were applied, which were not and why."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from crowdmask import tables
from crowdmask.files import replacing


def write_csv(output: str | Path, paths: Sequence[str | Path]) -> int:
    """Join the `edits` tables of all batches into one CSV file; returns the number of rows."""
    count = 0
    with replacing(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=tables.EDITS.names)
        writer.writeheader()
        for path in paths:
            for row in tables.stream(path, "edits"):
                writer.writerow(row)
                count += 1
    return count
