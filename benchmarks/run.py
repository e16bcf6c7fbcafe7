"""The runner: starts a fresh process for each side of a benchmark, has them take turns, and writes what they say."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.busy import Others
from benchmarks.cases import CASES, Case, choose

ROOT = Path(__file__).resolve().parent.parent

ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", **os.environ}
"""Idle threads sleep: with spinning ones (the default) any other process on the machine makes two threads tens of times
slower than one."""


Speed = dict[str, float]
"""`flop_per_s` and `bytes_per_s`."""


class Child:
    """A process that measures one side.

    Args:
        case: What is measured.
        who: ours or baseline.
        folder: Where its inputs are.
        options: Threads and device.
        precision: Of our decoder.
        speed: Whether it measures the machine in the end.
    """

    def __init__(
        self, case: Case, who: str, folder: Path, options: argparse.Namespace, precision: str, speed: bool = False
    ) -> None:
        self.what = f"{case.name}, {who}, {precision}"
        self.masks = folder / f"{who}-{precision}.npz"
        asked = {
            "case": case.as_dict(),
            "who": who,
            "folder": str(folder),
            "threads": options.threads,
            "device": options.device,
            "precision": precision,
            "masks": self.masks.name,
            "speed": speed,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--child", json.dumps(asked)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: it ended without a word.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.what} ended with code {self.process.wait()}: see above")
        return json.loads(line)

    def tell(self, command: str) -> dict[str, Any]:
        """Have it do something, and wait for the answer."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # what it died of is said in `answer`
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.communicate()


def prepare(case: Case, folder: Path) -> None:
    """Make the inputs of a case, in a process of its own."""
    asked = {"case": case.as_dict(), "who": "prepare", "folder": str(folder)}
    subprocess.run([sys.executable, "-m", "benchmarks", "--child", json.dumps(asked)], cwd=ROOT, check=True)


def machine_speed(options: argparse.Namespace) -> Speed:
    """How fast the machine is, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "--speed", "--device", options.device]
    done = subprocess.run(
        [*command, "--threads", str(options.threads)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the machine's speed could not be measured:\n{done.stderr}")
    return json.loads(done.stdout)


def measure(case: Case, options: argparse.Namespace, speed: Speed | None = None) -> dict[str, Any]:
    """Measure a case: its record.

    Args:
        case: What is measured.
        options: Of the command line.
        speed: What the machine has done before: the floors count with the fastest.
    """
    others = Others()
    with tempfile.TemporaryDirectory(prefix="crowdmask-benchmark-") as name:
        folder = Path(name)
        if case.kind != "decode":
            prepare(case, folder)
        children: list[Child] = []
        try:
            ours = Child(case, "ours", folder, options, options.precision, speed=case.kind == "decode")
            children.append(ours)
            if case.baseline:
                children.append(Child(case, "baseline", folder, options, "fp32"))
            for child in children:
                child.tell("warm")
            runs: dict[Child, list[dict[str, float]]] = {child: [] for child in children}
            for _ in range(case.repeats):
                for child in children:
                    runs[child].append(child.tell("run"))
            ends = {child: child.tell("end") for child in children}
            for key, value in (speed or {}).items():
                ends[ours][key] = max(value, ends[ours].get(key, 0.0))
            record = _record(case, options, runs[ours], ends[ours])
            if case.baseline:
                other = children[1]
                _add_baseline(record, case, runs[other], ends[other])
                record["against_baseline"] = report.agreement(ours.masks, other.masks)
            if options.precision != "fp32" and case.kind in ("decode", "image"):
                exact = Child(case, "ours", folder, options, "fp32")
                children.append(exact)
                exact.tell("run")
                exact.tell("end")
                record["against_fp32"] = report.agreement(ours.masks, exact.masks)
        finally:
            for child in children:
                child.stop()
    record["others_share"] = others.share()
    record["missed"] = report.missed(record)
    return record


def _seconds(runs: list[dict[str, float]]) -> float:
    """Median over the runs of the sum of their parts; where a part is the whole, the others only explain it."""
    return median(run["whole_s"] if "whole_s" in run else sum(run.values()) for run in runs)


def _parts(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of each part."""
    return {name: round(median(run[name] for run in runs), 5) for name in runs[0]}


