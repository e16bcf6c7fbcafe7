"""Data sets: `reader_for`, and what the readers of folders have in common.

Snakemake imports this package to list images, so nothing heavy is imported before it is used.

Paths come from folder listings and the configuration only, never from the content of a file, so no file can lead
outside of its data set. Images and annotations may be symbolic links, as people link large data instead of copying it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import ImageRef, Reader, safe_id
from crowdmask.datasets.images import SUFFIXES
from crowdmask.errors import DataError

__all__ = ["FolderReader", "Split", "reader_for"]


def reader_for(name: str, entry: config.Dataset, results: str) -> Reader:
    """Reader of a data set of the configuration; opens nothing.

    Args:
        name: Name of the data set.
        entry: Its settings.
        results: The results folder, where rendered scenes lie.
    """
    if isinstance(entry, config.ShanghaiTech):
        from crowdmask.datasets.shanghaitech import ShanghaiTechReader

        return ShanghaiTechReader(name, entry)
    if isinstance(entry, config.Ucf):
        from crowdmask.datasets.ucf import UcfReader

        return UcfReader(name, entry)
    if isinstance(entry, config.LabelMap):
        from crowdmask.datasets.label_map import LabelMapReader

        return LabelMapReader(name, entry)
    from crowdmask.datasets.rendered import RenderedReader

    return RenderedReader(name, entry, results)


@dataclass(frozen=True)
class Split:
    """Where the files of a split lie.

    Attributes:
        name: Split, `all` where the layout has none.
        images: Folder of the images relative to the root, POSIX; empty for the root itself.
        annotations: Folder of the annotations, likewise.
    """

    name: str
    images: str
    annotations: str


class FolderReader:
    """A data set in a folder as downloaded: listing, pairing and selection, which the formats complete.

    Attributes:
        name: Name of the data set in the configuration.
        root: Its folder.
        title: What the data set is, for messages.
        expected: The layout, for messages.
        has_truth: Whether `read_truth` has masks.
    """

    title: str = ""
    expected: str = ""
    has_truth: bool = False

    def __init__(self, name: str, entry: config.FolderDataset) -> None:
        """Take the name and settings of the data set; opens nothing."""
        self.name = name
        self.root = entry.root
        self._entry = entry

    def splits(self, root: Path) -> list[Split]:
        """Splits that a folder has in this format, also incomplete ones; empty where the layout is another.

        Raises:
            DataError: two layouts at once.
        """
        raise NotImplementedError

    def annotated_id(self, file_name: str) -> str | None:
        """Image id that an annotation file belongs to; None for a file that is no annotation."""
        raise NotImplementedError

    def annotation_name(self, image_id: str) -> str:
        """File name of the annotation that an image should have."""
        raise NotImplementedError

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Annotated points as float64 (N, 2), (x, y) in pixels, in source order; see `base.Reader`."""
        raise NotImplementedError

    def read_truth(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray]:
        """True masks, for formats that have them; see `base.Reader`."""
        raise DataError(self.root, f"{self.title} has no true masks", "Evaluate on a data set that has them.")

    def list_images(self) -> list[ImageRef]:
        """Images by (split, file name) as plain strings, from folder listings only; hidden files are ignored.

        `skip_images` takes images (and faulty pairs) out first, then `skip` and `limit` count in each split.

        Raises:
            DataError: missing folder, unknown layout, an image without annotation or the reverse, two files for one
                id, an unsafe id, or an entry of `skip_images` that names nothing.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(
                root,
                f"the folder of the data set '{self.name}' ({self.title}) is missing",
                f"Put the data there ({self.expected}), or say where they are with "
                f"`datasets: {{{self.name}: {{root: /path/to/them}}}}` in a file given with --configfile.",
            )
        splits = sorted(self.splits(root), key=lambda split: split.name)
        if not splits:
            raise self._unknown_layout(root)
        refs: list[ImageRef] = []
        unused = set(self._entry.skip_images)
        total = 0
        for split in splits:
            self._check_complete(root, split)
            found = self._pair(split, unused)
            total += len(found)
            refs += self._selected(found)
        if unused:
            raise DataError(
                root,
                f"skip_images of the data set '{self.name}' names {_some(sorted(unused))}, which is not there",
                "Write split/id (the file name without its extension), for example "
                f"{splits[0].name}/{refs[0].image_id if refs else 'IMG_1'}.",
            )
        if not refs:
            problem = "skip and limit leave no image" if total else "no images found"
            raise DataError(root, f"{problem} in the data set '{self.name}'", f"Expected: {self.expected}.")
        return refs

    def way_out(self, ref: ImageRef) -> str:
        """What to do about an unusable file of an image."""
        return (
            "Repair or replace the file, or leave the image out: "
            f"`datasets: {{{self.name}: {{skip_images: [{ref.split}/{ref.image_id}]}}}}`."
        )

    def _selected(self, refs: list[ImageRef]) -> list[ImageRef]:
        end = None if self._entry.limit is None else self._entry.skip + self._entry.limit
        return refs[self._entry.skip : end]

    def _pair(self, split: Split, unused: set[str]) -> list[ImageRef]:
        """References of a split; takes the entries of `skip_images` that it has met out of `unused`."""
        skipped = {key.partition("/")[2] for key in unused if key.startswith(f"{split.name}/")}
        images = self._by_id(split.images, _image_id, skipped)
        annotations = self._by_id(split.annotations, self.annotated_id, skipped)
        skipped &= images.keys() | annotations.keys()
        unused -= {f"{split.name}/{image_id}" for image_id in skipped}
        bare = [image_id for image_id in images if image_id not in annotations and image_id not in skipped]
        if bare:
            wanted = _join(split.annotations, self.annotation_name(bare[0]))
            raise DataError(
                Path(self.root, images[bare[0]]),
                f"no annotation: {wanted} is missing{_more(bare)}",
                f"Add it, or leave the image out: list {split.name}/{bare[0]} under datasets.{self.name}.skip_images.",
            )
        orphans = [image_id for image_id in annotations if image_id not in images and image_id not in skipped]
        if orphans:
            raise DataError(
                Path(self.root, annotations[orphans[0]]),
                f"no image: {_join(split.images, orphans[0])} with one of the suffixes "
                f"{' '.join(sorted(SUFFIXES))} is missing{_more(orphans)}",
                f"Add it, remove the annotation, or list {split.name}/{orphans[0]} under "
                f"datasets.{self.name}.skip_images.",
            )
        return [
            ImageRef(split.name, image_id, image, annotations[image_id])
            for image_id, image in images.items()
            if image_id not in skipped
        ]

    def _by_id(self, folder: str, id_of: Callable[[str], str | None], skipped: set[str]) -> dict[str, str]:
        """Files of a folder by the image id that `id_of` reads from their names, in the order of the names."""
        result: dict[str, str] = {}
        for file_name in _file_names(Path(self.root, folder)):
            image_id = id_of(file_name)
            if image_id is None:
                continue
            path = _join(folder, file_name)
            if image_id not in skipped:
                safe_id(_printable(Path(self.root, path)), image_id)
            if image_id in result:
                raise DataError(
                    Path(self.root, path),
                    f"the id '{image_id}' belongs to {Path(result[image_id]).name} already",
                    "Keep one of the two files, or rename one and its partner.",
                )
            result[image_id] = path
        return result

    def _check_complete(self, root: Path, split: Split) -> None:
        for folder in (split.images, split.annotations):
            if not (root / folder).is_dir():
                raise DataError(
                    root / folder,
                    f"the folder is missing; beside it: {_some(_listing((root / folder).parent))}",
                    f"Expected of {self.title}: {self.expected}.",
                )

    def _unknown_layout(self, root: Path) -> DataError:
        """Error for a root of another layout, with the level where the data really start, if that is near."""
        fix = f"Expected: {self.expected}."
        below = [root / name for name in _listing(root) if name.endswith("/")]
        above = [Path(os.path.normpath(root / "..")), Path(os.path.normpath(root / "../.."))]
        fitting = [folder for folder in (*below, *above) if self._fits(folder)]
        if fitting:
            fix = (
                f"{_some([str(folder) for folder in fitting])} has the layout: set datasets.{self.name}.root to it"
                f"{', one entry for each' if len(fitting) > 1 else ''}."
            )
        return DataError(root, f"the layout is not that of {self.title}; found: {_some(_listing(root))}", fix)

    def _fits(self, folder: Path) -> bool:
        try:
            splits = self.splits(folder)
            return bool(splits) and all(
                (folder / s.images).is_dir() and (folder / s.annotations).is_dir() for s in splits
            )
        except (DataError, OSError):
            return False


def folder_names(folder: Path) -> Iterator[str]:
    """Names of the folders in a folder, in string order; hidden ones are left out."""
    for name in _listing(folder):
        if name.endswith("/"):
            yield name[:-1]


def has_files(folder: Path, ending: str) -> bool:
    """Whether a folder has a file whose name ends so (any case)."""
    return any(name.lower().endswith(ending) for name in _file_names(folder))


def _image_id(file_name: str) -> str | None:
    stem, suffix = os.path.splitext(file_name)
    return stem if suffix.lower() in SUFFIXES else None


def _file_names(folder: Path) -> list[str]:
    return [name for name in _listing(folder) if not name.endswith("/")]


def _listing(folder: Path) -> list[str]:
    """What a folder holds, hidden files left out, in string order; folders end in '/'.

    A link that leads nowhere counts as a file, so that it is not overlooked.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(f"{e.name}/" if e.is_dir() else e.name for e in entries if not e.name.startswith("."))
    except OSError as error:
        raise DataError(folder, f"the folder cannot be read ({error.strerror})", "Check its permissions.") from None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _some(names: list[str], shown: int = 6) -> str:
    """The first few names as text."""
    if not names:
        return "nothing"
    return ", ".join(_printable(name) for name in names[:shown]) + (", ..." if len(names) > shown else "")


def _more(names: list[str]) -> str:
    return f" (and so for {len(names) - 1} more)" if len(names) > 1 else ""


def _printable(value: object) -> str:
    """Text with undecodable bytes of a file name escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()
