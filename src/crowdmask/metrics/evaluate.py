"""Masks against true masks, with all measures, beside baselines from the same points.

What is in memory follows one batch, plus some hundred numbers an image and one a point.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import files, geometry, tables
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from crowdmask.metrics import evaluate_page, figures, measures
from crowdmask.metrics.baselines import circles, disjoint, watershed_masks
from crowdmask.metrics.figures import Collected, rounded
from crowdmask.metrics.instances import intersect, paired_iou
from crowdmask.metrics.matching import overlaps

VERSION = 2
"""Raised when the numbers change for the same tables."""

Batch = tuple[str | Path, str | Path, str | Path, str | Path]
"""Paths of the `images`, `masks`, `truth` and `superpixels` table of one batch."""

FALLBACKS = ("circle", "pixel")
WORST = 12
"""Images on the page."""
NONE = Window(0, 0, np.zeros((0, 0), bool))


@dataclass(frozen=True)
class Image:
    """What is known of one image; points, true masks and superpixels in source order.

    Attributes:
        split: Split.
        image_id: Image.
        path: Image file relative to the root.
        height: Pixels.
        width: Pixels.
        points_xy: float64 (N, 2), pixels, as annotated.
        radii_px: float64 (N,), pixels; of a deleted mask the distance to the nearest point, unclamped.
        masks: Masks of the points that have one, then those without a point.
        pairs: Mask and point of those that have one.
        scores: float64, of each mask; NaN where unknown.
        truth: N true masks.
        superpixels: N superpixels.
        sources: Source of each mask.
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
    pairs: list[tuple[int, int]]
    scores: np.ndarray
    truth: list[Window]
    superpixels: list[Window]
    sources: list[str]
    deleted: int
    added: int


def run(
    dataset: str,
    batches: Sequence[Batch],
    root: str | Path,
    exif: Exif,
    output: str | Path,
    page: str | Path,
    settings: str,
    watershed: bool,
    shown: Callable[[Iterable[Batch]], Iterator[Batch]] = iter,
) -> dict[str, Any]:
    """Evaluate a data set and write the result as JSON and as a page.

    Args:
        dataset: Its name.
        batches: Tables of every batch.
        root: Folder that image paths are relative to; read for the watershed, and for the worst images.
        exif: EXIF policy of the data set.
        output: JSON file to write.
        page: HTML file to write.
        settings: Canonical JSON of the settings to record.
        watershed: Also compute the marker watershed, which reads the images.
        shown: Lets the batches pass, as a progress bar does.

    Returns:
        What was written; see `Summary.result`.

    Raises:
        DataError: a table is missing or damaged, a point has no true mask or no superpixel, or an image cannot be read.
    """
    summary = Summary()
    for batch in shown(batches):
        for image in images(batch):
            photo = _reader(root, exif, image) if watershed else None
            try:
                summary.add(image, baselines(image, photo))
            except ValueError as error:
                raise DataError(batch[1], f"image {image.split}/{image.image_id}: {error}", _AGAIN) from None
    result = summary.result()
    result["version"] = VERSION
    result["settings"] = json.loads(settings)
    result["dataset"] = dataset
    worst = [
        evaluate_page.Worst(
            f"{image.split}/{image.image_id}",
            iou,
            evaluate_page.thumbnail(_reader(root, exif, image)(), image.masks, image.truth),
        )
        for iou, image in summary.worst()
    ]
    with files.replacing(page) as temporary:
        temporary.write_text(evaluate_page.page(result, worst), encoding="utf-8")
    files.write_json(output, result)
    return result


_AGAIN = "Delete it and run again."


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
        present = [index for index, point_id in enumerate(ids) if point_id in made]
        own = [made[ids[index]] for index in present] + [mask for i, mask in made.items() if i not in set(ids)]
        yield Image(
            split=row["split"],
            image_id=row["image_id"],
            path=row["path"],
            height=row["height"],
            width=row["width"],
            points_xy=points_xy,
            radii_px=radii,
            masks=[Window.from_columns(mask) for mask in own],
            pairs=list(enumerate(present)),
            scores=np.array([np.nan if mask["score"] is None else mask["score"] for mask in own], np.float64),
            truth=_for_points(batch[2], key, truth.pop(key, []), ids, "true mask"),
            superpixels=_for_points(batch[3], key, superpixels.pop(key, []), ids, "superpixel"),
            sources=[mask["source"] for mask in own],
            deleted=len(ids) - len(present),
            added=len(own) - len(present),
        )
    for path, left in zip(paths, (masks, truth, superpixels), strict=True):
        for split, image_id in left:
            raise DataError(path, f"image {split}/{image_id} is not in {images_path}", _AGAIN)


