"""The ablation's table: measures with intervals, and how each row differs from the data set's own settings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import pages, tables
from crowdmask.ablation import plots
from crowdmask.ablation.plan import Row
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.metrics import bootstrap, measures

VERSION = 1

METRICS = {
    "mean_iou": "mean IoU of the mask and the true mask of the same point",
    "share_iou_50": "share of points with an IoU of at least 0.5",
    "miou_matched": "mean IoU of matched pairs (DPMO-RPS)",
    "miou_gt": "sum of the matched pairs' IoU over all true masks (XMask)",
    "precision_50": "matched pairs with IoU of at least 0.5, of all masks",
    "recall_50": "of all true masks",
    "f1_50": "F1 of both",
    "f1_50_95": "F1, mean over IoU 0.5 to 0.95",
    "pq": "panoptic quality",
    "boundary_iou": "IoU of the bands along the outlines, of the same point",
}
"""Measures of the table, all pooled over the data set, and what they are."""

SHOWN = ("mean_iou", "f1_50", "f1_50_95", "boundary_iou")
"""Those of the pages; the CSV has all."""


@dataclass(frozen=True)
class Measured:
    """A row with its numbers.

    Attributes:
        row: What it is.
        values: Each of `METRICS`.
        intervals: [low, high], 95 %; None where undefined.
        against: Difference to the data set's own settings with `low`, `high`, `p`, `wilcoxon_p`; None for the own ones.
        fallback: Share of masks that are the circle or a single pixel; None without masks.
    """

    row: Row
    values: Mapping[str, float | None]
    intervals: Mapping[str, list[float] | None]
    against: Mapping[str, Mapping[str, float | None]] | None
    fallback: float | None


def measured(sums: Mapping[str, float]) -> dict[str, float | None]:
    """`METRICS` of summed images."""
    pooled = measures.pooled(sums)
    return {name: pooled[name] for name in METRICS}


def read(paths: Iterable[str | Path]) -> tuple[list[tuple[str, str]], np.ndarray, int]:
    """Measures of one row.

    Returns:
        (split, image_id) of the images, their sums as float64 (images, len(NAMES)), and the number of fallbacks.

    Raises:
        DataError: a table is missing, damaged or has other sums.
    """
    keys, found, fallback = [], [], 0
    for path in paths:
        for row in tables.stream(path, "measures"):
            sums = dict(row["sums"])
            if tuple(sums) != measures.NAMES:
                raise DataError(path, "it has other sums than this version", "Delete it and run again.")
            keys.append((row["split"], row["image_id"]))
            found.append(sums)
            fallback += row["fallback"]
    return keys, bootstrap.table(found, measures.NAMES), fallback


def compare(rows: Iterable[tuple[Row, Sequence[str | Path]]], samples: int, seed: int) -> list[Measured]:
    """Measure all rows.

    Args:
        rows: What each is, with the paths of its measures; the first are the data set's own settings.
        samples: Bootstrap samples of images, the same for all rows.
        seed: Of these.

    Raises:
        DataError: see `read`; or a row has other images than the first.
    """
    made: list[Measured] = []
    known: dict[str, Measured] = {}
    first: tuple[list[tuple[str, str]], np.ndarray] | None = None
    names, function = measures.NAMES, measured
    for row, paths in rows:
        if row.masks in known:  # the same masks under another name
            same = known[row.masks]
            made.append(Measured(row, same.values, same.intervals, same.against, same.fallback))
            continue
        keys, table, fallback = read(paths)
        if first is None:
            first = keys, table
        elif keys != first[0]:
            raise DataError(str(Path(paths[0]).parent), "it has other images than the first row", "Run again.")
        sums = dict(zip(names, table.sum(axis=0).tolist(), strict=True))
        against = None if not made else bootstrap.paired(table, first[1], names, function, seed, samples)
        known[row.masks] = Measured(
            row,
            measured(sums),
            bootstrap.intervals(table, names, function, seed, samples),
            against,
            fallback / sums["pred"] if sums["pred"] else None,
        )
        made.append(known[row.masks])
    return made


def write(
    name: str,
    rows: Sequence[tuple[Row, Sequence[str | Path]]],
    samples: int,
    seed: int,
    own: Mapping[str, Any],
    folder: Path,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> list[Measured]:
    """Measure all rows and write table.csv, table.md, table.html, sweeps.svg|png and prompts.svg|png into a folder.

    Args:
        name: Of the data set.
        rows: As `compare`.
        samples: As `compare`.
        seed: As `compare`.
        own: The data set's own settings by `section.key`, for the place of the own row in the sweeps.
        folder: To write to.
        progress: Shows how far the rows are.
    """
    made = compare(progress(rows), samples, seed)
    count = _counts(rows[0][1])
    for file, text in (
        ("table.csv", csv_text(made)),
        ("table.md", markdown(name, made, count)),
    ):
        _write(folder / file, text.encode())
    figures = {
        "sweeps": plots.sweeps(made, own),
        "prompts": plots.prompts(made, own),
    }
    for label, figure in figures.items():
        for kind in ("svg", "png"):
            _write(folder / f"{label}.{kind}", plots.render(figure, kind))
    pictures = {label: plots.render(figure, "png") for label, figure in figures.items()}
    _write(folder / "table.html", page(name, made, count, pictures).encode())
    return made


def _counts(paths: Iterable[str | Path]) -> tuple[int, int]:
    """Images and true masks."""
    keys, table, _ = read(paths)
    return len(keys), int(table[:, measures.NAMES.index("true")].sum())


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def changed(row: Row) -> str:
    """Settings that a row changes, as text."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in row.changes.items())


