"""Data sets: `reader_for` gives the reader of an entry of the configuration.

Snakemake imports this package to list images, so nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module

from crowdmask import config
from crowdmask.datasets.base import Reader

READERS: dict[str, tuple[str, str]] = {
    "shanghaitech": ("shanghaitech", "ShanghaiTechReader"),
    "ucf": ("ucf", "UcfReader"),
    "jhu": ("jhu", "JhuReader"),
    "nwpu": ("nwpu", "NwpuReader"),
    "fdst": ("fdst", "FdstReader"),
    "coco": ("coco", "CocoReader"),
    "points": ("points", "PointsReader"),
    "labelme": ("labelme", "LabelMeReader"),
    "label_map": ("label_map", "LabelMapReader"),
}
"""Module and class of each format that is read from a folder."""


def reader_for(name: str, entry: config.Dataset, results: str) -> Reader:
    """Reader of a data set of the configuration; opens nothing.

    Args:
        name: Name of the data set.
        entry: Its settings.
        results: The results folder, where rendered scenes lie.
    """
    if isinstance(entry, config.FolderDataset):
        module, reader = READERS[entry.format]
        return getattr(import_module(f"crowdmask.datasets.{module}"), reader)(name, entry)
    from crowdmask.datasets.rendered import RenderedReader

    return RenderedReader(name, entry, results)
