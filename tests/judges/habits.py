"""Load an export with a tool's own library, edit it as a person would, save it as that tool does.

Runs in an environment of its own (`make judges`), with nothing of this project:

    python habits.py JOBS.json

Each job has `habit`, `folder` (the export), `out` (made here) and `plan`. The plan has, by picture name: `size`
[height, width], `replace` {point_id: counts}, `delete` [point_id], `add` [counts]; counts are COCO compressed run
lengths of the picture. With `strip` all ids are taken away.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sys
import traceback
import urllib.parse
from pathlib import Path

import numpy as np
from pycocotools import mask as coco


def bitmap(counts: str, size: list[int]) -> np.ndarray:
    return coco.decode({"counts": counts, "size": size}).astype(np.uint8)


def edited(masks: list[tuple[int, np.ndarray]], plan: dict) -> list[tuple[int | None, np.ndarray]]:
    """Masks after the person: (id or None, bitmap)."""
    gone = set(plan["delete"])
    new = {int(key): bitmap(counts, plan["size"]) for key, counts in plan["replace"].items()}
    kept = [(key, new.get(key, mask)) for key, mask in masks if key not in gone]
    return [*kept, *((None, bitmap(counts, plan["size"])) for counts in plan["add"])]


def outlines(mask: np.ndarray) -> list[list[float]]:
    """Outer rings only, as OpenCV traces them: holes are lost."""
    import cv2

    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [ring.reshape(-1).astype(float).tolist() for ring in found if len(ring) >= 3]


def through_datumaro(kind: str, habit: str, folder: Path, out: Path, plan: dict) -> None:
    """Datumaro: CVAT's own converter."""
    import datumaro as dm
    from datumaro.util import mask_tools

    source = out / "loaded"
    (source / "annotations").mkdir(parents=True)
    shutil.copytree(folder / "images", source / "images")
    if kind == "coco_instances":
        shutil.copy(folder / "annotations.json", source / "annotations" / "instances_default.json")
    else:
        shutil.copy(folder / "annotations.xml", source / "annotations.xml")
    data = dm.Dataset.import_from(str(source), kind)
    items = []
    for item in data:
        name = Path(item.media.path).name
        masks = [
            (int(a.attributes["point_id"]), np.asarray(a.image).astype(np.uint8))
            for a in item.annotations
            if isinstance(a, dm.Mask)
        ]
        made = []
        for key, mask in edited(masks, plan["pictures"][name]):
            attributes = {} if key is None or plan["strip"] else {"point_id": key}
            if habit == "polygons":
                made += [
                    dm.Polygon(points, label=0, attributes=attributes, group=0)
                    for points in mask_tools.mask_to_polygons(mask)
                    if len(points) >= 6
                ]
            else:
                made.append(dm.Mask(mask, label=0, attributes=attributes))
        if plan["strip"]:
            random.Random(1).shuffle(made)
        for number, annotation in enumerate(made):
            annotation.id = annotation.group = number + 1
        items.append(item.wrap(annotations=made))
    saved = dm.Dataset.from_iterable(items, categories=data.categories())
    saved.export(str(out / "saved"), kind, save_media=False)
    ending = "json" if kind == "coco_instances" else "xml"
    (found,) = (path for path in (out / "saved").rglob(f"*.{ending}") if "instances" in path.name or ending == "xml")
    shutil.copy(found, out / f"result.{ending}")


