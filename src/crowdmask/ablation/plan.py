"""Which tables an ablation needs: variants that have settings in common share what follows from them.

A stage's table of a variant lies at `results/{dataset}/ablation/{stage}/{hash}/`, where the hash is made from the
settings of the stage and of those before it. Where these are the data set's own, it is the ordinary table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crowdmask.config import BASELINES, OWN, VARIED, Config, section_for
from crowdmask.stages import chain_hash

STAGES = ("superpixels", "segment", "exclude")
"""Stages that variants may change."""


@dataclass(frozen=True)
class Row:
    """A row of the ablation's table.

    Attributes:
        name: Of the variant or baseline; `default` for the data set's own settings.
        kind: own, variant or baseline.
        masks: Hash of a variant's masks, or name of the baseline: the folder of its measures.
        changes: Settings that differ from the data set's own, as `section.key`.
    """

    name: str
    kind: str
    masks: str
    changes: dict[str, Any]


def rows(config: Config, dataset: str) -> list[Row]:
    """The data set's own settings, then variants, then baselines, in the order of the configuration."""
    own = Row(OWN, "own", chain_hash(config, dataset, "exclude"), {})
    made = [
        Row(name, "variant", chain_hash(config, dataset, "exclude", name), changes(config, dataset, name))
        for name in config.ablation.variants
    ]
    return [own, *made, *(Row(name, "baseline", name, {}) for name in config.ablation.baselines)]


def changes(config: Config, dataset: str, variant: str) -> dict[str, Any]:
    """Settings of a variant that differ from the data set's own, as `section.key`."""
    own = varied(config, dataset)
    return {key: value for key, value in varied(config, dataset, variant).items() if value != own[key]}


def variant_with(config: Config, dataset: str, stage: str, digest: str) -> str | None:
    """A variant whose table of this stage has this hash; None if there is none."""
    return next((n for n in config.ablation.variants if chain_hash(config, dataset, stage, n) == digest), None)


def folder(config: Config, dataset: str, stage: str, variant: str | None) -> str:
    """Folder of a stage's tables, of a variant or (None) of the data set's own settings."""
    digest = chain_hash(config, dataset, stage, variant)
    if digest == chain_hash(config, dataset, stage):
        return f"results/{dataset}/{stage}"
    return f"results/{dataset}/ablation/{stage}/{digest}"


def masks_folder(config: Config, dataset: str, masks: str) -> str | None:
    """Folder of the masks that measures are taken of: `Row.masks`; None where the configuration has no such masks."""
    if masks in BASELINES:
        return f"results/{dataset}/ablation/baseline/{masks}"
    if masks == chain_hash(config, dataset, "exclude"):
        return folder(config, dataset, "exclude", None)
    variant = variant_with(config, dataset, "exclude", masks)
    return None if variant is None else folder(config, dataset, "exclude", variant)


def varied(config: Config, dataset: str, variant: str | None = None) -> dict[str, Any]:
    """Settings that variants may change, by `section.key`: of one, or (None) the data set's own."""
    sections = {name: section_for(config, dataset, name, variant).model_dump(mode="json") for name in VARIED}
    return {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