def _record(
    case: Case, options: argparse.Namespace, runs: list[dict[str, float]], end: dict[str, Any]
) -> dict[str, Any]:
    seconds, facts = _seconds(runs), end["facts"]
    record: dict[str, Any] = {
        "name": case.name,
        "kind": case.kind,
        "about": case.about,
        "model": case.model,
        "image_hw": [case.height, case.width],
        "prompts": case.prompts,
        "unit": case.unit,
        "ours_s": round(seconds, 5),
        "ours_parts_s": _parts(runs),
        "ours_runs_s": [round(_seconds([run]), 5) for run in runs],
        "baseline": None,
        "baseline_s": None,
        "ratio": None,
        "least_ratio": case.least_ratio,
        "peak_mb": round(end["peak_mb"], 1),
        "baseline_peak_mb": None,
        "bound_mb": case.bound_mb,
        "within": None if case.bound_mb is None else end["peak_mb"] <= case.bound_mb,
        "model_mb": round(end["model_mb"], 1),
        "device_peak_mb": end["device_peak_mb"],
        "baseline_device_peak_mb": None,
        "floor_s": None,
        "floor_share": None,
        "plain_floor_s": None,
        "bytes_floor_s": None,
        "facts": facts,
        "precision": options.precision,
        "quick": options.quick,
        **{key: end[key] for key in ("device", "threads", "torch", "machine", "date")},
    }
    if case.kind == "decode":
        floor = facts["flop"] / end["flop_per_s"]
        record["floor_s"] = round(floor, 5)
        record["floor_share"] = round(floor / seconds, 4)
        record["plain_floor_s"] = round(facts["plain_flop"] / end["flop_per_s"], 5)
        record["bytes_floor_s"] = round(facts["bytes"] / end["bytes_per_s"], 5)
        record["peak_gflop_per_s"] = round(end["flop_per_s"] / 1e9, 1)
        record["peak_gbyte_per_s"] = round(end["bytes_per_s"] / 1e9, 1)
    return record


def _add_baseline(record: dict[str, Any], case: Case, runs: list[dict[str, float]], end: dict[str, Any]) -> None:
    seconds = _seconds(runs)
    record["baseline"] = case.against
    record["baseline_s"] = round(seconds, 5)
    record["baseline_parts_s"] = _parts(runs)
    record["baseline_runs_s"] = [round(_seconds([run]), 5) for run in runs]
    record["baseline_peak_mb"] = round(end["peak_mb"], 1)
    record["baseline_device_peak_mb"] = end["device_peak_mb"]
    record["ratio"] = round(seconds / record["ours_s"], 2)
    if case.baseline < case.prompts:
        record["baseline_note"] = (
            f"measured on the first {case.baseline} prompts, seconds multiplied by {case.prompts / case.baseline:g}"
        )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks, beginnings of their names, or patterns; default: all")
    parser.add_argument("--all", action="store_true", help="also those that take minutes each")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--quick", action="store_true", help="few prompts, one repetition: only to see that it runs")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="of our decoder")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"), help="folder of the result files")
    parser.add_argument("--table", action="store_true", help="print the tables of the result files as Markdown")
    parser.add_argument("--write-readme", action="store_true", help="put them into benchmarks/README.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--speed", action="store_true", help="only say how fast the machine multiplies and copies")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, cases: list[Case] = CASES) -> int:
    """The command line.

    Returns:
        0; 1 where a bound or a ratio is missed; 2 for a name that there is not or a process that failed.
    """
    options = _arguments(argv)
    if options.child:
        from benchmarks import child

        child.main(options.child)
        return 0
    if options.speed:
        from benchmarks.measure import device, speed

        print(json.dumps(speed(device(options.device), options.threads)))
        return 0
    if options.table or options.write_readme:
        text = report.markdown(report.read(options.output))
        if options.write_readme:
            report.write_readme(Path(__file__).with_name("README.md"), text)
        else:
            print(text)
        return 0
    try:
        chosen = choose(cases, options.names, options.all or options.list)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for case in chosen:
            print(f"{case.name:22} {case.about}{' (with --all or by name)' if case.long else ''}")
        return 0
    try:
        return _run(chosen, options)
    except (RuntimeError, ValueError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2


def _run(chosen: list[Case], options: argparse.Namespace) -> int:
    folder = options.output / "quick" if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    records, start = [], time.monotonic()
    # Now and after each benchmark: a neighbour's work must not make the machine look slow.
    speed = machine_speed(options) if any(case.kind == "decode" for case in chosen) else None
    for case in chosen:
        record = measure(case.quick() if options.quick else case, options, speed)
        records.append(record)
        suffix = "" if options.precision == "fp32" else f".{options.precision}"
        report.write(folder / f"{case.name}{suffix}.json", record)
        print(f"{time.monotonic() - start:5.0f} s  {report.line(record)}", flush=True)
    print(f"\n{report.markdown(records)}")
    missed = [text for record in records for text in record["missed"]]
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    return 1 if missed else 0
