"""Every setting, its default and its range; `config.yaml` and the JSON schema are checked against it.

Precedence, weakest first: the defaults here, the global sections of the configuration, the preset (the data set's own
one, else the global one), the data set's own sections. A preset is stronger than the global sections because
`config.yaml` holds every key of those. Lengths are pixels of the original image unless the description says otherwise.

`config.yaml`, `workflow/schemas/config.schema.json` and `docs/settings.md` follow from the models here: see
`crowdmask.config_docs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from crowdmask.config.ablation import BASELINES, OWN, Ablation, Candidates, Variant
from crowdmask.config.base import NAME, Section, canonical
from crowdmask.config.datasets import (
    FORMATS,
    Coco,
    Dataset,
    Fdst,
    FolderDataset,
    Jhu,
    LabelMap,
    LabelMe,
    Nwpu,
    Overrides,
    Points,
    ShanghaiTech,
    Synthetic,
    Ucf,
)
from crowdmask.config.faults import accepted, faults_of, kind_and_range, property_schema, typed
from crowdmask.config.method import (
    Corrections,
    Exclusion,
    Export,
    Prompt,
    PromptMode,
    Review,
    Sam,
    Superpixels,
    Tiles,
    TrainSam,
)
from crowdmask.config.protocols import Folds, Part, Protocols
from crowdmask.errors import SettingsError

__all__ = [
    "BASELINES",
    "FORMATS",
    "NAME",
    "OWN",
    "PRESETS",
    "SECTIONS",
    "VARIED",
    "Ablation",
    "Candidates",
    "Coco",
    "Config",
    "Corrections",
    "Dataset",
    "Exclusion",
    "Export",
    "Fdst",
    "FolderDataset",
    "Folds",
    "Jhu",
    "LabelMap",
    "LabelMe",
    "Nwpu",
    "Overrides",
    "Part",
    "Points",
    "Prompt",
    "PromptMode",
    "Protocols",
    "Review",
    "Sam",
    "Section",
    "ShanghaiTech",
    "Superpixels",
    "Synthetic",
    "Tiles",
    "TrainSam",
    "Ucf",
    "Variant",
    "accepted",
    "canonical",
    "kind_and_range",
    "load",
    "property_schema",
    "schema",
    "section_for",
    "typed",
]


class Config(Section):
    """The whole configuration."""

    datasets: dict[Annotated[str, Field(pattern=NAME)], Dataset] = Field(
        default_factory=dict, description="data sets by name; the name becomes the folder below `results`"
    )
    preset: Literal["edp-sam", "dpmo"] | None = Field(None, description="settings of a paper for all data sets")
    batches: int = Field(64, ge=1, le=10_000, description="largest number of jobs a split and stage")
    gpu: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = Field(
        "auto",
        description="GPUs that a SAM or training job asks for and uses; auto = 1 where this machine has one, else 0",
    )
    superpixels: Superpixels = Superpixels()
    prompt: Prompt = Prompt()
    sam: Sam = Sam()
    tiles: Tiles = Tiles()
    exclusion: Exclusion = Exclusion()
    export: Export = Export()
    corrections: Corrections = Corrections()
    review: Review = Review()
    ablation: Ablation = Ablation()
    candidates: Candidates = Candidates()
    train_sam: TrainSam = TrainSam()

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> Config:
        faults: list[str] = []
        for name, entry in self.datasets.items():
            faults += _faults(self, name, None, entry, f"datasets.{name}")
        if not faults:
            # A variant's own mistakes do not depend on the data set; which data set is at fault is said for the others.
            for label, variant in self.ablation.variants.items():
                if label in (OWN, *BASELINES):
                    faults.append(f"ablation.variants.{label}: the name is taken, by {OWN} settings or by a baseline")
                found = _faults(self, None, label, variant, f"ablation.variants.{label}")
                for name in () if found else self.datasets:
                    theirs = _faults(self, name, label, variant, f"ablation.variants.{label}")
                    found += [f"{fault} (data set {name})" for fault in theirs]
                faults += found
        if faults:
            raise ValueError("; ".join(faults))
        return self


SECTIONS: dict[str, type[Section]] = {
    "superpixels": Superpixels,
    "prompt": Prompt,
    "sam": Sam,
    "tiles": Tiles,
    "exclusion": Exclusion,
    "export": Export,
}

VARIED = tuple(name for name in Variant.model_fields if name in SECTIONS)
"""Sections that a variant of the ablation may change."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # XMask paper: point and SLIC superpixel as dual prompts, unclamped circle, no tiles mentioned.
    "edp-sam": {
        "superpixels": {"n_segments": 1000},
        "prompt": {"mode": "point+superpixel"},
        "tiles": {"mode": "none"},
        "exclusion": {"r_min": 0.0, "r_max": None, "fallback": "circle"},
    },
    # DPMO-RPS paper: point prompts only, radius within [5, 200] pixels of an image with shortest side >= 512.
    "dpmo": {
        "prompt": {"mode": "point"},
        "tiles": {"mode": "none"},
        "exclusion": {"r_min": 5.0, "r_max": 200.0, "min_side": 512, "max_side": 2048, "fallback": "circle"},
    },
}
"""What the two papers print; everything that they leave open keeps our defaults."""


