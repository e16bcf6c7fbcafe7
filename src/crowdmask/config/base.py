"""What all settings have in common."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of data sets: they become folder names and Snakemake wildcards."""


class Section(BaseModel):
    """Base of all settings: immutable, unknown keys refused, nothing converted but whole numbers to decimal ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def canonical(value: Any) -> str:
    """JSON text that is equal exactly when the settings are equal (sorted keys, no spaces)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
