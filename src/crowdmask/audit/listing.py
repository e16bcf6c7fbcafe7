"""The list of a data set made to its end, whatever is wrong with it; from names alone, nothing is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdmask import config
from crowdmask.audit.findings import Finding, finding
from crowdmask.datasets.base import Fault, ImageRef, Pairing, Reader
from crowdmask.errors import printable


@dataclass(frozen=True)
class Listing:
    """Images to audit, and what is wrong with the list.

    Attributes:
        refs: Images with annotation that the configuration selects.
        published: Ids that the layout has by split, selected or not, with and without fault; not the unlabelled ones.
        unlabelled: Images that come without annotation.
        findings: Faults of the list, and what is left out of it.
    """

    refs: list[ImageRef]
    published: dict[str, list[str]]
    unlabelled: list[ImageRef]
    findings: list[Finding]


def listing(reader: Reader) -> Listing:
    """List a data set without stopping at the first fault.

    Raises:
        DataError: the folder is missing, or its layout is not known at all.
    """
    pairing = getattr(reader, "pairing", None)
    found = pairing() if pairing else Pairing(refs=reader.list_images(), unlabelled=reader.unlabelled())
    unlabelled = found.unlabelled
    findings = [*_faults(found.faults), *_left_out(found), *_similar([*found.refs, *found.unselected])]
    findings += [finding("unlabelled", "comes without annotation", ref.split, ref.image_id) for ref in unlabelled]
    ids = {(ref.split, ref.image_id) for ref in (*found.refs, *found.unselected)}
    ids |= {(split, name) for split, _, name in (key.partition("/") for key in found.skipped)}
    ids |= {(f.split, f.image_id) for f in found.faults if f.kind in ("missing_annotation", "missing_image")}
    published: dict[str, list[str]] = {}
    for split, image_id in sorted(ids):
        published.setdefault(split, []).append(image_id)
    return Listing(found.refs, published, unlabelled, findings)


def side_files(reader: Reader, split: str) -> list[str]:
    """Files that annotations of a split are read from besides their own; see `FolderReader.side_files`."""
    found = getattr(reader, "side_files", None)
    return found(split) if found else []


def existing_files(reader: Reader, listed: Listing) -> list[Path]:
    """Image and annotation files that the audit will read and that are there, for Snakemake."""
    root = Path(reader.root)
    names = {name for ref in listed.refs for name in (ref.image, ref.annotation)}
    names.update(name for split in {ref.split for ref in listed.refs} for name in side_files(reader, split))
    return [path for path in (root / name for name in sorted(names)) if path.exists()]


def entry_text(entry: config.Dataset) -> str:
    """Canonical JSON of what an entry says of the content of its files, not of which there are or where."""
    listed = {"root", "skip_images", "skip", "limit", "preset", "protocols", *config.SECTIONS}
    return config.canonical(entry.model_dump(mode="json", exclude=listed & set(type(entry).model_fields)))


def identity(listed: Listing) -> str:
    """Hex SHA-256 of a list and its faults: another one where the report would be, though the files are the same."""
    parts = [[[ref.split, ref.image_id] for ref in refs] for refs in (listed.refs, listed.unlabelled)] + [
        sorted(listed.published.items()),
        [item.as_json() for item in listed.findings],
    ]
    return hashlib.sha256(config.canonical(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _faults(faults: Sequence[Fault]) -> list[Finding]:
    """One finding for each fault; an unsafe name of an image and of its annotation is one."""
    result: dict[tuple[str, str, str, str], Finding] = {}
    for fault in faults:
        error = fault.error
        rows = () if error.row is None else (error.row,)
        key = (fault.kind, fault.split, fault.image_id, "" if fault.kind == "unsafe_id" else error.problem)
        message = f"{Path(error.path).name}: {error.problem}. {error.fix}"
        result.setdefault(key, finding(fault.kind, printable(message), fault.split, printable(fault.image_id), rows))
    return list(result.values())


def _left_out(found: Pairing) -> list[Finding]:
    result = []
    for key in found.skipped:
        split, _, image_id = key.partition("/")
        result.append(finding("skipped", "listed under skip_images", split, image_id))
    result += [finding("unselected", "by the settings skip and limit", r.split, r.image_id) for r in found.unselected]
    return result


def _similar(refs: Sequence[ImageRef]) -> list[Finding]:
    groups: dict[tuple[str, str], list[str]] = {}
    for ref in refs:
        groups.setdefault((ref.split, ref.image_id.casefold()), []).append(ref.image_id)
    return [
        finding("similar_ids", f"differs from {', '.join(ids[:1])} in case only", split, image_id)
        for (split, _), ids in groups.items()
        for image_id in ids[1:]
    ]
