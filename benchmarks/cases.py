"""What is measured: every benchmark with its sizes and its limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

CALL = 64
"""Prompts of a call of the baseline."""
BASELINES = {"crops": "the image decoded for each crop, its masks painted anew"}
BASELINE = f"segment-anything predict_torch, calls of {CALL}"
"""Of every other kind."""


@dataclass(frozen=True)
class Case:
    """One benchmark.

    Attributes:
        name: Of the benchmark and of its result file.
        kind: decode = prompts to masks on one embedding; image = a whole image; memory = the stage from files, for its
            peak; where = the stage from files, by part; crops = crops to train on, from tables and an image file.
        about: One line for `--list`.
        model: small (shipped weights) or vit_b (seeded random weights).
        prompts: Head points.
        height: Of the image, pixels.
        width: Of the image, pixels.
        tiles: Mode of the tiles.
        repeats: Timed repetitions, of which the median counts.
        baseline: How many of the prompts segment-anything gets; its seconds are scaled to all. 0 = no baseline.
        threads: CPU threads, whatever was asked for; None = as asked for.
        host: Never on a GPU.
        bound_mb: Largest peak above the model's own.
        least_ratio: Smallest ratio of the baseline's seconds to ours.
        long: Only with `--all` or by name.
    """

    name: str
    kind: Literal["decode", "image", "memory", "where", "crops"]
    about: str
    model: Literal["small", "vit_b"]
    prompts: int
    height: int = 768
    width: int = 1024
    tiles: Literal["none", "auto"] = "none"
    repeats: int = 3
    baseline: int = 0
    threads: int | None = None
    host: bool = False
    bound_mb: float | None = None
    least_ratio: float | None = None
    long: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `Case(**value)` is the way back."""
        return asdict(self)

    @property
    def against(self) -> str:
        """What the baseline is."""
        return BASELINES.get(self.kind, BASELINE)

    @property
    def unit(self) -> str:
        """What the seconds are for."""
        if self.kind == "crops":
            return f"seconds for the crops of an image with {self.prompts} heads"
        return f"seconds for {self.prompts} prompts"

    def quick(self) -> Case:
        """The same on few prompts, to see that it runs."""
        few = min(self.prompts, 32)
        return replace(self, prompts=few, baseline=min(self.baseline, few), repeats=1, least_ratio=None)


def _decode(model: Literal["small", "vit_b"], prompts: int, least_ratio: float | None = None) -> Case:
    return Case(
        name=f"decode_{model}_{prompts}",
        kind="decode",
        about=f"{prompts} prompts on one embedding of 768 x 1024, {model}: to run lengths",
        model=model,
        prompts=prompts,
        repeats=3 if prompts <= 500 or model == "small" else 1,
        baseline=prompts if prompts <= 500 else 256,
        least_ratio=least_ratio,
    )


def _memory(
    name: str, prompts: int, height: int, width: int, bound_mb: float | None = None, long: bool = False
) -> Case:
    return Case(
        name=f"memory_{name}",
        kind="memory",
        about=f"peak of segmenting {prompts} points on {height} x {width}, small SAM, file to file",
        model="small",
        prompts=prompts,
        height=height,
        width=width,
        tiles="auto",
        repeats=1,
        threads=1,
        host=True,
        bound_mb=bound_mb,
        long=long,
    )


CASES = [
    _decode("vit_b", 64),
    _decode("vit_b", 500, least_ratio=4.0),
    _decode("vit_b", 2000),
    _decode("small", 64),
    _decode("small", 500),
    _decode("small", 2000),
    Case(
        "image_small", "image", "a rendered crowd of 300, tiles auto, small SAM: pixels to run lengths", "small",
        300, tiles="auto", baseline=300, threads=1,
    ),
    _memory("points_200", 200, 2013, 2902),
    _memory("points_2000", 2000, 2013, 2902, bound_mb=600),
    _memory("points_8000", 8000, 2013, 2902, long=True),
    _memory("image_1000x1500", 2000, 1000, 1500),
    _memory("image_4028x19044", 20_000, 4028, 19044, bound_mb=1500, long=True),
    Case(
        "where_image_small", "where", "parts of a rendered crowd of 300, tiles auto, small SAM, file to file", "small",
        300, tiles="auto",
    ),
    Case(
        "where_vit_b", "where", "parts of a rendered crowd of 500 in one tile, vit_b, file to file", "vit_b",
        500, repeats=1,
    ),
    Case(
        "crops_from_cache", "crops", "8 crops from a photo with 2000 masks: copy kept, or made each time", "small",
        2000, 2013, 2902, baseline=2000, threads=1, host=True, least_ratio=10.0,
    ),
]  # fmt: skip


def choose(cases: list[Case], names: list[str], everything: bool) -> list[Case]:
    """The cases asked for: by name, beginning of a name or shell pattern; without names all but the long ones.

    Raises:
        ValueError: a name fits no case.
    """
    for name in names:
        if not any(_fits(case, name) for case in cases):
            raise ValueError(f"no benchmark is called {name}: see --list")
    if not names:
        return [case for case in cases if everything or not case.long]
    return [case for case in cases if any(_fits(case, name) for name in names)]


def _fits(case: Case, name: str) -> bool:
    return case.name.startswith(name) or fnmatchcase(case.name, name)
