"""Every kind of file that a reader takes from somebody else: how it is read, and what a read must give."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crowdmask import config
from crowdmask.corrections import native
from crowdmask.datasets import images, protocols, reader_for
from crowdmask.datasets.base import Annotation, ImageRef, Reader
from crowdmask.errors import CrowdmaskError
from crowdmask.export import iim, yolo
from crowdmask.export.coco_reader import CocoFile
from crowdmask.export.instances import Instances
from crowdmask.metrics import compare
from fuzz import mutate, samples


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Attributes:
        name: For messages and for choosing it.
        build: Writes a valid sample into a folder and gives the files to damage.
        read: Reads everything in the folder; raises `CrowdmaskError`, or `AssertionError` for a wrong result.
        own: Damage that suits the format.
    """

    name: str
    build: Callable[[Path], list[Path]]
    read: Callable[[Path], None]
    own: tuple[mutate.Mutator, ...] = ()


def check_annotation(found: Annotation) -> None:
    """Arrays of the declared types and shapes, finite."""
    points = found.points_xy
    count = len(points)
    assert points.dtype == np.float64 and points.shape == (count, 2) and np.isfinite(points).all(), points
    boxes = found.boxes_xyxy
    if boxes is not None:
        assert boxes.dtype == np.float64 and boxes.shape == (count, 4) and np.isfinite(boxes).all(), boxes
    assert found.declared is None or (type(found.declared) is int and found.declared >= 0), found.declared
    if found.size_hw is not None:
        assert len(found.size_hw) == 2 and all(type(v) is int and v > 0 for v in found.size_hw), found.size_hw
    for name, values in found.attributes.items():
        assert isinstance(name, str) and values.dtype == np.int64 and values.shape == (count,), (name, values)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.labels.items()), found.labels


def check_ref(ref: ImageRef, annotated: bool) -> None:
    """Names that stay below the root."""
    for name in (ref.image, *([ref.annotation] if annotated else [])):
        path = PurePosixPath(name)
        assert name and not path.is_absolute() and ".." not in path.parts, name
    assert ref.image_id and "/" not in ref.image_id and ".." not in ref.image_id, ref.image_id


@lru_cache(maxsize=1000)
def _reader(kind: str, root: str, settings: str) -> Reader:
    entry = {"format": kind, "root": root, **json.loads(settings)}
    if kind == "synthetic":
        del entry["root"]
    return reader_for("mine", config.load({"datasets": {"mine": entry}}).datasets["mine"], root)


def data_set(kind: str, **settings: Any) -> Callable[[Path], None]:
    """Reads a whole data set: list, annotations, truth; the last error of an image is raised at the end."""
    text = json.dumps(settings)

    def read(root: Path) -> None:
        reader = _reader(kind, str(root), text)
        listed, hidden = reader.list_images(), reader.unlabelled()
        for ref in listed:
            check_ref(ref, annotated=True)
        for ref in hidden:
            check_ref(ref, annotated=False)
        fault = None
        for ref in listed:
            try:
                found = reader.read_annotation(ref)
                check_annotation(found)
                if reader.has_truth:
                    labels, ids = reader.read_truth(ref)
                    assert labels.dtype == np.int32 and labels.ndim == 2 and labels.min(initial=0) >= 0
                    assert ids.dtype == np.int32 and ids.shape == (len(found.points_xy),)
            except CrowdmaskError as error:
                fault = error
        if fault is not None:
            raise fault

    return read


def _read_pictures(root: Path) -> None:
    """Header and pixels by both policies; the header may be readable where the pixels are not."""
    (path,) = root.iterdir()
    fault = None
    for exif in ("stored", "apply"):
        size = None
        try:
            size = images.image_size(path, exif)  # type: ignore[arg-type]
            assert len(size) == 2 and all(type(v) is int and v > 0 for v in size), size
        except CrowdmaskError as error:
            fault = error
        try:
            pixels = images.read_image(path, exif)  # type: ignore[arg-type]
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size, pixels.shape
            # A PNG with two orientations, which no valid one has, may be turned differently by header and whole file.
            same = sorted if exif == "apply" and path.suffix == ".png" else tuple
            assert size is None or same(pixels.shape[:2]) == same(size), (pixels.shape, size)
        except CrowdmaskError as error:
            fault = error
    if fault is not None:
        raise fault