def _for_points(
    path: str | Path, key: tuple[str, str], rows: list[dict[str, Any]], ids: list[int], what: str
) -> list[Window]:
    found = {row["point_id"]: row for row in rows}
    for point_id in ids:
        if point_id not in found:
            raise DataError(path, f"point {point_id} of image {key[0]}/{key[1]} has no {what}", _AGAIN)
    return [Window.from_columns(found[point_id]) for point_id in ids]


BASELINES = ("circle", "circle_disjoint", "superpixel", "superpixel_circle", "oracle", "watershed")


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
    """Running totals over the images of a data set.

    Attributes:
        keys: Split and image id of each image.
        methods: By name, our masks first, whose name is empty.
        ious: IoU of each point, image by image.
        counts: Numbers over all images.
    """

    keys: list[tuple[str, str]] = field(default_factory=list)
    methods: dict[str, Collected] = field(default_factory=lambda: {"": Collected()})
    ious: list[np.ndarray] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("points", "masks", "deleted", "added", "fallback"), 0)
    )
    _worst: list[tuple[float, int, Image]] = field(default_factory=list)

    def add(self, image: Image, others: dict[str, list[Window]]) -> None:
        """Count one image with its baselines.

        Raises:
            ValueError: too many of its masks meet.
        """
        every = [(k, k) for k in range(len(image.truth))]
        for name, masks in {"": image.masks, **others}.items():
            found = overlaps(masks, image.truth)
            sums = measures.measure(
                masks,
                image.truth,
                every if name else image.pairs,
                image.height,
                image.width,
                true_xy=image.points_xy,
                found=found,
            )
            self.methods.setdefault(name, Collected()).add(sums, found, None if name else image.scores)
        by_point = [NONE] * len(image.truth)
        for mask, point in image.pairs:
            by_point[point] = image.masks[mask]
        self.ious.append(paired_iou(by_point, image.truth))
        self.counts["points"] += len(image.truth)
        self.counts["masks"] += len(image.masks)
        self.counts["deleted"] += image.deleted
        self.counts["added"] += image.added
        self.counts["fallback"] += sum(source in FALLBACKS for source in image.sources)
        self.keys.append((image.split, image.image_id))
        if len(self.ious[-1]):
            # The counter ends every comparison before the image; of equal images the first is kept.
            heapq.heappush(self._worst, (-float(self.ious[-1].mean()), -len(self.keys), image))
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)

    def worst(self) -> list[tuple[float, Image]]:
        """Mean IoU and image of those with the lowest one, lowest first."""
        return [(-iou, image) for iou, _, image in sorted(self._worst, key=lambda one: one[:2], reverse=True)]

    def result(self) -> dict[str, Any]:
        """The evaluation as plain values; a mean over nothing is null.

        `images`, `points`, `masks` (rows of the masks tables), `deleted`, `added`; `mean_iou` (a deleted mask counts
        0, an added one is left out), `median_iou`, `share_iou_50` (IoU of at least 0.5); `fallback_share` (of all
        masks, those that are the circle or a single pixel); `mean_iou_*` of each baseline; `measures`, `intervals`,
        `by_size`, `by_density`, `bootstrap` (`figures.Collected.figures`; all masks count there, added ones too);
        `baselines` (`figures.against`, each with a mask for every point) and `per_image`.
        """
        ours = self.methods[""]
        iou = np.concatenate([np.zeros(0), *self.ious])
        made = self.counts["masks"]
        figured = ours.figures()
        found: dict[str, Any] = {
            "images": len(self.keys),
            **{name: self.counts[name] for name in ("points", "masks", "deleted", "added")},
            "mean_iou": figured["measures"]["mean_iou"],
            "median_iou": rounded(float(np.median(iou))) if iou.size else None,
            "share_iou_50": figured["measures"]["share_iou_50"],
            "fallback_share": rounded(self.counts["fallback"] / made) if made else None,
            **figured,
        }
        others = {name: method for name, method in self.methods.items() if name}
        found["baselines"] = {name: figures.against(ours, method) for name, method in others.items()}
        for name in BASELINES:
            if name in others or name != "watershed":
                figure = found["baselines"].get(name)
                found[f"mean_iou_{name}"] = figure and figure["measures"]["mean_iou"]
        found["per_image"] = [
            {"split": split, "image_id": image_id, "points": len(values), **figures.of_image(row)}
            for (split, image_id), values, row in zip(self.keys, self.ious, ours.rows, strict=True)
        ]
        return found
