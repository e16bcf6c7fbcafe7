"""Files that follow from the settings' models: `docs/settings.md`, `config.yaml` and the JSON schema.

Example:
    python -m crowdmask.config_docs settings > docs/settings.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from crowdmask import config

_OPENING = """\
# Settings

Generated from `src/crowdmask/config` by `make schema`; edit there.

`config.yaml` holds every key at its default. Add to it with files of your own, which are merged key by key:

    snakemake --cores 8 --configfile mine.yaml -- results/mine/masks.json

Unknown keys, wrong types (also text for a number, or `1` for `true`) and values out of range are refused, with the
key's path and what is allowed. Lengths are pixels of the original image unless the table says otherwise; *working
pixels* are those of the resized copy that a stage works on.

## Which value holds

From weak to strong:

1. the default in the tables below,
2. the global section (`exclusion:` at the top level),
3. the preset: the data set's own `preset`, else the global one,
4. the data set's own section (`datasets.NAME.exclusion:`), which may name only the keys that differ.

A preset is stronger than the global sections, because `config.yaml` sets every key of those. `preset: null` in a data
set means the global one; `--configfile` and `--config` change the configuration itself, before any of this.

    datasets:
      mine:
        format: shanghaitech
        root: /data/ShanghaiTech/part_A
        preset: dpmo
        exclusion: {r_max: 150.0}    # stronger than the preset's 200
"""


def _default(model: type[BaseModel], field: str) -> str:
    info = model.model_fields[field]
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return f"`{json.dumps(value)}`"


def _row(model: type[BaseModel], field: str) -> str:
    schema = config.property_schema(model, field)
    kind, limits = config.kind_and_range(schema)
    if "const" in schema:
        kind, limits = "", ""
    if kind.startswith("one of "):
        choices, null = kind.removeprefix("one of ").removesuffix(", or null"), kind.endswith(", or null")
        kind, limits = f"choice{' or null' if null else ''}", ", ".join(f"`{c}`" for c in choices.split(", "))
    elif "pattern" in str(schema) and limits:
        limits = limits.replace("matching ", "matching `") + "`"
    kind = kind.removeprefix("a ").replace(", or ", " or ").replace("or a ", "or ")
    cells = [
        f"`{field}`",
        kind,
        _default(model, field),
        limits.removeprefix("that is "),
        model.model_fields[field].description or "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(model: type[BaseModel], fields: list[str]) -> str:
    head = ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(_row(model, field) for field in fields)]) + "\n"


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").splitlines()[0]


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Name and model of every section at the top level of the configuration, in the order of `config.yaml`."""
    for name, info in config.Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield name, info.annotation


def settings_page() -> str:
    """Text of `docs/settings.md`."""
    top = [name for name in config.Config.model_fields if name not in dict(sections()) and name != "datasets"]
    parts = [_OPENING, "## Top level\n", _table(config.Config, top)]
    for name, model in sections():
        parts += [f"## `{name}`\n", f"{_summary(model)}\n", _table(model, list(model.model_fields))]
        if model is config.Ablation:
            parts += [
                f"Each variant: {_summary(config.Variant)}\n",
                _table(config.Variant, list(config.Variant.model_fields)),
            ]
    parts += [
        "## `datasets`\n",
        "One entry a data set: `NAME: {format: ..., ...}`. The name (letters, digits, `_`, `.`, `-`) becomes the "
        "folder below `results`.\nEvery entry may have a `preset`, `protocols` (below) and parts of the sections "
        f"{', '.join(f'`{name}`' for name in config.SECTIONS)}; the rest depends on its format.\n",
    ]
    for tag, model in config.FORMATS.items():
        own = [name for name in model.model_fields if name not in config.Overrides.model_fields and name != "format"]
        parts += [f"### `format: {tag}`\n", f"{_summary(model)}\n", _table(model, own)]
    parts += ["## `datasets.NAME.protocols`\n", f"{_summary(config.Protocols)}\n", _protocols()]
    parts += [
        "## Presets\n",
        "What the two papers print. Everything that they leave open keeps the value that it has.\n",
    ]
    head = ["| preset | section | key | value |", "|---|---|---|---|"]
    rows = [
        f"| `{preset}` | `{section}` | `{key}` | `{json.dumps(value)}` |"
        for preset, changed in config.PRESETS.items()
        for section, values in changed.items()
        for key, value in values.items()
    ]
    parts.append("\n".join([*head, *rows]) + "\n")
    return "\n".join(parts)


def _protocols() -> str:
    """Tables of a data set's `protocols` and of its parts."""
    models: dict[str, type[BaseModel]] = {
        "": config.Protocols,
        "`validation`, and each entry of `labelled`": config.Part,
        "`folds`": config.Folds,
    }
    parts = []
    for title, model in models.items():
        parts += [f"{title}: {_summary(model)}\n"] if title else []
        parts.append(_table(model, list(model.model_fields)))
    return "\n".join(parts)


def config_sections() -> str:
    """The part of `config.yaml` below its data sets: every key at its default, with what it means."""
    lines: list[str] = []
    names = dict(sections())
    for name in config.Config.model_fields:
        if name == "datasets":
            continue
        if name not in names:
            lines.append(_yaml_line(config.Config, name, ""))
            continue
        lines += ["", f"# {_summary(names[name])}", f"{name}:"]
        lines += [_yaml_line(names[name], field, "  ") for field in names[name].model_fields]
    return "\n".join(lines) + "\n"


def _yaml_line(model: type[BaseModel], field: str, indent: str) -> str:
    value: Any = model.model_fields[field].get_default(call_default_factory=True)
    text = value if isinstance(value, str) else json.dumps(value)
    comment = model.model_fields[field].description
    choices = config.accepted(model, field)
    choices = f" [{choices.removeprefix('one of ')}]" if choices.startswith("one of ") else ""
    line = f"{indent}{field}: {text}  # {comment}{choices}"
    return line if len(line) <= 120 else f"{indent}#{choices}\n{indent}{field}: {text}  # {comment}"


def schema_text() -> str:
    """Text of `workflow/schemas/config.schema.json`."""
    return json.dumps(config.schema(), indent=2, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings": settings_page, "config": config_sections, "schema": schema_text}


def main(arguments: list[str]) -> int:
    """Print one of `PAGES`."""
    if len(arguments) != 1 or arguments[0] not in PAGES:
        print(f"usage: python -m crowdmask.config_docs {{{','.join(PAGES)}}}", file=sys.stderr)
        return 2
    sys.stdout.write(PAGES[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
