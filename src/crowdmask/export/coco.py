"""Masks as one COCO file, written as a stream: what is in memory follows one batch, not the data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.export import source
from crowdmask.export.source import Batch
from crowdmask.files import replacing
from crowdmask.masks import runs

VERSION = 2
"""Raised when the file's content changes for the same tables."""


def write_coco(
    output: str | Path,
    batches: Sequence[Batch],
    dataset: str,
    category: str,
    settings: str,
    shown: Callable[[Sequence[Batch]], Iterable[Batch]] = iter,
) -> dict:
    """Write a COCO file that pycocotools and CVAT open.

    Every row of a masks table becomes one annotation: compressed RLE of the whole image with text counts, `iscrowd` 0,
    `area` and `bbox` of the mask itself, the head point (clipped to the image) as its only keypoint. Our own keys:
    `split` and `image_id` of images; `point_id`, `point` (x, y as annotated), `source`, `score` (left out where there
    is none), `verified`, `author` (likewise) and `radius_px` of annotations. Ids count from 1, images and masks in the
    order of the batches and of their rows. One image or annotation a line; the same tables give the same bytes.

    Args:
        output: File to write.
        batches: Tables of every batch, in the order wanted.
        dataset: Name of the data set.
        category: Name of the only category.
        settings: Canonical JSON of the export settings.
        shown: Passes the batches on, with a progress bar.

    Returns:
        Numbers of `images` and `annotations` written.

    Raises:
        DataError: a table is missing or damaged, an image comes twice, a mask belongs to no image of its batch, leaves
            its image or comes twice, or its stored area is not that of its pixels.
    """
    known = source.images(batches)
    with replacing(output) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write("{\n")
        for key, value in head(batches, dataset, category, settings).items():
            file.write(f"{_line(key)}: {_line(value)},\n")
        images = _write_list(file, "images", _images(image for images in known for image in images))
        file.write(",\n")
        annotations = _write_list(file, "annotations", _annotations(shown(batches), known))
        file.write("\n}\n")
    return {"images": images, "annotations": annotations}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_list(file: TextIO, name: str, lines: Iterable[str]) -> int:
    file.write(f'"{name}": [')
    count = 0
    for line in lines:
        file.write(",\n" if count else "\n")
        file.write(line)
        count += 1
    file.write("\n]" if count else "]")
    return count


def head(batches: Sequence[Batch], dataset: str, category: str, settings: str) -> dict[str, Any]:
    """What stands before the images; see `write_coco`."""
    return {
        "info": _info(batches, dataset, settings),
        "licenses": [],
        "categories": [{"id": 1, "name": category, "supercategory": "person", "keypoints": ["head"], "skeleton": []}],
    }


def _info(batches: Sequence[Batch], dataset: str, settings: str) -> dict[str, Any]:
    """What made the file; without a time, so that equal input gives equal bytes."""
    stages: dict[str, list[dict[str, Any]]] = {"images": [], "masks": []}
    for batch in batches:
        for stage, path in zip(stages, batch, strict=True):
            _, number, values = tables.metadata(path)
            entry = {"version": number, "settings": values}
            if entry not in stages[stage]:
                stages[stage].append(entry)
    return {
        "description": f"Head masks of {dataset} made by crowdmask from annotated points",
        "version": version("crowdmask"),
        "dataset": dataset,
        "export": {"version": VERSION, "settings": json.loads(settings)},
        "stages": stages,
    }


def _images(known: Iterable[source.Image]) -> Iterator[str]:
    for image in known:
        yield _line(
            {
                "id": image.number,
                "file_name": image.path,
                "height": image.height,
                "width": image.width,
                "split": image.split,
                "image_id": image.image_id,
            }
        )


def _annotations(batches: Iterable[Batch], known: Sequence[Sequence[source.Image]]) -> Iterator[str]:
    number = 1
    for (_, path), images in zip(batches, known, strict=True):
        for chunk in source.chunks(path, images, _COLUMNS):
            yield from _lines(path, chunk, images, number)
            number += chunk.place.size


_COLUMNS = ("x", "y", "source", "verified", "author", "score", "radius_px")


def _lines(path: str | Path, chunk: source.Chunk, images: Sequence[source.Image], number: int) -> Iterator[str]:
    """One annotation a mask; text is put together column by column, which is ten times as fast as `json.dumps`."""
    sizes = np.array([[image.height, image.width] for image in images], np.int64).reshape(-1, 2)[chunk.place]
    codes, starts = runs.compress(chunk.whole, sizes.prod(axis=1))
    text, edges = codes.tobytes().decode("ascii"), starts.tolist()
    heads = [
        f'"image_id": {i.number}, "category_id": 1, "segmentation": {{"size": [{i.height}, {i.width}]' for i in images
    ]
    x, y, radius = (chunk.numbers(name) for name in ("x", "y", "radius_px"))
    score = chunk.columns.column("score")
    for name, values in (("x", x), ("y", y), ("radius_px", radius), ("score", score.fill_null(0).to_numpy())):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(path, f"column {name} holds a value that is not finite ({values[row]})", source.AGAIN)
    height, width = sizes.T
    rows = zip(
        range(number, number + x.size),
        chunk.place.tolist(),
        pairwise(edges),
        chunk.areas.tolist(),
        chunk.boxes.tolist(),
        np.where(x < 0, 0.0, np.where(x > width - 1, width - 1.0, x)).tolist(),
        np.where(y < 0, 0.0, np.where(y > height - 1, height - 1.0, y)).tolist(),
        chunk.numbers("point_id").tolist(),
        x.tolist(),
        y.tolist(),
        _texts(chunk, "source"),
        _texts(chunk, "verified"),
        radius.tolist(),
        score.to_pylist(),
        _texts(chunk, "author"),
        strict=True,
    )
    for k, place, (a, b), area, box, kx, ky, point, px, py, origin, verified, r, s, author in rows:
        counts = text[a:b].replace("\\", "\\\\")
        extra = "" if s is None else f', "score": {round(s, 6)!r}'
        if author != "null":
            extra += f', "author": {author}'
        yield (
            f'{{"id": {k}, {heads[place]}, "counts": "{counts}"}}, "area": {area}, "bbox": {box}, "iscrowd": 0, '
            f'"keypoints": [{kx!r}, {ky!r}, 2], "num_keypoints": 1, "point_id": {point}, "point": [{px!r}, {py!r}], '
            f'"source": {origin}, "verified": {verified}, "radius_px": {round(r, 4)!r}{extra}}}'
        )


def _texts(chunk: source.Chunk, name: str) -> list[str]:
    """JSON text of each value of a column that has few different ones."""
    column = chunk.columns.column(name).dictionary_encode()
    texts = [*map(_line, column.dictionary.to_pylist()), "null"]
    return [texts[k] for k in column.indices.fill_null(-1).to_pylist()]
