"""Tables of drawn masks, written in a format, for the tests of exports."""

import numpy as np

from crowdmask import cli_export, tables
from crowdmask.export import files, parquet
from crowdmask.export.coco_reader import CocoFile
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

OPTIONS = {"version": 1, "points": "GT_{}.npy"}
FOLDERS = ["xmask", "label-map", "yolo", "iim"]


def batch(folder, drawn, split="train", boxes=None, name="b", order=None):
    """Tables of images given as {image_id: {point_id: bool (H, W)}}."""
    images, masks = [], []
    for image_id, found in drawn.items():
        height, width = next(iter(found.values())).shape if found else (6, 7)
        points = [
            {"point_id": point, "x": 0.5, "y": 1.0, "outside": False}
            | dict(zip(("x0", "y0", "x1", "y1"), (boxes or {}).get(point, (None,) * 4), strict=True))
            for point in found
        ]
        images.append(
            {"split": split, "image_id": image_id, "path": f"{split}/{image_id}.jpg", "height": height, "width": width}
            | {"mode": "RGB", "sha256": "0" * 64, "points": points}
        )
        for point, mask in found.items():
            window = Window(0, 0, np.asarray(mask)).tight()
            row = {
                "split": split,
                "image_id": image_id,
                "point_id": point,
                "x": point + 0.25,
                "y": 2.5,
                "source": "sam",
            }
            row |= {"verified": False, "author": None, "score": None, "radius_px": 5.0, "lost_px": 0}
            masks.append({**row, "area": window.area, "sha256": rle.digest(window), **window.columns()})
    if order is not None:
        masks = [masks[k] for k in order]
    paths = folder / f"{name}-images.parquet", folder / f"{name}-masks.parquet"
    tables.write(paths[0], "images", images, version=3, settings="{}")
    tables.write(paths[1], "masks", masks, version=4, settings="{}")
    return paths


def drawing(*pixels, height=12, width=15):
    mask = np.zeros((height, width), bool)
    for rows, columns in pixels:
        mask[rows, columns] = True
    return mask


RING = drawing((slice(2, 7), slice(2, 7)))
RING[4, 4] = False
DRAWN = {
    0: drawing((0, 0)),  # one pixel, in the corner
    3: RING,
    4: drawing((4, 4)),  # in the hole of the ring, touching it
    7: drawing((slice(8, 10), slice(1, 4)), (slice(9, 12), slice(8, 10))),  # two fragments, one at the lower border
    9: drawing((slice(0, 12), 14)),  # along the right border
    12: drawing((9, 5), (10, 6), (11, 5)),  # pixels that meet at corners
}


def back(name, root, split, sizes=None):
    if name == "coco":
        return list(CocoFile(root / f"{split}.json").instances())
    if name == "parquet":
        return list(parquet.read(root / "masks.parquet"))
    module = files.FORMATS[name]
    return list(module.read(root, split, sizes) if name == "yolo" else module.read(root, split))


def write(name, root, batches, split="train"):
    output = root / ("masks.parquet" if name == "parquet" else f"{split}.json")
    options = {"version": 2, "category": "head"} if name == "coco" else OPTIONS
    cli_export.write(name, output, batches, "toy", split, options)
    return output
