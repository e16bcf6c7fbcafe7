"""All masks of a data set in one Parquet file: the columns of the masks table, and those of the image.

Schema: `crowdmask.tables.EXPORT`. An image's rows lie together, groups hold 20,000 rows; images without masks have no
row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.export.instances import Instances
from crowdmask.export.source import Batch, ImageMasks, by_image
from crowdmask.masks.rle import Window

GROUP = 20_000
"""Rows of a group."""


def write(
    output: str | Path,
    batches: Sequence[Batch],
    version: int,
    settings: str,
    shown: Callable[[Iterable[ImageMasks]], Iterator[ImageMasks]] = iter,
) -> dict[str, int]:
    """Write the file; returns the numbers of `images` and `masks`.

    Args:
        output: File to write.
        batches: Tables of every batch.
        version: Of the stage.
        settings: Canonical JSON of the export settings.
        shown: Passes the images on, with a progress bar.

    Raises:
        DataError: see `crowdmask.export.source.by_image`.
    """
    images = masks = 0
    held: list[pa.Table] = []
    rows = 0
    with tables.writing(output, "export", version=version, settings=settings) as writer:
        for item in shown(by_image(batches, None)):
            held.append(_rows(item, writer.schema))
            images, rows, masks = images + 1, rows + item.rows.num_rows, masks + item.rows.num_rows
            if rows >= GROUP:
                whole = pa.concat_tables(held)
                full = rows - rows % GROUP
                writer.write_table(whole.slice(0, full), row_group_size=GROUP)
                held, rows = [whole.slice(full)], rows - full
        if rows or not masks:
            writer.write_table(pa.concat_tables(held) if held else writer.schema.empty_table())
    return {"images": images, "masks": masks}


def _rows(item: ImageMasks, schema: pa.Schema) -> pa.Table:
    image, count = item.image, item.rows.num_rows
    added = [
        pa.repeat(pa.scalar(image.path, pa.string()), count),
        pa.repeat(pa.scalar(image.height, pa.int32()), count),
        pa.repeat(pa.scalar(image.width, pa.int32()), count),
        pa.repeat(pa.scalar(image.sha256, pa.string()), count),
    ]
    return pa.table([*item.rows.columns, *added], schema=schema)


def read(path: str | Path) -> Iterator[Instances]:
    """Masks of each image, in the order of the file; `ids` are `point_id`. Images without masks are not there.

    Raises:
        DataError: missing, damaged, of other columns, or an image whose rows do not lie together.
    """
    seen = set()
    stream = tables.stream(path, "export")
    for (split, image_id), group in groupby(stream, key=lambda row: (row["split"], row["image_id"])):
        if (split, image_id) in seen:
            raise DataError(path, f"the rows of image {split}/{image_id} do not lie together", "Export it again.")
        seen.add((split, image_id))
        rows = list(group)
        windows = [Window.from_columns(row).tight() for row in rows]
        ids = np.array([row["point_id"] for row in rows], np.int64)
        yield Instances(image_id, rows[0]["height"], rows[0]["width"], ids, windows, split)
