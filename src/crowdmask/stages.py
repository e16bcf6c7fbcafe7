"""What each stage's result depends on: its own section of the settings, and the version of its module.

Rules pass this text as a parameter, so that a job reruns exactly when it changes. Versions are repeated here, not
imported, because Snakemake reads them while it parses and the stages load torch; a test compares the two.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from crowdmask.config import SECTIONS, Config, FolderDataset, LabelMap, canonical, section_for
from crowdmask.files import sha256
from crowdmask.masks import checkpoints

VERSIONS = {
    "render": 1,
    "datasets": 3,
    "truth": 1,
    "splits": 2,
    "superpixels": 1,
    "segment": 2,
    "exclude": 2,
    "merge": 2,
    "export": 2,
    "formats": 1,
    "overlay": 1,
    "review": 1,
    "evaluate": 2,
    "baseline": 1,
    "candidates": 1,
    "measures": 1,
    "ablation": 1,
    "corrections": 1,
    "overview": 1,
    "train_sam": 1,
}
"""Raise a stage's number, here and in its module, when its output changes."""

READS = {"superpixels": ("superpixels",), "segment": ("prompt", "tiles", "sam"), "exclude": ("exclusion",)}
"""Sections that the stages of the method read, in the order of the method."""

ALSO_READS = {"candidates": ("sam", "tiles"), "baseline": ("exclusion",)}
"""Likewise, of stages beside the method."""

NEWER: dict[str, dict[str, Any]] = {
    "prompt": {"box_share": 0.7},
    "sam": {"window": "circle"},
    "exclusion": {"constraint": "nnec"},
}
"""Keys that are younger than results that people have, and left out at the value that was the only one before."""

POINT_FILES = {"ucf": "{}_ann.npy", "jhu": "{}.npy"}
"""Names of files of points that XMask's loaders expect, by format of the data set; else `GT_{}.npy`."""


def settings(config: Config, dataset: str, stage: str, variant: str | None = None) -> str:
    """Canonical JSON of everything in the configuration that changes a stage's result for a data set.

    Args:
        config: The configuration.
        dataset: Name of the data set.
        stage: One of `VERSIONS`.
        variant: Name of a variant of the ablation; None = the data set's own settings.
    """
    entry = config.datasets[dataset]
    names = (READS | ALSO_READS).get(stage, ())
    values: dict[str, Any] = {name: _section(config, dataset, name, variant) for name in names}
    if "sam" in values:
        # A checkpoint is an input file. The weights that ship are known by their hash instead, because their place
        # differs from one installation to the next, and a moved project must not run SAM again.
        if values["sam"].pop("checkpoint") is None and values["sam"]["model"] == "small":
            values["weights"] = _shipped()
    if stage in ("superpixels", "segment", "evaluate", "overlay", "corrections", "review", "candidates", "baseline"):
        values["exif"] = entry.exif if isinstance(entry, FolderDataset) else "stored"
    if stage in ("render", "datasets", "truth"):
        values["entry"] = entry.model_dump(
            mode="json", exclude=set(SECTIONS) | {"preset", "protocols", *_selection(stage)}
        )
    if stage == "splits":  # of images by their names; where they lie does not matter
        values["protocols"] = entry.protocols.model_dump(mode="json")
    if stage == "overview":
        values = {name: section_for(config, dataset, name).model_dump(mode="json") for name in SECTIONS}
        values |= {"corrections": config.corrections.model_dump(), "preset": entry.preset or config.preset}
        values["stages"] = {name: number for name, number in VERSIONS.items() if name not in ("train_sam", "overview")}
    if stage == "merge":
        values["stale"] = config.corrections.stale
        values["disjoint"] = section_for(config, dataset, "exclusion").model_dump()["disjoint"]
    if stage == "export":
        values["category"] = section_for(config, dataset, "export").model_dump()["category"]
    if stage == "formats":
        values["points"] = POINT_FILES.get(entry.format, "GT_{}.npy")
    if stage == "review":
        values["review"] = config.review.model_dump()
    if stage == "candidates":
        values["candidates"] = config.candidates.model_dump()
        values["sam"].pop("window", None)
    return canonical({"version": VERSIONS[stage], **values})


def _section(config: Config, dataset: str, name: str, variant: str | None) -> dict[str, Any]:
    values = section_for(config, dataset, name, variant).model_dump(mode="json")
    for key, before in NEWER.get(name, {}).items():
        if values[key] == before:
            del values[key]
    return values


def chain_hash(config: Config, dataset: str, stage: str, variant: str | None = None) -> str:
    """12 hex digits that say which settings a stage and those before it have: equal where all of them are.

    Versions are not part of it: a stage whose output changes is made anew in the same place.
    """
    read = [name for before in list(READS)[: list(READS).index(stage) + 1] for name in READS[before]]
    text = canonical({name: _section(config, dataset, name, variant) for name in read})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _shipped() -> str:
    return sha256(checkpoints.shipped())


def _selection(stage: str) -> set[str]:
    """Keys of a data set that say which images there are, not what is in them."""
    return {"skip_images", "skip", "limit", "count", "split"} if stage != "render" else {"count"}


def has_truth(config: Config, dataset: str) -> bool:
    """Whether a data set comes with true masks."""
    entry = config.datasets[dataset]
    return isinstance(entry, LabelMap) or not isinstance(entry, FolderDataset)
