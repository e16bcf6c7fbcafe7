"""The first page of a data set's results: how many masks, the pages there are, all settings in force, all versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from crowdmask import tables
from crowdmask.files import replacing
from crowdmask.pages import cards, document, text

VERSION = 1
"""Raised when the page changes for the same tables."""

PACKAGES = (
    "crowdmask", "snakemake", "torch", "torchvision", "segment-anything", "scikit-image", "opencv-python-headless",
    "numpy", "scipy", "pillow", "pycocotools", "pyarrow",
)  # fmt: skip
"""What the masks depend on."""

TITLES = {
    "overlays/index.html": "Masks over photos",
    "evaluation.html": "Measures against true masks",
    "review.html": "Masks to look at first",
    "corrections.html": "What corrections changed",
    "audit.html": "What is odd in the data",
    "ablation/table.html": "Ablation",
}
"""Pages of a data set, by their place in its folder."""

_STYLE = "table { border-collapse: collapse; } td, th { padding: .1rem 1rem .1rem 0; text-align: left; }"


def counted(images: Sequence[str | Path], masks: Sequence[str | Path]) -> dict[str, int]:
    """Numbers of images, points, masks, and of masks by source; one column of one batch in memory at a time.

    Args:
        images: `images` tables.
        masks: Merged `masks` tables.

    Raises:
        DataError: a table is missing or damaged.
    """
    found = {"images": 0, "points": 0, "masks": 0, **{f"from {source}": 0 for source in tables.SOURCES}, "verified": 0}
    for path in images:
        for row in tables.stream(path, "images", batch=64):
            found["images"] += 1
            found["points"] += len(row["points"])
    for path in masks:
        tables.metadata(path)
        rows = pq.read_table(path, columns=["source", "verified"])
        found["masks"] += rows.num_rows
        found["verified"] += sum(rows["verified"].to_pylist())
        for source in rows["source"].to_pylist():
            found[f"from {source}"] += 1
    return {name: number for name, number in found.items() if number or name in ("images", "points", "masks")}


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Version of Python, and of each package that is installed."""
    found = {"Python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def page(
    dataset: str,
    numbers: Mapping[str, int],
    pages: Sequence[str],
    settings: Mapping[str, Any],
    packages: Mapping[str, str],
) -> str:
    """HTML of the page.

    Args:
        dataset: Name.
        numbers: What to count up.
        pages: Other pages, relative to this one.
        settings: Sections in force, with their values.
        packages: Versions.
    """
    links = "".join(f'<li><a href="{text(path)}">{text(TITLES.get(path, path))}</a></li>' for path in pages)
    parts = [f"<h1>{text(dataset)}</h1>", cards(numbers), f"<h2>Pages</h2><ul>{links}</ul>" if pages else ""]
    parts.append("<h2>Settings in force</h2>")
    parts += [_table(name, values) for name, values in settings.items() if isinstance(values, Mapping)]
    rest = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    parts += [_table("other", rest) if rest else "", "<h2>Versions</h2>", _table("installed", packages)]
    return document(f"{dataset}: masks of heads", parts, _STYLE)


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{text(key)}</td><td>{text(value if isinstance(value, str) else json.dumps(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<details open><summary>{text(title)}</summary><table>{rows}</table></details>"


def run(
    dataset: str,
    images: Sequence[str],
    masks: Sequence[str],
    pages: Sequence[str],
    settings: Mapping[str, Any],
    output: str | Path,
) -> dict[str, int]:
    """Write the page; returns what it counts."""
    numbers = counted(images, masks)
    folder = Path(output).parent
    links = [Path(os.path.relpath(path, folder)).as_posix() for path in pages]
    with replacing(output) as temporary:
        temporary.write_text(page(dataset, numbers, links, settings, versions()), encoding="utf-8")
    return numbers
