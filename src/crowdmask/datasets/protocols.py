"""The stage `splits`: which images are trained on, validated on and tested on, which are labelled, and the folds.

Everything is worked out from lists of `ImageRef` alone. The result is one JSON file a data set, from which later stages
take their images by `split_ids`, `labelled_ids`, `unlabelled_ids` and `fold_ids`. Images keep the name that all tables
use, `split/image_id` with the split of the layout, also where a validation part moves them: docs/protocols.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdmask.config import Folds, Part, Protocols
from crowdmask.datasets.base import ImageRef
from crowdmask.datasets.choosing import by_names, by_share, by_split, groups_in_order, key_of, natural, rank
from crowdmask.errors import DataError

T = TypeVar("T", bound="Images")

VERSION = 2
"""Raised when the output changes; also the number in the file."""

VALIDATION = "val"
"""The split that a validation part makes."""

MAX_LIST_BYTES = 16 << 20
"""Largest list file: a million names."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Model):
    """Where a choice of images comes from."""

    kind: Literal["layout", "list", "draw", "order", "rest"] = Field(
        description="folders as downloaded, list file, draw by seed, order of the names, or what another part leaves"
    )
    file: str | None = Field(None, description="list file, as the configuration names it")
    sha256: str | None = Field(None, description="hash of the list file")
    share: float | None = Field(None, description="share that was drawn")
    seed: int | None = Field(None, description="of the draw")


class Images(_Model):
    """Some images, in the order of the data set."""

    count: int = Field(ge=0, description="number of images")
    source: Source
    images: tuple[str, ...] = Field(strict=False, description="`split/image_id`, with the split of the layout")

    @model_validator(mode="after")
    def _counted(self) -> Images:
        if self.count != len(self.images):
            raise ValueError(f"count is {self.count}, but there are {len(self.images)} images")
        return self


class Subset(Images):
    """A labelled subset: the other images of its split count as unlabelled."""

    of: str = Field(description="split that it is taken from, without the validation part")


class Fold(_Model):
    """One fold: no image is in both."""

    train: tuple[str, ...] = Field(strict=False, description="`split/image_id`")
    test: tuple[str, ...] = Field(strict=False, description="`split/image_id`")
    train_count: int = Field(ge=0)
    test_count: int = Field(ge=0)


class CrossValidation(_Model):
    """K folds, each image tested on in exactly one."""

    of: str = Field(description="split that is divided")
    source: Source
    folds: tuple[Fold, ...] = Field(strict=False)


class Splits(_Model):
    """Content of `results/{dataset}/splits.json`."""

    version: Literal[1] = 1
    dataset: str
    splits: dict[str, Images] = Field(description="train, val, test, or all: every image in exactly one")
    hidden: dict[str, Images] = Field(description="images that come without annotation, by split: in no other list")
    labelled: dict[str, Subset]
    folds: CrossValidation | None = None


def run(
    name: str,
    refs: Sequence[ImageRef],
    hidden: Sequence[ImageRef],
    protocols: Protocols,
) -> Splits:
    """Splits, subsets and folds of a data set; reads the list files that the settings name.

    Args:
        name: Name of the data set.
        refs: Its annotated images, in the reader's order.
        hidden: Its images without annotation.
        protocols: Its settings.

    Raises:
        DataError: a list file cannot be used, a split is missing or taken, or a share leaves no image.
    """
    splits = by_split(refs)
    made = {split: _images(found, Source(kind="layout")) for split, found in splits.items()}
    if protocols.validation is not None:
        part = protocols.validation
        where = f"datasets.{name}.protocols.validation"
        if VALIDATION in splits:
            raise DataError(
                where,
                f"the layout has a split '{VALIDATION}' of {len(splits[VALIDATION])} images already",
                "Remove the setting, and validate on that split.",
            )
        found = _split(splits, part.of, where)
        # A drawn part leaves the published subsets whole.
        listed = _listed(found, part.of, protocols.labelled.values()) if part.list is None else set()
        chosen, source = _chosen([ref for ref in found if ref not in listed], part, "validation", where, len(found))
        if listed and len(chosen) == len(found) - len(listed):
            problem = f"a share of {part.share:g} of {len(found)} images takes all that no labelled list names"
            raise DataError(where, problem, "Lower `share`, or leave it out.")
        if len(chosen) == len(found):
            raise DataError(where, f"takes all images of the split '{part.of}'", "Leave some to train on.")
        splits[VALIDATION] = chosen
        splits[part.of] = _without(found, chosen)
        made[VALIDATION] = _images(chosen, source)
        made[part.of] = _images(splits[part.of], source.model_copy(update={"kind": "rest"}))
    labelled = {}
    for subset, part in protocols.labelled.items():
        where = f"datasets.{name}.protocols.labelled.{subset}"
        chosen, source = _chosen(_split(splits, part.of, where), part, "labelled", where)
        labelled[subset] = Subset(of=part.of, **dict(_images(chosen, source)))
    return Splits(
        dataset=name,
        splits=made,
        hidden={split: _images(found, Source(kind="layout")) for split, found in by_split(hidden).items()},
        labelled=labelled,
        folds=_cross_validation(splits, protocols.folds, f"datasets.{name}.protocols.folds"),
    )


def list_files(protocols: Protocols) -> list[str]:
    """List files that the settings name, each once."""
    parts = [protocols.validation, *protocols.labelled.values()]
    return sorted({part.list for part in parts if part is not None and part.list is not None})


