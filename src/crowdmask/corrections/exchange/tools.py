"""Which tools there are: names for `--to`, and the module of each; nothing is imported before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crowdmask.corrections.exchange.base import File

TOOLS = {
    "coco": "coco",
    "cvat": "cvat",
    "labelme": "labelme",
    "label-studio": "label_studio",
    "label-map": "label_map",
}
"""Module of each tool in this package. What a module offers: `crowdmask.corrections.exchange.base`."""

LIMIT = 800
"""Most shapes of a picture, unless people say otherwise: the pages of the tools get slow above about 1,000."""
MARGIN = 32
"""Pixels of the image shown around a crop and around its masks, unless people say otherwise."""


def module(tool: str) -> Any:
    """The module of a tool, one of `TOOLS`."""
    return import_module(f"crowdmask.corrections.exchange.{TOOLS[tool]}")


def of(file: File) -> Any | None:
    """The module whose format a file is of, by its content; None where it is of none."""
    for tool in TOOLS:
        found = module(tool)
        if found.belongs(file):
            return found
    return None
