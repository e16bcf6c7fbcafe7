"""What the readers of folders have in common: listing, pairing and selection.

Paths come from folder listings and the configuration only, never from the content of a file (names in a list are only
looked up among those found), so no file can lead outside of its data set. Images and annotations may be symbolic links,
as people link large data instead of copying it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, Fault, ImageRef, Pairing, safe_id
from crowdmask.datasets.images import SUFFIXES
from crowdmask.errors import DataError


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
        hidden: Splits whose images may come without annotation; see `unlabelled`.
    """

    title: str = ""
    expected: str = ""
    has_truth: bool = False
    hidden: frozenset[str] = frozenset()

    def __init__(self, name: str, entry: config.FolderDataset) -> None:
        """Take the name and settings of the data set; opens nothing."""
        self.name = name
        self.root = entry.root
        self._entry = entry
        self._faults: list[Fault] | None = None  # where faults of the list go while `pairing` collects them

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

    def image_files(self, split: Split) -> Iterable[tuple[str, str]]:
        """Image id and file, relative to the root, of each image of a split; one folder, unless a format says else."""
        return files_by_id(Path(self.root), split.images, image_stem)

    def annotation_files(self, split: Split) -> Iterable[tuple[str, str]]:
        """The same of the annotations."""
        return files_by_id(Path(self.root), split.annotations, self.annotated_id)

    def image_name(self, image_id: str) -> str:
        """Path that an image should have below the images of its split, without its suffix."""
        return image_id

    def named(self, split: Split) -> Mapping[str, tuple[str, int]]:
        """List and row (0-based) that put an id into the split, for formats with lists."""
        return {}

    def side_files(self, split: str) -> list[str]:
        """Files, relative to the root, that annotations of a split are read from besides their own; those there are."""
        return []

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Annotated points as float64 (N, 2), (x, y) in pixels, in source order; see `base.Reader`."""
        return self.read_annotation(ref).points_xy

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """All that the annotation says; formats with nothing but points implement `read_points` instead."""
        return Annotation(self.read_points(ref))

    def unlabelled(self) -> list[ImageRef]:
        """Images of the splits `hidden` that have no annotation, by (split, file name); see `base.Reader`.

        `skip_images` counts here too, `skip` and `limit` do not.

        Raises:
            DataError: missing folder, or unknown layout.
        """
        return self.pairing().unlabelled if self.hidden else []

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
        found = self._paired()
        if not found.refs:
            problem = "skip and limit leave no image" if found.unselected else "no images found"
            raise DataError(self.root, f"{problem} in the data set '{self.name}'", f"Expected: {self.expected}.")
        return found.refs

    def pairing(self) -> Pairing:
        """The same list made to its end: what `list_images` stops at is collected instead, for the audit.

        Raises:
            DataError: missing folder, or unknown layout.
        """
        self._faults = []
        try:
            found = self._paired()
            found.faults.extend(self._faults)
        finally:
            self._faults = None
        return found

    def _paired(self) -> Pairing:
        """List and pair all splits."""
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
        result = Pairing()
        unused = set(self._entry.skip_images)
        for split in splits:
            try:
                self._check_complete(root, split)
                pairs = self._pair(split, unused)
            except DataError as fault:
                self._fault("layout", split.name, "", fault)
                continue
            complete = [ref for ref in pairs if ref.annotation]
            chosen = self._selected(complete)
            result.refs.extend(chosen)
            kept = set(chosen)
            result.unselected.extend(ref for ref in complete if ref not in kept)
            result.unlabelled.extend(ref for ref in pairs if not ref.annotation)
        if unused:
            error = DataError(
                root,
                f"skip_images of the data set '{self.name}' names {_some(sorted(unused))}, which is not there",
                "Write split/id (the file name without its extension), for example "
                f"{splits[0].name}/{result.refs[0].image_id if result.refs else 'IMG_1'}.",
            )
            self._fault("unknown_skip", "", "", error)
        result.skipped.extend(sorted(set(self._entry.skip_images) - unused))
        return result

    def _fault(self, kind: str, split: str, image_id: str, error: DataError) -> None:
        """Raise, or collect for `pairing`."""
        if self._faults is None:
            raise error
        self._faults.append(Fault(kind, split, image_id, error))

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
        """References of a split; takes the entries of `skip_images` that it has met out of `unused`.

        Images of the splits `hidden` that lack their annotation have an empty one.
        """
        skipped = {key.partition("/")[2] for key in unused if key.startswith(f"{split.name}/")}
        images = self._by_id(split, self.image_files(split), skipped)
        annotations = self._by_id(split, self.annotation_files(split), skipped)
        named = self.named(split)
        skipped &= images.keys() | annotations.keys() | named.keys()
        unused -= {f"{split.name}/{image_id}" for image_id in skipped}

        def out(image_id: str) -> str:
            return f"list {split.name}/{image_id} under datasets.{self.name}.skip_images."

        bare = [image_id for image_id in images if image_id not in annotations and image_id not in skipped]
        for image_id in bare if split.name not in self.hidden else []:
            wanted = join(split.annotations, self.annotation_name(image_id))
            problem = f"no annotation: {wanted} is missing{self._more(bare)}"
            error = DataError(
                Path(self.root, images[image_id]), problem, f"Add it, or leave the image out: {out(image_id)}"
            )
            self._fault("missing_annotation", split.name, image_id, error)
        orphans = [image_id for image_id in annotations if image_id not in images and image_id not in skipped]
        for image_id in orphans:
            problem = (
                f"no image: {join(split.images, self.image_name(image_id))} with one of the suffixes "
                f"{' '.join(sorted(SUFFIXES))} is missing{self._more(orphans)}"
            )
            error = DataError(
                Path(self.root, annotations[image_id]), problem, f"Add it, remove the annotation, or {out(image_id)}"
            )
            self._fault("orphan_annotation", split.name, image_id, error)
        known = images.keys() | annotations.keys() | skipped
        lost = [image_id for image_id in named if image_id not in known]
        for image_id in lost:
            file, row = named[image_id]
            problem = f"names {_printable(image_id)[:60]!r}, whose image is not there{self._more(lost)}"
            line = " or take its line out," if split.name in self.hidden else ""  # the images are of no use without
            fix = f"Add it,{line} or {out(image_id)}"
            error = DataError(Path(self.root, file), problem, fix, row=row)
            self._fault("missing_image", split.name, image_id, error)
        return [
            ImageRef(split.name, image_id, image, annotations.get(image_id, ""))
            for image_id, image in images.items()
            if image_id not in skipped and (image_id in annotations or split.name in self.hidden)
        ]

    def _by_id(self, split: Split, files: Iterable[tuple[str, str]], skipped: set[str]) -> dict[str, str]:
        """Files by image id, in their order; those with an unsafe id, and all but the first of an id, are faults."""
        result: dict[str, str] = {}
        for image_id, path in files:
            if image_id not in skipped:
                try:
                    safe_id(_printable(Path(self.root, path)), image_id)
                except DataError as error:
                    self._fault("unsafe_id", split.name, image_id, error)
                    continue
            if image_id in result:
                problem = f"the id '{image_id}' belongs to {_beside(result[image_id], path)} already"
                fix = "Keep one of the two files, or rename one and its partner."
                self._fault("duplicate_id", split.name, image_id, DataError(Path(self.root, path), problem, fix))
                continue
            result[image_id] = path
        return result

    def _more(self, names: list[str]) -> str:
        """How many others have the fault that stops the listing; nothing where each is told."""
        return f" (and so for {len(names) - 1} more)" if len(names) > 1 and self._faults is None else ""

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


def _beside(other: str, path: str) -> str:
    """The name of a file as seen from another: without its folder where they share it."""
    return Path(other).name if Path(other).parent == Path(path).parent else _printable(other)


def folder_called(folder: Path, *names: str) -> str | None:
    """Name of the one folder in a folder that has one of these names in any case (ASCII); None where there is none.

    Raises:
        DataError: there are several.
    """
    found = [name for name in folder_names(folder) if name.lower() in names] if folder.is_dir() else []
    if len(found) > 1:
        raise DataError(folder, f"has both {' and '.join(found)}", "Keep one of them.")
    return found[0] if found else None


def folder_names(folder: Path) -> Iterator[str]:
    """Names of the folders in a folder, in string order; hidden ones are left out."""
    for name in _listing(folder):
        if name.endswith("/"):
            yield name[:-1]


def files_by_id(root: Path, folder: str, id_of: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
    """Id that `id_of` reads from its name, and path relative to the root, of each file in a folder that has an id."""
    for file_name in file_names(root / folder):
        image_id = id_of(file_name)
        if image_id is not None:
            yield image_id, f"{folder}/{file_name}" if folder else file_name


def has_files(folder: Path, ending: str) -> bool:
    """Whether a folder has a file whose name ends so (any case)."""
    return any(name.lower().endswith(ending) for name in file_names(folder))


def image_stem(file_name: str) -> str | None:
    """File name without its suffix, if that is one of an image; None for other files."""
    stem, suffix = os.path.splitext(file_name)
    return stem if suffix.lower() in SUFFIXES else None


def file_names(folder: Path) -> list[str]:
    """Names of the files in a folder, in string order; hidden ones are left out."""
    return [name for name in _listing(folder) if not name.endswith("/")]


def _listing(folder: Path) -> list[str]:
    """What a folder holds, hidden files left out, in string order; folders end in '/'.

    A link that leads nowhere, or in a circle, counts as a file, so that it is not overlooked.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(f"{e.name}/" if is_dir(e) else e.name for e in entries if not e.name.startswith("."))
    except OSError as error:
        raise DataError(folder, f"the folder cannot be read ({error.strerror})", "Check its permissions.") from None


def is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; not where a link leads in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def join(folder: str, name: str) -> str:
    """Path of a file in a folder that is empty for the root."""
    return f"{folder}/{name}" if folder else name


def _some(names: list[str], shown: int = 6) -> str:
    """The first few names as text."""
    if not names:
        return "nothing"
    return ", ".join(_printable(name) for name in names[:shown]) + (", ..." if len(names) > shown else "")


def _printable(value: object) -> str:
    """Text with undecodable bytes of a file name escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()
