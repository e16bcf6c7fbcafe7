"""NWPU-Crowd.

Images in `images_part1` to `images_part5` as downloaded, or in `images`, or in such folders one level below them, as
archives unpack at times; annotations in `jsons/0001.json` and
`mats/0001.mat`, which say the same (the JSON file counts where both are there); lists `train.txt`, `val.txt` and
`test.txt`, whose rows begin with the id: `id level illumination`.

JSON: `img_id`, `human_num`, `points` (x, y) and `boxes` (x0, y0, x1, y1), in pixels and in one order. MATLAB:
`annPoints` and `annBoxes`. The first release has no boxes. Images without people are part of the data set; those of
the test split have no published annotation. Without a list the published numbers decide: train 0001 to 3109, val 3110
to 3609, test 3610 to 5109. Source: Wang et al., "NWPU-Crowd: A Large-Scale Benchmark for Crowd Counting and
Localization", 2020, and the authors' sample code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.folders import (
    FolderReader,
    Split,
    file_names,
    files_by_id,
    folder_called,
    folder_names,
    image_stem,
)
from crowdmask.datasets.jsons import number_rows, read_json
from crowdmask.datasets.ucf import as_points, as_rows, mat_variable
from crowdmask.errors import DataError

_IMAGES = re.compile(r"images(_part\d+[a-z]?)?", re.IGNORECASE)
_ANNOTATIONS = (("jsons", ".json"), ("mats", ".mat"))
_LAST = {"train": 3109, "val": 3609, "test": 5109}
_BOX = ("x0", "y0", "x1", "y1")


class NwpuReader(FolderReader):
    """Reader of NWPU-Crowd: splits `train`, `val` and `test`; boxes. Images of `test` may lack their annotation."""

    title = "NWPU-Crowd"
    expected = (
        "images_part1 to images_part5 (or images) with 0001.jpg, jsons with 0001.json (or mats with 0001.mat), and "
        "train.txt, val.txt, test.txt"
    )
    hidden = frozenset({"test"})

    def __init__(self, name: str, entry: config.FolderDataset) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._listed: dict[str, dict[str, tuple[str, int, list[str]]]] | None = None
        self._twice: list[tuple[str, str, DataError]] = []  # ids that stand in a list again, by split

    def splits(self, root: Path) -> list[Split]:
        """All three, where there are annotations beside images or lists; reads the lists of the root.

        Raises:
            DataError: an unreadable list; see also `FolderReader.splits`.
        """
        images = _image_folders(root)
        annotations = [name for wanted, _ in _ANNOTATIONS if (name := folder_called(root, wanted))]
        if not annotations or not (images or _list_files(root)):
            return []
        if root == Path(self.root):
            self._listed = None
            self._lists()
        first = images[0] if images else "images"
        return [Split(name, first, annotations[0]) for name in sorted(_LAST)]

    def image_files(self, split: Split) -> Iterator[tuple[str, str]]:
        """Images of all parts that belong to the split; see `FolderReader.image_files`."""
        root = Path(self.root)
        found = [pair for folder in _image_folders(root) for pair in files_by_id(root, folder, image_stem)]
        return self._belonging(sorted(found), split)

    def annotation_files(self, split: Split) -> Iterator[tuple[str, str]]:
        """JSON files of the split, and MATLAB files where there is none; see `FolderReader.annotation_files`."""
        root = Path(self.root)
        seen: set[str] = set()
        for wanted, suffix in _ANNOTATIONS:
            folder = folder_called(root, wanted)
            found = list(files_by_id(root, folder, partial(_stem, suffix=suffix))) if folder else []
            yield from self._belonging((pair for pair in found if pair[0] not in seen), split)
            seen.update(image_id for image_id, _ in found)

    def annotation_name(self, image_id: str) -> str:
        """`0001.json` for `0001`."""
        return f"{image_id}.json"

    def named(self, split: Split) -> Mapping[str, tuple[str, int]]:
        """List and row of each id of the split's list, where it stands first; see `FolderReader.named`."""
        lists = self._lists()
        for found, image_id, error in self._twice:
            if found == split.name:
                self._fault("duplicate_id", found, image_id, error)
        return {image_id: (name, row) for image_id, (name, row, _) in lists.get(split.name, {}).items()}

    def side_files(self, split: str) -> list[str]:
        """The list of the split, which has levels of its images; see `FolderReader.side_files`."""
        return [name for found, name in _list_files(Path(self.root)).items() if found == split]

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Points, boxes where there are some, declared count, and the levels of the list; see `base.Reader`."""
        path, way_out = Path(self.root, ref.annotation), self.way_out(ref)
        labels = {}
        _, _, levels = self._lists().get(ref.split, {}).get(ref.image_id, ("", 0, []))
        if len(levels) == 2:
            labels = {"level": levels[0], "illumination": levels[1]}
        if path.suffix.lower() == ".mat":
            points = as_points(path, mat_variable(path, "annPoints", way_out), way_out)
            value = mat_variable(path, "annBoxes", way_out, optional=True)
            boxes = None if value is None else as_rows(path, value, way_out, "box", _BOX)
            return Annotation(points, _paired(path, points, boxes, way_out), labels=labels)
        content = read_json(path, way_out)
        if not isinstance(content, dict) or "points" not in content:
            raise DataError(path, "no `points`, which an annotation of NWPU-Crowd has", way_out)
        points = number_rows(path, content["points"], 2, "point", way_out)
        boxes = None if content.get("boxes") is None else number_rows(path, content["boxes"], 4, "box", way_out)
        declared = content.get("human_num")
        if declared is not None and (isinstance(declared, bool) or not isinstance(declared, int) or declared < 0):
            raise DataError(path, "`human_num` is not a number of people", way_out)
        if isinstance(content.get("img_id"), str):
            labels["img_id"] = content["img_id"]
        return Annotation(points, _paired(path, points, boxes, way_out), declared, labels=labels)

    def _belonging(self, files: Iterable[tuple[str, str]], split: Split) -> Iterator[tuple[str, str]]:
        """Those of a split; a file that no split has is a fault, told once, with the first split."""
        for image_id, path in files:
            found = self._split_of(image_id)
            if found == split.name:
                yield image_id, path
            elif found is None and split.name == min(_LAST):
                error = DataError(
                    Path(self.root, path),
                    "no list names it, and its number is not that of a published split without list",
                    "Add its id to train.txt, val.txt or test.txt, or take the file out of the folder.",
                )
                self._fault("layout", "", image_id, error)

    def _split_of(self, image_id: str) -> str | None:
        """Split whose list has the id, else by published number among those without list; None where neither says."""
        lists = self._lists()
        for split, listed in lists.items():
            if image_id in listed:
                return split
        number = int(image_id) if re.fullmatch(r"[0-9]{1,9}", image_id) else 0
        published = next((split for split, last in _LAST.items() if 0 < number <= last), None)
        return None if published in lists else published

    def _lists(self) -> dict[str, dict[str, tuple[str, int, list[str]]]]:
        """Of each split that has a list: by id, the list's file name, the row, and what else stands there."""
        if self._listed is None:
            result: dict[str, dict[str, tuple[str, int, list[str]]]] = {}
            self._twice = []
            seen: dict[str, str] = {}
            for split, file_name in _list_files(Path(self.root)).items():
                result[split] = {}
                for row, (image_id, *rest) in _rows(Path(self.root, file_name)):
                    if image_id in seen:
                        problem = f"{image_id[:60]!a} stands in {seen[image_id]} already"
                        error = DataError(Path(self.root, file_name), problem, "Keep one of the two lines.", row=row)
                        self._twice.append((split, image_id, error))
                        continue
                    seen[image_id] = file_name
                    result[split][image_id] = (file_name, row, rest)
            self._listed = result
        return self._listed