def _resolve(config: Config, dataset: str | None, section: str, variant: str | None = None) -> Section:
    """Settings of a section; without data set the global ones."""
    values = getattr(config, section).model_dump()
    changed = config.ablation.variants[variant] if variant is not None else None
    entry = config.datasets[dataset] if dataset is not None else None
    preset = (entry.preset if entry else None) or config.preset
    values.update(PRESETS[preset].get(section, {}) if preset else {})
    values.update(getattr(entry, section) if entry else {})
    if changed and section in VARIED:
        values.update(PRESETS[changed.preset].get(section, {}) if changed.preset else {})
        values.update(getattr(changed, section))
    return SECTIONS[section].model_validate(values)


def _faults(config: Config, dataset: str | None, variant: str | None, given: Section, prefix: str) -> list[str]:
    """What is wrong with the sections that a data set or a variant gives, one clause each."""
    faults: list[str] = []
    found: dict[str, Any] = {}
    for section, model in SECTIONS.items():
        try:
            found[section] = _resolve(config, dataset, section, variant)
        except ValidationError as error:
            faults += faults_of(error, model, getattr(given, section), prefix=f"{prefix}.{section}")
    if not faults and found["exclusion"].constraint == "none" and found["sam"].window != "tile":
        faults.append(
            f"{prefix}.exclusion.constraint: none needs `sam.window: tile`; else masks end at a window around the point"
        )
    return faults


def section_for(config: Config, dataset: str, section: str, variant: str | None = None) -> Section:
    """Settings of one section as they hold for one data set.

    Args:
        config: The configuration.
        dataset: Name of the data set: global section, then preset, then the data set's own.
        section: One of `SECTIONS`.
        variant: Name of a variant of the ablation, whose preset and sections are stronger than all of these.
    """
    return _resolve(config, dataset, section, variant)


def load(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration as read from YAML.

    Raises:
        SettingsError: one clause for each fault, with the key's path and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise SettingsError(f"configuration: {'; '.join(faults_of(error, Config, raw))}") from None


def schema() -> dict[str, Any]:
    """JSON schema of the configuration file, generated from the models.

    Validate without filling in its defaults (Snakemake's `validate(..., set_default=False)`): a default of one data set
    format is an unknown key of the others.
    """
    result = Config.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    partial: list[type[Section]] = [*FORMATS.values(), Variant]
    for model in partial:
        properties = result["$defs"][model.__name__]["properties"]
        for section in properties.keys() & SECTIONS.keys():
            # Every key of a section has a default, so a section given in part fits the section's own schema.
            properties[section] = {
                "$ref": f"#/$defs/{SECTIONS[section].__name__}",
                "description": properties[section]["description"],
            }
    return result