def coco_tools(habit: str, folder: Path, out: Path, plan: dict) -> None:
    """pycocotools, with what converters do to its files."""
    from pycocotools.coco import COCO

    loaded = COCO(str(folder / "annotations.json"))
    images, annotations = [], []
    for number, (key, image) in enumerate(sorted(loaded.imgs.items(), reverse=True), start=700):
        ours = loaded.loadAnns(loaded.getAnnIds(imgIds=[key]))
        masks = [(a["attributes"]["point_id"], loaded.annToMask(a)) for a in ours]
        images.append(
            {"id": number, "file_name": image["file_name"], "height": image["height"], "width": image["width"]}
        )
        for point, mask in edited(masks, plan["pictures"][Path(image["file_name"]).name]):
            entry = {"image_id": number, "category_id": 1, "iscrowd": 1}
            if habit == "uncompressed":
                flat = mask.ravel(order="F")
                edges = np.flatnonzero(np.diff(flat)) + 1
                runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
                entry["segmentation"] = {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}
            else:
                entry |= {"iscrowd": 0, "segmentation": outlines(mask)}
                if not entry["segmentation"]:
                    continue
            if point is not None and not plan["strip"]:
                entry["attributes"] = {"point_id": point}
            annotations.append(entry)
    if plan["strip"]:
        random.Random(2).shuffle(annotations)
    for number, entry in enumerate(annotations, start=5000):
        entry["id"] = number
    result = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "head"}]}
    (out / "result.json").write_text(json.dumps(result))
    COCO(str(out / "result.json"))


def supervision(folder: Path, out: Path, plan: dict) -> None:
    """supervision, which knows no ids of ours and writes polygons."""
    import supervision as sv

    data = sv.DetectionDataset.from_coco(str(folder / "images"), str(folder / "annotations.json"), force_masks=True)
    ids: dict[str, list[int]] = {}
    raw = json.loads((folder / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in raw["images"]}
    for entry in raw["annotations"]:
        ids.setdefault(Path(names[entry["image_id"]]).name, []).append(entry["attributes"]["point_id"])
    made = {}
    for path, _, found in data:
        name = Path(path).name
        masks = [(key, np.asarray(mask).astype(np.uint8)) for key, mask in zip(ids[name], found.mask, strict=True)]
        after = np.array([mask for _, mask in edited(masks, plan["pictures"][name])]).astype(bool)
        made[path] = sv.Detections(
            xyxy=sv.mask_to_xyxy(after).astype(float), mask=after, class_id=np.zeros(len(after), int)
        )
    saved = sv.DetectionDataset(classes=data.classes, images=list(made), annotations=made)
    saved.as_coco(annotations_path=str(out / "result.json"))


def labelme(habit: str, folder: Path, out: Path, plan: dict) -> None:
    """labelme's own loader, shape_to_mask and writer."""
    from labelme import utils
    from labelme._label_file import LabelFile

    shutil.copytree(folder / "images", out / "saved")
    for path in sorted((out / "saved").glob("*.json")):
        loaded = LabelFile(str(path))
        name = loaded.image_path
        size = plan["pictures"][name]["size"]
        masks = []
        for shape in loaded.shapes:
            mask = np.zeros(size, np.uint8)
            (x1, y1), (x2, y2) = np.asarray(shape["points"]).astype(int)
            mask[y1 : y2 + 1, x1 : x2 + 1] = shape["mask"]
            masks.append((shape["group_id"], mask))
        shapes = []
        for key, mask in edited(masks, plan["pictures"][name]):
            if plan["strip"]:
                key = None
            common = {"label": "head", "group_id": key, "description": "", "flags": {}}
            if habit == "polygons":
                for ring in outlines(mask):
                    points = [list(point) for point in zip(ring[::2], ring[1::2], strict=True)]
                    shapes.append({**common, "shape_type": "polygon", "points": points, "mask": None})
                    assert utils.shape_to_mask(tuple(size), points, "polygon").any()
            else:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [[float(columns[0]), float(rows[0])], [float(columns[-1]), float(rows[-1])]]
                inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(bool)
                text = utils.img_arr_to_b64(inner)
                shapes.append({**common, "shape_type": "mask", "points": box, "mask": text})
        if plan["strip"]:
            random.Random(3).shuffle(shapes)
        LabelFile().save(
            filename=str(path), shapes=shapes, image_path=name, image_height=size[0], image_width=size[1],
            image_data=(out / "saved" / name).read_bytes(),
        )  # fmt: skip
        LabelFile(str(path))


def label_studio(folder: Path, out: Path, plan: dict) -> None:
    """Label Studio's brush converter."""
    from label_studio_sdk.converter import brush

    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, start=90):
        link = urllib.parse.unquote(task["data"]["image"])
        one = plan["pictures"][link.rpartition("/")[2].rpartition("=")[2]]
        (holder,) = task.pop("annotations", None) or task.pop("predictions")
        task.pop("predictions", None)
        masks, template = [], None
        for result in holder["result"]:
            template = template or result
            size = result["original_height"], result["original_width"]
            pixels = brush.decode_rle(result["value"]["rle"]).reshape(*size, 4)[:, :, 3]
            masks.append((int(result["id"].removeprefix("p")), (pixels > 127).astype(np.uint8)))
        results = []
        for key, mask in edited(masks, one):
            value = {**template["value"], "rle": brush.mask2rle(mask * 255)}
            made = {**template, "value": value, "id": f"p{key}", "meta": {"text": [f"point_id={key}"]}}
            if key is None or plan["strip"]:
                made["id"] = f"{random.Random(len(results)).getrandbits(40):010x}"
                del made["meta"]
            results.append(made)
        if plan["strip"]:
            random.Random(4).shuffle(results)
        task |= {"id": number, "annotations": [{"id": number, "completed_by": 1, "result": results}]}
    (out / "result.json").write_text(json.dumps(tasks))


