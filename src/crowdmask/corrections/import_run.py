"""An import from end to end: files read, compared with what was handed out, edit files written, the diff printed."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crowdmask.corrections import conflicts, importing, native
from crowdmask.corrections.exchange import archive, record, tools
from crowdmask.corrections.exchange.base import File, Picture
from crowdmask.corrections.importing import Change, Image, Source
from crowdmask.corrections.looks import alike
from crowdmask.corrections.present import Present
from crowdmask.errors import CrowdmaskError, DataError, SettingsError, printable
from crowdmask.files import replacing

OURS = ("README.txt", "tasks.csv", "labels.json", "label_config.xml", "labels.csv")
"""Files of an export that hold no masks."""
MAX_TOLERANCE = 10.0
"""Most that tracing may move a border, pixels; more would hide the edits of small heads."""
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class _Import:
    """One import: what has been found so far.

    Args:
        present: The data set.
        args: Of the command line.
        user: Author where neither they nor the file name one.
    """

    def __init__(self, present: Present, args: argparse.Namespace, user: str) -> None:
        self.present, self.args, self.user = present, args, user
        self.images: dict[tuple[str, str], Image] = {}
        self.paths: dict[tuple[str, str], Path] = {}
        self.refused: list[str] = []
        self.unread: list[str] = []
        self.tasks = {
            task.name: task
            for found in reversed(record.load_all(present.corrections, present.name))
            for task in found.tasks
        }
        self.by_stem = {Path(name).stem: task for name, task in self.tasks.items()}

    def read(self) -> None:
        """Compare every picture of every file; faults are collected."""
        files = archive.files(self.args.files)
        for file in tqdm(files, desc="import", unit="file", disable=None):
            try:
                self._file(file)
            except DataError as error:
                self.refused.append(str(error))

    def _file(self, file: File) -> None:
        last = file.name.replace("\\", "/").rpartition(":")[2].rpartition("/")[2]
        if last in OURS:
            return
        if file.suffix in _PICTURES and (last in self.tasks and not _is_label_map(file)):
            task = self.tasks[last]
            if not alike(file.content, task.picture, task.thumb):
                raise DataError(file.name, "the picture is another one than was handed out", "Export the image again.")
            return
        module = tools.of(file)
        if module is None:
            if Path(file.name) in self.args.files:
                raise DataError(
                    file.name,
                    f"of none of the formats {', '.join(tools.TOOLS)}",
                    "Export from the tool as docs/corrections.md says.",
                )
            self.unread.append(file.name)
            return
        for picture in module.read(file):
            self._picture(file, picture)

    def _picture(self, file: File, picture: Picture) -> None:
        place = f"{file.name}, {picture.where}" if picture.where else file.name
        last = picture.name.replace("\\", "/").rpartition("/")[2]
        task = self.tasks.get(last) or self.by_stem.get(Path(last).stem)
        if task is not None:
            image = self._image(task.split, task.image_id)
        else:
            refs = self.present.named(picture.name)
            if len(refs) != 1:
                found = "no image of the data set" if not refs else f"{len(refs)} images of the data set"
                raise DataError(
                    place,
                    f"{picture.name!r} is no picture that was exported, and {found} has that name",
                    "Export the images with `crowdmask corrections export`, and keep their file names.",
                )
            image = self._image(refs[0].split, refs[0].image_id)
            task = importing.whole(self.present.image(refs[0].split, refs[0].image_id))
        problem = importing.mismatch(picture, task, image.row)
        if problem:
            raise DataError(place, f"{picture.name}: {problem}", "Export the image again.")
        if picture.media is not None and task.name in self.tasks and not alike(picture.media, task.picture, task.thumb):
            raise DataError(place, f"{picture.name}: it holds another picture than was handed out", "Export it again.")
        now_time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        source = Source(
            tool=picture.tool,
            file=Path(file.name.partition(".zip:")[0] + (".zip" if ".zip:" in file.name else "")).name,
            sha256=file.sha256,
            author=self.args.author or picture.author or self.user,
            time=self.args.time or picture.time or now_time,
        )
        try:
            image.changes += importing.compare(picture, task, source, self.args.tolerance)
        except ValueError as error:
            raise DataError(place, f"{picture.name}: {error}", "Correct the file, or export the image again.") from None

    def _image(self, split: str, image_id: str) -> Image:
        key = split, image_id
        if key not in self.images:
            now = self.present.image(split, image_id)
            self.images[key] = Image(now.row, now.made, now.file)
            self.paths[key] = now.path
        return self.images[key]

    def write(self) -> list[str]:
        """Write the edit files, after all of them have been checked, or none; their paths.

        Raises:
            DataError: a file has been changed since it was read, gets too long, or cannot be written.
        """
        texts = {}
        for key, image in self.images.items():
            changes: Iterable[Change] = image.changes
            if self.args.accept_kept:
                changes = [*image.changes, *importing.accepted(image)]
            edits = importing.edits_of(image, changes)
            if edits:
                texts[self.paths[key]] = native.dump(importing.file_with(image, edits))
                if len(texts[self.paths[key]].encode()) > native.MAX_BYTES:
                    raise DataError(self.paths[key], "with these edits it gets too long", "Take superseded ones out.")
        if self.args.dry_run or not texts:
            return []
        files = {self.paths[key]: image.file for key, image in self.images.items()}
        folder = self.present.corrections / self.present.name
        with _locked(folder), _named(folder), ExitStack() as stack:
            for path, text in texts.items():
                if (native.load(path) if path.is_file() else None) != files[path]:
                    raise DataError(path, "the edit file has been changed since it was read", "Import once more.")
                with _named(path):
                    stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")
        return [str(path) for path in texts]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other imports from writing; the lock ends with the process, and leaves no file."""
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network folders have no locks: then the comparison before writing has to do
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise DataError(path, problem, "Nothing was imported. Make room, or correct the permissions.") from None


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that make no sense.

    Raises:
        SettingsError: with the option.
    """
    conflicts.check_policy(args.conflicts)
    if args.author is not None and not (0 < len(args.author) <= 200 and args.author.isprintable()):
        raise SettingsError("--author: write a name of 1 to 200 printable characters")
    if not 0 <= args.tolerance <= MAX_TOLERANCE:  # false for NaN, too
        raise SettingsError(f"--tolerance {args.tolerance}: write a number of pixels from 0 to {MAX_TOLERANCE:g}")
    if args.time is not None:
        try:
            datetime.fromisoformat(args.time)
        except ValueError:
            raise SettingsError(f"--time {args.time!r}: write it as 2025-03-01T12:00:00Z") from None


def run(args: argparse.Namespace, present: Present, user: str) -> None:
    """Import files; prints what they say.

    Args:
        args: Of the command line.
        present: The data set.
        user: Name of the account.

    Raises:
        CrowdmaskError: anything was refused as a whole: nothing has been written.
    """
    check_options(args)
    work = _Import(present, args, user)
    work.read()
    for image in work.images.values():
        importing.settle(image, args.conflicts, args.stale)
    found = importing.counts(work.images.values(), len(work.refused))
    written = [] if work.refused else work.write()
    if args.json:
        files = [str(path) for path in args.files]
        print(json.dumps({**found, **_lists(work), "files": files, "written": written}, indent=1))
    else:
        print("\n".join(map(printable, _diff(work))))
        print(", ".join(f"{number} {kind}" for kind, number in found.items()))
        command = present.command(present.results / "masks.json")
        print(f"wrote {len(written)} edit files; next: {command}" if written else "nothing written")
        if written and any(change.stale for image in work.images.values() for change in image.changes):
            page = present.results / "corrections.html"
            print(f"stale edits with pictures of both masks: {page}, made by: {present.command(page)}")
    if work.refused:
        raise CrowdmaskError("nothing was imported:\n  " + "\n  ".join(work.refused))
    disputed = sum(c.kind == "refused" for image in work.images.values() for c in image.changes)
    if disputed:
        raise CrowdmaskError(
            f"{disputed} of the edits were not imported (see above), all others were. Import the file again with "
            "--conflicts or --stale to say what is to hold."
        )


def _lists(work: _Import) -> dict[str, Any]:
    images = {}
    clashes, stale = [], []
    for image in work.images.values():
        images[image.key] = [change.summary() for change in image.changes if change.kind != "kept" or change.reason]
        clashes += [{"image": image.key, **c.conflict.summary()} for c in image.changes if c.conflict]
        stale += [{"image": image.key, "point_id": c.point_id} for c in image.changes if c.stale]
    return {"images": images, "conflicts": clashes, "stale": stale, "refusals": work.refused, "unread": work.unread}


def _diff(work: _Import) -> Iterator[str]:
    for name in work.unread:
        yield f"not read: {name}"
    for image in work.images.values():
        one = importing.counts([image])
        yield f"{image.key}: " + ", ".join(f"{number} {kind}" for kind, number in one.items() if number)
        for change in image.changes:
            if change.kind == "kept" and not change.reason:
                continue
            who = "new" if change.point_id is None else f"point {change.point_id}"
            overlap = "" if change.iou is None else f", IoU {change.iou:.3f}"
            place = f" [{', '.join(change.where[:3])}]" if change.where and change.kind == "ambiguous" else ""
            yield f"  {change.kind:9s} {who}{overlap}{': ' + change.reason if change.reason else ''}{place}"
        for change in image.changes:
            if change.conflict:
                clash = change.conflict
                yield (
                    f"  conflict  point {clash.point_id}: {clash.earlier.author} ({clash.earlier.time}) and "
                    f"{clash.author} ({clash.time}) agree with IoU {clash.iou:.3f}; holds: {clash.holds}"
                )


def _is_label_map(file: File) -> bool:
    return "SegmentationMap/" in file.name.replace("\\", "/")