def _stem(file_name: str, suffix: str) -> str | None:
    stem, ending = os.path.splitext(file_name)
    return stem if ending.lower() == suffix else None


def _image_folders(root: Path) -> list[str]:
    """Folders of images, also one level deeper (`images/images_part1`, or as some archives unpack)."""
    if not root.is_dir():
        return []
    found = [name for name in folder_names(root) if _IMAGES.fullmatch(name)]
    return found + [
        f"{name}/{below}" for name in found for below in folder_names(root / name) if _IMAGES.fullmatch(below)
    ]


def _list_files(root: Path) -> dict[str, str]:
    """File name of the list of each split that has one."""
    result: dict[str, str] = {}
    for name in file_names(root):
        split = name.lower().removesuffix(".txt")
        if split in _LAST and name.lower() != split:
            if split in result:
                raise DataError(root / name, f"the list {result[split]} is there too", "Keep one of them.")
            result[split] = name
    return result


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """0-based row and words of each line that is not blank; the id may have the suffix of an image."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(path, f"the list cannot be read ({reason})", "Repair it, or take it away.") from None
    for row, line in enumerate(lines):
        words = line.split()
        if words:
            yield row, [image_stem(words[0]) or words[0], *words[1:]]


def _paired(path: Path, points: np.ndarray, boxes: np.ndarray | None, way_out: str) -> np.ndarray | None:
    """Boxes, one for each point; None where there are points and no box at all."""
    if boxes is None or (len(points) and not len(boxes)):
        return None
    if len(boxes) != len(points):
        raise DataError(path, f"{len(points)} points, but {len(boxes)} boxes", way_out)
    return boxes
