"""FDST (Fudan-ShanghaiTech): frames of video clips.

`train_data/1/001.jpg` with `train_data/1/001.json` beside it, and the same in `test_data`; a clip is a folder, and its
name is the first part of an id: `1-001`. The annotation is that of the VGG Image Annotator: one key, below it `regions`
(a list, or a dictionary in older versions) with `shape_attributes` {x, y, width, height}, a box around each head. It
covers width x height pixels from the corner (x, y) of a pixel on; the head point is its centre, in our coordinates
(x + width/2 - 1/2, y + height/2 - 1/2), as pixel centres are whole numbers here. Source: Fang et al.,
"Locality-Constrained Spatial Transformer Network for Video Crowd Counting", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
from crowdmask.datasets.jsons import as_number, read_json
from crowdmask.errors import DataError


class FdstReader(FolderReader):
    """Reader of FDST: splits `train` and `test`; a frame's id is `clip-frame`; boxes."""

    title = "FDST"
    expected = "train_data and test_data, each with a folder for each clip, 1/001.jpg and 1/001.json"

    def splits(self, root: Path) -> list[Split]:
        """Those of train_data and test_data (any case) that are there; see `FolderReader.splits`.

        Raises:
            DataError: frames lie deeper than in the folder of their clip, or beside the clips.
        """
        result = []
        for split in ("test", "train"):
            base = folder_called(root, f"{split}_data")
            if base is not None:
                self._check_depth(root / base)
                result.append(Split(split, base, base))
        return result

    def image_files(self, split: Split) -> Iterator[tuple[str, str]]:
        """Frames of all clips; see `FolderReader.image_files`."""
        yield from self._frames(split.images, image_stem)

    def annotation_files(self, split: Split) -> Iterator[tuple[str, str]]:
        """Annotations of all clips; see `FolderReader.annotation_files`."""
        yield from self._frames(split.annotations, self.annotated_id)

    def annotated_id(self, file_name: str) -> str | None:
        """Frame `001`, the last part of the id, for `001.json`."""
        stem, dot, suffix = file_name.rpartition(".")
        return stem if dot and suffix.lower() == "json" else None

    def annotation_name(self, image_id: str) -> str:
        """`1/001.json` for `1-001`."""
        return f"{self.image_name(image_id)}.json"

    def image_name(self, image_id: str) -> str:
        """`1/001` for `1-001`."""
        return "/".join(image_id.rsplit("-", 1))

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """Boxes and their centres, in the order of the regions; see `base.Reader`."""
        path, way_out = Path(self.root, ref.annotation), self.way_out(ref)
        content = read_json(path, way_out)
        entries = list(content.values()) if isinstance(content, dict) else []
        regions = entries[0].get("regions") if len(entries) == 1 and isinstance(entries[0], dict) else None
        if isinstance(regions, dict):
            regions = list(regions.values())
        if not isinstance(regions, list):
            raise DataError(path, "not the annotation of one frame (one key with `regions` below it)", way_out)
        rows = [_box(path, row, region, way_out) for row, region in enumerate(regions)]
        corner, size = np.hsplit(np.array(rows, np.float64).reshape(-1, 4), 2)
        return Annotation(corner + (size - 1) / 2, np.hstack([corner, corner + size]))

    def _frames(self, base: str, id_of: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
        for clip in folder_names(Path(self.root, base)):
            for frame, path in files_by_id(Path(self.root), f"{base}/{clip}", id_of):
                yield f"{clip}-{frame}", path

    def _check_depth(self, base: Path) -> None:
        """Refuse frames in any other place than the folder of a clip, which would be overlooked."""
        clips = list(folder_names(base))
        deeper = [
            f"{clip}/{below}"
            for clip in clips
            for below in folder_names(base / clip)
            if _has_frames(base / clip / below) or not _has_frames(base / clip)
        ]
        if deeper or not clips or _has_frames(base):
            found = f"the clip has the folder {deeper[0]!a}" if deeper else "frames do not lie in folders of clips"
            raise DataError(base, f"the layout is not that of FDST: {found}", f"Expected: {self.expected}.")


def _has_frames(folder: Path) -> bool:
    return any(image_stem(name) is not None for name in file_names(folder))


def _box(path: Path, row: int, region: Any, way_out: str) -> list[float]:
    """x, y, width and height of a region."""
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    values = [as_number(shape.get(key)) if isinstance(shape, dict) else None for key in ("x", "y", "width", "height")]
    numbers = [value for value in values if value is not None]
    if len(numbers) != 4:
        raise DataError(path, "the region is no box: x, y, width and height are missing", way_out, row=row)
    x, y, width, height = map(abs, numbers)
    if not (math.isfinite(x + width) and math.isfinite(y + height)):  # the far edges too
        raise DataError(path, "the box of the region is not finite", way_out, row=row)
    return numbers
