"""Masks of a data set from files of any of three kinds, one image at a time.

- COCO: a JSON file with `images` and `annotations`, or a list of results (which takes its images from the other side);
- label maps: a folder of PNG or NPY files, at any depth, or one such file;
- our own tables with a mask for each point: a folder of Parquet files, at any depth, or one such file.

Which kind a path is of, its content says. Nothing of a file is trusted: numbers are checked before anything is made of
them, and what cannot be used is refused with its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from crowdmask import tables
from crowdmask.corrections.exchange import runs
from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SIDE
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.datasets.label_map import read_label_map
from crowdmask.errors import DataError
from crowdmask.export import coco_reader
from crowdmask.export.labels import instances
from crowdmask.masks.rle import Window

WAY_OUT = "Name a COCO file, a folder of label maps (PNG, NPY), or a folder of our tables (Parquet)."
SUFFIXES = (".png", ".npy")
"""Of label maps."""


@dataclass(frozen=True)
class Name:
    """What an image is called on one side.

    Attributes:
        full: `split/image_id`, or the path below its folder, without extension.
        split: Where it is known, else None.
    """

    full: str
    split: str | None = None

    @property
    def short(self) -> str:
        """The last part."""
        return self.full.rpartition("/")[2]


@dataclass(frozen=True)
class Masks:
    """Masks of one image.

    Attributes:
        size_hw: Height and width of the image, pixels; None where the files do not say.
        windows: The masks.
        point_ids: Of each mask; None where one has none, or where two have the same.
        scores: float64 (N,), NaN where a mask has none.
        points_xy: Head points, float64 (N, 2), pixels; None where a mask has none.
    """

    size_hw: tuple[int, int] | None
    windows: list[Window]
    point_ids: list[int] | None
    scores: np.ndarray
    points_xy: np.ndarray | None


class Source(Protocol):
    """One side of a comparison."""

    path: Path

    def names(self) -> Sequence[Name]:
        """All images."""

    def read(self, name: Name) -> Masks:
        """Masks of one of them."""

    def close(self) -> None:
        """Give back what is open."""


def name_of(path: str) -> Name:
    """Name of an image from its path in a file or folder."""
    pure = PurePosixPath(path.replace("\\", "/"))
    return Name("/".join(part for part in pure.with_suffix("").parts if part not in ("/", "..")) or pure.name)


def name_in_split(split: str, image_id: str) -> Name:
    """Name of an image of ours; the split `all` is none."""
    return Name(image_id) if split == "all" else Name(f"{split}/{image_id}", split)


def unique_ids(ids: Sequence[int | None]) -> list[int] | None:
    """The ids, if each mask has one of its own."""
    known = [number for number in ids if number is not None]
    return known if len(set(known)) == len(ids) else None


class LabelMaps:
    """Label maps; every value but 0 is a mask, in ascending order.

    Args:
        path: A file, or a folder in which all PNG and NPY files are label maps.
    """

    def __init__(self, path: Path) -> None:
        """List the files; opens none."""
        self.path = path
        self._files: dict[Name, Path] = {}
        self._last: tuple[Name, np.ndarray] | None = None
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        for file in found:
            name = name_of(file.name if file == path else file.relative_to(path).as_posix())
            if name in self._files:
                raise DataError(file, f"is the second label map of the image {name.full}", "Take one of them away.")
            self._files[name] = file

    def names(self) -> Sequence[Name]:
        """All images, sorted."""
        return list(self._files)

    def labels(self, name: Name) -> np.ndarray:
        """int32 (H, W), 0 = background.

        Raises:
            DataError: not a label map.
        """
        if self._last is None or self._last[0] != name:
            way_out = "Give label maps: grey PNG, or NPY of integers, 0 = background."
            self._last = name, read_label_map(self._files[name], way_out)
        return self._last[1]

    def read(self, name: Name) -> Masks:
        """Masks of one image; see `Source`."""
        labels = self.labels(name)
        _, windows = instances(labels)
        height, width = labels.shape
        return Masks((height, width), windows, None, np.full(len(windows), np.nan), None)

    def close(self) -> None:
        """Nothing is open."""


TABLES = ("masks", "truth", "segment", "superpixels")
"""Tables that have a mask for each point."""


class Tables:
    """Our own tables. `results/NAME/datasets` beside their folder says how large the images are, and which are empty.

    Args:
        path: A table, or a folder of tables of one kind.

    Raises:
        DataError: not such tables, or of several kinds.
    """

    def __init__(self, path: Path) -> None:
        """Read which images there are."""
        self.path = path
        self._files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
        kinds = {file: tables.metadata(file)[0] for file in self._files}
        for file, kind in kinds.items():
            if kind not in TABLES:
                raise DataError(file, f"a table of {kind}, which holds no masks", f"Name one of: {', '.join(TABLES)}.")
            if kind != kinds[self._files[0]]:
                problem = f"a table of {kind}, in a folder with tables of {kinds[self._files[0]]}"
                raise DataError(file, problem, "Name a folder of one kind, such as results/NAME/merge.")
        self._kind = kinds[self._files[0]]
        self._where: dict[Name, Path] = {}
        self._images: dict[Name, dict[str, Any]] = {}
        for file in self._files:
            beside = images_beside(path, file)
            if beside is not None:
                for row in tables.stream(beside, "images", batch=64):
                    name = name_in_split(row["split"], row["image_id"])
                    if not (0 < row["height"] <= MAX_SIDE and 0 < row["width"] <= MAX_SIDE):
                        problem = f"image {name.full} has {row['width']} x {row['height']} pixels"
                        raise DataError(beside, problem, "Make the table again.")
                    self._images[name] = row
                    self._where[name] = file
            for row in tables.stream(file, self._kind):
                name = name_in_split(row["split"], row["image_id"])
                if self._where.setdefault(name, file) != file:
                    raise DataError(file, f"image {name.full} is also in {self._where[name]}", "Take one away.")
        self._read: tuple[Path, dict[tuple[str, str], list[dict[str, Any]]]] | None = None

    def names(self) -> Sequence[Name]:
        """All images that have a row, here or in the table of images."""
        return list(self._where)

    def read(self, name: Name) -> Masks:
        """Masks of one image; see `Source`."""
        file = self._where[name]
        if self._read is None or self._read[0] != file:
            self._read = file, tables.by_image(tables.stream(file, self._kind))
        rows = self._read[1].get((name.split or "all", name.short), [])
        image = self._images.get(name)
        points: list[tuple[float, float] | None] = [None] * len(rows)
        if self._kind == "masks":
            points = [(row["x"], row["y"]) for row in rows]
        elif image is not None:
            known = {point["point_id"]: (point["x"], point["y"]) for point in image["points"]}
            points = [known.get(row["point_id"]) for row in rows]
        scores = [row.get("score") for row in rows]
        budget = Budget()
        return Masks(
            None if image is None else (image["height"], image["width"]),
            [self._window(file, row, budget) for row in rows],
            unique_ids([row["point_id"] for row in rows]),
            np.array([np.nan if score is None else score for score in scores], np.float64),
            _all_points(points),
        )

    def _window(self, file: Path, row: dict[str, Any], budget: Budget) -> Window:
        """The mask of a row, decoded without trust: a table may come from anywhere."""
        h, w = row["h"], row["w"]
        try:
            if not (0 <= h <= MAX_SIDE and 0 <= w <= MAX_SIDE and h * w <= MAX_PIXELS):
                raise ValueError(f"a window of {w} x {h} pixels")
            if h == 0 or w == 0:
                return Window(row["x0"], row["y0"], np.zeros((0, 0), bool))
            counts = runs.checked(row["counts"].decode("ascii"), h, w, budget)
            window = runs.window(counts, h, budget)
            budget.keep(window.mask.size)
        except ValueError as error:
            name = f"point {row['point_id']} of image {row['split']}/{row['image_id']}"
            raise DataError(file, f"{name}: {error}", "Make the table again.") from None
        return Window(row["x0"] + window.x0, row["y0"] + window.y0, window.mask)

    def close(self) -> None:
        """Nothing is open."""


class CocoMasks:
    """A COCO file, or a list of results.

    Args:
        path: The file.
        images: Of another file, for a list of results.

    Raises:
        DataError: see `coco_reader.CocoFile`; or two images of one name.
    """

    def __init__(self, path: Path, images: Mapping[int, coco_reader.Image] | None) -> None:
        """Find the images, and where their masks lie."""
        self.path = path
        self.file = coco_reader.CocoFile(path, images)
        self._budget = self.file.budget()
        self._images: dict[Name, coco_reader.Image] = {}
        for image in self.file.images.values():
            ours = image.split is not None
            name = name_in_split(str(image.split), image.image_id) if ours else name_of(image.file_name)
            if name in self._images:
                problem = f"the image {name.full} is listed twice, with the ids {self._images[name].id} and {image.id}"
                raise DataError(path, problem, "Give each image a name of its own, whatever its extension.")
            self._images[name] = image

    def names(self) -> Sequence[Name]:
        """All images, in the order of the file."""
        return list(self._images)

    def read(self, name: Name) -> Masks:
        """Masks of one image; see `Source`, and for errors `coco_reader.CocoFile.read`."""
        image = self._images[name]
        found, windows = self.file.read(image, self._budget)
        return Masks(
            (image.height, image.width),
            windows,
            unique_ids([entry.point_id for entry in found]),
            np.array([entry.score for entry in found], np.float64),
            _all_points([entry.point_xy for entry in found]),
        )

    def close(self) -> None:
        """Nothing is open."""


def _all_points(points: Sequence[tuple[float, float] | None]) -> np.ndarray | None:
    """Head points float64 (N, 2), if each mask has one."""
    known = [point for point in points if point is not None]
    return np.array(known, np.float64).reshape(-1, 2) if len(known) == len(points) else None


def images_beside(path: Path, file: Path) -> Path | None:
    """The table of images of a batch, where the tables lie as in `results/NAME`; else None.

    Args:
        path: The table or folder that was named.
        file: The table.
    """
    absolute = file.absolute()
    for stage in list(absolute.parents)[:3]:
        beside = stage.parent / "datasets" / absolute.relative_to(stage)
        if stage.name != "datasets" and beside.is_file():
            return beside
    return None


def open_sources(pred: Path, truth: Path) -> tuple[Source, Source]:
    """Both sides of a comparison; close them.

    Raises:
        DataError: a path is missing, or holds nothing of a known kind.
    """
    true = _open(truth, None)
    try:
        return _open(pred, true), true
    except BaseException:
        true.close()
        raise


def _open(path: Path, other: Source | None) -> Source:
    if path.is_dir():
        has_tables = next(path.rglob("*.parquet"), None) is not None
        has_maps = any(p.suffix.lower() in SUFFIXES for p in path.rglob("*"))
        if has_tables and has_maps:
            raise DataError(path, "holds both Parquet tables and pictures", "Name the folder of one kind.")
        if not has_tables and not has_maps:
            raise DataError(path, "holds neither label maps (PNG, NPY) nor tables (Parquet)", WAY_OUT)
        return Tables(path) if has_tables else LabelMaps(path)
    if not path.exists():
        raise DataError(path, "there is no such file or folder", WAY_OUT)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return LabelMaps(path)
    if suffix == ".parquet":
        return Tables(path)
    if suffix == ".json":
        return CocoMasks(path, other.file.images if isinstance(other, CocoMasks) else None)
    raise DataError(path, f"masks cannot be read from a file of kind '{suffix}'", WAY_OUT)


def joined(pred: Source, true: Source, missing: str) -> list[tuple[Name, Name]]:
    """Images of both sides that are the same, in the order of the truth.

    Equal full names first (`split/image_id`, or paths). Then names without their folders, where no two images of a side
    share one, and unless both have splits, and others. A single label map against another needs no name.

    Args:
        pred: One side.
        true: The other.
        missing: error, or ignore: images that one side lacks are left out.

    Raises:
        DataError: an image that one side lacks, an unclear name, or no common image.
    """
    preds, trues = list(pred.names()), list(true.names())
    if pred.path.is_file() and true.path.is_file() and isinstance(pred, LabelMaps) and isinstance(true, LabelMaps):
        return [(preds[0], trues[0])]
    by_full = {name.full: name for name in preds}
    found = {name: by_full[name.full] for name in trues if name.full in by_full}
    taken = set(found.values())
    rest: tuple[dict[str, list[Name]], dict[str, list[Name]]] = ({}, {})
    for group, names, used in ((rest[0], preds, taken), (rest[1], trues, found.keys())):
        for name in names:
            if name not in used:
                group.setdefault(name.short, []).append(name)
    for short, own in rest[1].items():
        others = rest[0].get(short, [])
        apart = [(a, b) for a in own for b in others if not (a.split and b.split)]
        if len(own) == len(others) == 1 and apart:
            found[own[0]] = others[0]
        elif apart:
            side, several = (true, own) if len(own) > 1 else (pred, others)
            texts = ", ".join(name.full for name in several[:3])
            raise DataError(
                side.path, f"{short} may be any of {texts}", "Use the same folders or splits on both sides."
            )
    lost = [(true, pred, [n for n in trues if n not in found])]
    lost.append((pred, true, [n for n in preds if n not in set(found.values())]))
    for side, other, names in lost:
        if names and missing == "error":
            texts = ", ".join(name.full for name in names[:5]) + (", ..." if len(names) > 5 else "")
            problem = f"{len(names)} of its images are not in {other.path}: {texts}"
            raise DataError(side.path, problem, "Add them, or leave them out with --missing ignore.")
    if not found:
        raise DataError(pred.path, f"has no image in common with {true.path}", "Compare files of the same data set.")
    return [(found[name], name) for name in trues if name in found]
