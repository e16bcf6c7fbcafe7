"""Every setting, its default and its range; `config.yaml` and the JSON schema are checked against it.

Precedence, weakest first: the defaults here, the global sections of the configuration, the preset (the data set's own
one, else the global one), the data set's own sections. A preset is stronger than the global sections because
`config.yaml` holds every key of those. Lengths are pixels of the original image unless the description says otherwise.

`config.yaml`, `workflow/schemas/config.schema.json` and `docs/settings.md` follow from the models here: see
`crowdmask.config_docs`.
"""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdmask.errors import SettingsError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of data sets: they become folder names and Snakemake wildcards."""


class Section(BaseModel):
    """Base of all settings: immutable, unknown keys refused, nothing converted but whole numbers to decimal ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Superpixels(Section):
    """SLIC (methods: n = 1000 as printed by the XMask paper; the rest are our choices)."""

    n_segments: int = Field(1000, ge=1, le=100_000, description="requested number of superpixels an image")
    compactness: float = Field(10.0, gt=0, description="larger = squarer cells")
    sigma: float = Field(0.0, ge=0, description="Gaussian smoothing before SLIC, working pixels")
    max_num_iter: int = Field(10, ge=1, le=1000, description="k-means rounds")
    max_side: int = Field(1024, ge=64, description="SLIC runs on a copy whose longest side is at most this many pixels")


PromptMode = Literal[
    "point",
    "superpixel",
    "point+superpixel",
    "point+superpixel-box",
    "point+superpixel-points",
    "two-pass",
]


class Prompt(Section):
    """What SAM is given for each head."""

    mode: PromptMode = Field("point+superpixel", description="which prompts carry the head point and its superpixel")
    logit: float = Field(6.9, gt=0, le=50, description="superpixel as mask prompt: +logit inside, -logit outside")
    clip_to_circle: bool = Field(
        True, description="cut the superpixel to the circle through the nearest neighbour before prompting"
    )
    neighbours: int = Field(0, ge=0, le=16, description="nearest other heads given as negative points")
    bias: float = Field(3.0, gt=0, le=50, description="two-pass mode: logits added inside, subtracted outside")


class Sam(Section):
    """Which SAM, and where it runs."""

    model: Literal["small", "vit_b", "vit_l", "vit_h"] = Field("small", description="small ships with crowdmask")
    checkpoint: str | None = Field(
        None, description="local checkpoint file; null = shipped, or downloaded to checkpoints/"
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="expected hash of `checkpoint`; null = the official one"
    )
    chunk: int = Field(256, ge=1, le=4096, description="most prompts decoded together; fewer where memory is short")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of what is as large as the image; fp32 is exact, the others are for GPUs"
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads of one job; more changes the last bits of results")


class Tiles(Section):
    """Zoomed crops, so that small heads are large enough for SAM."""

    mode: Literal["none", "fixed", "auto"] = Field("auto", description="auto chooses the zoom from point distances")
    side: int = Field(512, ge=32, description="fixed mode: tile side")
    overlap: float = Field(0.25, ge=0, le=0.75, description="share of a tile's side shared with its neighbour")
    target_px: float = Field(40.0, gt=1, description="auto mode: point distance wanted, in pixels of SAM's input frame")
    max_zoom: float = Field(4.0, ge=1, le=16, description="auto mode: largest enlargement of the original")
    across: float = Field(
        4.0, ge=1, le=64, description="auto mode: at least this many tiles along the longest side, unless that enlarges"
    )


class Exclusion(Section):
    """NNEC: the nearest-neighbour exclusion circle and how masks share contested pixels."""

    r_min: float = Field(5.0, ge=0, le=30, description="smallest radius, working pixels")
    r_max: float | None = Field(200.0, gt=0, description="largest radius, working pixels; null = no limit")
    max_side: int = Field(2048, ge=64, description="working pixels: longest side of the working image is at most this")
    min_side: int | None = Field(None, ge=1, description="working pixels: shortest side is at least this; null = off")
    lone_share: float = Field(0.5, gt=0, le=1, description="radius of a lone point, share of the shorter side")
    fallback: Literal["circle", "half"] = Field(
        "circle", description="mask where SAM gives none: circle, or half of it"
    )
    min_area_px: int = Field(4, ge=0, description="a smaller mask counts as empty, pixels")
    min_area_share: float = Field(0.0, ge=0, lt=1, description="... and below this share of the circle's area")
    tie: Literal["nearest", "normalised", "small_first", "last"] = Field(
        "nearest", description="who owns a contested pixel"
    )
    disjoint: bool = Field(True, description="false = keep overlapping masks")

    @model_validator(mode="after")
    def _ordered(self) -> Exclusion:
        if self.r_max is not None and self.r_max < self.r_min:
            raise ValueError(f"r_max ({self.r_max}) must not be smaller than r_min ({self.r_min})")
        if self.r_min > self.max_side / 64:  # SAM's answer is kept within 32 px of the point in an image of 2048
            raise ValueError(f"r_min ({self.r_min}) must not be larger than max_side / 64 ({self.max_side / 64:g})")
        return self


