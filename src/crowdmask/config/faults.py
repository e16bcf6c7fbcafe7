"""What a faulty configuration says, in words; and the types that the command line takes away."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from crowdmask.config.datasets import FORMATS

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_NAMES = "letters, digits, '_', '.' and '-', a letter or digit first"
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


def faults_of(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str = "") -> list[str]:
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
            message = f"not a name of a data set: {_NAMES}"
        elif fault["loc"][-1:] == ("[key]",):
            pattern = kind == "string_pattern_mismatch"
            message = f"not a name: {_NAMES}" if pattern else "a key must be text"
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
    if "datasets" in model.model_fields and len(rest) > 1 and rest[0] == "datasets":
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
        below, named = _section_in(model.model_fields[key].annotation)
        if below is None or not rest:
            break
        if named:
            keys.append(str(rest.pop(0)))
            if rest == ["[key]"]:
                break
        model, field = below, None
    return keys, model, field


def _section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section of a field, also of one that may be null, and whether the field holds sections by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is dict:
        return _section_in(get_args(annotation)[1])[0], True
    found = [_section_in(part) for part in get_args(annotation) if part is not type(None)]
    return found[0] if len(found) == 1 else (None, False)


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
        if item.startswith("one of "):
            return f"a list, each {item}", ""
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
