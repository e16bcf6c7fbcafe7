"""The evaluation as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np

from crowdmask.masks.rle import Window
from crowdmask.pages import SHEET, TABLE, count, document
from crowdmask.pages import picture as embedded

SIDE = 720
"""Longest side of a picture, pixels."""
MASK, TRUTH = (230, 159, 0), (86, 180, 233)
"""Colours of the outlines, RGB: orange and sky blue of Okabe and Ito's colour-blind-safe palette."""

MEANING = {
    "mean_iou": "mean IoU, by point",
    "share_iou_50": "share of points with IoU of at least 0.5",
    "miou_gt": "mean IoU over true masks, assigned",
    "miou_matched": "mean IoU of assigned pairs",
    "f1_50": "F1 at IoU 0.5",
    "precision_50": "precision at IoU 0.5",
    "recall_50": "recall at IoU 0.5",
    "f1_50_95": "F1, mean over IoU 0.5 to 0.95",
    "ap": "AP, IoU 0.5 to 0.95",
    "ap_50": "AP at IoU 0.5",
    "ap_75": "AP at IoU 0.75",
    "pq": "panoptic quality",
    "sq": "segmentation quality",
    "rq": "recognition quality",
    "boundary_iou": "boundary IoU, 2 % of the diagonal",
    "boundary_iou_px": "boundary IoU, narrow band",
    "f1_l": "localisation F1, large radius",
    "f1_s": "localisation F1, small radius",
    "mae": "count: mean absolute error",
    "rmse": "count: root mean square error",
    "nae": "count: relative error",
    "game_1": "GAME(1)",
    "game_2": "GAME(2)",
    "game_3": "GAME(3)",
}
"""The measures of the first table, in order."""

BASELINES = {
    "circle": "circle of the point",
    "circle_disjoint": "circles, contested pixels to the nearest point",
    "superpixel": "superpixel of the point",
    "superpixel_circle": "superpixel within the circle",
    "watershed": "watershed from the points",
    "oracle": "true mask within the circle (the rule's limit)",
}

_STYLE = (
    """
body { max-width: 72rem; }
"""
    + TABLE
    + """\
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: .8rem; }
"""
    + SHEET
    + """\
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
"""
)


@dataclass(frozen=True)
class Worst:
    """An image to show.

    Attributes:
        name: Any text.
        mean_iou: Of its points.
        jpeg: The picture, a JPEG file.
    """

    name: str
    mean_iou: float
    jpeg: bytes


