"""What the pages of reports share: pages that need no other file, readable on a phone, in light and in dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

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


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text, which is escaped; also the heading.
        parts: HTML, one piece a line.
        style: CSS added to what all pages share.
    """
    name = escape(title)
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{_STYLE}{style}</style></head><body>",
        f"<h1>{name}</h1>",
        *parts,
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def cards(values: Mapping[str, Any]) -> str:
    """Numbers with their names, as cards."""
    text = "".join(f'<div class="card"><b>{value:,}</b>{escape(key)}</div>' for key, value in values.items())
    return f'<div class="cards">{text}</div>'


def jpeg(data: bytes) -> str:
    """Content of a JPEG file as the address of a picture."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def count(number: int, noun: str) -> str:
    """Such as `1 image` and `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