def _read_edits(root: Path) -> None:
    fault = None
    for path in sorted(root.rglob("*.json")):
        try:
            file = native.load(path)
            native.check_location(path, file)
            height, width = file.image.height, file.image.width
            for edit in file.edits:
                if isinstance(edit, native.Replace | native.Add):
                    try:
                        window = native.to_mask(edit, height, width)
                    except ValueError:  # documented; the merge names file and row
                        continue
                    assert window.area > 0 and window.x0 >= 0 and window.y0 >= 0
                    assert window.x0 + window.mask.shape[1] <= width and window.y0 + window.mask.shape[0] <= height
        except CrowdmaskError as error:
            fault = error
    if fault is not None:
        raise fault


def _read_splits(root: Path) -> None:
    refs = [ImageRef("train", f"IMG_{number}", "", "") for number in range(1, 9)]
    part = config.Protocols.model_validate({"labelled": {"p": {"list": str(root / "list.txt")}}})
    made = protocols.run("mine", refs, [], part)
    assert 1 <= len(protocols.labelled_ids(made, "p")) <= 8
    splits = protocols.load(root / "splits.json")
    assert len(protocols.split_ids(splits, "train")) == splits.splits["train"].count
    assert set(protocols.unlabelled_ids(splits, "p")).isdisjoint(protocols.labelled_ids(splits, "p"))
    train, test = protocols.fold_ids(splits, 1)
    assert isinstance(train, tuple) and isinstance(test, tuple)


def _check_instances(item: Instances) -> None:
    assert item.ids.dtype == np.int64 and item.ids.shape == (len(item.windows),), item.ids
    for window in item.windows:
        h, w = window.mask.shape
        assert window.mask.dtype == bool and window.tight().mask.shape == (h, w)
        assert min(window.x0, window.y0) >= 0 and window.x0 + w <= item.width and window.y0 + h <= item.height


def _read_coco_masks(root: Path) -> None:
    for item in CocoFile(root / "masks.json").instances():
        _check_instances(item)


def _read_yolo_masks(root: Path) -> None:
    for item in yolo.read(root, "train", dict.fromkeys("ab", (samples.HEIGHT, samples.WIDTH))):
        _check_instances(item)


def _read_locations(root: Path) -> None:
    for number, found in iim.read_locations(root / "gt_loc.txt").items():
        assert type(number) is int and found.dtype == np.int64 and found.ndim == 2 and found.shape[1] == 5


def compared(pred: str, truth: str) -> Callable[[Path], None]:
    """Measures one against the other: every figure in its range."""

    def read(root: Path) -> None:
        found = compare.run(root / pred, root / truth, "ignore")
        for name, value in found["measures"].items():
            assert value is None or (np.isfinite(value) and value >= 0), (name, value)
            assert value is None or value <= 1 or name.startswith(("mae", "rmse", "nae", "game")), (name, value)

    return read


def counts_column(rng: Any, data: bytes, other: bytes) -> bytes:
    """A table of ours with other run lengths, windows or names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    names = [name for name in ("counts", "x0", "y0", "w", "h", "point_id", "image_id") if name in table.column_names]
    if not names:
        return mutate.numbers(rng, data, other)
    name = rng.choice(names)
    index, kind = table.column_names.index(name), table.schema.field(name)
    if name == "counts":
        values: list[Any] = [bytes(rng.randrange(256) for _ in range(rng.randrange(20))) for _ in range(len(table))]
        values = [bytes(48 + b % 64 for b in value) if rng.random() < 0.7 else value for value in values]
    elif name == "image_id":
        values = [rng.choice(("", "../a", "b", "a/b", "x\0")) for _ in range(len(table))]
    else:
        values = [rng.choice((-1, 0, 1, 7, 2**31 - 1, -(2**31))) for _ in range(len(table))]
    made = table.set_column(index, kind, pa.array(values, kind.type))
    buffer = io.BytesIO()
    pq.write_table(made, buffer)
    return buffer.getvalue()


def parquet_column(rng: Any, data: bytes, other: bytes) -> bytes:
    """A Parquet file that is in order, with columns of other types and values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    name = rng.choice(sorted(columns))
    count = len(columns[name])
    kinds: tuple[Any, ...] = (
        *([1] * count, [None] * count, [float("nan")] * count, [float("inf")] * count, [True] * count, [2**63] * count),
        *([[1.5]] * count, [{"a": 1}] * count, [b"\xff"] * count, ["1e5"] * count, [""] * count, ["x\0"] * count),
        *(
            ["../a.jpg"] * count,
            ["9" * 400] * count,
            [1e308] * count,
            [-(2**63)] * count,
            columns[rng.choice(sorted(columns))],
        ),
    )
    columns[name] = rng.choice(kinds)
    made = pa.table(columns)
    types = (
        pa.float16(),
        pa.decimal128(38, 2),
        pa.timestamp("s"),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
    )
    try:
        kind = rng.choice((None, *types, pa.binary(), pa.float32(), pa.int8(), pa.null(), pa.date32()))
        if kind is not None:
            index = made.column_names.index(name)
            made = made.set_column(index, name, made[name].cast(kind))
    except pa.ArrowException:
        pass
    if rng.random() < 0.1:
        made = made.slice(0, 0)
    if rng.random() < 0.1:
        made = made.append_column("x", made["y"])
    buffer = io.BytesIO()
    try:
        pq.write_table(made, buffer, compression=rng.choice(("NONE", "snappy", "zstd")))
    except pa.ArrowException:
        return data[::-1]
    return buffer.getvalue()