class Export(Section):
    """What `masks.json` and the pictures contain."""

    category: str = Field("head", min_length=1, description="name of the COCO category")
    overlays: int = Field(4, ge=0, description="pictures a split under results/{dataset}/overlays")


class Corrections(Section):
    """People's edits."""

    folder: str = Field("corrections", min_length=1, description="holds {dataset}/{split}/{image}.json")
    stale: Literal["report", "apply"] = Field(
        "report", description="an edit drawn on another mask or image: report only, or apply all the same"
    )


class TrainSam(Section):
    """Training of the small SAM."""

    model: Literal["small", "vit_b", "vit_l", "vit_h"] = Field("small", description="architecture")
    datasets: tuple[str, ...] = Field((), strict=False, description="data sets with true masks to learn from")
    init: str | None = Field(None, description="checkpoint to start from; null = random weights")
    steps: int = Field(8000, ge=1, description="optimiser steps")
    images: int = Field(4, ge=1, description="crops a step")
    prompts: int = Field(16, ge=1, description="heads a crop")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.02, ge=0, description="weight decay of AdamW")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="of the forward pass; weights stay fp32")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights that are kept")
    seed: int = Field(1, ge=0, description="seed of weights, crops and prompts")
    threads: int = Field(2, ge=1, le=256, description="CPU threads")
    every: int = Field(250, ge=1, description="steps between checkpoints")


class Overrides(Section):
    """Per-data-set settings; each section may be given in part."""

    preset: Literal["edp-sam", "dpmo"] | None = Field(None, description="settings of a paper; see docs/settings.md")
    superpixels: dict[str, Any] = Field(
        default_factory=dict, description="keys of `superpixels` for this data set only"
    )
    prompt: dict[str, Any] = Field(default_factory=dict, description="keys of `prompt` for this data set only")
    sam: dict[str, Any] = Field(default_factory=dict, description="keys of `sam` for this data set only")
    tiles: dict[str, Any] = Field(default_factory=dict, description="keys of `tiles` for this data set only")
    exclusion: dict[str, Any] = Field(default_factory=dict, description="keys of `exclusion` for this data set only")
    export: dict[str, Any] = Field(default_factory=dict, description="keys of `export` for this data set only")


class FolderDataset(Overrides):
    """What every data set read from a folder has."""

    root: str = Field(min_length=1, description="folder as downloaded; relative to the working directory")
    skip_images: tuple[str, ...] = Field((), strict=False, description="images left out, as split/id")
    skip: int = Field(0, ge=0, description="leave out the first images of each split, by file name")
    limit: int | None = Field(None, ge=1, description="then use at most this many of each split")
    exif: Literal["stored", "apply"] = Field(
        "stored", description="points refer to the pixels as stored (MATLAB), or to the rotated picture"
    )


class ShanghaiTech(FolderDataset):
    """ShanghaiTech part A or B."""

    format: Literal["shanghaitech"]


class Ucf(FolderDataset):
    """UCF-QNRF (Train, Test) or UCF_CC_50 (flat folder)."""

    format: Literal["ucf"]


class LabelMap(FolderDataset):
    """Images with instance-id maps (PNG 8/16 bit, NPY): points and true masks."""

    format: Literal["label_map"]
    images: str = Field("images", min_length=1, description="folder of the images below root (or below each split)")
    labels: str = Field("labels", min_length=1, description="folder of the label maps")


