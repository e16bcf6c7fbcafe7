"""Which format a folder has, by trying every reader on it: the entry of the configuration that reads it.

Nothing is guessed from names alone: a reader must list the images, and read one of the first annotations where its
layout could be that of another format too.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crowdmask import config
from crowdmask.datasets import READERS, coco, points, reader_for
from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.datasets.folders import FolderReader, file_names, folder_names
from crowdmask.errors import DataError

LEVELS = 2
"""How many levels below a folder are searched."""

_MOST_FOLDERS = 200
_MOST_FILES = 20  # more JSON files or tables than this belong to single images
_TRIED = 3  # annotations read to tell one format from another
_SPECIFIC = frozenset({"shanghaitech", "ucf"})  # names of complete pairs say enough
_COLUMNS = {
    "image": "image file_name filename file image_name image_file img img_name image_path path name image_id",
    "x": "x px x_px point_x pos_x cx x_center center_x col column",
    "y": "y py y_px point_y pos_y cy y_center center_y row",
    "split": "split set subset",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A data set in a folder.

    Attributes:
        name: Name for the configuration.
        entry: Its entry.
        reader: Its reader.
        refs: Its images; empty where the list cannot be made.
        problem: Why the list cannot be made; empty where it can.
    """

    name: str
    entry: dict[str, Any]
    reader: Reader
    refs: list[ImageRef]
    problem: str


def find(folder: Path, levels: int = LEVELS) -> list[Found]:
    """Data sets in a folder, or, where it is none itself, in the folders below.

    Args:
        folder: The folder.
        levels: Levels below that are searched.

    Returns:
        Data sets with different names, by folder; those with a problem where no format fits without one.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder", "Name the folder of a data set, or one above.")
    if not _is_text(str(folder)):
        raise DataError(ascii(str(folder)), "its name is not UTF-8, so no configuration can name it", "Rename it.")
    taken: set[str] = set()
    result = []
    for found in _find(folder, levels):
        name, number = found.name, 2
        if name in taken:
            name = f"{name}-{found.entry['format']}"
        while name in taken:
            name, number = f"{found.name}-{number}", number + 1
        taken.add(name)
        result.append(replace(found, name=name))
    return result


def _find(folder: Path, levels: int) -> list[Found]:
    here = found_at(folder)
    if here or levels == 0:
        return here
    try:
        below = list(folder_names(folder))
    except DataError as error:
        _log.warning("%s", error)
        return []
    if len(below) > _MOST_FOLDERS:
        _log.warning("%s: only the first %d of %d folders are searched", folder, _MOST_FOLDERS, len(below))
    result = []
    for name in below[:_MOST_FOLDERS]:
        if _is_text(name):
            result += _find(folder / name, levels - 1)
        else:
            _log.warning("%s: its name is not UTF-8, so no configuration can name it; left out", ascii(name))
    return result


def _is_text(name: str) -> bool:
    """Whether a name has no bytes that are not UTF-8."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def found_at(folder: Path) -> list[Found]:
    """Formats that a folder has; those whose list fails only where none succeeds."""
    tried = [_first_that_lists(folder, entries) for entries in _entries(folder)]
    found = [attempt for attempt in tried if attempt is not None]
    return [attempt for attempt in found if not attempt.problem] or found


