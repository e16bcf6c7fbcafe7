"""Snakemake as people run it, a process in a folder of its own, on pictures so small that it takes seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import yaml
from PIL import Image

REPO = Path(__file__).resolve().parents[2]

CROWD = {"format": "synthetic", "count": 2, "people": [6, 12], "height": 120, "width": 160, "seed": 5, "split": "test"}
SETTINGS = {"tiles": {"mode": "none"}, "superpixels": {"n_segments": 60}, "export": {"overlays": 2}, "gpu": 0}
EVERYTHING = ("masks.json", "evaluation.json", "overlays/index.html")


def environment() -> dict[str, str]:
    """That of the tests, with the commands of their Python first and nobody's own profile."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@dataclass(frozen=True)
class Done:
    """A finished command.

    Attributes:
        code: Exit code.
        text: Everything that it printed.
    """

    code: int
    text: str

    @property
    def tail(self) -> str:
        """What a person sees without scrolling: the last lines."""
        return "\n".join(self.text.rstrip().splitlines()[-15:])


class Flow:
    """A working folder with a configuration, and Snakemake in it.

    Attributes:
        folder: The working folder.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.configure(config)

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml: these keys over the small settings of the tests."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **config}), encoding="utf-8")

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        base = [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), "--nocolor"]
        return [*base, "--directory", str(self.folder), "--cores", str(cores), *arguments]

    def run(self, *arguments: str, cores: int = 2, timeout: float = 900) -> Done:
        """Run Snakemake, whatever comes of it."""
        done = subprocess.run(
            self.command(*arguments, cores=cores),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    def make(self, *arguments: str, cores: int = 2) -> Done:
        """Run Snakemake, which must succeed."""
        done = self.run(*arguments, cores=cores)
        assert done.code == 0, done.text
        return done

    def plan(self, *arguments: str) -> dict[str, list[str]]:
        """Wildcards of the jobs of a dry run, by rule."""
        return planned(self.make("--dry-run", *arguments).text)

    def copy(self, folder: Path) -> Flow:
        """The same state somewhere else, with all that Snakemake remembers."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Flow(folder)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath("results", *parts)


def planned(text: str) -> dict[str, list[str]]:
    """Wildcards of the jobs that Snakemake prints, by rule."""
    jobs: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule )", text)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        if rule:
            jobs.setdefault(rule[1], []).append(wildcards[1] if wildcards else "")
    return jobs


def counts(plan: Mapping[str, Sequence[str]]) -> Counter[str]:
    """Number of jobs by rule."""
    return Counter({rule: len(jobs) for rule, jobs in plan.items()})


def targets(name: str, *files: str) -> list[str]:
    """Files of a data set's results; the usual three without `files`."""
    return [f"results/{name}/{file}" for file in files or EVERYTHING]


def picture(seed: int, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A photo of coloured discs, uint8 (H, W, 3), and its label map, int32 (H, W)."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(90, 120, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.int32)
    rows, columns = np.mgrid[:height, :width]
    for number in range(1, 6):
        y, x, radius = rng.integers(8, height - 8), rng.integers(8, width - 8), rng.integers(5, 9)
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        labels[disc] = number
        photo[disc] = rng.integers(150, 255, 3)
    return photo, labels


def add_labelled(root: Path, name: str, seed: int) -> None:
    """Add an image to a `label_map` data set."""
    photo, labels = picture(seed)
    for folder, values in (("images", photo), ("labels", labels.astype(np.uint8))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / folder / f"{name}.png")


def add_annotated(root: Path, name: str, points: Sequence[tuple[float, float]], seed: int = 0) -> None:
    """Add an image to a `ucf` data set in one folder."""
    root.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)[0]).save(root / f"{name}.jpg")
    scipy.io.savemat(root / f"{name}_ann.mat", {"annPoints": np.array(points, float).reshape(-1, 2)})
