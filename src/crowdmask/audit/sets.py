"""Checks that need all images of a data set: pictures twice, outliers, known defects, published numbers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from crowdmask.audit.findings import Finding, finding
from crowdmask.audit.pictures import LOOK_SIDE

LOOK_RMS = 1.5
"""Grey levels, root mean square, by which nearly equal pictures differ at most (strict, our choice)."""

LOOK_BLOCKS = 4
"""The pictures are compared first by averages of so many blocks a side."""

LOOK_CONTRAST = 8.0
"""Standard deviation in grey levels below which a picture says too little to be compared."""

VIDEO_SHARE, VIDEO_IMAGES = 0.05, 20
"""From so many nearly equal pictures on they are frames of video, told once."""

OUTLIER_Z, OUTLIER_IMAGES, OUTLIER_SPREAD = 3.5, 10, 0.1
"""Modified z-score of log density (Iglewicz and Hoaglin, 1993), fewest images of a split, least spread (log)."""

COMPLETE_SHARE = 0.95
"""Share of the published images of each split with which a data set is taken for the published one."""

Images = Mapping[tuple[str, str], Mapping[str, Any]]
"""Record by (split, image id)."""


def same_pictures(records: Images) -> list[Finding]:
    """Images whose decoded pixels are those of an earlier image, in the same split or another."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, record in sorted(records.items()):
        if record["pixels"]:
            groups.setdefault(record["pixels"], []).append(key)
    found = []
    for keys in groups.values():
        first = records[keys[0]]
        for split, image_id in keys[1:]:
            own = records[split, image_id]
            parts = ["the same file" if own["bytes"] == first["bytes"] else "the same pixels, another file"]
            if split != keys[0][0]:
                parts.append("in another split")
            parts += _otherwise(own, first)
            text = f"as {keys[0][0]}/{keys[0][1]}: {', '.join(parts)}"
            found.append(finding("duplicate_image", text, split, image_id))
    return found


def near_pictures(records: Images) -> list[Finding]:
    """Images that look like an earlier one but for `LOOK_RMS` grey levels; one note instead where there are many."""
    distinct: dict[str, tuple[str, str]] = {}
    for key, record in sorted(records.items()):
        if record["look"] and record["pixels"] not in distinct:
            distinct[record["pixels"]] = key
    keys = list(distinct.values())
    looks = np.array([_look(records[key]["look"]) for key in keys], np.float32).reshape(-1, LOOK_SIDE**2)
    ratio = np.array([records[key]["width"] / records[key]["height"] for key in keys])
    twins = _twins(looks, ratio)
    if len(twins) >= VIDEO_IMAGES and len(twins) > VIDEO_SHARE * len(records):
        return [finding("video_frames", f"{len(twins):,} of {len(records):,} images look like another one")]
    found = []
    for later, (earlier, rms) in sorted(twins.items()):
        other = keys[earlier]
        text = f"looks like {other[0]}/{other[1]} but for {rms:.2f} grey levels"
        parts = ["in another split"] if other[0] != keys[later][0] else []
        parts += _otherwise(records[keys[later]], records[other])
        found.append(finding("near_duplicate_image", ", ".join([text, *parts]), *keys[later]))
    return found


def _twins(looks: np.ndarray, ratio: np.ndarray) -> dict[int, tuple[int, float]]:
    """For each picture with an earlier near twin: the first of them, and how far it is."""
    means = looks.mean(axis=1) if len(looks) else np.zeros(0)
    order = np.argsort(means, kind="stable")
    ascending = means[order]
    usable = looks.std(axis=1) >= LOOK_CONTRAST if len(looks) else np.zeros(0, bool)
    # Averages over blocks differ by no more than the pictures do, so that few pairs are compared in full.
    side = LOOK_SIDE // LOOK_BLOCKS
    blocks = looks.reshape(-1, LOOK_BLOCKS, side, LOOK_BLOCKS, side).mean(axis=(2, 4)).reshape(-1, LOOK_BLOCKS**2)
    result: dict[int, tuple[int, float]] = {}
    for place, one in enumerate(order):
        # Means differ by no more than the root mean square does.
        end = np.searchsorted(ascending, means[one] + LOOK_RMS, side="right")
        others = order[place + 1 : end]
        others = others[((blocks[others] - blocks[one]) ** 2).mean(axis=1) <= LOOK_RMS**2 + 1e-3]
        others = others[usable[others] & (np.abs(ratio[others] / ratio[one] - 1) < 0.02)]
        if not usable[one] or not len(others):
            continue
        rms = np.sqrt(((looks[others] - looks[one]) ** 2).mean(axis=1))
        for other, value in zip(others[rms <= LOOK_RMS].tolist(), rms[rms <= LOOK_RMS].tolist(), strict=True):
            earlier, later = min(int(one), other), max(int(one), other)
            if later not in result or earlier < result[later][0]:
                result[later] = (earlier, value)
    return result


