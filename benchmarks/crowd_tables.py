"""Tables of a made-up data set of the size of NWPU-Crowd: quick to make, a batch in memory at a time (seeded)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from crowdmask import tables
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

SEED = 7
SPLITS = ("train", "val", "test")
BATCHES = 64
"""Of the whole data set, as the workflow has them by default."""
SHAPES = 4000
"""Different masks, from which all are drawn."""
MOST = 20_000
"""Masks of the densest images, as in NWPU-Crowd."""


def sizes(masks: int, images: int) -> np.ndarray:
    """Masks of each image, int64 (images,): log-normal, three of `MOST`, sum as wanted."""
    rng = np.random.default_rng(SEED)
    wanted = np.sort(rng.lognormal(5.0, 1.4, images))
    wanted[: images // 20] = 0  # images without a person
    counts = np.minimum((wanted / wanted.sum() * masks).astype(np.int64), MOST)
    if masks > 20 * MOST:
        counts[-3:] = MOST
    for _ in range(100):  # what rounding and the limit have left over goes to the others
        missing = masks - int(counts.sum())
        if not missing:
            break
        open_ = np.flatnonzero((counts < MOST) & (counts > 0)) if images > 1 else np.array([0])
        share, rest = divmod(abs(missing), open_.size)
        step = np.full(open_.size, share)
        step[:rest] += 1
        counts[open_] = np.clip(counts[open_] + np.sign(missing) * step, 0, None)
    assert counts.sum() == masks
    return rng.permutation(counts)


def shapes() -> tuple[list[Window], np.ndarray]:
    """Ragged heads of about 5 to 60 pixels by ascending size, and their sizes."""
    rng = np.random.default_rng(SEED)
    found = []
    for size in np.linspace(5, 60, SHAPES):
        h, w = size, size * rng.uniform(0.7, 1.0)
        y, x = np.mgrid[: int(h), : int(max(w, 4))]
        angle = np.arctan2(y - h / 2 + 0.5, x - w / 2 + 0.5)
        phase = np.arange(2, 6)[:, None, None] * angle + rng.uniform(0, 6, (4, 1, 1))
        waves = np.tensordot(rng.normal(0, 0.06, 4), np.cos(phase), 1)
        radius = np.hypot((y - h / 2 + 0.5) / (h / 2), (x - w / 2 + 0.5) / (w / 2))
        mask = radius <= 1 + waves
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
        if rng.random() < 0.5:  # cut by a neighbour's circle
            mask &= (x - w / 2) * np.cos(rng.uniform(0, 6)) + (y - h / 2) * np.sin(rng.uniform(0, 6)) < size * 0.3
            mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
        found.append(Window(0, 0, mask).tight())
    return found, np.array([max(window.mask.shape) for window in found])


def make(folder: Path, masks: int, images: int) -> list[tuple[Path, Path]]:
    """Write the tables; returns the paths of each batch's `images` and `masks`.

    Masks may overlap, and `sha256` is that of the shape wherever it lies: the export looks at neither.
    """
    rng = np.random.default_rng(SEED)
    counts = sizes(masks, images)
    bank, side = shapes()
    columns = [window.columns() for window in bank]
    area = np.array([window.area for window in bank])
    texts = pa.array([c["counts"] for c in columns], pa.binary())
    digests = pa.array([rle.digest(window) for window in bank])
    wide, high = (np.array([c[key] for c in columns], np.int32) for key in ("w", "h"))
    per_batch = np.array_split(np.arange(images), min(BATCHES, images))
    made = []
    for number, members in enumerate(per_batch):
        split = SPLITS[number % len(SPLITS)]
        paths = folder / f"images-{number}.parquet", folder / f"masks-{number}.parquet"
        rows = list(_images(rng, members, counts, split))
        tables.write(paths[0], "images", rows, version=3, settings="{}")
        with tables.writing(paths[1], "masks", version=2, settings="{}") as writer:
            parts = []
            for row, k in zip(rows, members, strict=True):
                n = int(counts[k])
                height, width = row["height"], row["width"]
                spacing = np.sqrt(height * width / max(n, 1))
                wanted = np.clip(spacing * rng.lognormal(-1.2, 0.4, n), 5, 60)
                chosen = np.minimum(np.searchsorted(side, wanted), SHAPES - 1)
                w, h = wide[chosen], high[chosen]
                x0 = (rng.random(n) * (width - w + 1)).astype(np.int32)
                y0 = (rng.random(n) * (height - h + 1)).astype(np.int32)
                take = pa.array(chosen)
                parts.append(
                    pa.table(
                        [
                            pa.repeat(split, n),
                            pa.repeat(row["image_id"], n),
                            pa.array(np.arange(n, dtype=np.int32)),
                            pa.array(np.round(x0 + w / 2 + rng.random(n), 3)),
                            pa.array(np.round(y0 + h / 2 + rng.random(n), 3)),
                            pa.array(np.where(rng.random(n) < 0.1, "circle", "sam")),
                            pa.array(np.zeros(n, bool)),
                            pa.nulls(n, pa.string()),
                            pa.array(rng.random(n, np.float32), mask=rng.random(n) < 0.1),
                            pa.array(rng.lognormal(2.5, 0.5, n)),
                            pa.array(np.zeros(n, np.int32)),
                            pa.array(area[chosen]),
                            digests.take(take),
                            pa.array(x0),
                            pa.array(y0),
                            pa.array(w),
                            pa.array(h),
                            texts.take(take),
                        ],
                        schema=writer.schema,
                    )
                )
            writer.write_table(pa.concat_tables(parts), row_group_size=20_000)
        made.append(paths)
    return made


def _images(rng: np.random.Generator, members: np.ndarray, counts: np.ndarray, split: str) -> Iterator[dict]:
    for k in members.tolist():
        large = counts[k] >= MOST
        height, width = (4028, 19_044) if large else (int(rng.integers(400, 3600)), int(rng.integers(600, 5000)))
        yield {
            "split": split,
            "image_id": f"{k + 1:04d}",
            "path": f"images_part{k % 5 + 1}/{k + 1:04d}.jpg",
            "height": height,
            "width": width,
            "mode": "RGB",
            "sha256": "0" * 64,
            "points": [],
        }
