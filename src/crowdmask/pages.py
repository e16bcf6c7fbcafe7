"""What the pages of the project share: one file each that needs no other, readable on a phone, in light and in dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

from crowdmask.errors import printable

STYLE = """
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
"""Colours and classes of every page."""
TABLE = """\
table { border-collapse: collapse; } th, td { padding: .15rem .7rem .15rem 0; text-align: left; }
td + td, th + th { text-align: right; white-space: nowrap; } .scroll { overflow-x: auto; }
"""
"""Tables of numbers, for the style of a page that has some."""
SHEET = """\
.sheet figure { margin: 0; background: var(--soft); border-radius: .4rem; overflow: hidden; }
.sheet img { width: 100%; } figcaption { padding: .4rem .6rem; }
"""
"""Sheets of pictures, whose grid the page sets."""


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page.

    Args:
        title: Any text; escaped here.
        parts: HTML of the body, with every text in it escaped already.
        style: CSS of this page alone, after that of all pages.

    Returns:
        HTML text to be written as UTF-8.
    """
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head><body>",
        *parts,
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def text(value: object, longest: int | None = None) -> str:
    """Text from anywhere, safe inside of an element and of a quoted attribute.

    Characters that turn the reading direction, or that no file can hold, are shown as their numbers.

    Args:
        value: Anything that has a text.
        longest: Cut to so many characters before escaping; None = whole.
    """
    return escape(printable(str(value), longest))


def picture(data: bytes, alt: str, kind: str = "jpeg") -> str:
    """An `<img>` that carries its own file.

    Args:
        data: Content of the image file.
        alt: What it shows; any text.
        kind: Subtype of its media type, such as jpeg or png.
    """
    return f'<img alt="{text(alt)}" loading="lazy" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def cards(values: Mapping[str, int]) -> str:
    """Numbers with their names, as cards."""
    made = "".join(f'<div class="card"><b>{value:,}</b>{text(key)}</div>' for key, value in values.items())
    return f'<div class="cards">{made}</div>'


def count(number: int, noun: str) -> str:
    """Such as `1,204 masks`; one has no s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
