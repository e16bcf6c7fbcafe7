"""An audit from start to end: list, read in parallel what the cache does not have, check, and write the report."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache as once
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crowdmask import config
from crowdmask.audit import VERSION, page, sets
from crowdmask.audit.cache import Cache
from crowdmask.audit.findings import KINDS, SEVERITIES, Finding, by_kind, in_order
from crowdmask.audit.listing import Listing, entry_text, listing, side_files
from crowdmask.audit.record import content_digest, examine, key_of, picture_of
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.datasets.images import Exif
from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.files import replacing, write_json

FEWEST_FOR_POOL = 24
"""Below so many images to read, starting other processes costs more than they save."""

PICTURES = 12
"""Images shown on the page, those with the worst findings."""

_WEIGHT = {"error": 100, "warning": 10, "note": 1}

_worker: tuple[Reader, Exif] | None = None


def audit(
    name: str,
    entry: config.Dataset,
    results: str | Path,
    *,
    jobs: int = 1,
    progress: bool = True,
    reader: Reader | None = None,
) -> dict[str, Any]:
    """Audit a data set; writes `audit.html`, `audit.json` and the cache into its folder of results.

    Args:
        name: Name of the data set.
        entry: Its settings.
        results: The results folder.
        jobs: Processes that read images.
        progress: Whether to show a progress bar.
        reader: Another reader than that of the entry, used in this process only.

    Returns:
        The report, JSON values: what `audit.json` holds.

    Raises:
        DataError: the folder of the data set is missing, or its layout is not known.
    """
    folder = Path(results, name)
    exif: Exif = entry.exif if isinstance(entry, config.FolderDataset) else "stored"
    own = reader or reader_for(name, entry, str(results))
    if not isinstance(entry, config.FolderDataset) and not Path(own.root).is_dir():
        fix = f"Run: snakemake --cores 2 {folder}/audit.html (which renders them)."
        raise DataError(own.root, "the scenes are not rendered yet", fix)
    listed = listing(own)
    cache = Cache(folder / "audit-cache")
    keys = _keys(own, listed.refs, entry)
    missing = [ref for ref in listed.refs if cache.get(keys[ref]) is None]
    made = _examined(own, missing, exif, name, entry, str(results), 1 if reader else jobs)
    for _ in tqdm(
        cache.add((keys[ref], record) for ref, record in made),
        total=len(missing),
        disable=not progress or not missing,
        desc=f"audit {name}",
        unit="image",
        mininterval=1.0,
        dynamic_ncols=True,
    ):
        pass
    records = {(ref.split, ref.image_id): cache.get(keys[ref]) or {} for ref in listed.refs}
    findings = in_order([*listed.findings, *_of_images(records.values()), *_of_set(listed, records, entry.format)])
    report = make_report(name, entry.format, listed, records, findings)
    pictures = _pictures(own, listed.refs, exif, findings, cache, keys)
    cache.keep(keys.values())
    write_json(folder / "audit.json", report)
    with replacing(folder / "audit.html") as temporary:
        temporary.write_text(page.page(report, findings, records, pictures), encoding="utf-8")
    return report


def make_report(
    name: str, kind: str, listed: Listing, records: sets.Images, findings: Sequence[Finding]
) -> dict[str, Any]:
    """The report as JSON values; the same for the same files, whatever the number of processes."""
    splits: dict[str, dict[str, int]] = {}
    for (split, _), record in sorted(records.items()):
        sums = splits.setdefault(split, {"images": 0, "points": 0})
        sums["images"] += 1
        sums["points"] += record["points"] or 0
    known = sets.recognise(kind, listed.published)
    groups = by_kind(findings)
    return {
        "version": VERSION,
        "dataset": name,
        "format": kind,
        "recognised": known["title"] if known else None,
        "totals": {
            "images": len(records),
            "unlabelled": len(listed.unlabelled),
            "points": sum(sums["points"] for sums in splits.values()),
            **{f"{severity}s": sum(f.severity == severity for f in findings) for severity in SEVERITIES},
        },
        "splits": splits,
        "kinds": {
            key: {
                "severity": KINDS[key].severity,
                "title": KINDS[key].title,
                "action": KINDS[key].action,
                "findings": len(found),
                "images": len({(f.split, f.image_id) for f in found if f.image_id}),
                "rows": sum(len(f.rows) for f in found),
            }
            for key, found in groups.items()
        },
        "findings": [item.as_json() for item in findings],
        "images": [
            {
                "split": split,
                "image_id": image_id,
                **{key: record[key] for key in ("height", "width", "mode", "points", "median_nearest")},
            }
            for (split, image_id), record in sorted(records.items())
        ],
    }


def _keys(reader: Reader, refs: Sequence[ImageRef], entry: config.Dataset) -> dict[ImageRef, str]:
    """Cache key of each image; an annotation file that many images share is read once."""
    text = entry_text(entry)
    digest = once(content_digest)
    root = Path(reader.root)
    beside = {split: [digest(root / name) for name in side_files(reader, split)] for split in {r.split for r in refs}}
    return {ref: key_of(text, ref, reader.root, [digest(root / ref.annotation), *beside[ref.split]]) for ref in refs}


def _examined(
    reader: Reader,
    refs: Sequence[ImageRef],
    exif: Exif,
    name: str,
    entry: config.Dataset,
    results: str,
    jobs: int,
) -> Iterator[tuple[ImageRef, dict[str, Any]]]:
    """Each image with its record, in the order given."""
    if jobs <= 1 or len(refs) < FEWEST_FOR_POOL:
        for ref in refs:
            yield ref, examine(reader, ref, exif)
        return
    # Processes of their own, not copies of this one: it has threads (progress bar, OpenCV), which copies break.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start, (name, entry, results, exif)) as pool:
        try:
            yield from zip(refs, pool.map(_examine, refs, chunksize=4), strict=True)
        except BrokenProcessPool:
            raise CrowdmaskError(
                f"{name}: a process that reads images was ended, most likely for want of memory. Run the audit again "
                "with --jobs 1; what it has read is kept."
            ) from None


def _start(name: str, entry: config.Dataset, results: str, exif: Exif) -> None:
    import cv2

    global _worker
    cv2.setNumThreads(1)
    _worker = reader_for(name, entry, results), exif


def _examine(ref: ImageRef) -> dict[str, Any]:
    assert _worker is not None
    return examine(_worker[0], ref, _worker[1])


def _of_images(records: Iterable[dict[str, Any]]) -> list[Finding]:
    return [Finding.from_json(value) for record in records for value in record["findings"]]


def _of_set(listed: Listing, records: sets.Images, kind: str) -> list[Finding]:
    found = [*sets.same_pictures(records), *sets.near_pictures(records), *sets.density_outliers(records)]
    known = sets.recognise(kind, listed.published)
    if known is None:
        return found
    counts = [record["points"] for record in records.values()]
    everything = len(records) == sum(map(len, listed.published.values())) and None not in counts
    total = sum(counts) if everything else None
    found += sets.known_defects(known, list(records))
    return found + sets.published_numbers(known, listed.published, total)


def _pictures(
    reader: Reader,
    refs: Sequence[ImageRef],
    exif: Exif,
    findings: Sequence[Finding],
    cache: Cache,
    keys: dict[ImageRef, str],
) -> list[tuple[str, str, bytes]]:
    """(split, image id, JPEG) of the images with the worst findings; at most `PICTURES`, none without a warning.

    Images that cannot be read are not tried again.
    """
    weights: dict[tuple[str, str], int] = {}
    for item in findings:
        if item.image_id and item.severity != "note":
            key = item.split, item.image_id
            weights[key] = weights.get(key, 0) + _WEIGHT[item.severity]
    by_name = {(ref.split, ref.image_id): ref for ref in refs if (cache.get(keys[ref]) or {}).get("height")}
    result = []
    for name in sorted(weights.keys() & by_name.keys(), key=lambda key: (-weights[key], key)):
        ref = by_name[name]
        path = cache.picture(keys[ref])
        try:
            data: bytes | None = path.read_bytes()
        except OSError:
            own = _of_images([cache.get(keys[ref]) or {"findings": []}])  # rows of others are lines of lists
            data = picture_of(reader, ref, exif, own)
            if data is not None:
                with replacing(path) as temporary:
                    temporary.write_bytes(data)
        if data is not None:
            result.append((*name, data))
        if len(result) == PICTURES:
            break
    return result