def _images(refs: Sequence[ImageRef], source: Source) -> Images:
    return Images(count=len(refs), source=source, images=tuple(map(key_of, refs)))


def _without(refs: Sequence[ImageRef], taken: Sequence[ImageRef]) -> list[ImageRef]:
    gone = set(taken)
    return [ref for ref in refs if ref not in gone]


def _split(splits: Mapping[str, list[ImageRef]], split: str, where: str) -> list[ImageRef]:
    if not splits.get(split):
        raise DataError(where, f"there is no split '{split}'; splits: {', '.join(splits)}", "Name one with `of`.")
    return splits[split]


def _listed(refs: list[ImageRef], split: str, parts: Iterable[Part]) -> set[ImageRef]:
    """Images of a split that lists of labelled subsets name."""
    lists = {part.list for part in parts if part.list is not None and part.of == split}
    return {ref for path in sorted(lists) for ref in by_names(path, _read_list(path)[0], refs, "")}


def _chosen(
    refs: list[ImageRef], part: Part, purpose: str, where: str, total: int | None = None
) -> tuple[list[ImageRef], Source]:
    """Images of a part. A share is one of `total` images where only `refs` of them may be drawn."""
    if part.list is not None:
        text, checksum = _read_list(part.list)
        also = ", validation part left out" if purpose == "labelled" else ""
        return by_names(part.list, text, refs, also), Source(kind="list", file=part.list, sha256=checksum)
    share, seed = part.share or 0.0, part.seed or 0
    chosen = by_share(refs, share, seed, purpose, total)
    if not chosen:
        raise DataError(where, f"a share of {share:g} of {len(refs)} images is none", "Raise `share`.")
    return chosen, Source(kind="draw", share=share, seed=seed)


def _cross_validation(splits: Mapping[str, list[ImageRef]], folds: Folds | None, where: str) -> CrossValidation | None:
    if folds is None:
        return None
    refs = _split(splits, folds.of, where)
    ordered = natural(refs) if folds.seed is None else rank(refs, folds.seed, "folds")
    try:
        groups = groups_in_order(ordered, folds.k)
    except ValueError as error:
        raise DataError(where, str(error), "Lower `k`.") from None
    made = []
    for group in groups:
        members = set(group)
        test = tuple(key_of(ref) for ref in refs if ref in members)
        train = tuple(key_of(ref) for ref in refs if ref not in members)
        made.append(Fold(train=train, test=test, train_count=len(train), test_count=len(test)))
    source = Source(kind="order") if folds.seed is None else Source(kind="draw", seed=folds.seed)
    return CrossValidation(of=folds.of, source=source, folds=tuple(made))


def _read_list(path: str) -> tuple[str, str]:
    """Text and hash of a list file."""
    fix = "Write one image name a line, as UTF-8 text."
    try:
        size = Path(path).stat().st_size
        content = Path(path).read_bytes() if size <= MAX_LIST_BYTES else b""
    except OSError as error:
        raise DataError(path, f"the list cannot be read ({error.strerror or error})", "Correct the path.") from None
    if size > MAX_LIST_BYTES:
        raise DataError(path, f"{size} bytes, more than the {MAX_LIST_BYTES} of a list that is read", fix)
    try:
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(path, f"line {line}: not UTF-8 text", fix) from None


# ------------------------------------------------------------------ what later stages ask


def load(path: str | Path) -> Splits:
    """Read `splits.json`.

    Raises:
        DataError: missing, or not a file of this version.
    """
    fix = "Make it again: snakemake results/NAME/splits.json."
    try:
        return Splits.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", fix) from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise DataError(path, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", fix) from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not valid JSON ({error})", fix) from None


def split_ids(splits: Splits, split: str) -> tuple[str, ...]:
    """Images of a split, as `split/image_id` of the layout; of `train` without the validation part.

    Raises:
        DataError: no such split.
    """
    return _named(splits, splits.splits, split, "split").images


def labelled_ids(splits: Splits, subset: str) -> tuple[str, ...]:
    """Images of a labelled subset, as `split/image_id`.

    Raises:
        DataError: no such subset.
    """
    return _named(splits, splits.labelled, subset, "labelled subset").images


def unlabelled_ids(splits: Splits, subset: str) -> tuple[str, ...]:
    """The other images of the split that a labelled subset is taken from (validation part left out).

    Raises:
        DataError: no such subset.
    """
    found = _named(splits, splits.labelled, subset, "labelled subset")
    labelled = set(found.images)
    return tuple(image for image in split_ids(splits, found.of) if image not in labelled)


def fold_ids(splits: Splits, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Images to train and to test on in a fold, counted from 1.

    Raises:
        DataError: no folds, or no such fold.
    """
    folds = splits.folds.folds if splits.folds else ()
    if not 1 <= fold <= len(folds):
        known = f"1 to {len(folds)}" if folds else "none"
        where = f"datasets.{splits.dataset}.protocols.folds"
        raise DataError(where, f"there is no fold {fold}; folds: {known}", "Name one of them, or set `folds: {k: 5}`.")
    return folds[fold - 1].train, folds[fold - 1].test


def _named(splits: Splits, found: Mapping[str, T], name: str, kind: str) -> T:
    if name not in found:
        where = f"datasets.{splits.dataset}"
        raise DataError(where, f"no {kind} '{name}'; known: {', '.join(found) or 'none'}", "Name one of them.")
    return found[name]
