"""Figures of the ablation: curves over one setting, and bars of prompts by constraint."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from crowdmask.ablation.report import Measured

METRICS = {"mean_iou": "mean IoU", "f1_50": "F1 at IoU 0.5"}
"""What is drawn, one row of panels or bars each."""

BARS = ("prompt.", "exclusion.constraint", "exclusion.disjoint", "tiles.")
"""Variants that change nothing else are drawn as bars."""


def swept(made: Sequence[Measured], own: Mapping[str, Any]) -> dict[str, list[tuple[Any, Measured]]]:
    """Rows by the one numeric setting in which they differ from the first, which is among them, sorted (null = last).

    Args:
        made: Rows; the first are the data set's own settings.
        own: The data set's own settings by `section.key`.

    Returns:
        For each setting with at least two such rows: (value, row).
    """
    found: dict[str, list[tuple[Any, Measured]]] = {}
    for measured in made[1:]:
        if len(measured.row.changes) == 1:
            ((key, value),) = measured.row.changes.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                found.setdefault(key, []).append((value, measured))
    curves = {}
    for key, points in found.items():
        if len(points) > 1:
            points.append((own[key], made[0]))
            curves[key] = sorted(points, key=lambda point: (point[0] is None, point[0] or 0))
    return curves


def sweeps(made: Sequence[Measured], own: Mapping[str, Any]) -> Figure:
    """Curves over each setting that several variants change by itself, with 95 % intervals; the own value is a ring."""
    curves = swept(made, own)
    figure, panels = _panels(len(METRICS), max(1, len(curves)), 3.0)
    if not curves:
        _nothing(panels)
    for row, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for axes, (key, points) in zip(row, curves.items(), strict=False):
            x = range(len(points))
            _with_intervals(axes, x, [measured for _, measured in points], metric, "-o")
            mine = next(k for k, (_, measured) in enumerate(points) if measured is made[0])
            value = made[0].values[metric]
            if value is not None:
                axes.plot([mine], [value], "o", markersize=11, fillstyle="none", color="black")
            axes.set_xticks(list(x), ["none" if v is None else f"{v:g}" for v, _ in points])
            axes.set_xlabel(key)
        row[0].set_ylabel(label)
    return figure


def _label(measured: Measured, prefix: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in measured.row.changes.items() if key.startswith(prefix))


def prompts(made: Sequence[Measured], own: Mapping[str, Any]) -> Figure:
    """Bars of the variants that change prompt, tiles or constraint only, those of one prompt side by side."""
    chosen = [m for m in made if m.row.kind != "baseline" and all(key.startswith(BARS) for key in m.row.changes)]
    groups: dict[Any, list[Measured]] = {}
    for measured in chosen:
        groups.setdefault((_label(measured, "prompt."), _label(measured, "tiles.")), []).append(measured)
    ways = list(dict.fromkeys(_label(m, "exclusion.") for m in chosen))
    figure, panels = _panels(len(METRICS), 1, 1.5 + 0.5 * len(chosen) + 0.6 * len(groups))
    colours = matplotlib.colormaps["tab10"]
    for (axes,), (metric, label) in zip(panels, METRICS.items(), strict=True):
        position, ticks, names, seen = 0.0, [], [], set()
        for members in groups.values():
            start = position
            for measured in members:
                way = ways.index(_label(measured, "exclusion."))
                value, ends = measured.values[metric], measured.intervals[metric]
                if value is not None:
                    error = [[value - ends[0]], [ends[1] - value]] if ends else None
                    text = _constraint(ways[way], own) if way not in seen else None
                    axes.bar(position, value, 0.9, yerr=error, color=colours(way % 10), label=text, capsize=2)
                    seen.add(way)
                position += 1
            ticks.append((start + position - 1) / 2)
            names.append(_prompt(members[0], own))
            position += 0.8
        axes.set_xticks(ticks, names, rotation=30, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_ylabel(label)
        axes.set_axisbelow(True)
        axes.set_xlim(-0.8, max(position - 1.0, 0.8))
    panels[0][0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=4, frameon=False)
    return figure


def _prompt(measured: Measured, own: Mapping[str, Any]) -> str:
    """Prompt and tiles of a row in words."""
    changes = measured.row.changes
    parts = [str(changes.get("prompt.mode", own["prompt.mode"]))]
    rest = [(key, value) for key, value in changes.items() if key.startswith(("prompt.", "tiles."))]
    parts += [
        f"{key.partition('.')[2] if key != 'tiles.mode' else 'tiles'} {value}"
        for key, value in rest
        if key != "prompt.mode"
    ]
    return "\n".join(parts)


def _constraint(way: Sequence[tuple[str, Any]], own: Mapping[str, Any]) -> str:
    """Constraint in words."""
    settings = {key: own[key] for key in ("exclusion.constraint", "exclusion.disjoint")} | dict(way)
    return f"{settings['exclusion.constraint']}{'' if settings['exclusion.disjoint'] else ', overlapping'}"


def _with_intervals(axes: Axes, x: Sequence[int], rows: Sequence[Measured], metric: str, style: str) -> None:
    known = [(at, m.values[metric], m.intervals[metric]) for at, m in zip(x, rows, strict=True)]
    drawn = [(at, value, ends or [value, value]) for at, value, ends in known if value is not None]
    values = [value for _, value, _ in drawn]
    low = [max(0.0, value - ends[0]) for _, value, ends in drawn]
    high = [max(0.0, ends[1] - value) for _, value, ends in drawn]
    axes.errorbar([at for at, _, _ in drawn], values, yerr=[low, high], fmt=style, capsize=3)
    axes.margins(x=0.15)


def _panels(rows: int, columns: int, width: float) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(max(4.0, width * columns), 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey="row").tolist()
    for row in panels:
        for axes in row:
            axes.grid(axis="y", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _nothing(panels: Sequence[Sequence[Axes]]) -> None:
    for row in panels:
        row[0].set_axis_off()
    panels[0][0].text(0.5, 0.5, "no setting is changed by several variants", ha="center", va="center")


def render(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of an svg or png file, the same for the same figure."""
    out = io.BytesIO()
    # Without date, and with ids that do not change, the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "crowdmask", "svg.fonttype": "none"}):
        figure.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return out.getvalue()
