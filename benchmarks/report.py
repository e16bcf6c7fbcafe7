"""Results: what two sets of masks have in common, JSON files, and tables in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

Record = dict[str, Any]


def agreement(first: Path, second: Path) -> dict[str, float]:
    """How far two files of masks agree, over the masks that both have.

    Returns:
        `pixels_differ`: share of the windows' pixels whose sign differs; `mean_iou`: over the masks, 1 where both are
        empty; `masks`: how many were compared.
    """
    import numpy as np

    with np.load(first) as a, np.load(second) as b:
        count = min(len(a["sizes"]), len(b["sizes"]))
        sizes = a["sizes"][:count]
        if count == 0 or not np.array_equal(sizes, b["sizes"][:count]):
            raise ValueError("the two sides have no masks of the same windows")
        one, two = (np.unpackbits(file["bits"])[: sizes.sum()].astype(bool) for file in (a, b))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    both, either = (np.add.reduceat(x.astype(np.int64), starts) for x in (one & two, one | two))
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return {
        "pixels_differ": float((one != two).mean()),
        "mean_iou": float(iou.mean()),
        "masks": int(count),
    }


def missed(record: Record) -> list[str]:
    """What the record falls short of."""
    out = []
    if record["within"] is False:
        out.append(f"{record['name']}: peak of {record['peak_mb']:.0f} MB, bound {record['bound_mb']:.0f} MB")
    least = record["least_ratio"]
    if least is not None and record["ratio"] is not None and record["ratio"] < least:
        out.append(f"{record['name']}: {record['ratio']:.2f} times the baseline's speed, wanted {least:g}")
    return out


def write(path: Path, record: Record) -> None:
    """Write a record as JSON."""
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(folder: Path) -> list[Record]:
    """Records of a folder, in the order of `cases.CASES`, those of other precisions after them."""
    from benchmarks.cases import CASES

    order = {case.name: k for k, case in enumerate(CASES)}
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: (r["precision"] != "fp32", order.get(r["name"], len(order))))


def line(record: Record) -> str:
    """A record in one line."""
    text = f"{record['name']}: {_seconds(record['ours_s'])}"
    if record["baseline_s"] is not None:
        text += f", baseline {_seconds(record['baseline_s'])}, ratio {record['ratio']:.1f}"
    return f"{text}, peak {record['peak_mb']:.0f} MB"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def _mb(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    out = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in out)


def _name(record: Record) -> str:
    return f"`{record['name']}`" + ("" if record["precision"] == "fp32" else f" {record['precision']}")


def _speed(records: list[Record]) -> str:
    head = ["benchmark", "ours", "baseline", "ratio", "decoding alone", "ratio of it", "host MB", "pixels that differ"]
    gpu = any(record["device_peak_mb"] is not None for record in records)
    rows = []
    for r in records:
        mine, theirs = r["ours_parts_s"].get("decode_s"), r.get("baseline_parts_s", {}).get("decode_s")
        scaled = "*" if "baseline_note" in r else ""
        row = [
            _name(r),
            _seconds(r["ours_s"]),
            _seconds(r["baseline_s"]) + scaled,
            f"{r['ratio']:.1f}",
            f"{_seconds(mine)} / {_seconds(theirs)}{scaled}" if mine else "",
            f"{theirs / mine:.1f}" if mine else "",
            f"{_mb(r['peak_mb'])} / {_mb(r['baseline_peak_mb'])}",
            f"{r['against_baseline']['pixels_differ']:.1e}",
        ]
        if gpu:
            row.append(f"{_mb(r['device_peak_mb'])} / {_mb(r['baseline_device_peak_mb'])}")
        rows.append(row)
    return _table(head + (["device MB"] if gpu else []), rows)


def _floors(records: list[Record]) -> str:
    head = ["benchmark", "GFLOP ours", "plain", "floor", "ours", "share", "plain floor", "baseline", "share", "traffic"]
    rows = []
    for r in records:
        plain = r["plain_floor_s"]
        rows.append(
            [
                _name(r),
                f"{r['facts']['flop'] / 1e9:.4g}",
                f"{r['facts']['plain_flop'] / 1e9:.4g}",
                _seconds(r["floor_s"]),
                _seconds(r["ours_s"]),
                f"{r['floor_share']:.0%}",
                _seconds(plain),
                _seconds(r["baseline_s"]),
                f"{plain / r['baseline_s']:.0%}" if r["baseline_s"] else "",
                _seconds(r["bytes_floor_s"]),
            ]
        )
    return _table(head, rows)


def _memory(records: list[Record]) -> str:
    rows = []
    for r in records:
        height, width = r["image_hw"]
        bound = "" if r["bound_mb"] is None else f"{_mb(r['bound_mb'])}{'' if r['within'] else ' (missed)'}"
        share = [f"{r['prompts']}", f"{r['facts']['tiles']}", _mb(height * width * 3 / 2**20)]
        rows.append([_name(r), f"{height} x {width}", *share, _mb(r["peak_mb"]), bound, _seconds(r["ours_s"])])
    head = ["benchmark", "image", "points", "tiles", "the image alone, MB", "peak, MB", "bound, MB", "time"]
    return _table(head, rows)


def _where(records: list[Record]) -> str:
    names = [name for name in records[0]["ours_parts_s"] if name.startswith("part: ")]
    rows = []
    for name in names:
        row = [name.removeprefix("part: ")]
        for r in records:
            total = sum(r["ours_parts_s"][part] for part in names)
            row.append(f"{_seconds(r['ours_parts_s'][name])} ({r['ours_parts_s'][name] / total:.0%})")
        rows.append(row)
    serial = [_seconds(sum(r["ours_parts_s"][name] for name in names)) for r in records]
    rows.append(["all, one after the other", *serial])
    rows.append(["all, as the stage runs", *(_seconds(r["ours_s"]) for r in records)])
    return _table(["part", *(_name(r) for r in records)], rows)


def markdown(records: list[Record]) -> str:
    """All tables of the records."""
    if not records:
        return "No results: run `make benchmark`."
    of = {kind: [r for r in records if r["kind"] == kind] for kind in ("decode", "image", "memory", "where", "crops")}
    parts = [_machine(records)]
    speed = [r for r in of["decode"] + of["image"] + of["crops"] if r["ratio"] is not None]
    if speed:
        parts += ["**Speed**", _speed(speed)]
        parts += sorted({f"\\* {r['baseline_note']}." for r in speed if "baseline_note" in r})
    for title, found, table in (
        ("Floors", [r for r in of["decode"] if r["floor_s"] is not None], _floors),
        ("Memory", of["memory"], _memory),
        ("Where the time goes", of["where"], _where),
    ):
        if found:
            parts += [f"**{title}**", table(found)]
    lower = [r for r in records if "against_fp32" in r]
    if lower:
        head = ["benchmark", "pixels that differ from fp32", "mean IoU with fp32"]
        rows = [
            [_name(r), f"{r['against_fp32']['pixels_differ']:.1e}", f"{r['against_fp32']['mean_iou']:.4f}"]
            for r in lower
        ]
        parts += ["**Lower precision**", _table(head, rows)]
    return "\n\n".join(parts)


def _machine(records: list[Record]) -> str:
    kinds: dict[str, list[Record]] = {}
    for r in records:
        m = r["machine"]
        where = m["gpu"] or f"{m['cpu']}, {m['cores']} cores"
        kinds.setdefault(f"{where}, {m['memory_gb']:g} GB, {m['system']}, torch {r['torch']}", []).append(r)
    lines = []
    for kind, found in kinds.items():
        dates = sorted({r["date"][:10] for r in found})
        days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        speeds = [r for r in found if r.get("peak_gflop_per_s")]
        text = f"{kind}; {days}"
        if speeds:
            most = [max(r[key] for r in speeds) for key in ("peak_gflop_per_s", "peak_gbyte_per_s")]
            text += f"; fastest fp32 matmul {most[0]:.0f} GFLOP/s, copying {most[1]:.0f} GB/s"
        threads = sorted({f"{r['threads']} ({r['kind']})" for r in found})
        lines.append(f"{text}; threads: {', '.join(threads)}.")
    disturbed = {r["name"]: r["others_share"] for r in records if (r.get("others_share") or 0) > 0.05}
    if disturbed:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in disturbed.items())
        lines.append(f"Other programs took some of the CPU time meanwhile: {shares}.")
    if any(r["quick"] for r in records):
        lines.append("With `--quick`: the figures mean nothing.")
    return "\n".join(lines)


def write_readme(path: Path, text: str) -> None:
    """Put the tables between the marks of a file.

    Raises:
        ValueError: the file lacks a mark.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
