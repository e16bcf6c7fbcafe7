"""The report as one page that needs no other file: readable on a phone, in light and in dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from crowdmask.audit import charts, sets
from crowdmask.audit.checks import NEAREST_EDGES
from crowdmask.audit.findings import Finding, by_kind

IMAGES_SHOWN, ROWS_SHOWN, PICTURE_BYTES = 300, 12, 2_400_000
"""Images whose findings are written out, rows of a finding, and bytes of all pictures as text."""

_STYLE = """
:root { --ink: #1d2327; --paper: #fff; --soft: #f3f4f6; --line: #d5d9de; --error: #b42318; --warning: #8a5300;
  --note: #3b5b7e; --bar: #2f6f9f; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #16191c; --soft: #22272c; --line: #3a4148;
  --error: #ff8f80; --warning: #f0b35a; --note: #9cc0e6; --bar: #6db3e0; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 56rem; padding: 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.cards, .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.card { background: var(--soft); border-radius: .4rem; padding: .5rem .7rem; }
.card b { display: block; font-size: 1.3rem; }
.item { border-left: .3rem solid var(--line); padding: .3rem .7rem; margin: .5rem 0; background: var(--soft); }
.error { border-color: var(--error); } .warning { border-color: var(--warning); } .note { border-color: var(--note); }
.tag { font-weight: 600; } .error .tag { color: var(--error); } .warning .tag { color: var(--warning); }
.note .tag { color: var(--note); } .small { font-size: .88rem; } p { margin: .2rem 0; }
details { margin: .3rem 0; } summary { cursor: pointer; }
svg { width: 100%; height: auto; background: var(--soft); border-radius: .4rem; }
svg text { font-size: 11px; fill: var(--ink); } .axis { fill: none; stroke: var(--line); }
.bar, .dot { fill: var(--bar); } .dot { fill-opacity: .6; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
"""


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
    name = escape(str(report["dataset"]))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Audit of {name}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Audit of {name}</h1>",
        _totals(report),
        _kinds(report),
        _charts(records),
        _pictures(pictures, findings),
        _details(findings),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def verdict(totals: Mapping[str, int]) -> str:
    """One sentence on the whole."""
    if totals["errors"]:
        return f"{_count(totals['errors'], 'error')}: the workflow stops at them."
    if totals["warnings"]:
        return f"No errors, {_count(totals['warnings'], 'warning')}: the workflow runs, look at them first."
    return "No errors and no warnings."


def _totals(report: Mapping[str, Any]) -> str:
    totals = report["totals"]
    cards = "".join(f'<div class="card"><b>{value:,}</b>{escape(key)}</div>' for key, value in totals.items())
    rows = [
        f"<p>{escape(split)}: {_count(sums['images'], 'image')}, {_count(sums['points'], 'point')}</p>"
        for split, sums in report["splits"].items()
    ]
    known = report["recognised"]
    text = f"format {report['format']}{f', recognised as {known}' if known else ''}"
    return (
        f"<p><strong>{escape(verdict(totals))}</strong></p><p>{escape(text)}</p>"
        f'<div class="cards">{cards}</div>{"".join(rows)}'
    )


def _kinds(report: Mapping[str, Any]) -> str:
    if not report["kinds"]:
        return "<h2>Findings by kind</h2><p>None.</p>"
    items = []
    for kind in report["kinds"].values():
        places = [_count(kind["findings"], "finding"), _count(kind["images"], "image")]
        places += [_count(kind["rows"], "row")] if kind["rows"] else []
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
        text = base64.b64encode(data).decode()
        if len(text) > budget:
            continue
        budget -= len(text)
        name = escape(f"{split}/{image_id}")
        own = [f for f in findings if (f.split, f.image_id) == (split, image_id) and f.severity != "note"]
        said = "".join(f'<p class="small">{escape(f.kind)}: {escape(f.message)}</p>' for f in own[:6])
        figures.append(
            f'<figure><figcaption><strong>{name}</strong>{said}</figcaption><img alt="{name}" loading="lazy" '
            f'src="data:image/jpeg;base64,{text}"></figure>'
        )
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
