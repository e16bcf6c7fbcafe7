"""One process of a measurement: it loads a model, then does one run for each line that it is sent.

It answers each line with one line of JSON: seconds by part, and at the end memory, sizes and the machine.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from benchmarks import crops, decode, image, inputs, measure, where
from benchmarks.cases import Case

WORK: dict[tuple[str, str], Any] = {
    ("decode", "ours"): decode.Ours,
    ("decode", "baseline"): decode.Baseline,
    ("image", "ours"): image.Ours,
    ("image", "baseline"): image.Baseline,
    ("memory", "ours"): image.Stage,
    ("where", "ours"): where.Where,
    ("crops", "ours"): crops.Ours,
    ("crops", "baseline"): crops.Baseline,
}


def main(text: str) -> None:
    """Do what the JSON says: `case`, `who` (prepare, ours, baseline), `folder`, `threads`, `device`, `precision`."""
    asked = json.loads(text)
    case, folder = Case(**asked["case"]), Path(asked["folder"])
    if asked["who"] == "prepare":
        inputs.prepare(case, folder)
        return
    # Nothing but answers goes to the parent.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        torch.set_num_threads(case.threads or asked["threads"])
        device = torch.device("cpu") if case.host else measure.device(asked["device"])
        _serve(case, asked, folder, device, answers)


def _serve(case: Case, asked: dict[str, Any], folder: Path, device: torch.device, answers: TextIO) -> None:
    sam = inputs.model(case.model, device)
    gc.collect()
    own_mb = measure.start_peak()
    measure.reset_device_peak(device)
    work = WORK[case.kind, asked["who"]](case, sam, asked["precision"], folder)
    for line in sys.stdin:
        command = line.strip()
        answer: dict[str, Any] = {}
        if command == "warm":
            work.warm()
        elif command == "run":
            answer = work.run()
        elif command == "end":
            answer = _end(case, asked, folder, device, work, own_mb)
        print(json.dumps(answer), file=answers, flush=True)
        if command == "end":
            return


def _end(
    case: Case, asked: dict[str, Any], folder: Path, device: torch.device, work: Any, own_mb: float
) -> dict[str, Any]:
    # The peak first: what follows takes memory, too.
    found: dict[str, Any] = {
        "peak_mb": measure.peak_mb() - own_mb,
        "model_mb": own_mb,
        "device_peak_mb": measure.device_peak_mb(device),
    }
    save_masks(folder / asked["masks"], work.masks())
    found["facts"] = work.facts()
    found["torch"] = torch.__version__
    found["threads"] = torch.get_num_threads()
    found["device"] = device.type
    found["machine"] = measure.machine(device)
    found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    if asked["speed"]:
        del work
        found |= measure.speed(device)
    return found


def save_masks(path: Path, masks: list[np.ndarray]) -> None:
    """Masks of any sizes in one file."""
    flat = [mask.ravel() for mask in masks]
    bits = np.packbits(np.concatenate(flat)) if flat else np.zeros(0, np.uint8)
    np.savez(path, sizes=np.array([mask.size for mask in masks], np.int64), bits=bits)
