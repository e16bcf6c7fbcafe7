"""JHU-CROWD++ (`jhu_crowd_v2.0`).

`train`, `val` and `test`, each with `images/0001.jpg` and `gt/0001.txt`, and with `image_labels.txt`.

A row of `gt/*.txt` is a head: `x y w h occlusion blur`, whole numbers with blanks between; (x, y) is the centre of the
head and of its box, w and h are the approximate size of the box in pixels, occlusion is 1 (visible), 2 (partial) or 3
(full), blur 0 or 1. An empty file is an image without people. A row of `image_labels.txt` is an image:
`id,count,scene,weather,distractor`; weather is 0 (nothing), 1 (fog or haze), 2 (rain) or 3 (snow), and a distractor (1)
is an image that looks like a crowd and shows none. Source: the readme of the data set, and Sindagi et al.,
"JHU-CROWD++: Large-Scale Crowd Counting Dataset and A Benchmark Method", 2020.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.folders import FolderReader, Split, file_names, folder_called
from crowdmask.errors import DataError
from crowdmask.files import reading

_COLUMNS = "x y w h occlusion blur"
_LABELS = "image_labels.txt"


class JhuReader(FolderReader):
    """Reader of JHU-CROWD++: splits `train`, `val` and `test`; boxes, occlusion, blur and image labels."""

    title = "JHU-CROWD++"
    expected = "train, val and test, each with images/0001.jpg and gt/0001.txt"

    def __init__(self, name: str, entry: config.FolderDataset) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._labels: dict[str, dict[str, tuple[int, str]]] = {}

    def splits(self, root: Path) -> list[Split]:
        """Those of train, val and test (any case) that have images or gt; see `FolderReader.splits`."""
        result = []
        for split in ("test", "train", "val"):
            base = folder_called(root, split)
            if base is None:
                continue
            images, points = (folder_called(root / base, name) for name in ("images", "gt"))
            if images or points:
                result.append(Split(split, f"{base}/{images or 'images'}", f"{base}/{points or 'gt'}"))
        return result

    def annotated_id(self, file_name: str) -> str | None:
        """`0001` for `0001.txt`."""
        stem, dot, suffix = file_name.rpartition(".")
        return stem if dot and suffix.lower() == "txt" else None

    def annotation_name(self, image_id: str) -> str:
        """`0001.txt` for `0001`."""
        return f"{image_id}.txt"

    def side_files(self, split: str) -> list[str]:
        """The list of image labels; see `FolderReader.side_files`."""
        base = folder_called(Path(self.root), split)
        return [] if base is None else [f"{base}/{name}" for name in self._named_labels(Path(base))]

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Points, boxes, `occlusion` and `blur` of each head, and the labels of the image; see `base.Reader`."""
        path = Path(self.root, ref.annotation)
        rows = head_rows(path, self.way_out(ref))
        centres, half = rows[:, :2], rows[:, 2:4] / 2
        declared, labels = self._image_labels(ref)
        return Annotation(
            points_xy=centres,
            boxes_xyxy=np.hstack([centres - half, centres + half]),
            declared=declared,
            attributes={"occlusion": rows[:, 4].astype(np.int64), "blur": rows[:, 5].astype(np.int64)},
            labels=labels,
        )

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """First two columns as float64 (N, 2), (x, y) in pixels; see `base.Reader`."""
        return head_rows(Path(self.root, ref.annotation), self.way_out(ref))[:, :2]

    def _image_labels(self, ref: ImageRef) -> tuple[int | None, dict[str, str]]:
        """Count and labels that the split's list has of an image; None and nothing where it has none.

        Only the image's own row is checked, so that a faulty one stops no other image.
        """
        base = Path(ref.annotation).parent.parent
        path = Path(self.root, base, next(iter(self._named_labels(base)), _LABELS))
        if ref.split not in self._labels:
            self._labels[ref.split] = _rows_by_id(path) if path.is_file() else {}
        row, line = self._labels[ref.split].get(ref.image_id, (0, ""))
        if not line:
            return None, {}
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 5 or not (fields[1].isascii() and fields[1].isdigit() and len(fields[1]) < 10):
            problem = f"a row is id,count,scene,weather,distractor, found {line[:60]!a}"
            raise DataError(path, problem, f"Repair the row. {self.way_out(ref)}", row=row)
        scene = ",".join(fields[2:-2])
        return int(fields[1]), {"scene": scene, "weather": fields[-2], "distractor": fields[-1]}

    def _named_labels(self, base: Path) -> list[str]:
        return [name for name in file_names(Path(self.root, base)) if name.lower() == _LABELS]


def head_rows(path: Path, way_out: str) -> np.ndarray:
    """Rows of an annotation file; blank lines do not count.

    Args:
        path: The file.
        way_out: What the user can do about an unusable file, for the message.

    Returns:
        float64 (N, 6): x, y, width, height (pixels), occlusion, blur.

    Raises:
        DataError: unreadable, not text; with the row: not six numbers, not finite, or a level that is no whole number.
    """
    lines = [line for line in _text(path, way_out).splitlines() if line.strip()]
    rows = [_head(path, row, line, way_out) for row, line in enumerate(lines)]
    return np.array(rows, np.float64).reshape(-1, 6)


def _head(path: Path, row: int, line: str, way_out: str) -> list[float]:
    words = line.replace(",", " ").split()  # some copies have commas
    try:
        numbers = [] if "_" in line else [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise DataError(path, f"a row is {_COLUMNS}, found {line.strip()[:60]!a}", way_out, row=row)
    x, y, w, h = map(abs, numbers[:4])
    if not all(map(math.isfinite, (*numbers, x + w, y + h))):  # the edges of the box too
        raise DataError(path, f"the head {line.strip()[:60]!a} is not finite", way_out, row=row)
    if not all(level.is_integer() and abs(level) < 2**31 for level in numbers[4:]):
        raise DataError(path, f"occlusion and blur are levels, found {line.strip()[:60]!a}", way_out, row=row)
    return numbers


def _rows_by_id(path: Path) -> dict[str, tuple[int, str]]:
    """Row number and text of the first row of each id."""
    result: dict[str, tuple[int, str]] = {}
    for row, line in enumerate(_text(path, "Repair the file, or take it away: it only adds labels.").splitlines()):
        result.setdefault(line.partition(",")[0].strip(), (row, line.strip()))
    return result


def _text(path: Path, way_out: str) -> str:
    try:
        with reading(path, way_out):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(path, "not a text file", way_out) from None