class Synthetic(Overrides):
    """Rendered crowds with true masks."""

    format: Literal["synthetic"]
    count: int = Field(8, ge=1, le=100_000, description="scenes")
    people: tuple[int, int] = Field((20, 300), strict=False, description="fewest and most people a scene")
    height: int = Field(768, ge=64, le=8192, description="pixels")
    width: int = Field(1024, ge=64, le=8192, description="pixels")
    seed: int = Field(0, ge=0, description="scene k has seed `seed + k`")
    split: str = Field("test", pattern=NAME, description="name of the one split")

    @model_validator(mode="after")
    def _ordered(self) -> Synthetic:
        low, high = self.people
        if not 0 <= low <= high <= 1500:
            raise ValueError("people must be two numbers with 0 <= fewest <= most <= 1500")
        return self


FORMATS: dict[str, type[Overrides]] = {
    "shanghaitech": ShanghaiTech,
    "ucf": Ucf,
    "label_map": LabelMap,
    "synthetic": Synthetic,
}

Dataset = Annotated[ShanghaiTech | Ucf | LabelMap | Synthetic, Field(discriminator="format")]


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
    train_sam: TrainSam = TrainSam()

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> Config:
        faults: list[str] = []
        for name in self.datasets:
            for section, model in SECTIONS.items():
                try:
                    _resolve(self, name, section)
                except ValidationError as error:
                    own = getattr(self.datasets[name], section)
                    faults += _faults(error, model, own, prefix=f"datasets.{name}.{section}")
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


def _resolve(config: Config, dataset: str, section: str) -> Section:
    entry = config.datasets[dataset]
    preset = entry.preset or config.preset
    values = getattr(config, section).model_dump()
    values.update(PRESETS[preset].get(section, {}) if preset else {})
    values.update(getattr(entry, section))
    return SECTIONS[section].model_validate(values)


def section_for(config: Config, dataset: str, section: str) -> Section:
    """Settings of one section as they hold for one data set (global, preset, then the data set's own)."""
    return _resolve(config, dataset, section)


def load(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration as read from YAML.

    Raises:
        SettingsError: one clause for each fault, with the key's path and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise SettingsError(f"configuration: {'; '.join(_faults(error, Config, raw))}") from None


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "~": None}


