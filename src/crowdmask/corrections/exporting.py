"""Hand out masks for correction: a folder with pictures and the files of a tool, and the record of what is in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image
from pydantic import ValidationError
from tqdm import tqdm

from crowdmask import files
from crowdmask.config import Config, FolderDataset
from crowdmask.corrections import crops, howto, selection
from crowdmask.corrections.exchange import record as records
from crowdmask.corrections.exchange import tools
from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SIDE
from crowdmask.corrections.looks import looks
from crowdmask.corrections.present import Present
from crowdmask.corrections.selection import Key
from crowdmask.datasets import images
from crowdmask.errors import DataError

LONGEST_ID = 100
"""Characters of an image id in a picture's name."""

_ENDINGS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",)}
"""What every tool shows; other formats are handed out as PNG."""


@dataclass(frozen=True)
class Source:
    """An image with its masks.

    Attributes:
        image: Its row of `tables.IMAGES`.
        heads: Its masks as merged, in table order.
        edits: Fingerprints of the edits that they contain.
        way_out: What makes the tables of the image anew.
    """

    image: dict[str, Any]
    heads: tuple[records.Head, ...]
    edits: tuple[str, ...]
    way_out: str


@dataclass(frozen=True)
class Export:
    """What was handed out.

    Attributes:
        folder: For the tool.
        record: Of the masks.
        path: File of the record.
        rows: Lines of tasks.csv.
    """

    folder: Path
    record: records.Record
    path: Path
    rows: list[dict[str, Any]]

    @property
    def masks(self) -> int:
        """Number of masks."""
        return sum(len(task.heads) for task in self.record.tasks)

    def summary(self) -> dict[str, Any]:
        """For machines."""
        places = {"folder": str(self.folder), "tag": self.record.tag, "record": str(self.path)}
        return {**places, "pictures": len(self.rows), "masks": self.masks, "tasks": self.rows}


def export(
    config: Config,
    name: str,
    tool: str,
    *,
    named: Sequence[str] | None = None,
    worst: int | None = None,
    output: str | Path | None = None,
    shapes: int = tools.LIMIT,
    margin: int = tools.MARGIN,
    results: str | Path = "results",
    configfiles: Sequence[str] = (),
    time: str | None = None,
) -> Export:
    """Write the folder of an export and its record; or, on any error, neither.

    Args:
        config: The configuration.
        name: Data set.
        tool: One of `tools.TOOLS`.
        named: Images wanted, as `selection.named` takes them.
        worst: Number of images wanted, worst first; without `named` and `worst` all.
        output: Folder to make, or an empty one; None = `results/NAME/corrections/TOOL-TAG`.
        shapes: Most masks of a picture.
        margin: Pixels around what people work on in a crop.
        results: Folder of the results.
        configfiles: Files given with --configfile, for messages.
        time: ISO 8601; None = now, UTC.

    Raises:
        SettingsError: an image that the data set does not have.
        DataError: tables missing, damaged, or older than the edit files; an image file that has changed; a folder that
            is not empty or cannot be written.
    """
    present = Present(config, name, results, configfiles)
    known = list(present.refs)
    review = present.results / "review.parquet"
    scores: dict[Key, float] = {}
    if worst is not None or review.is_file():
        scores = selection.image_scores(selection.review_scores(review, f"Run: {present.command(review)}"))
    chosen = known
    if named is not None:
        chosen = selection.named(named, known)
    elif worst is not None:
        chosen = selection.worst(scores, known, worst)
    if not chosen:
        raise DataError(
            review if worst is not None else present.reader.root, "there is no image to hand out", "Name others."
        )
    if output is not None:
        _refuse_full(Path(output))

    module = tools.module(tool)
    handed = _handed(present, chosen)
    stamp = time or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tag = _tag(name, tool, stamp, shapes, margin, handed)
    folder = present.results / "corrections" / f"{tool}-{tag}" if output is None else Path(output)
    _refuse_full(folder)
    entry = config.datasets[name]
    exif = entry.exif if isinstance(entry, FolderDataset) else "stored"
    with _all_or_nothing(folder) as written:
        made: list[records.Task] = []
        for source in tqdm(handed, unit="image", disable=None, leave=False):
            made += _pictures(source, present.reader.root, exif, folder, tag, len(made) + 1, shapes, margin, written)
        record = records.Record(tag=tag, dataset=name, tool=tool, time=stamp, tasks=tuple(made))
        with _listed(folder, written):
            annotations = module.write(folder, record)
        rows = _rows(made, scores)
        _write(folder / "tasks.csv", _csv(rows).encode(), written)
        beside = [Path(path).relative_to(folder).as_posix() for path in annotations]
        _write(folder / "README.txt", howto.text(record, beside).encode(), written)
        path = records.save(record, config.corrections.folder)
    return Export(folder, record, path, rows)


def _handed(present: Present, chosen: Sequence[Key]) -> list[Source]:
    """The images wanted; nothing that the edit files have overtaken, or people would correct what is corrected."""
    present.refuse_missing(chosen)
    found: dict[Key, Source] = {}
    for key in present.by_batch(chosen):
        now = present.image(*key)
        present.refuse_unmerged(now)
        found[key] = Source(now.row, now.heads, now.edits, present.way_out(*key))
    return [found[key] for key in chosen]


