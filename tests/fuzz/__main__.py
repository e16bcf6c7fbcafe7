"""Damage files by the thousand, each batch in a process of its own: `PYTHONPATH=tests python -m fuzz --help`."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.cases import CASES, by_name
from fuzz.check import READ, SECONDS, Sample, TooLong, guarded

BATCH = 500


def child(name: str, first: int, count: int) -> None:
    """Try seeds one after the other; a line of JSON before each and after it, for the parent if this process ends."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        sample = Sample(by_name(name), Path(folder, "data"))
        sample.case.read(sample.root)
        with guarded():
            for seed in range(first, first + count):
                print(json.dumps({"seed": seed}), flush=True)
                # For code in C that no signal interrupts.
                faulthandler.dump_traceback_later(4 * SECONDS, exit=True)
                try:
                    done = {"found": sample.outcome(*sample.damage(seed))}
                except (Exception, TooLong) as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{type(error).__name__}: {error}"[:300]
                    done = {"fault": f"{text} ({Path(where.filename).name}:{where.lineno})"}
                faulthandler.cancel_dump_traceback_later()
                print(json.dumps(done), flush=True)


def batch(name: str, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of a batch, and its faults; a process that ends early costs one seed, and the next one goes on."""
    seen: Counter[str] = Counter()
    faults: list[str] = []
    end = first + count
    while first < end:
        command = [sys.executable, "-m", "fuzz", name, "--child", "--first", str(first), "--mutants", str(end - first)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ, check=False)
        seed, open_ = first - 1, False
        for line in done.stdout.splitlines():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if "seed" in message:
                seed, open_ = message["seed"], True
            elif "found" in message:
                seen[message["found"]] += 1
                open_ = False
            else:
                faults.append(f"{name} seed {seed}: {message['fault']}")
                open_ = False
        if done.returncode == 0:
            break
        if not open_ and seed < first:
            raise RuntimeError(f"{name}: no mutant was tried\n{done.stderr[-3000:]}")
        ended = " | ".join(done.stderr.strip().splitlines()[:6])
        faults.append(f"{name} seed {seed}: the process ended with {done.returncode}: {ended[:400]}")
        first = seed + 1
    return seen, faults


def main() -> int:
    """Try the mutants of some kinds of files and print what became of them; 1 if there are faults."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Damage files of every format and read them.")
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--mutants", type=int, default=10_000, help="damaged files of each format")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.formats) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if args.child:
        child(args.formats[0], args.first, args.mutants)
        return 0
    total = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for name in args.formats or names:
            starts = range(args.first, args.first + args.mutants, BATCH)
            sizes = [min(BATCH, args.first + args.mutants - start) for start in starts]
            results = list(pool.map(batch, [name] * len(sizes), starts, sizes))
            seen: Counter[str] = sum((part for part, _ in results), Counter())
            faults = [fault for _, part in results for fault in part]
            refused = sum(seen.values()) - seen[READ]
            print(
                f"{name}: {sum(sizes)} mutants, {seen[READ]} read, {refused} refused, {len(faults)} faults", flush=True
            )
            for pattern, number in seen.most_common():
                print(f"  {number:7}  {pattern}")
            for fault in faults[:50]:
                print(f"  FAULT {fault}")
            total += len(faults)
    print(f"{total} faults")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