def typed(raw: Mapping[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the types of what `--config` gave restored.

    Snakemake hands over `--config exclusion='{r_max: 50}'` as `{"exclusion": {"r_max": "50"}}`: values inside braces
    stay text, and settings refuse text for numbers.

    Args:
        raw: The merged configuration, Snakemake's `config`.
        command_line: The part of it that came from `--config`, Snakemake's `workflow.config_settings.config`.

    Returns:
        A copy of `raw` in which numbers, true, false and null of `command_line` are no longer text.
    """
    result = dict(raw)
    for key, value in command_line.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            result[key] = typed(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = _scalar(value)
    return result


def _scalar(value: Any) -> Any:
    if isinstance(value, list):
        return [_scalar(item) for item in value]
    if not isinstance(value, str):
        return value
    if value in _WORDS:
        return _WORDS[value]
    if _NUMBER.fullmatch(value):
        return int(value) if re.fullmatch(r"[-+]?\d+", value) else float(value)
    return value


def _faults(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str = "") -> list[str]:
    """One clause a faulty key: `exclusion.r_max: must be a number > 0, or null (got -1)`.

    Args:
        error: What pydantic found.
        model: The model that was validated.
        raw: The input that was validated, for the values in the messages.
        prefix: Path of `model` in the configuration.
    """
    clauses: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        keys, owner, field = _locate(fault["loc"], model)
        kind = fault["type"]
        if kind == "value_error":
            message = fault["msg"].removeprefix("Value error, ")
        elif kind == "extra_forbidden":
            known = sorted(owner.model_fields)
            message = f"unknown key{_guess(keys[-1], known)}; allowed here: {', '.join(known)}"
        elif kind.startswith("union_tag_"):
            tag = fault.get("ctx", {}).get("tag")
            keys = [*keys, "format"]
            message = f"must be one of {', '.join(FORMATS)}"
            message = f"is missing; {message}" if tag is None else f"{message} (got {tag!r}){_guess(tag, FORMATS)}"
        elif kind == "invalid_key":
            message = "a key must be text"
        elif len(fault["loc"]) == 3 and fault["loc"][::2] == ("datasets", "[key]"):
            message = "not a name of a data set: letters, digits, '_', '.' and '-', a letter or digit first"
        elif fault["loc"][-1:] == ("[key]",):
            message = "a key must be text"
        elif field is None:
            message = f"must be a section of keys and values (got {reprlib.repr(fault['input'])})"
        else:
            value = _value_at(raw, keys)
            given = f"(got {reprlib.repr(value)}){_hint(owner, field, value)}"
            message = f"must be {accepted(owner, field)}"
            message = f"is missing; {message}" if value is _ABSENT else f"{message} {given}"
        path = ".".join([prefix, *keys] if prefix else keys)
        clauses.setdefault(path, f"{path}: {message}" if path else message)
    return list(clauses.values())


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel], str | None]:
    """Keys of pydantic's location, without its names of union members, then the model and field that it ends in.

    Returns:
        The keys as a person writes them, the model that owns the last one, and its field (None for a key that the
        model does not know, or for a whole data set).
    """
    keys: list[str] = []
    rest = list(loc)
    if model is Config and len(rest) > 1 and rest[0] == "datasets":
        # (datasets, name, format, key, ...): the format is pydantic's, not a key.
        keys = [str(part) for part in rest[:2]]
        if len(rest) < 3 or rest[2] not in FORMATS:
            return keys, model, None
        model, rest = FORMATS[str(rest[2])], rest[3:]
    field = None
    while rest:
        key = str(rest.pop(0))
        keys.append(key)
        if key not in model.model_fields:
            return keys, model, None
        field = key
        annotation = model.model_fields[key].annotation
        if not (rest and isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model, field = annotation, None
    return keys, model, field


_ABSENT = object()


def _value_at(raw: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        if not isinstance(raw, Mapping) or key not in raw:
            return _ABSENT
        raw = raw[key]
    return raw


def _guess(given: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(given), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _hint(model: type[BaseModel], field: str, value: Any) -> str:
    """What most likely went wrong, in a few words, or nothing."""
    if not isinstance(value, str):
        return ""
    kinds = _alternatives(property_schema(model, field))
    choices = [str(choice) for kind in kinds for choice in _choices(kind)]
    if _scalar(value) is not value and any(kind.get("type") in ("number", "integer", "boolean") for kind in kinds):
        return "; it is text: no quotes, and 1.0e-3 instead of 1e-3 in YAML"
    return _guess(value, choices)


def property_schema(model: type[BaseModel], field: str) -> dict[str, Any]:
    """JSON schema of one setting."""
    return model.model_json_schema()["properties"][field]


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", []))


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "object": "a section of keys and values",
}


def kind_and_range(schema: Mapping[str, Any]) -> tuple[str, str]:
    """A setting's type and range in words, from its JSON schema: `("a number", "> 0 and <= 50")`."""
    alternatives = _alternatives(schema)
    if len(alternatives) > 1:
        pairs = [kind_and_range(alternative) for alternative in alternatives]
        return ", or ".join(kind for kind, _ in pairs), "; ".join(limits for _, limits in pairs if limits)
    if choices := _choices(schema):
        return (f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else str(choices[0])), ""
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        item = kind_and_range(items[0])[0].removeprefix("a ")
        plural = {"text": "text values"}.get(item, f"{item}s")
        return (f"a list of {len(items)} {plural}" if "prefixItems" in schema else f"a list of {plural}"), ""
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    limits = " and ".join(f"{sign} {schema[key]}" for key, sign in signs if key in schema)
    if "minimum" in schema and "maximum" in schema:
        limits = f"from {schema['minimum']} to {schema['maximum']}"
    elif schema.get("minLength"):
        limits = "that is not empty"
    elif "pattern" in schema:
        limits = f"matching {schema['pattern']}"
    return _KINDS.get(str(schema.get("type")), "a section of keys and values"), limits


def accepted(model: type[BaseModel], field: str) -> str:
    """What a setting accepts, in words: `a number > 0 and <= 50, or null`."""
    words = []
    for alternative in _alternatives(property_schema(model, field)):
        kind, limits = kind_and_range(alternative)
        words.append(f"{kind} {limits}".strip())
    return ", or ".join(words)


def canonical(value: Any) -> str:
    """JSON text that is equal exactly when the settings are equal (sorted keys, no spaces)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def schema() -> dict[str, Any]:
    """JSON schema of the configuration file, generated from the models.

    Validate without filling in its defaults (Snakemake's `validate(..., set_default=False)`): a default of one data set
    format is an unknown key of the others.
    """
    result = Config.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for model in FORMATS.values():
        properties = result["$defs"][model.__name__]["properties"]
        for section, part in SECTIONS.items():
            # Every key of a section has a default, so a section given in part fits the section's own schema.
            properties[section] = {
                "$ref": f"#/$defs/{part.__name__}",
                "description": properties[section]["description"],
            }
    return result
