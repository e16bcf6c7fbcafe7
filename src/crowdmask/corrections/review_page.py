"""The page of the masks to look at: a contact sheet, worst first, that needs no other file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np

from crowdmask.audit import charts
from crowdmask.export.overlay import COLOURS, outline
from crowdmask.masks.rle import Window
from crowdmask.pages import SHEET, TABLE, cards, count, document
from crowdmask.pages import picture as embedded
from crowdmask.tables import REASONS

SIDE = 176
"""Pixels of each half of a picture."""
AROUND, LEAST = 3.0, 32
"""Side of a crop over that of the mask and its point, and the least, pixels of the image (our choice)."""
IMAGES_NAMED = 12
"""Images named for export."""

_INK, _PAPER, _GREY = (24, 24, 24), (255, 255, 255), 128
_FAINT = 0.55
"""Share of white in the outlines of neighbours."""

MEANING = {
    "score": "the score",
    "predicted_iou": "SAM's predicted IoU alone",
    "fallback": "fallback circle or single pixel",
    "low_iou": "low predicted IoU",
    "unstable": "low stability",
    "cut": "cut by the circle",
    "lost": "pixels lost to neighbours",
    "small": "smaller than neighbours let expect",
    "large": "larger than neighbours let expect",
    "edge": "point near the mask's edge",
    "superpixel": "superpixel impure",
    "ragged": "dents or holes",
    "long": "longer than wide",
}
"""What reasons and measures are called on the page."""

_STYLE = (
    """
body { max-width: 80rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: .8rem; }
"""
    + SHEET
    + TABLE
    + """\