CASES = [
    Case("shanghaitech", samples.sha(False), data_set("shanghaitech")),
    Case("shanghaitech-compressed", samples.sha(True), data_set("shanghaitech"), (mutate.mat_inside,)),
    Case("ucf", samples.ucf(False), data_set("ucf")),
    Case("ucf-compressed", samples.ucf(True), data_set("ucf"), (mutate.mat_inside,)),
    Case("label_map-png", samples.label_png, data_set("label_map"), (mutate.png_inside,)),
    Case("label_map-npy", samples.label_npy, data_set("label_map"), (mutate.npy_header,)),
    Case("jhu", samples.jhu, data_set("jhu"), mutate.TEXT),
    Case("nwpu-json", samples.nwpu_json, data_set("nwpu"), mutate.JSON),
    Case("nwpu-mat", samples.nwpu_mat, data_set("nwpu"), (mutate.mat_inside,)),
    Case("fdst", samples.fdst, data_set("fdst"), mutate.JSON),
    Case("coco", samples.coco, data_set("coco"), mutate.JSON),
    Case("points-csv", samples.csv(","), data_set("points", split="split"), mutate.TEXT),
    Case("points-csv-semicolon", samples.csv(";"), data_set("points"), mutate.TEXT),
    Case(
        "points-parquet",
        samples.parquet,
        data_set("points", table="points.parquet", split="split"),
        (parquet_column, parquet_column, mutate.numbers),
    ),
    Case("labelme", samples.labelme, data_set("labelme"), mutate.JSON),
    Case("synthetic", samples.scene, data_set("synthetic", **samples.SCENE), mutate.JSON),
    Case("masks-coco", samples.coco_masks, _read_coco_masks, mutate.JSON),
    Case("masks-yolo", samples.yolo_masks, _read_yolo_masks, mutate.TEXT),
    Case("masks-iim", samples.locations, _read_locations, mutate.TEXT),
    Case("compare-coco", samples.masks_coco, compared("masks.json", "truth"), mutate.JSON),
    Case(
        "compare-tables",
        samples.masks_tables,
        compared("truth", "truth"),
        (counts_column, counts_column, mutate.numbers),
    ),
    Case("edits", samples.edits, _read_edits, mutate.JSON),
    Case("splits", samples.splits, _read_splits, mutate.JSON),
    Case("image-jpg", samples.picture("jpg"), _read_pictures),
    Case("image-png", samples.picture("png", "P"), _read_pictures, (mutate.png_inside,)),
    Case("image-png16", samples.picture("png", "I;16"), _read_pictures, (mutate.png_inside,)),
    Case("image-bmp", samples.picture("bmp"), _read_pictures, (mutate.numbers,)),
    Case("image-tif", samples.picture("tif", compression="tiff_lzw"), _read_pictures, (mutate.numbers,)),
    Case("image-webp", samples.picture("webp", "RGBA"), _read_pictures, (mutate.numbers,)),
]
"""Every kind of file that a reader takes from somebody else."""


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)