def _look(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8)


def density_outliers(records: Images) -> list[Finding]:
    """Images whose points a megapixel are far from the median of their split, on a logarithmic scale."""
    splits: dict[str, list[tuple[str, float]]] = {}
    for (split, image_id), record in sorted(records.items()):
        value = density(record)
        if value:
            splits.setdefault(split, []).append((image_id, value))
    found = []
    for split, images in splits.items():
        if len(images) < OUTLIER_IMAGES:
            continue
        logs = np.log([value for _, value in images])
        median = np.median(logs)
        spread = max(float(np.median(np.abs(logs - median))), OUTLIER_SPREAD)
        for (image_id, value), z in zip(images, 0.6745 * (logs - median) / spread, strict=True):
            if abs(z) > OUTLIER_Z:
                text = f"{value:,.0f} points a megapixel, median of the split {np.exp(median):,.0f} (robust z {z:+.1f})"
                found.append(finding("density_outlier", text, split, image_id))
    return found


def density(record: Mapping[str, Any]) -> float | None:
    """Points a megapixel; None where points or size are not known."""
    if record["points"] is None or record["height"] is None:
        return None
    return record["points"] / (record["height"] * record["width"]) * 1e6


@cache
def published() -> dict[str, Any]:
    """The packaged list of published data sets and their known defects."""
    text = resources.files("crowdmask.audit").joinpath("known_defects.json").read_text(encoding="utf-8")
    return json.loads(text)


def recognise(kind: str, ids: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """The published data set that a folder holds; None where it is another, or too few images of it.

    Args:
        kind: Format.
        ids: Image ids that the folder has, by split.
    """
    for known in published()["sets"]:
        if known["format"] == kind and _fits(known, _merged(known, ids)):
            return known
    return None


def _merged(known: Mapping[str, Any], ids: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Ids by split, of several splits together where only their total is published."""
    result = {}
    for name in known["images"]:
        parts = name.split("+")
        result[name] = [image_id for part in parts for image_id in ids.get(part, ())]
    return result


def _fits(known: Mapping[str, Any], ids: Mapping[str, Sequence[str]]) -> bool:
    for split, number in known["images"].items():
        names = [re.fullmatch(known["ids"], image_id) for image_id in ids[split]]
        if not COMPLETE_SHARE * number <= len(names) <= number or not all(names):
            return False
        last = [int(name[1]) for name in names if name and name.re.groups]
        if last and max(last) > number:
            return False
    return True


def known_defects(known: Mapping[str, Any], images: Sequence[tuple[str, str]]) -> list[Finding]:
    """What is known to be wrong with the images of a recognised data set that are audited."""
    found = []
    for defect in published()["defects"]:
        if defect["set"] != known["id"]:
            continue
        text = f"{known['title']}: {defect['what']} (source: {defect['source']})"
        if not defect["image_ids"]:
            found.append(finding("known_defect", text, severity="note"))
        for split, image_id in images:
            if image_id in defect["image_ids"] and defect["split"] in (None, split):
                found.append(finding("known_defect", text, split, image_id))
    return found


def published_numbers(known: Mapping[str, Any], ids: Mapping[str, Sequence[str]], points: int | None) -> list[Finding]:
    """Compare a recognised data set with what its authors printed.

    Args:
        known: The data set, of `recognise`.
        ids: Image ids that the folder has, by split.
        points: Points of all images; None where some cannot be read or are left out.
    """
    found = []
    differs = False
    for split, number in known["images"].items():
        have = len(_merged(known, ids)[split])
        if have != number:
            differs = True
            text = f"{known['title']}: {have:,} of {number:,} published images ({known['source']})"
            found.append(finding("published_differs", text, "" if "+" in split else split))
    agrees = [] if differs else [f"{sum(known['images'].values()):,} images"]
    if known["points"] is not None and points is not None and not differs:
        if points == known["points"]:
            agrees.append(f"{points:,} points")
        else:
            text = (
                f"{known['title']}: {points:,} points, published {known['points']:,}, "
                f"differs by {points - known['points']:+,} ({known['source']})"
            )
            found.append(finding("published_differs", text))
    if agrees:
        text = f"{known['title']}: {' and '.join(agrees)} agree with the published ones ({known['source']})"
        found.append(finding("published_agrees", text))
    return found


def _otherwise(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Numbers of points of two images of the same thing, where they differ."""
    if own["points"] == other["points"]:
        return []
    return [f"annotated with {_number(own['points'])} points, there {_number(other['points'])}"]


def _number(value: int | None) -> str:
    return "unreadable" if value is None else f"{value:,}"