pre { overflow-x: auto; background: var(--soft); padding: .5rem .7rem; border-radius: .4rem; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
"""
)


@dataclass(frozen=True)
class Crop:
    """One mask of the sheet.

    Attributes:
        row: Its row of `tables.REVIEW`.
        jpeg: The picture, a JPEG file.
    """

    row: Mapping[str, Any]
    jpeg: bytes


def crop_box(mask: Window, point_xy: np.ndarray) -> tuple[int, int, int]:
    """Square (x0, y0, side) around a mask and its point, pixels; it may leave the image."""
    h, w = mask.mask.shape
    low = np.minimum([mask.x0, mask.y0], np.floor(point_xy + 0.5)).astype(int)
    high = np.maximum([mask.x0 + w, mask.y0 + h], np.floor(point_xy + 0.5) + 1).astype(int)
    side = max(LEAST, int(np.ceil(AROUND * (high - low).max())))
    x0, y0 = (low + high - side) // 2
    return int(x0), int(y0), side


def picture(photo: np.ndarray, windows: Sequence[Window], chosen: int, source: str, point_xy: np.ndarray) -> bytes:
    """A crop twice, side by side: as photographed, and with outlines.

    The mask's outermost pixels have the colour of its source, those of other masks are faint; the point is a white dot
    with a dark rim. What lies outside of the image is grey.

    Args:
        photo: uint8 (H, W, 3) RGB.
        windows: All masks of the image.
        chosen: Which of them it is about.
        source: Key of `overlay.COLOURS`.
        point_xy: (x, y) inside of the image, pixels.

    Returns:
        JPEG file content, `SIDE` pixels high and twice as wide plus a line between.
    """
    x0, y0, side = crop_box(windows[chosen], point_xy)
    height, width = photo.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    plain: np.ndarray = np.full((side, side, 3), _GREY, np.uint8)
    plain[top - y0 : bottom - y0, left - x0 : right - x0] = photo[top:bottom, left:right]
    plain = cv2.resize(plain, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC if side < SIDE else cv2.INTER_AREA)
    drawn = plain.copy()
    faint = np.zeros((SIDE, SIDE), bool)
    for index, window in enumerate(windows):
        h, w = window.mask.shape
        meets = window.x0 < x0 + side and window.y0 < y0 + side and window.x0 + w > x0 and window.y0 + h > y0
        if index != chosen and meets:
            faint |= outline(_scaled(window, x0, y0, side))
    drawn[faint] = (drawn[faint] * (1 - _FAINT) + np.array(_PAPER) * _FAINT + 0.5).astype(np.uint8)
    mask = _scaled(windows[chosen], x0, y0, side)
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
    drawn[rim] = _INK
    drawn[outline(mask, 2)] = COLOURS[source]
    x, y = np.floor((point_xy - [x0, y0] + 0.5) * SIDE / side).astype(int).tolist()
    cv2.circle(drawn, (x, y), 3, _INK, -1, cv2.LINE_AA)
    cv2.circle(drawn, (x, y), 2, _PAPER, -1, cv2.LINE_AA)
    both = np.concatenate([plain, np.full((SIDE, 2, 3), 255, np.uint8), drawn], axis=1)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(both, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError("the picture could not be encoded")
    return data.tobytes()


def _scaled(window: Window, x0: int, y0: int, side: int) -> np.ndarray:
    """bool (SIDE, SIDE): a mask within the square, each pixel of the picture as the pixel of the image below it."""
    take = (np.arange(SIDE) * 2 + 1) * side // (2 * SIDE)
    return window.cut(x0, y0, side, side)[np.ix_(take, take)]


def page(report: Mapping[str, Any], crops: Sequence[Crop]) -> str:
    """The page as HTML; every text from files is escaped.

    Args:
        report: What `review.json` holds.
        crops: Worst first.
    """
    name = str(report["dataset"])
    looked = report["masks"] - report["verified"]
    totals = {
        "images": report["images"],
        "masks": report["masks"],
        "verified": report["verified"],
        "to look at": looked,
    }
    edges = [k / len(report["scores"]) for k in range(len(report["scores"]) + 1)]
    strong = [
        f"<tr><td>{escape(MEANING[key])}</td><td>{report['reasons'][key]:,}</td></tr>"
        for key in sorted(REASONS, key=lambda key: -report["reasons"][key])
    ]
    title = f"Masks of {name} to look at"
    parts = [
        f"<h1>{escape(title)}</h1>",
        cards(totals),
        "<p>Each mask has reasons to look at it and one score, from 0 to 1, of them all; how they are counted: "
        "docs/review.md. All masks are in review.parquet. Verified masks are left out.</p>",
        _sheet(crops),
        _export(name, crops),
        _truth(report["truth"]),
        '<h2>Numbers</h2><div class="charts">',
        charts.bars(report["scores"], edges, "score of the masks that nobody has verified"),
        '</div><div class="scroll"><table><tr><th>strong reason</th><th>masks</th></tr>',
        *strong,
        "</table></div>",
    ]
    return document(title, parts, _STYLE)


def _sheet(crops: Sequence[Crop]) -> str:
    if not crops:
        return "<h2>Worst first</h2><p>No mask is left to look at.</p>"
    key = "".join(
        f'<span class="key" style="background: rgb{colour}"></span>{name}' for name, colour in COLOURS.items()
    )
    figures = []
    for rank, crop in enumerate(crops, 1):
        row = crop.row
        name = escape(f"{row['split']}/{row['image_id']}")
        said = f'<p class="small">{escape(row["reasons"])}</p>' if row["reasons"] else ""
        alt = f"mask of point {row['point_id']} in {row['split']}/{row['image_id']}"
        figures.append(
            f"<figure>{embedded(crop.jpeg, alt)}"
            f"<figcaption><p>{rank}. <strong>{name}</strong> point {row['point_id']}, score {row['score']:.3f}</p>"
            f"{said}</figcaption></figure>"
        )
    return (
        f"<h2>Worst first</h2><p>{count(len(crops), 'mask')}: the photo, and the same with the mask in the colour of "
        f'its source, other masks faint, and the head point.{key}</p><div class="sheet">{"".join(figures)}</div>'
    )


def _export(name: str, crops: Sequence[Crop]) -> str:
    """How to correct them: the images of the sheet, those with most of its masks first."""
    images = Counter(f"{crop.row['split']}/{crop.row['image_id']}" for crop in crops)
    if not images:
        return ""
    chosen = sorted(images, key=lambda key: (-images[key], key))[:IMAGES_NAMED]
    listed = ", ".join(f"{escape(key)} ({images[key]})" for key in chosen)
    more = f" and {len(images) - len(chosen):,} more" if len(images) > len(chosen) else ""
    first = " ".join(shlex.quote(key) for key in chosen[:3])
    return (
        f"<h2>Correct them</h2><p>{count(len(images), 'image')} with their numbers of masks above: {listed}{more}.</p>"
        "<p>Hand the images with the worst masks to a tool, or those that you name, and bring back what people drew:"
        f"</p><pre>crowdmask corrections export {escape(shlex.quote(name))} --to cvat --worst {min(len(images), 10)}\n"
        f"crowdmask corrections export {escape(shlex.quote(name))} --to cvat --images {escape(first)}\n"
        f"crowdmask corrections import {escape(shlex.quote(name))} FILE</pre>"
        "<p>A mask that is right as it is gets an edit with the action <code>accept</code>: it leaves this page.</p>"
    )


def _truth(truth: Mapping[str, Any] | None) -> str:
    """Whether the score finds the bad masks, where true masks are known."""
    if truth is None:
        return ""
    share, worst = truth["share_bad"], truth["worst_share"]
    text = (
        f"<h2>Does the score find the bad masks?</h2><p>Of {count(truth['masks'], 'mask')} with a true one, "
        f"{truth['bad']:,} ({share:.1%}) have an IoU with it below {truth['bad_below_iou']:g}: so many would be found "
        f"in any {worst:.0%} of the masks at random. The table says what the {worst:.0%} that come first hold, and how "
        "often a bad mask comes before a good one (area under the ROC curve; 0.5 = at random). Brackets: 95% of "
        f"{truth['replicates']:,} bootstrap samples of {count(truth['images'], 'image')}.</p>"
    )
    if not 0 < truth["bad"] < truth["masks"]:
        return text
    lines = [f"<tr><th>order by</th><th>bad in the first {worst:.0%}</th><th>area</th></tr>"]
    shown = {MEANING[name]: found for name, found in truth["measures"].items()}
    shown["score minus predicted IoU"] = truth["score_minus_predicted_iou"]
    for name, found in shown.items():
        cells = f"<td>{_range(found, 'precision_worst')}</td><td>{_range(found, 'auc')}</td>"
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return f'{text}<div class="scroll"><table>{"".join(lines)}</table></div>'


def _range(found: Mapping[str, Any], name: str) -> str:
    low_high = found[f"{name}_95"]
    text = "-" if found[name] is None else f"{found[name]:.3f}"
    return text + (f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else "")