def label_map(folder: Path, out: Path, plan: dict) -> None:
    """Label images through Pillow, renumbered where ids are taken away."""
    from PIL import Image

    (out / "SegmentationMap").mkdir()
    for path in sorted((folder / "SegmentationMap").glob("*.png")):
        values = np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(np.int64)
        (one,) = (part for name, part in plan["pictures"].items() if Path(name).stem == path.stem)
        masks = [(int(v) - 1, (values == v).astype(np.uint8)) for v in np.unique(values) if v]
        after = edited(masks, one)
        if plan["strip"]:
            random.Random(5).shuffle(after)
        free = max(key for key, _ in masks) + 2
        saved = np.zeros(values.shape, np.uint16)
        for number, (key, mask) in enumerate(after):
            value = number + 1 if plan["strip"] else key + 1 if key is not None else free + number
            saved[(mask > 0) & (saved == 0)] = value
        Image.fromarray(saved).save(out / "SegmentationMap" / path.name)


def faster_coco_eval(path: Path, out: Path) -> None:
    """faster-coco-eval's own reading of a COCO file: a hash of each mask's pixels."""
    from faster_coco_eval import COCO

    loaded = COCO(str(path))
    found = {}
    for entry in loaded.loadAnns(loaded.getAnnIds()):
        mask = np.asarray(loaded.annToMask(entry))
        name = loaded.imgs[entry["image_id"]]["file_name"]
        key = f"{name} {entry['point_id']}"
        assert key not in found, key
        pixels = np.packbits(mask.astype(bool)).tobytes()
        found[key] = [*mask.shape, int(np.count_nonzero(mask)), hashlib.sha256(pixels).hexdigest()]
    (out / "result.json").write_text(json.dumps(found))


def run(habit: str, folder: Path, out: Path, plan: dict) -> None:
    """One export through one habit."""
    tool, _, how = habit.partition(":")
    if tool == "datumaro-coco":
        through_datumaro("coco_instances", how, folder, out, plan)
    elif tool == "datumaro-cvat":
        through_datumaro("cvat", how, folder, out, plan)
    elif tool == "pycocotools":
        coco_tools(how, folder, out, plan)
    elif tool == "supervision":
        supervision(folder, out, plan)
    elif tool == "labelme":
        labelme(how, folder, out, plan)
    elif tool == "label-studio":
        label_studio(folder, out, plan)
    elif tool == "faster-coco-eval":
        faster_coco_eval(folder, out)
    else:
        assert tool == "label-map", tool
        label_map(folder, out, plan)


def main() -> None:
    """All jobs; what one says when it fails is in its output folder, the others go on."""
    for job in json.loads(Path(sys.argv[1]).read_text()):
        out = Path(job["out"])
        out.mkdir(parents=True)
        try:
            run(job["habit"], Path(job["folder"]), out, job["plan"])
        except Exception:
            (out / "error.txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    main()
