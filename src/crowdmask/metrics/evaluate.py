"""Masks against true masks, point by point: mask of point i with true mask i, beside baselines from the same points.

All means are pooled over the points of the data set, each point with the same weight. What is in memory follows one
batch, plus a number a point.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import files, geometry, tables
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from crowdmask.metrics.baselines import circles, disjoint, watershed_masks
from crowdmask.metrics.instances import intersect, paired_iou

VERSION = 1
"""Raised when the numbers change for the same tables."""

Batch = tuple[str | Path, str | Path, str | Path, str | Path]
"""Paths of the `images`, `masks`, `truth` and `superpixels` table of one batch."""

SIZES = (0, 64, 256, 1024)
"""Lower limits of the classes of true area, pixels; each ends where the next begins."""

FALLBACKS = ("circle", "pixel")
NONE = Window(0, 0, np.zeros((0, 0), bool))


@dataclass(frozen=True)
class Image:
    """What is known of one image, one entry a point in source order.

    Attributes:
        split: Split.
        image_id: Image.
        path: Image file relative to the root.
        height: Pixels.
        width: Pixels.
        points_xy: float64 (N, 2), pixels, as annotated.
        radii_px: float64 (N,), pixels; of a deleted mask the distance to the nearest point, unclamped.
        masks: N masks, empty where a correction deleted one.
        truth: N true masks.
        superpixels: N superpixels.
        sources: Source of every mask of the table, added ones included.
        deleted: Points without a mask.
        added: Masks without a point.
    """

    split: str
    image_id: str
    path: str
    height: int
    width: int
    points_xy: np.ndarray
    radii_px: np.ndarray
    masks: list[Window]
    truth: list[Window]
    superpixels: list[Window]
    sources: list[str]
    deleted: int
    added: int


def run(
    batches: Sequence[Batch], root: str | Path, exif: Exif, output: str | Path, settings: str, watershed: bool
) -> dict[str, Any]:
    """Evaluate a data set and write the result as JSON.

    Args:
        batches: Tables of every batch.
        root: Folder that image paths are relative to; read only for the watershed.
        exif: EXIF policy of the data set.
        output: JSON file to write.
        settings: Canonical JSON of the settings to record.
        watershed: Also compute the marker watershed, which reads the images.

    Returns:
        What was written; see `Summary.result`.

    Raises:
        DataError: a table is missing or damaged, or a point has no true mask or no superpixel.
    """
    summary = Summary()
    for batch in batches:
        for image in images(batch):
            photo = _reader(root, exif, image) if watershed else None
            summary.add(image, baselines(image, photo))
    result = summary.result()
    result["version"] = VERSION
    result["settings"] = json.loads(settings)
    files.write_json(output, result)
    return result


def _reader(root: str | Path, exif: Exif, image: Image) -> Callable[[], np.ndarray]:
    row = {"path": image.path, "height": image.height, "width": image.width}
    return lambda: read_row(root, row, exif)


def images(batch: Batch) -> Iterator[Image]:
    """Images of one batch with their masks matched to the points by `point_id`.

    Raises:
        DataError: as `run`.
    """
    images_path, *paths = batch
    names = ("masks", "truth", "superpixels")
    masks, truth, superpixels = (
        tables.by_image(tables.stream(path, name)) for path, name in zip(paths, names, strict=True)
    )
    for row in tables.stream(images_path, "images", batch=64):
        key = row["split"], row["image_id"]
        ids = [point["point_id"] for point in row["points"]]
        points_xy = np.array([[point["x"], point["y"]] for point in row["points"]], float).reshape(-1, 2)
        made = {mask["point_id"]: mask for mask in masks.pop(key, [])}
        inside = geometry.clip_points(points_xy, row["height"], row["width"])
        radii = geometry.neighbour_distances(inside)
        radii[np.isinf(radii)] = 0.5 * min(row["height"], row["width"])
        for index, point_id in enumerate(ids):
            if point_id in made:
                radii[index] = made[point_id]["radius_px"]
        yield Image(
            split=row["split"],
            image_id=row["image_id"],
            path=row["path"],
            height=row["height"],
            width=row["width"],
            points_xy=points_xy,
            radii_px=radii,
            masks=[Window.from_columns(made[i]) if i in made else NONE for i in ids],
            truth=_for_points(batch[2], key, truth.pop(key, []), ids, "true mask"),
            superpixels=_for_points(batch[3], key, superpixels.pop(key, []), ids, "superpixel"),
            sources=[mask["source"] for mask in made.values()],
            deleted=len(set(ids) - made.keys()),
            added=len(made.keys() - set(ids)),
        )
    for path, left in zip(paths, (masks, truth, superpixels), strict=True):
        for split, image_id in left:
            raise DataError(path, f"image {split}/{image_id} is not in {images_path}", "Delete it and run again.")


def _for_points(
    path: str | Path, key: tuple[str, str], rows: list[dict[str, Any]], ids: list[int], what: str
) -> list[Window]:
    found = {row["point_id"]: row for row in rows}
    for point_id in ids:
        if point_id not in found:
            raise DataError(
                path, f"point {point_id} of image {key[0]}/{key[1]} has no {what}", "Delete it and run again."
            )
    return [Window.from_columns(found[point_id]) for point_id in ids]


def baselines(image: Image, photo: Callable[[], np.ndarray] | None = None) -> dict[str, list[Window]]:
    """Masks from the same points and radii without SAM, and the best that the circle rule allows.

    Args:
        image: The image.
        photo: Gives its pixels, uint8 (H, W, 3); None leaves the watershed out.

    Returns:
        `circle` (cut by the image border only), `circle_disjoint` (contested pixels to the nearest point),
        `superpixel`, `superpixel_circle` (what both share), `oracle` (true mask within the circle) and, with a photo,
        `watershed`: N masks each.
    """
    around = circles(image.points_xy, image.radii_px, image.height, image.width)
    made = {
        "circle": around,
        "circle_disjoint": disjoint(around, image.points_xy, image.height, image.width),
        "superpixel": image.superpixels,
        "superpixel_circle": [intersect(a, b) for a, b in zip(image.superpixels, around, strict=True)],
        "oracle": [intersect(a, b) for a, b in zip(image.truth, around, strict=True)],
    }
    if photo is not None:
        made["watershed"] = watershed_masks(photo(), image.points_xy, image.radii_px) if image.truth else []
    return made


@dataclass
class Summary:
    """Running totals over the images of a data set."""

    per_image: list[dict[str, Any]] = field(default_factory=list)
    ious: dict[str, list[np.ndarray]] = field(default_factory=dict)
    areas: list[np.ndarray] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("points", "masks", "deleted", "added", "fallback"), 0)
    )

    def add(self, image: Image, others: dict[str, list[Window]]) -> None:
        """Count one image with its baselines."""
        for name, masks in {"": image.masks, **others}.items():
            self.ious.setdefault(name, []).append(paired_iou(masks, image.truth))
        self.areas.append(np.array([mask.area for mask in image.truth], np.int64))
        self.counts["points"] += len(image.truth)
        self.counts["masks"] += len(image.sources)
        self.counts["deleted"] += image.deleted
        self.counts["added"] += image.added
        self.counts["fallback"] += sum(source in FALLBACKS for source in image.sources)
        self.per_image.append(
            {
                "split": image.split,
                "image_id": image.image_id,
                "points": len(image.truth),
                "mean_iou": _mean(self.ious[""][-1]),
            }
        )

    def result(self) -> dict[str, Any]:
        """The evaluation as plain values; a mean over nothing is null.

        `images`, `points`, `masks` (rows of the masks tables), `deleted`, `added`; `mean_iou` (a deleted mask counts
        0, an added one is left out), `median_iou`, `share_iou_50` (IoU of at least 0.5); `fallback_share` (of all
        masks, those that are the circle or a single pixel); `mean_iou_*` of each baseline; `by_size` (true area,
        pixels) and `per_image`.
        """
        pooled = {name: np.concatenate(parts) for name, parts in self.ious.items()}
        iou = pooled.pop("", np.zeros(0))
        area = np.concatenate([np.zeros(0, np.int64), *self.areas])
        made = self.counts["masks"]
        found: dict[str, Any] = {
            "images": len(self.per_image),
            **{name: self.counts[name] for name in ("points", "masks", "deleted", "added")},
            "mean_iou": _mean(iou),
            "median_iou": round(float(np.median(iou)), 6) if iou.size else None,
            "share_iou_50": _mean(iou >= 0.5),
            "fallback_share": round(self.counts["fallback"] / made, 6) if made else None,
        }
        for name in ("circle", "circle_disjoint", "superpixel", "superpixel_circle", "oracle"):
            found[f"mean_iou_{name}"] = _mean(pooled.get(name, np.zeros(0)))
        if "watershed" in pooled:
            found["mean_iou_watershed"] = _mean(pooled["watershed"])
        found["by_size"] = []
        for low, high in zip(SIZES, (*SIZES[1:], None), strict=True):
            here = (area >= low) & (area < high if high is not None else True)
            found["by_size"].append(
                {
                    "area_from_px": low,
                    "area_below_px": high,
                    "count": int(np.count_nonzero(here)),
                    "mean_iou": _mean(iou[here]),
                }
            )
        found["per_image"] = self.per_image
        return found


def _mean(values: np.ndarray) -> float | None:
    return round(float(np.mean(values)), 6) if values.size else None
