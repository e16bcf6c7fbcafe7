"""Small drawings as inline SVG, in colours that the page sets for light and dark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 38


def histogram(values: Sequence[float], label: str, bins: int = 24) -> str:
    """Histogram on a logarithmic axis of positive numbers; zeros are named below it.

    Args:
        values: Numbers of at least 0.
        label: What they are, with unit.
        bins: Bars.

    Returns:
        An `<svg>` element.
    """
    positive = [value for value in values if value > 0]
    if not positive:
        return _empty(label)
    low, high = math.log10(min(positive)), math.log10(max(positive))
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    counts = [0] * bins
    for value in positive:
        counts[min(bins - 1, int((math.log10(value) - low) / (high - low) * bins))] += 1
    zeros = len(values) - len(positive)
    return bars(counts, [10 ** (low + (high - low) * k / bins) for k in range(bins + 1)], label, zeros)


def bars(counts: Sequence[int], edges: Sequence[float], label: str, zeros: int = 0) -> str:
    """Bars of equal width, with the edges of the bins below.

    Args:
        counts: N heights.
        edges: N + 1 edges, ascending.
        label: What is counted by.
        zeros: Number of values that have no place on the axis.
    """
    top = max(counts, default=0)
    if not top:
        return _empty(label)
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = width / len(counts)
    parts = []
    for k, count in enumerate(counts):
        size = height * count / top
        if count:
            parts.append(
                f'<rect class="bar" x="{_LEFT + k * step + 0.5:.1f}" y="{_TOP + height - size:.1f}" '
                f'width="{max(step - 1, 1):.1f}" height="{size:.1f}"><title>{short(edges[k])} to '
                f"{short(edges[k + 1])}: {count:,}</title></rect>"
            )
    ticks = sorted({0, len(counts) // 3, 2 * len(counts) // 3, len(counts)})
    parts += [_tick_x(_LEFT + k * step, short(edges[k])) for k in ticks]
    parts.append(_tick_y(_TOP, short(top)) + _tick_y(_TOP + height, "0"))
    return _svg(parts, f"{label}{f'; {zeros:,} with 0' if zeros else ''}")


def sizes(values: Iterable[tuple[int, int]], label: str) -> str:
    """Scatter of (width, height), one dot a size, its area by the number of images."""
    counts = Counter(values)
    if not counts:
        return _empty(label)
    right, top = max(w for w, _ in counts), max(h for _, h in counts)
    width, height = WIDTH - _LEFT - _RIGHT - 10, HEIGHT - _TOP - _BOTTOM - 10
    most = max(counts.values())
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:2000]
    parts = [
        f'<circle class="dot" cx="{_LEFT + width * w / right:.1f}" cy="{HEIGHT - _BOTTOM - height * h / top:.1f}" '
        f'r="{2 + 5 * math.sqrt(count / most):.1f}"><title>{w} x {h}: {count:,}</title></circle>'
        for (w, h), count in shown
    ]
    parts += [_tick_x(_LEFT, "0"), _tick_x(_LEFT + width, f"{right:,}")]
    parts += [_tick_y(HEIGHT - _BOTTOM - height, f"{top:,}"), _tick_y(HEIGHT - _BOTTOM, "0")]
    return _svg(parts, label)


def short(value: float) -> str:
    """A number in few characters: 0.71, 12, 3.4k, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _tick_x(x: float, text: str) -> str:
    anchor = "end" if x > WIDTH - 30 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 14}" text-anchor="{anchor}">{escape(text)}</text>'


def _tick_y(y: float, text: str) -> str:
    return f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'


def _empty(label: str) -> str:
    return _svg([f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">nothing to show</text>'], label)


def _svg(parts: Sequence[str], label: str) -> str:
    name = escape(label)
    axes = (
        f'<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'
        f'<text x="{(WIDTH + _LEFT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{name}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{axes}{"".join(parts)}</svg>'
