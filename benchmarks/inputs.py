"""What the benchmarks run on: models, points, pictures and tables, the same in every process (seeded)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import Sam

from benchmarks.cases import Case
from crowdmask import tables
from crowdmask.config import Sam as SamSettings
from crowdmask.config import Superpixels
from crowdmask.datasets.images import read_image
from crowdmask.datasets.synthetic import render_scene
from crowdmask.files import sha256
from crowdmask.masks import checkpoints, sam, superpixels
from crowdmask.masks.rle import Window, digest

SEED = 7
PART_PX = 28
"""Side of the squares that stand for superpixels: about that of 1,000 superpixels on 768 x 1024."""

_KEY = {"split": "test", "image_id": "scene"}


def model(name: str, device: torch.device) -> Sam:
    """The model, frozen: the shipped weights for `small`, else seeded random ones.

    Random weights give nearly flat logits; those of the last layers are enlarged, so that masks have both signs.
    """
    if name == "small":
        settings = SamSettings(model="small")
        return sam.load(settings, checkpoints.shipped(), device)
    torch.manual_seed(SEED)
    made = sam.build(name)
    with torch.no_grad():
        for mlp in made.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(8)
    return made.to(device).eval().requires_grad_(False)


def points(case: Case) -> np.ndarray:
    """Uniform random head points, float64 (prompts, 2) as (x, y), pixels."""
    rng = np.random.default_rng(SEED)
    return rng.uniform(0, [case.width - 1, case.height - 1], (case.prompts, 2))


def square(x: float, y: float, height: int, width: int) -> Window:
    """A square around a point, cut to the image."""
    side = PART_PX
    left, top = int(x) - side // 2, int(y) - side // 2
    return Window(left, top, np.ones((side, side), bool)).within(0, 0, width, height)


def texture(height: int, width: int) -> np.ndarray:
    """A picture of gradients and smooth noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng(SEED)
    out = np.empty((height, width, 3), np.uint8)
    coarse = rng.uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3)).astype(np.float32)
    for channel in range(3):  # one after the other: a large picture need not be held in floats thrice
        smooth = cv2.resize(coarse[:, :, channel], (width, height), interpolation=cv2.INTER_LINEAR)
        smooth = smooth * 0.7 + np.linspace(0, 76, width, dtype=np.float32)
        out[:, :, channel] = smooth
    return out


def embedding(case: Case, encoder: Sam) -> torch.Tensor:
    """A stand-in for the image embedding of a model with random weights: normal, float32 (1, C, E, E)."""
    side = encoder.prompt_encoder.image_embedding_size[0]
    channels = encoder.mask_decoder.transformer_dim
    made = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(SEED))
    return made.to(encoder.device)


def prepare(case: Case, folder: Path) -> None:
    """Write what a case reads: `scene.jpg`, `images.parquet` and `superpixels.parquet` or `masks.parquet`.

    Rendered crowds get their real superpixels; the pictures of the memory and crop benchmarks get squares.
    """
    path = folder / "scene.jpg"
    drawn = case.kind in ("memory", "crops")
    if drawn:
        found = points(case)
        Image.fromarray(texture(case.height, case.width)).save(path, quality=92)
    else:
        scene = render_scene(SEED, height=case.height, width=case.width, people=case.prompts)
        found = scene.points_xy
        Image.fromarray(scene.image).save(path, quality=95)
    row: dict[str, Any] = {
        **_KEY,
        "path": path.name,
        "height": case.height,
        "width": case.width,
        "mode": "RGB",
        "sha256": sha256(path),
        "points": [
            {"point_id": k, "x": x, "y": y, "outside": False, **tables.NO_BOX}
            for k, (x, y) in enumerate(found.tolist())
        ],
    }
    tables.write(folder / "images.parquet", "images", [row], version=1, settings="{}")
    if case.kind == "crops":
        tables.write(folder / "masks.parquet", "masks", _masks(case, found), version=1, settings="{}")
        return
    if drawn:
        parts = _squares(case, found)
    else:
        parts = superpixels.rows([row], str(folder), "stored", Superpixels())
    tables.write(folder / "superpixels.parquet", "superpixels", parts, version=1, settings="{}")


def _squares(case: Case, found: np.ndarray) -> Iterator[dict[str, Any]]:
    for k, (x, y) in enumerate(found.tolist()):
        part = square(x, y, case.height, case.width)
        yield {**_KEY, "point_id": k, "superpixel": k + 1, "sharing": 1, **part.columns()}


def _masks(case: Case, found: np.ndarray) -> Iterator[dict[str, Any]]:
    for k, (x, y) in enumerate(found.tolist()):
        part = square(x, y, case.height, case.width)
        how = {"source": "sam", "verified": False, "author": None, "score": 0.9, "radius_px": 20.0, "lost_px": 0}
        what = {"area": part.area, "sha256": digest(part), **part.columns()}
        yield {**_KEY, "point_id": k, "x": x, "y": y, **how, **what}


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, list[Window]]:
    """Picture, points and superpixel parts of `prepare`."""
    image = tables.read(folder / "images.parquet", "images")[0]
    parts = [Window.from_columns(row) for row in tables.stream(folder / "superpixels.parquet", "superpixels")]
    return read_image(folder / image["path"]), tables.points_of(image), parts
