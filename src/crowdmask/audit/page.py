"""The report as one page that needs no other file: readable on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from crowdmask import pages
from crowdmask.audit import charts, sets
from crowdmask.audit.checks import NEAREST_EDGES
from crowdmask.audit.findings import Finding, by_kind

IMAGES_SHOWN, ROWS_SHOWN, PICTURE_BYTES = 300, 12, 2_400_000
"""Images whose findings are written out, rows of a finding, and bytes of all pictures as text."""


def page(
    report: Mapping[str, Any],
    findings: Sequence[Finding],
    records: sets.Images,
    pictures: Sequence[tuple[str, str, bytes]],
) -> str:
    """The page as HTML; every text from file names and files is escaped.

    Args:
        report: What `audit.json` holds.
        findings: All findings, in order.
        records: Record by (split, image id).
        pictures: (split, image id, JPEG) of images to show, worst first.
    """
    title = f"Audit of {report['dataset']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _totals(report),
        _kinds(report),
        _charts(records),
        _pictures(pictures, findings),
        _details(findings),
    ]
    return pages.document(title, parts)


def verdict(totals: Mapping[str, int]) -> str:
    """One sentence on the whole."""
    if totals["errors"]:
        return f"{pages.count(totals['errors'], 'error')}: the workflow stops at them."
    if totals["warnings"]:
        return f"No errors, {pages.count(totals['warnings'], 'warning')}: the workflow runs, look at them first."
    return "No errors and no warnings."


def _totals(report: Mapping[str, Any]) -> str:
    totals = report["totals"]
    rows = [
        f"<p>{escape(split)}: {pages.count(sums['images'], 'image')}, {pages.count(sums['points'], 'point')}</p>"
        for split, sums in report["splits"].items()
    ]
    known = report["recognised"]
    text = f"format {report['format']}{f', recognised as {known}' if known else ''}"
    return f"<p><strong>{escape(verdict(totals))}</strong></p><p>{escape(text)}</p>{pages.cards(totals)}{''.join(rows)}"


def _kinds(report: Mapping[str, Any]) -> str:
    if not report["kinds"]:
        return "<h2>Findings by kind</h2><p>None.</p>"
    items = []
    for kind in report["kinds"].values():
        places = [pages.count(kind["findings"], "finding"), pages.count(kind["images"], "image")]
        places += [pages.count(kind["rows"], "row")] if kind["rows"] else []
        items.append(
            f'<div class="item {kind["severity"]}"><p><span class="tag">{kind["severity"]}</span> '
            f'<strong>{escape(kind["title"])}</strong> <span class="small">({", ".join(places)})</span></p>'
            f'<p class="small">What the workflow does: {escape(kind["action"].replace("`", ""))}.</p></div>'
        )
    return "<h2>Findings by kind</h2>" + "".join(items)


def _charts(records: sets.Images) -> str:
    values = list(records.values())
    nearest = [sum(column) for column in zip(*(r["nearest"] for r in values if r["nearest"]), strict=True)]
    densities = [found for r in values if (found := sets.density(r)) is not None]
    drawn = [
        charts.histogram([r["points"] for r in values if r["points"] is not None], "points an image"),
        charts.histogram(densities, "points a megapixel"),
        charts.bars(nearest, NEAREST_EDGES.tolist(), "distance to the nearest other point, px"),
        charts.sizes([(r["width"], r["height"]) for r in values if r["height"]], "width and height of the images, px"),
    ]
    return f'<h2>Numbers</h2><div class="charts">{"".join(drawn)}</div>'


def _pictures(pictures: Sequence[tuple[str, str, bytes]], findings: Sequence[Finding]) -> str:
    figures = []
    budget = PICTURE_BYTES
    for split, image_id, data in pictures:
        shown = pages.picture(data, f"{split}/{image_id}")
        if len(shown) > budget:
            continue
        budget -= len(shown)
        name = escape(f"{split}/{image_id}")
        own = [f for f in findings if (f.split, f.image_id) == (split, image_id) and f.severity != "note"]
        said = "".join(f'<p class="small">{escape(f.kind)}: {escape(f.message)}</p>' for f in own[:6])
        figures.append(f"<figure><figcaption><strong>{name}</strong>{said}</figcaption>{shown}</figure>")
    if not figures:
        return ""
    return "<h2>The worst images</h2><p>Points are dots, rings mark those in findings.</p>" + "".join(figures)


def _details(findings: Sequence[Finding]) -> str:
    groups = []
    left = IMAGES_SHOWN
    for found in by_kind(findings).values():
        shown = found[:left]
        left -= len(shown)
        items = []
        for item in shown:
            place = "/".join(part for part in (item.split, item.image_id) if part) or "data set"
            rows = ", ".join(map(str, item.rows[:ROWS_SHOWN])) + (" ..." if len(item.rows) > ROWS_SHOWN else "")
            text = f" <span>(row {rows})</span>" if rows else ""
            items.append(f"<p><strong>{escape(place)}</strong>: {escape(item.message)}{text}</p>")
        if len(found) > len(shown):
            items.append(f"<p>{len(found) - len(shown):,} more are in audit.json.</p>")
        groups.append(
            f'<details class="item {found[0].severity}"><summary><span class="tag">{escape(found[0].kind)}</span> '
            f'({len(found):,})</summary><div class="small">{"".join(items)}</div></details>'
        )
    return "<h2>All findings</h2>" + ("".join(groups) or "<p>None.</p>")