def csv_text(made: Sequence[Measured]) -> str:
    """The whole table, six decimals."""
    parts = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_p", "_wilcoxon_p")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "kind", "changes", "masks", "fallback", *(m + part for m in METRICS for part in parts)])
    for found in made:
        cells: list[float | None] = []
        for metric in METRICS:
            low, high = found.intervals[metric] or (None, None)
            other = found.against[metric] if found.against else {}
            keys = ("difference", "low", "high", "p", "wilcoxon_p")
            cells += [found.values[metric], low, high, *(other.get(key) for key in keys)]
        row = found.row
        numbers = ["" if value is None else f"{value:.6g}" for value in (found.fallback, *cells)]
        writer.writerow([row.name, row.kind, json.dumps(row.changes, sort_keys=True), row.masks, *numbers])
    return out.getvalue()


def number(value: float | None, digits: int = 3) -> str:
    """Such as 0.734; empty where undefined."""
    return "" if value is None else f"{value:.{digits}f}"


def with_interval(found: Measured, metric: str) -> str:
    """Such as `0.734 [0.701, 0.760]`."""
    ends = found.intervals[metric]
    return number(found.values[metric]) + (f" [{number(ends[0])}, {number(ends[1])}]" if ends else "")


def difference(found: Measured, metric: str) -> str:
    """Such as `-0.021 [-0.034, -0.012] *`; the star where the interval leaves 0 out."""
    if not found.against:
        return ""
    other = found.against[metric]
    value, low, high = other["difference"], other["low"], other["high"]
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:+.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]{' *' if low > 0 or high < 0 else ''}"


HEAD = ("", "changes", *SHOWN, "mean_iou: difference", "p", "fallback")


def _cells(found: Measured) -> list[str]:
    p = found.against["mean_iou"]["p"] if found.against else None
    return [
        found.row.name,
        changed(found.row)
        or {"own": "the data set's own settings", "baseline": "baseline"}.get(found.row.kind, "nothing"),
        *(with_interval(found, metric) for metric in SHOWN),
        difference(found, "mean_iou"),
        "" if p is None else f"{p:.2g}",
        "" if found.fallback is None else f"{100 * found.fallback:.1f} %",
    ]


NOTES = (
    "Values are pooled over all instances; in brackets the 95 % interval of a bootstrap over images.",
    "Differences are to the first row, on the same images; a star where their interval leaves 0 out. p is two-sided, "
    "of the same bootstrap, not corrected for the number of rows.",
    "fallback: masks that are the circle or a single pixel.",
)


def markdown(name: str, made: Sequence[Measured], count: tuple[int, int]) -> str:
    """The table of the pages as Markdown."""
    lines = [f"# Ablation: {name}", "", f"{count[0]} images, {count[1]} true masks.", ""]
    lines += [f"- {note}" for note in NOTES] + [""]
    lines += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in _cells(found))} |" for found in made]
    return "\n".join(lines) + "\n"


STYLE = """
body { max-width: 90rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td + td + td { white-space: nowrap; } figure { background: #fff; border-radius: .4rem; padding: .5rem; }
"""


def page(name: str, made: Sequence[Measured], count: tuple[int, int], pictures: Mapping[str, bytes]) -> str:
    """The table with its figures as one HTML file."""
    parts = [
        f"<h1>Ablation: {pages.text(name)}</h1>",
        f"<p>{pages.count(count[0], 'image')}, {pages.count(count[1], 'true mask')}. All numbers: table.csv.</p>",
        "<ul>",
        *(f"<li>{pages.text(note)}</li>" for note in NOTES),
        *(f"<li>{pages.text(metric)}: {pages.text(METRICS[metric])}</li>" for metric in SHOWN),
        "</ul>",
    ]
    parts += [f"<figure>{pages.picture(data, label, 'png')}</figure>" for label, data in pictures.items()]
    cells = "".join(f"<th>{pages.text(title)}</th>" for title in HEAD)
    parts += ['<div class="wide"><table>', f"<tr>{cells}</tr>"]
    for found in made:
        parts.append(f"<tr>{''.join(f'<td>{pages.text(cell)}</td>' for cell in _cells(found))}</tr>")
    return pages.document(f"Ablation: {name}", [*parts, "</table></div>"], STYLE)
