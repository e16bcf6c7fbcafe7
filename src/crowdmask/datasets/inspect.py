"""What a folder holds, for people: format, splits, sizes, density, and the entry for the configuration."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from crowdmask.datasets import READERS
from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.datasets.images import Exif, image_size
from crowdmask.datasets.recognise import Found, find, reader_of
from crowdmask.errors import CrowdmaskError, DataError, printable

_SHOWN = 5

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Passes items on and shows how many of a number there were."""


def inspect(folder: Path, progress: Progress = lambda items, total, text: items) -> list[dict[str, Any]]:
    """Survey of every data set in a folder or up to two levels below.

    Args:
        folder: The folder.
        progress: Wraps the images as they are read.

    Returns:
        See `survey`; empty where no format fits.

    Raises:
        DataError: no such folder.
    """
    return [survey(found, progress) for found in find(folder)]


def survey(found: Found, progress: Progress = lambda items, total, text: items) -> dict[str, Any]:
    """Numbers of a data set: all annotations are read, of images the headers only.

    Args:
        found: The data set.
        progress: Wraps the images as they are read.

    Returns:
        `name`, `format`, `root`, `entry`, `problem` (empty, or why the list cannot be made), `splits` (images and
        points by split), `images`, `points`, `unlabelled` (images without annotation), `points_per_image` (min,
        median, max), `mean_size_wh` and `largest_size_wh` (pixels; largest by area), `points_per_megapixel` (over all
        images), and `unreadable` (what was said of files that cannot be read; they count as images only).
    """
    exif: Exif = "apply" if found.entry.get("exif") == "apply" else "stored"

    def measured(ref: ImageRef) -> tuple[int, int, int] | str:
        try:
            count = len(found.reader.read_annotation(ref).points_xy)
            height, width = image_size(Path(found.reader.root, ref.image), exif)
        except DataError as error:
            return str(error)
        return count, height, width

    results: list[tuple[int, int, int] | str]
    pool = ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 2))
    try:
        results = list(progress(pool.map(measured, found.refs), len(found.refs), found.name))
    finally:  # an interruption does not wait for the images that are left
        pool.shutdown(cancel_futures=True)
    good = [(ref, result) for ref, result in zip(found.refs, results, strict=True) if not isinstance(result, str)]
    counts = [count for _, (count, _, _) in good]
    sizes: list[tuple[int, int]] = [(width, height) for _, (_, height, width) in good]
    pixels = sum(width * height for width, height in sizes)
    largest = max(sizes, key=lambda size: size[0] * size[1], default=None)
    images = Counter(ref.split for ref in found.refs)
    split_points: Counter[str] = Counter()
    for ref, (count, _, _) in good:
        split_points[ref.split] += count
    return {
        "name": found.name,
        "format": found.entry["format"],
        "root": found.entry["root"],
        "entry": found.entry,
        "problem": found.problem,
        "splits": {split: {"images": images[split], "points": split_points[split]} for split in images},
        "images": len(found.refs),
        "points": sum(counts),
        "unlabelled": _unlabelled(found.reader),
        "points_per_image": {"min": min(counts), "median": median(counts), "max": max(counts)} if counts else None,
        "mean_size_wh": [round(fmean(side), 1) for side in zip(*sizes, strict=True)] if sizes else None,
        "largest_size_wh": list(largest) if largest else None,
        "points_per_megapixel": round(sum(counts) / (pixels / 1e6), 2) if pixels else None,
        "unreadable": [result for result in results if isinstance(result, str)],
    }


def _unlabelled(reader: Reader) -> int:
    try:
        return len(reader.unlabelled())
    except DataError:  # of the list, which `problem` tells
        return 0


def as_text(surveys: list[dict[str, Any]]) -> str:
    """Surveys for reading, and the entries of the configuration for all of them, ready to paste."""
    parts = [_survey_text(item) for item in surveys]
    return "\n\n".join([*parts, "For the configuration:\n\n" + as_yaml(surveys)])


def as_yaml(surveys: list[dict[str, Any]]) -> str:
    """The section `datasets` of a configuration that reads these data sets."""
    entries = {item["name"]: item["entry"] for item in surveys}
    return yaml.safe_dump({"datasets": entries}, sort_keys=False, allow_unicode=False, width=1000)


def _survey_text(item: dict[str, Any]) -> str:
    lines = [f"{printable(item['root'])}: {item['format']}"]
    if item["problem"]:
        lines.append(f"  not usable yet: {printable(item['problem'])}")
    for split, numbers in item["splits"].items():
        lines.append(f"  {split:12s} {numbers['images']:>7,} images {numbers['points']:>11,} points")
    if item["unlabelled"]:
        lines.append(f"  {'':12s} {item['unlabelled']:>7,} images without annotation")
    if item["points_per_image"]:
        fewest, middle, most = (item["points_per_image"][key] for key in ("min", "median", "max"))
        mean, largest = item["mean_size_wh"], item["largest_size_wh"]
        lines += [
            f"  points per image: {fewest:,} to {most:,}, median {middle:,g}",
            f"  image size: mean {mean[0]:.0f} x {mean[1]:.0f}, largest {largest[0]} x {largest[1]} pixels",
            f"  density: {item['points_per_megapixel']:,.1f} points per megapixel",
        ]
    bad = item["unreadable"]
    if bad:
        lines.append(f"  {len(bad)} images cannot be used:")
        lines += [f"    {printable(problem)}" for problem in bad[:_SHOWN]]
        lines += [f"    ... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return "\n".join(lines)


def unknown_text(folder: Path) -> str:
    """What a folder of no known format holds, and what each format expects."""
    lines = [f"{printable(str(folder))} has no layout that is known. It holds:"]
    lines += [f"  {line}" for line in _holdings(folder)] or ["  nothing"]
    lines.append("Expected:")
    for kind in READERS:
        reader = reader_of("data", {"format": kind, "root": str(folder)})
        lines.append(f"  {kind:12s} {getattr(reader, 'expected', '')}")
    lines.append("Columns, folders and files with other names can be set in the entry: docs/settings.md.")
    return "\n".join(lines)


def _holdings(folder: Path, depth: int = 1) -> list[str]:
    """Kinds of files with their number, then folders with theirs."""
    kinds: Counter[str] = Counter()
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    kinds[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
    except OSError as error:
        return [f"cannot be read ({error.strerror})"]
    lines = [f"{number:,} files {printable(kind)}" for kind, number in kinds.most_common()]
    for name in sorted(folders)[:20]:
        inside = "; ".join(_holdings(folder / name, depth - 1)) if depth else ""
        lines.append(f"{printable(name)}/" + (f": {inside}" if inside else ""))
    return lines + ([f"... and {len(folders) - 20} more folders"] if len(folders) > 20 else [])


def command(folder: str, as_json: bool) -> None:
    """Print the survey of a folder.

    Raises:
        CrowdmaskError: no such folder, no known format, or none whose images can be listed.
    """
    from tqdm import tqdm

    def bar(items: Iterable[Any], total: int, text: str) -> Iterable[Any]:
        return tqdm(items, total=total, desc=text, unit="image", disable=None, leave=False)

    surveys = inspect(Path(folder), bar)
    if as_json:
        print(json.dumps({"folder": folder, "sets": surveys}, indent=2))
    else:
        print(as_text(surveys) if surveys else unknown_text(Path(folder)), end="" if surveys else "\n")
    if not surveys:
        raise CrowdmaskError(f"no data set of a known format in {printable(folder)}")
    if all(item["problem"] for item in surveys):
        raise CrowdmaskError(f"no data set in {printable(folder)} can be used as it is")