def thumbnail(photo: np.ndarray, masks: Sequence[Window], truth: Sequence[Window]) -> bytes:
    """A photo, at most `SIDE` pixels wide and high, with the outlines of true masks and of masks over them.

    Args:
        photo: uint8 (H, W, 3) RGB.
        masks: Masks.
        truth: True masks.

    Returns:
        JPEG file content.
    """
    height, width = photo.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    canvas = cv2.addWeighted(photo, 0.5, grey, 0.5, 0)
    canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for windows, colour in ((truth, TRUTH), (masks, MASK)):
        for window in windows:
            lines, _ = cv2.findContours(window.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            # The centre of a pixel lies in the middle of the square that it becomes; 16 parts of a pixel for cv2.
            places = [((line + [window.x0, window.y0] + 0.5) * scale - 0.5) * 16 for line in lines]
            cv2.polylines(
                canvas, [np.rint(place).astype(np.int32) for place in places], True, colour, 1, cv2.LINE_AA, shift=4
            )
    done, data = cv2.imencode(".jpg", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError("the picture could not be encoded")
    return data.tobytes()


def page(report: Mapping[str, Any], worst: Sequence[Worst]) -> str:
    """The page as HTML; every text from files is escaped.

    Args:
        report: What `evaluation.json` holds.
        worst: Worst first.
    """
    title = f"Masks of {report['dataset']} against the true ones"
    numbers = [count(report["images"], "image"), count(report["points"], "point"), count(report["masks"], "mask")]
    numbers += [f"{report[name]:,} {name}" for name in ("deleted", "added") if report[name]]
    share = report["fallback_share"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{', '.join(numbers)}; fallback circles or single pixels: {'-' if share is None else f'{share:.1%}'}.</p>",
        _headline(report),
        _baselines(report),
        _classes(report["by_size"], "By size", "true area, pixels", "area"),
        _classes(report["by_density"], "By density", "distance to the nearest other head, pixels", "distance"),
        _sheet(worst),
        "<p>Every formula with its source and edge cases: docs/evaluation.md. All figures are in evaluation.json.</p>",
    ]
    return document(title, parts, _STYLE)


def figure(value: float | None) -> str:
    """A number with three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def between(ends: Sequence[float] | None) -> str:
    """An interval, or nothing."""
    return "" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells that are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{c}</td>" for c in row) for row in rows)]
    return f'<div class="scroll"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _headline(report: Mapping[str, Any]) -> str:
    found, ends = report["measures"], report["intervals"]
    rows = [[escape(MEANING["mean_iou"]), figure(found["mean_iou"]), between(ends["mean_iou"])]]
    rows.append(["median IoU, by point", figure(report["median_iou"]), ""])
    rows += [
        [escape(text), figure(found[name]), between(ends.get(name))]
        for name, text in MEANING.items()
        if name != "mean_iou"
    ]
    samples = report["bootstrap"]["samples"]
    return (
        f"<h2>Measures</h2><p>Brackets: 95 % of {samples:,} bootstrap samples of the images; average precision has "
        f"none.</p>{_table(['measure', 'value', '95 %'], rows)}"
    )


def _baselines(report: Mapping[str, Any]) -> str:
    names = ("mean_iou", "f1_50", "pq", "boundary_iou_px")
    rows = [["<strong>our masks</strong>", *(figure(report["measures"][name]) for name in names), "", ""]]
    for key, text in BASELINES.items():
        if key in report["baselines"]:
            found = report["baselines"][key]
            less = found["difference"]["mean_iou"]
            ends = None if less["low"] is None else (less["low"], less["high"])
            cells = [escape(text), *(figure(found["measures"][name]) for name in names)]
            change = "-" if less["difference"] is None else f"{less['difference']:+.3f} {between(ends)}"
            rows.append([*cells, change, "-" if less["p"] is None else f"{less['p']:.3f}"])
    head = ["from the same points", "mean IoU", "F1 at 0.5", "PQ", "boundary IoU, narrow", "ours less this one", "p"]
    return (
        f"<h2>Baselines</h2>{_table(head, rows)}<p class=small>Differences of the mean IoU, with 95 % of the bootstrap "
        "samples (the same images for both) and the two-sided p.</p>"
    )


def _classes(classes: Sequence[Mapping[str, Any]], title: str, what: str, key: str) -> str:
    rows = []
    for row in classes:
        low, high = row[f"{key}_from_px"], row[f"{key}_below_px"]
        span = f"{low:,} and more" if high is None else f"{low:,} to {high:,}"
        values = (figure(row[name]) for name in ("mean_iou", "miou_gt", "recall_50"))
        rows.append([span, f"{row['count']:,}", *values])
    head = [escape(what), "true masks", "mean IoU, by point", "mean IoU, assigned", "recall at 0.5"]
    return f"<h2>{escape(title)}</h2>{_table(head, rows)}"


def _sheet(worst: Sequence[Worst]) -> str:
    if not worst:
        return ""
    key = "".join(
        f'<span class="key" style="background: rgb{colour}"></span>{name}'
        for name, colour in (("masks", MASK), ("true masks", TRUTH))
    )
    figures = "".join(
        f"<figure>{embedded(one.jpeg, one.name)}<figcaption>{rank}. <strong>{escape(one.name)}</strong>, mean IoU "
        f"{one.mean_iou:.3f}</figcaption></figure>"
        for rank, one in enumerate(worst, 1)
    )
    return f'<h2>The worst images</h2><p>By mean IoU.{key}</p><div class="sheet">{figures}</div>'