def _refuse_full(folder: Path) -> None:
    """Nothing is ever written over."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        fault = "the folder is not empty" if folder.is_dir() else "there is a file of this name"
        raise DataError(folder, fault, "Name another one with --output, or remove it.")


def _tag(name: str, tool: str, time: str, shapes: int, margin: int, handed: Sequence[Source]) -> str:
    """Name of an export: of all that decides what is in it."""
    digest = hashlib.sha256(json.dumps([name, tool, time, shapes, margin]).encode())
    for source in handed:
        digest.update(json.dumps([source.image[key] for key in ("split", "image_id", "sha256")]).encode())
        for head in source.heads:
            digest.update(f"{head.point_id},{head.x0},{head.y0},{head.w},{head.h},{head.counts};".encode())
    return digest.hexdigest()[:8]


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[list[Path]]:
    """Make a folder; where the block fails, take away what it says it wrote, and the folders made here.

    Yields:
        List to which the block adds each path before it writes it.

    Raises:
        DataError: the file system refuses.
    """
    absent = [path for path in (folder / "images", folder, *folder.parents) if not path.exists()]
    written: list[Path] = []
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        yield written
    except BaseException as error:
        for path in [*reversed(written), *absent]:
            with suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        if isinstance(error, OSError):
            problem = f"cannot be written ({error.strerror or error})"
            raise DataError(error.filename or folder, problem, "Make room, or name another folder.") from None
        raise


@contextmanager
def _listed(folder: Path, written: list[Path]) -> Iterator[None]:
    """Add to `written` whatever comes into the folder in the block, also where it fails."""
    before = set(folder.rglob("*"))
    try:
        yield
    finally:
        written += sorted(set(folder.rglob("*")) - before)


def _write(path: Path, content: bytes, written: list[Path]) -> None:
    written.append(path)
    path.write_bytes(content)


def _pictures(
    source: Source,
    root: str,
    exif: images.Exif,
    folder: Path,
    tag: str,
    first: int,
    shapes: int,
    margin: int,
    written: list[Path],
) -> list[records.Task]:
    """Write the pictures of one image, the only one in memory; the first has the number `first`."""
    image, heads = source.image, source.heads
    height, width = image["height"], image["width"]
    path = images.path_of(root, image)
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        problem = f"{height} x {width} pixels are more than can be corrected"
        raise DataError(path, problem, f"At most {MAX_SIDE} a side and {MAX_PIXELS} in all: leave the image out.")
    with files.reading(path, source.way_out):
        changed = files.sha256(path) != image["sha256"]
    if changed:
        raise DataError(path, "the file has changed since the masks were made", f"{source.way_out} first.")
    plain = _is_plain(path)
    pixels = images.read_row(root, image, exif)
    points = np.array([(head.x, head.y) for head in heads], float).reshape(-1, 2)
    boxes = np.array([(head.x0, head.y0, head.w, head.h) for head in heads], np.int64).reshape(-1, 4)
    parts = crops.cut(height, width, points, boxes, shapes, margin)
    made = []
    for number, part in enumerate(parts, first):
        whole = len(parts) == 1
        seen = pixels if whole else crops.picture(pixels, part)
        if whole and plain:
            ending, content = path.suffix.lower(), path.read_bytes()
        else:
            ending, content = ".png", cv2.imencode(".png", seen[:, :, ::-1])[1].tobytes()
        corner = "" if whole else f"-x{part.box.x0}y{part.box.y0}"
        safe = [re.sub(r"[^A-Za-z0-9_-]", "_", image[key])[:LONGEST_ID] for key in ("split", "image_id")]
        name = f"{number:04d}-{'-'.join(safe)}{corner}-{tag}{ending}"
        _write(folder / "images" / name, content, written)
        try:
            task = records.Task(
                name=name,
                split=image["split"],
                image_id=image["image_id"],
                sha256=image["sha256"],
                picture=hashlib.sha256(content).hexdigest(),
                thumb=looks(seen),
                height=height,
                width=width,
                x0=part.box.x0,
                y0=part.box.y0,
                w=part.box.w,
                h=part.box.h,
                edits=source.edits,
                heads=tuple(heads[i] for i in part.heads),
            )
        except ValidationError as error:
            raise DataError(path, f"cannot be handed out ({error.errors()[0]['msg']})", "Leave it out.") from None
        made.append(task)
    return made


def _is_plain(path: Path) -> bool:
    """Whether every program shows this file as the pipeline sees it, so that its own bytes can be handed out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=images.FORMATS) as file:
                usual = file.mode in ("RGB", "L") and path.suffix.lower() in _ENDINGS.get(str(file.format), ())
                # Browsers turn pictures as EXIF says, whatever the data set's policy: the tag must not be there.
                upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
                alone = getattr(file, "n_frames", 1) == 1 and "transparency" not in file.info
        with open(path, "rb") as start:
            head = start.read(25)
    except Exception:  # Pillow raises nearly anything on damaged metadata; damaged pixels are found when they are read
        return False
    deep = head[:4] == b"\x89PNG" and head[24] == 16  # bits a channel, where Pillow says RGB all the same
    return usual and upright and alone and not deep


def _rows(made: Sequence[records.Task], scores: Mapping[Key, float]) -> list[dict[str, Any]]:
    """Lines of tasks.csv."""
    pictures = Counter((task.split, task.image_id) for task in made)
    return [
        {
            "number": number,
            "picture": task.name,
            "split": task.split,
            "image_id": task.image_id,
            "crop": f"{task.w}x{task.h}+{task.x0}+{task.y0}" if pictures[task.split, task.image_id] > 1 else None,
            "heads": len(task.heads),
            "score": scores.get((task.split, task.image_id)),
        }
        for number, task in enumerate(made, 1)
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
