"""What formats have in common whose one annotation file speaks of many images (COCO, tables of points).

Here, other than in `folders`, names of images come from the content of a file. Each is taken as a path below the
folder of the images: one that is absolute, or that leads upwards, is an error before anything is opened, and an image
must be in a folder listing, so that no name reaches a file elsewhere. Links below the root are followed, as people
link large data instead of copying it.

The id of an image is its path below that folder without suffix, `/` written as `-`: `scene/0001.jpg` is `scene-0001`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from crowdmask.datasets.base import ImageRef, Pairing, safe_id
from crowdmask.datasets.folders import FolderReader, Split, is_dir, join
from crowdmask.datasets.images import SUFFIXES
from crowdmask.errors import DataError
from crowdmask.files import reading

_DEEPEST = 16  # folders below that of the images


class SharedFileReader(FolderReader):
    """A data set with an annotation file for all images of a split: listing, pairing and selection.

    `Split.annotations` is the annotation file here.
    """

    def listed(self, split: Split) -> Iterable[tuple[str, int]]:
        """Name of each image of a split as its file has it, and the 0-based row that names it first.

        Raises:
            DataError: the file cannot be used.
        """
        raise NotImplementedError

    def file_of(self, ref: ImageRef) -> str:
        """Path of an image below the folder of the images, as `image_path` gives it."""
        return ref.image.removeprefix(f"{self._images}/") if self._images else ref.image

    @property
    def _images(self) -> str:
        """Folder of the images below the root, POSIX; empty for the root itself."""
        raise NotImplementedError

    def unlabelled(self) -> list[ImageRef]:
        """Images in the folder that no annotation file names; in split `unlabelled` where there are several splits."""
        splits = self.splits(Path(self.root))
        known = {image_path(Path(self.root, s.annotations), name, row) for s in splits for name, row in self.listed(s)}
        split = splits[0].name if len(splits) == 1 else "unlabelled"
        skipped = {entry.partition("/")[2] for entry in self._entry.skip_images}
        return [
            ImageRef(split, image_id(file), join(self._images, file), "")
            for file in images_below(Path(self.root, self._images))
            if file not in known and image_id(file) not in skipped
        ]

    def _below_root(self, key: str, value: str) -> str:
        """A path of the configuration, POSIX, relative to the root; empty for the root itself.

        Raises:
            DataError: it leads outside of the root.
        """
        path = Path(value)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(
                self.root,
                f"datasets.{self.name}.{key} is {value!r}, which leads outside of it",
                "Write a path below root, or set root to a folder that has both.",
            )
        return "" if path == Path() else path.as_posix()

    def pairing(self) -> Pairing:
        """The list made to the end, with `unlabelled`; see `FolderReader.pairing`."""
        found = super().pairing()
        try:
            found.unlabelled.extend(self.unlabelled())
        except DataError:
            pass  # of a file that is among the faults already
        return found

    def _pair(self, split: Split, unused: set[str]) -> list[ImageRef]:
        """References of a split; takes the entries of `skip_images` that it has met out of `unused`."""
        path = Path(self.root, split.annotations)
        skipped = {key.partition("/")[2] for key in unused if key.startswith(f"{split.name}/")}
        present = _Present(Path(self.root, split.images))
        found: dict[str, str] = {}
        missing: dict[str, tuple[str, int]] = {}
        for name, row in self.listed(split):
            file = image_path(path, name, row)
            key, where = image_id(file), None if row < 0 else row
            if key in skipped:
                unused.discard(f"{split.name}/{key}")
                continue
            try:
                safe_id(str(path), key)
            except DataError as fault:
                self._fault("unsafe_id", split.name, key, DataError(fault.path, fault.problem, fault.fix, where))
                continue
            if key in found:
                problem = f"{file} and {found[key]} both have the id '{key}'"
                error = DataError(path, problem, "Rename one of the two images.", where)
                self._fault("duplicate_id", split.name, key, error)
            elif file in present:
                found[key] = file
            else:
                missing[key] = (file, row)
        for key, (file, row) in missing.items():
            problem = f"names the image {join(split.images, file)}, which is not there{self._more(list(missing))}"
            fix = (
                f"Add it, say with datasets.{self.name}.images which folder the names refer to, or list "
                f"{split.name}/{key} under datasets.{self.name}.skip_images."
            )
            self._fault("missing_image", split.name, key, DataError(path, problem, fix, row))
        return [
            ImageRef(split.name, key, join(split.images, file), split.annotations)
            for key, file in sorted(found.items(), key=lambda item: item[1])
        ]

    def _check_complete(self, root: Path, split: Split) -> None:
        for path, there in ((split.images, Path.is_dir), (split.annotations, Path.is_file)):
            if not there(root / path):
                kind = "folder" if there is Path.is_dir else "file"
                raise DataError(root / path, f"the {kind} is missing", f"Expected of {self.title}: {self.expected}.")

    def _fits(self, folder: Path) -> bool:
        try:
            splits = self.splits(folder)
            return bool(splits) and all(
                (folder / s.images).is_dir() and (folder / s.annotations).is_file() for s in splits
            )
        except (DataError, OSError):
            return False


class _Present:
    """Whether image files are there, by listing each folder once (a look at every file is slow on network disks)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, file: str) -> bool:
        folder, _, name = file.rpartition("/")
        if folder not in self._names:
            try:
                with os.scandir(self._folder / folder) as entries:
                    self._names[folder] = frozenset(entry.name for entry in entries if not is_dir(entry))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]