def _entries(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """For each format that may fit, the entries to try in turn."""
    try:
        files = file_names(folder)
    except DataError:
        return
    for kind in READERS:
        base = {"format": kind, "root": str(folder)}
        if kind == "coco":
            yield from _coco_entries(folder, files, base)
        elif kind == "points":
            yield from _points_entries(folder, files, base)
        elif kind == "label_map":
            yield [base, base | {"labels": "masks"}]
        else:
            yield [base]


def _coco_entries(folder: Path, files: list[str], base: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """One list for each folder of images that COCO files refer to."""
    names = [name for name in files if name.lower().endswith(".json")]
    if (folder / "annotations").is_dir():
        below = [name for name in file_names(folder / "annotations") if name.lower().endswith(".json")]
        names += [f"annotations/{name}" for name in below] if len(below) <= _MOST_FILES else []
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in sorted(names, key=_rank) if len(names) <= _MOST_FILES else []:
        first = ""
        try:
            content = coco.load(folder / name)
            first = content.names[0] if content.names else ""
        except DataError as error:
            if error.problem.startswith(
                ("not a COCO file", "not a readable JSON", "the file is empty", "cannot be read")
            ):
                continue
        groups.setdefault(tuple(_images_folders(folder, first)), {}).setdefault(split_of(name), name)
    for places, splits in groups.items():
        named = splits if len(splits) > 1 else {_only(split): name for split, name in splits.items()}
        annotations = dict(sorted(named.items()))
        yield [base | {"images": images, "annotations": annotations} for images in places]


def _rank(name: str) -> tuple[bool, bool, str]:
    """Of several files for a split, that with keypoints comes first, then that with instances."""
    return "keypoint" not in name, "instance" not in name, name


def split_of(name: str) -> str:
    """Split that a file name speaks of (`train2017` of `annotations/instances_train2017.json`), else its stem."""
    stem = os.path.splitext(name.rpartition("/")[2])[0]
    told = re.search(r"(?<![A-Za-z])(train|val|test)[a-z]*[0-9]*(?![A-Za-z])", stem)
    return told.group() if told else _plain(stem)


def _only(split: str) -> str:
    return split if re.match("train|val|test", split) else "all"


def _images_folders(folder: Path, first: str) -> list[str]:
    """Folders below the root in which an image with this name lies; the usual ones where there is none."""
    usual = [name for name in ("images", ".") if (folder / name).is_dir()]
    places = [*usual, *folder_names(folder)]
    if (folder / "images").is_dir():
        places += [f"images/{name}" for name in folder_names(folder / "images")]
    relative = first.replace("\\", "/")
    safe = relative and not relative.startswith("/") and ".." not in relative.split("/")
    holding = [place for place in dict.fromkeys(places) if safe and (folder / place / relative).is_file()]
    return holding or usual


def _points_entries(folder: Path, files: list[str], base: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    tables = [name for name in files if name.lower().endswith((".csv", ".tsv", ".parquet"))]
    for name in tables if len(tables) <= _MOST_FILES else []:
        columns = _columns_in(points.header_of(folder / name))
        if columns is not None:
            places = _images_folders(folder, "") + [place for place in folder_names(folder) if place != "images"]
            yield [base | {"table": name, "images": images, **columns} for images in places]


def _columns_in(header: list[str]) -> dict[str, str] | None:
    """Columns of a table by the names that they usually have, any case; None without image, x and y."""
    lower = [name.lower() for name in header]
    found = {}
    for key, names in _COLUMNS.items():
        usual = [header[lower.index(name)] for name in names.split() if lower.count(name) == 1]
        if usual:
            found[key] = usual[0]
    return found if {"image", "x", "y"} <= found.keys() else None


def _first_that_lists(folder: Path, entries: Iterable[dict[str, Any]]) -> Found | None:
    """The first entry whose images can be listed, else the first that has the layout."""
    first = None
    for entry in entries:  # of folders of images there may be many, so no more are tried than are needed
        attempt = _attempt(folder, entry)
        if attempt is not None and not attempt.problem:
            return attempt
        first = first or attempt
    return first


def _attempt(folder: Path, entry: dict[str, Any]) -> Found | None:
    """A data set as an entry has it; None where the folder has another layout."""
    name = _plain(folder.name or folder.resolve().name)
    reader = reader_of(name, entry)
    if isinstance(reader, FolderReader):
        try:
            if not reader.splits(folder):
                return None
        except DataError as error:
            # Only where a table was recognised by its columns is this worth a message.
            return Found(name, _short(entry), reader, [], str(error)) if entry["format"] == "points" else None
    problem, refs = "", []
    try:
        refs = reader.list_images()
    except DataError as error:
        problem = str(error)
    certain = entry["format"] in ("coco", "points") or (entry["format"] in _SPECIFIC and not problem)
    if not certain and not _reads_one(reader, refs):
        return None
    return Found(name, _short(entry), reader, refs, problem)


def _reads_one(reader: Reader, refs: list[ImageRef]) -> bool:
    """Whether one of the first annotations can be read; of a list that fails, those of its complete pairs."""
    if not refs and isinstance(reader, FolderReader):
        try:
            refs = reader.pairing().refs
        except DataError:
            return False
    for ref in refs[:_TRIED]:
        try:
            reader.read_annotation(ref)
            return True
        except DataError:
            continue
    return False


def reader_of(name: str, entry: dict[str, Any]) -> Reader:
    """Reader of an entry, checked as the configuration checks it."""
    return reader_for(name, config.load({"datasets": {name: entry}}).datasets[name], "results")


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what is the default."""
    model = config.FORMATS[entry["format"]]
    defaults = {key: info.default for key, info in model.model_fields.items()}
    return {key: value for key, value in entry.items() if key in ("format", "root") or value != defaults.get(key)}


def _plain(text: str) -> str:
    """A name that the configuration allows."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or "data"
