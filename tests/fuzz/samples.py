"""Valid files of every format, small: what the damage starts from. Each function writes them into an empty folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from crowdmask import config, tables
from crowdmask.datasets import protocols, rendered
from crowdmask.datasets.base import ImageRef
from crowdmask.export import yolo
from crowdmask.masks import rle
from crowdmask.masks.rle import Window, full_counts

HEIGHT, WIDTH = 12, 16
POINTS = np.array([[3.5, 4.25], [10.0, 2.0], [10.0, 2.0], [15.5, 11.0]])
BOXES = [[2.0, 3.0, 5.0, 6.0], [9.0, 1.0, 11.0, 3.0], [9.0, 1.0, 11.0, 3.0], [14.0, 10.0, 16.0, 12.0]]
LABELS = np.zeros((HEIGHT, WIDTH), np.uint16)
LABELS[1:6, 1:6], LABELS[8:11, 2:14], LABELS[0:2, 12:16] = 7, 300, 2

SQUARE = np.ones((4, 5), bool)

Build = Callable[[Path], list[Path]]
"""Gives the files to damage, those that matter most several times."""


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(path)


def _write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _mat(path: Path, compressed: bool, **variables: Any) -> Path:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=compressed)
    return _write(path, buffer.getvalue())


def _info(points: np.ndarray) -> np.ndarray:
    structure = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    structure[0, 0] = (points, np.array([[len(points)]]))
    cell = np.empty((1, 1), object)
    cell[0, 0] = structure
    return cell


def sha(compressed: bool) -> Callable[[Path], list[Path]]:
    def build(root: Path) -> list[Path]:
        found = []
        for number in (1, 2):
            _image(root / "train_data/images" / f"IMG_{number}.jpg")
            path = root / "train_data/ground-truth" / f"GT_IMG_{number}.mat"
            found.append(_mat(path, compressed, image_info=_info(POINTS[: 5 * (2 - number) + 1])))
        return found

    return build


def ucf(compressed: bool) -> Callable[[Path], list[Path]]:
    def build(root: Path) -> list[Path]:
        for number in (1, 2):
            _image(root / f"{number}.jpg")
        one = _mat(root / "1_ann.mat", compressed, annPoints=POINTS, note="text", other={"a": [1, 2]})
        return [one, _mat(root / "2_ann.mat", compressed, annPoints=POINTS[:2].astype(np.uint16))]

    return build


def label_png(root: Path) -> list[Path]:
    for name, values in (("a", LABELS), ("b", (LABELS > 0).astype(np.uint8))):
        _image(root / "images" / f"{name}.png")
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(values).save(root / "labels" / f"{name}.png")
    return [root / "labels/a.png", root / "labels/b.png"]


def label_npy(root: Path) -> list[Path]:
    _image(root / "images/a.png")
    (root / "labels").mkdir(exist_ok=True)
    np.save(root / "labels/a.npy", LABELS.astype(np.int32))
    return [root / "labels/a.npy"]


def jhu(root: Path) -> list[Path]:
    rows = "".join(f"{x:.0f} {y:.0f} 4 5 {k % 3 + 1} {k % 2}\n" for k, (x, y) in enumerate(POINTS))
    for name in ("0001", "0002"):
        _image(root / "train/images" / f"{name}.jpg")
    _write(root / "train/gt/0002.txt", "")
    labels = _write(root / "train/image_labels.txt", "0001,4,stadium,0,0\n0002,0,street, wet,2,1\n")
    return [_write(root / "train/gt/0001.txt", rows), labels]


def nwpu_json(root: Path) -> list[Path]:
    for name in ("0001", "0002", "3700"):
        _image(root / "images_part1" / f"{name}.jpg")
    lists = [_write(root / "train.txt", "0001 0 1\n0002 2 0\n"), _write(root / "test.txt", "3700\n")]
    content = {"img_id": "0001.jpg", "human_num": 4, "points": POINTS.tolist(), "boxes": BOXES}
    _write(root / "jsons/0002.json", json.dumps({"img_id": "0002.jpg", "human_num": 0, "points": [], "boxes": []}))
    path = _write(root / "jsons/0001.json", json.dumps(content))
    return [path, path, path, lists[0]]


def nwpu_mat(root: Path) -> list[Path]:
    _image(root / "images/0001.jpg")
    return [_mat(root / "mats/0001.mat", True, annPoints=POINTS, annBoxes=np.array(BOXES))]


def fdst(root: Path) -> list[Path]:
    found = []
    for number, kind in ((1, list), (2, dict)):
        _image(root / "train_data/3" / f"00{number}.jpg")
        shapes = [
            {"shape_attributes": {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}}
            for x0, y0, x1, y1 in BOXES
        ]
        regions = shapes if kind is list else {str(k): shape for k, shape in enumerate(shapes)}
        entry = {"filename": f"00{number}.jpg", "size": 999, "regions": regions, "file_attributes": {}}
        found.append(_write(root / "train_data/3" / f"00{number}.json", json.dumps({f"00{number}.jpg999": entry})))
    return found


def coco(root: Path) -> list[Path]:
    for name in ("a.jpg", "b.jpg", "unnamed.jpg"):
        _image(root / "images" / name)
    listed = [
        {"id": k, "file_name": name, "height": HEIGHT, "width": WIDTH} for k, name in enumerate(("a.jpg", "b.jpg"))
    ]
    annotations = [
        {
            "id": k,
            "image_id": k % 2,
            "category_id": 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "keypoints": [0, 0, 0, x0, y0, k % 3],
            "iscrowd": k % 2,
        }
        for k, (x0, y0, x1, y1) in enumerate(BOXES)
    ]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "head"}]}
    return [_write(root / "annotations.json", json.dumps(content))]


def masks_coco(root: Path) -> list[Path]:
    """Masks of two images in all forms, beside label maps to compare them with."""
    names = ["a", "b"]
    for name in names:
        (root / "truth").mkdir(exist_ok=True)
        Image.fromarray(LABELS).save(root / "truth" / f"{name}.png")
    listed = [{"id": k, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH} for k, name in enumerate(names)]
    ring = [2.0, 2.0, 9.5, 2.0, 9.5, 8.0, 2.0, 8.0]
    window = Window(3, 2, np.ones((5, 4), bool))
    text = full_counts(window, HEIGHT, WIDTH).decode()
    plain = [3 * HEIGHT + 2, 5, HEIGHT * (WIDTH - 3) - 7]
    drawn = [[ring], ring, {"size": [HEIGHT, WIDTH], "counts": text}, {"size": [HEIGHT, WIDTH], "counts": plain}]
    annotations = [
        {"id": k, "image_id": k % len(names), "category_id": 1, "score": 0.5, "point_id": k, "point": [3.0, 4.0]}
        | {"segmentation": drawn[k // 2]}
        for k in range(8)
    ]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "head"}]}
    return [_write(root / "masks.json", json.dumps(content))]


def masks_tables(root: Path) -> list[Path]:
    """Our own tables, as the workflow leaves them."""
    key = {"split": "test", "image_id": "a"}
    points = [{"point_id": k, "x": 5.0 * k, "y": 5.0, "outside": False, **tables.NO_BOX} for k in range(3)]
    image = {**key, "path": "a.jpg", "height": HEIGHT, "width": WIDTH, "mode": "L", "sha256": "0", "points": points}
    tables.write(root / "datasets" / "x.parquet", "images", [image], version=1, settings="{}")
    masks = [Window(4 * k, 3, np.ones((5, 3), bool)) for k in range(3)]
    rows = [{**key, "point_id": k, "instance_id": k + 1, **mask.columns()} for k, mask in enumerate(masks)]
    path = root / "truth" / "x.parquet"
    tables.write(path, "truth", rows, version=1, settings="{}")
    return [path, root / "datasets" / "x.parquet"]


def _table(root: Path) -> dict[str, list[Any]]:
    for name in ("a.jpg", "b.png"):
        _image(root / "images" / name)
    names = ["a.jpg", "b.png", "a.jpg", "b.png"]
    return {"image": names, "x": POINTS[:, 0].tolist(), "y": POINTS[:, 1].tolist(), "split": ["train", "test"] * 2}


def csv(delimiter: str) -> Callable[[Path], list[Path]]:
    def build(root: Path) -> list[Path]:
        columns = _table(root)
        decimal = "." if delimiter == "," else ","
        rows = [list(columns)]
        for name, x, y, split in zip(*columns.values(), strict=True):
            rows.append([name, str(x).replace(".", decimal), str(y).replace(".", decimal), split])
        return [_write(root / "points.csv", "".join(delimiter.join(row) + "\n" for row in rows))]

    return build


def parquet(root: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(_table(root)), root / "points.parquet", compression="NONE")
    return [root / "points.parquet"]


def labelme(root: Path) -> list[Path]:
    shapes = [
        {"label": "head", "points": [[3.5, 4.25]], "shape_type": "point", "flags": {}},
        {"label": "head", "points": [[2, 3], [5, 6]], "shape_type": "rectangle"},
        {"label": "head", "points": [[2, 3], [5, 6], [2, 7]], "shape_type": "polygon", "group_id": None},
        {"label": "head", "points": [[2, 3], [5, 6]], "shape_type": "circle"},
    ]
    found = []
    for name in ("a", "b"):
        _image(root / f"{name}.jpg")
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        content = {"version": "5.0.1", "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None, **size}
        found.append(_write(root / f"{name}.json", json.dumps(content)))
    return found


def picture(suffix: str, mode: str = "RGB", **options: Any) -> Callable[[Path], list[Path]]:
    def build(root: Path) -> list[Path]:
        values = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        picture = Image.fromarray(values).convert(mode) if mode != "I;16" else Image.fromarray(LABELS * 200)
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif} if suffix in ("jpg", "webp", "tif", "png") else {}
        picture.save(root / f"x.{suffix}", **more, **options)
        return [root / f"x.{suffix}"]

    return build


def edits(root: Path) -> list[Path]:
    who = {"author": "a", "time": "2025-03-01T12:00:00Z"}
    ring = [2.0, 3.0, 5.0, 3.0, 5.0, 6.0]
    edits = [
        {"action": "replace", "point_id": 0, "polygons": [ring, ring[::-1]], "base": "0" * 64, **who},
        {"action": "add", "x": 1.0, "y": 0.5, "mask": {"counts": "13", "size": [2, 2]}, **who},
        {"action": "circle", "point_id": 2, "radius": 4.5, **who},
        {"action": "delete", "point_id": 1, "note": "none", "provenance": {"tool": "x 1"}, **who},
        {"action": "accept", "point_id": 3, **who},
    ]
    image = {"split": "test", "image_id": "a", "height": 2, "width": 2, "sha256": None}
    one = _write(root / "test/a.json", json.dumps({"version": 1, "image": image, "edits": edits}))
    image = {**image, "image_id": "b", "height": HEIGHT, "width": WIDTH}
    del edits[1]
    return [one, _write(root / "test/b.json", json.dumps({"version": 1, "image": image, "edits": edits}))]


def splits(root: Path) -> list[Path]:
    names = [f"IMG_{number}" for number in range(1, 9)]
    path = _write(root / "list.txt", "# eight\nIMG_1.jpg\n\nIMG_2 0 1\ntrain/IMG_3\n")
    settings = {"validation": {"share": 0.25}, "labelled": {"p": {"share": 0.5}}, "folds": {"of": "train", "k": 2}}
    refs = [ImageRef("train", name, f"{name}.jpg", f"{name}.mat") for name in names]
    made = protocols.run("mine", refs, [], config.Protocols.model_validate(settings))
    return [path, _write(root / "splits.json", json.dumps(made.model_dump(mode="json", exclude_none=True)))]


SCENE = {"count": 1, "people": [3, 5], "height": 64, "width": 64}


def scene(root: Path) -> list[Path]:
    entry = config.load({"datasets": {"mine": {"format": "synthetic", **SCENE}}}).datasets["mine"]
    folder = root / "mine/render/test"
    folder.mkdir(parents=True)
    names = [folder / f"scene-0000{suffix}" for suffix in (".png", ".labels.png", ".points.json")]
    rendered.render(entry, 0, *map(str, names))  # type: ignore[arg-type]
    return [names[2], names[2], names[1]]


def coco_masks(root: Path) -> list[Path]:
    compressed = {"size": [HEIGHT, WIDTH], "counts": rle.full_counts(Window(3, 2, SQUARE), HEIGHT, WIDTH).decode()}
    pixels = HEIGHT * WIDTH
    drawn = [
        compressed,
        {"size": [HEIGHT, WIDTH], "counts": [5, 3, pixels - 8]},
        [[1.5, 2, 6, 2.5, 5, 7], [0, 0, 3, 0, 3, 3]],
        compressed,
    ]
    images = [{"id": k, "file_name": f"a/{k}.jpg", "height": HEIGHT, "width": WIDTH} for k in (1, 2)]
    annotations = [
        {"id": k, "image_id": 1 + k % 2, "category_id": 1, "segmentation": value, "iscrowd": 0, "point_id": k}
        for k, value in enumerate(drawn)
    ]
    content = {"info": {"x": "é"}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    return [_write(root / "masks.json", json.dumps(content, ensure_ascii=False))]


def yolo_masks(root: Path) -> list[Path]:
    texts = [yolo.line(Window(3, 2, SQUARE), HEIGHT, WIDTH)[0], "2 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"]
    return [_write(root / "labels/train/a.txt", "".join(texts)), _write(root / "labels/train/b.txt", texts[0])]


def locations(root: Path) -> list[Path]:
    return [_write(root / "gt_loc.txt", "1 2 3 4 5 6 0 7 8 9 10 1\n2 0\n30 1 -1 4 5 6 5\n")]