def image_path(path: Path, name: str, row: int) -> str:
    """Path of an image below the folder of the images, POSIX, from the name in an annotation file.

    A backslash separates folders as on Windows, `.` is left out.

    Args:
        path: The annotation file, for messages.
        name: What it says.
        row: 0-based row that says so.

    Raises:
        DataError: empty, absolute or leading upwards, or without the suffix of an image.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise DataError(
            path,
            f"the image name {name!r} leads outside of the folder of the images",
            "Write names relative to that folder.",
            row,
        )
    parts = [part for part in parts if part not in ("", ".")]
    if not parts or os.path.splitext(parts[-1])[1].lower() not in SUFFIXES:
        raise DataError(
            path,
            f"{name!r} names no image file",
            f"Write file names that end in one of {' '.join(sorted(SUFFIXES))}.",
            row,
        )
    return "/".join(parts)


def image_id(file: str) -> str:
    """Id of an image: its path below the folder of the images without suffix, `/` written as `-`."""
    return os.path.splitext(file)[0].replace("/", "-")


def images_below(folder: Path) -> list[str]:
    """Image files in a folder and those below it, relative to it, POSIX, by name; hidden ones are left out."""
    return sorted(_images_below(folder, "", set()))


def _images_below(folder: Path, prefix: str, seen: set[str]) -> Iterator[str]:
    """Folders may be linked; each real one is entered once, so that links in a circle end."""
    real = os.path.realpath(folder)
    if real in seen or prefix.count("/") > _DEEPEST:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, is_dir(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(folder, f"the folder cannot be read ({error.strerror})", "Check its permissions.") from None
    for name, is_folder in found:
        if is_folder:
            yield from _images_below(folder / name, f"{prefix}{name}/", seen)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:
            yield prefix + name


def state_of(path: Path, way_out: str) -> tuple[str, int, int]:
    """Path, time of change and size of a file: the key under which its content may be kept.

    Raises:
        DataError: missing or empty.
    """
    with reading(path, way_out):
        info = path.stat()
    if info.st_size == 0:
        raise DataError(path, "the file is empty (0 bytes)", way_out)
    return str(path), info.st_mtime_ns, info.st_size


def claimed_size(height: object, width: object) -> tuple[int, int] | None:
    """Height and width in pixels that a JSON file claims, where both are positive whole numbers."""
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    return None
