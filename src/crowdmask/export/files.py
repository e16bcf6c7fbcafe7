"""Formats of one or two files an image: written image by image, with a report of what there is and what was lost.

A format is a module with

- `COLUMNS`, `BOXES`: columns of the masks table that it needs besides key, window and area; whether head boxes;
- `place(root, split)`: folders that hold files of this split only, by a short name;
- `write(folders, masks, options)`: files of one image, and counts for the report;
- `read(root, split, ...)`: masks of each image, the way back.

The report `{split}.json` lies in the root; it is written last, so that it is there only when everything is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from crowdmask.errors import DataError
from crowdmask.export import iim, label_map, xmask, yolo
from crowdmask.export.source import Batch, ImageMasks, by_image
from crowdmask.files import write_json

VERSION = 1
"""Raised when a file of any of these formats, or of Parquet, changes for the same tables."""

FORMATS: dict[str, ModuleType] = {"xmask": xmask, "iim": iim, "yolo": yolo, "label-map": label_map}


def write(
    name: str,
    report: str | Path,
    batches: Sequence[Batch],
    dataset: str,
    split: str,
    settings: dict[str, Any],
    shown: Callable[[Iterable[ImageMasks]], Iterator[ImageMasks]] = iter,
) -> dict[str, Any]:
    """Write all images of a split, in a folder of which everything else is removed.

    Args:
        name: Of the format.
        report: File `{split}.json` in the root of the format.
        batches: Tables of every batch of the split.
        dataset: Its name.
        split: Of the data set.
        settings: Of the stage: `version` and options of the formats.
        shown: Passes the images on, with a progress bar.

    Returns:
        The report.

    Raises:
        DataError: see `crowdmask.export.source.by_image`; masks that overlap, in a format of label maps; a name that
            leads out of its folder.
    """
    module, report = FORMATS[name], Path(report)
    root = report.parent
    folders = module.place(root, split)
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    lines: list[list[int]] = []
    written: set[Path] = set()
    for masks in shown(by_image(batches, module.COLUMNS, module.BOXES)):
        image = masks.image
        if image.image_id != Path(image.image_id).name:
            raise DataError(batches[0][0], f"the image id {image.image_id!r} is no file name", "Rename the image.")
        paths, found = module.write(folders, masks, settings)
        written.update(paths)
        for key, value in found.items():
            counts[key] = counts.get(key, 0) + value
        entries.append(
            {
                "image_id": image.image_id,
                "image": image.path,
                "height": image.height,
                "width": image.width,
                "masks": masks.rows.num_rows,
                "files": [path.relative_to(root).as_posix() for path in paths],
            }
        )
        if name == "iim":
            lines.append(iim.location(masks))
    if name == "iim":
        _, numbers = iim.finish(root, split, [entry["image_id"] for entry in entries], lines)
        for entry, number in zip(entries, numbers, strict=True):
            entry["number"] = number
    for folder in folders.values():  # of images that the split no longer has, and of killed runs
        for path in folder.iterdir():
            if path not in written and path.is_file():
                path.unlink()
    made = {
        "format": name,
        "dataset": dataset,
        "split": split,
        "crowdmask": version("crowdmask"),
        "settings": settings,
        "images": len(entries),
        "masks": sum(entry["masks"] for entry in entries),
        "counts": counts,
        "files": entries,
    }
    write_json(report, made)
    return made
