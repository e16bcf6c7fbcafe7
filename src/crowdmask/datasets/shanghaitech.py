"""ShanghaiTech part A or B.

`{train,test}_data/images/IMG_n.jpg` with `{train,test}_data/ground-truth/GT_IMG_n.mat` (also spelt `ground_truth`).
The points are the rows (x, y) of `image_info{1,1}.location`, and `.number` says how many there should be. Ids repeat
across splits.

Coordinates are kept as they are written, though they were clicked in MATLAB, where the centre of the first pixel is
(1, 1); see `crowdmask.datasets.ucf`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.folders import FolderReader, Split
from crowdmask.datasets.ucf import as_points, mat_variable
from crowdmask.errors import DataError

_SPELLINGS = ("ground-truth", "ground_truth")


class ShanghaiTechReader(FolderReader):
    """Reader of one part of ShanghaiTech: splits `train` and `test`."""

    title = "one part (A or B) of ShanghaiTech"
    expected = "train_data and test_data, each with images/IMG_1.jpg and ground-truth/GT_IMG_1.mat"

    def splits(self, root: Path) -> list[Split]:
        """Those of `train_data` and `test_data` that are there; see `FolderReader.splits`."""
        result = []
        for split in ("test", "train"):
            base = f"{split}_data"
            if not (root / base).is_dir():
                continue
            spellings = [name for name in _SPELLINGS if (root / base / name).is_dir()]
            if len(spellings) > 1:
                raise DataError(root / base, f"has both {' and '.join(spellings)}", "Keep one of them.")
            result.append(Split(split, f"{base}/images", f"{base}/{(spellings or _SPELLINGS)[0]}"))
        return result

    def annotated_id(self, file_name: str) -> str | None:
        """`IMG_4` for `GT_IMG_4.mat`."""
        stem, dot, suffix = file_name.rpartition(".")
        return stem[3:] if dot and suffix.lower() == "mat" and stem.startswith("GT_") else None

    def annotation_name(self, image_id: str) -> str:
        """`GT_IMG_4.mat` for `IMG_4`."""
        return f"GT_{image_id}.mat"

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Points, and the declared number where it is one; see `base.Reader`."""
        path = Path(self.root, ref.annotation)
        way_out = self.way_out(ref)
        info = mat_variable(path, "image_info", way_out)
        cell = info[0] if isinstance(info, list) and info else info
        values = next(iter(cell.values()), None) if isinstance(cell, dict) else None  # of the first field, location
        if not values:
            raise DataError(path, "no points at image_info{1,1}.location", way_out)
        return Annotation(as_points(path, values[0], way_out), declared=_count(cell.get("number")))


def _count(values: Any) -> int | None:
    """The number of people that the field `number` says; None where it says none, which keeps no image out."""
    value = values[0] if isinstance(values, list) and values else None
    if not isinstance(value, np.ndarray) or value.size != 1 or value.dtype.kind not in "iuf":
        return None
    number = float(value.item())
    return int(number) if number.is_integer() and number >= 0 else None
