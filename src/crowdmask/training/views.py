"""One training view of an image: a scaled, flipped crop with its heads, their labels, and other colours.

The image is scaled as a whole by real factors and cut afterwards, but only what the crop needs is computed: Pillow's
filter takes the crop's exact box, so that the pixels are those of the whole scaled image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as colours

from crowdmask.config.crops import CropGeometry, Look
from crowdmask.geometry import own_pixels
from crowdmask.models.base import MEAN, SPREAD
from crowdmask.training.label_maps import keep_heads, sources
from crowdmask.training.source import Sample, scale_points

_MARGIN = 3
"""Pixels around a crop's box, in units of the filter's reach, that keep the cut from being seen by the filter."""


@dataclass(frozen=True)
class Placement:
    """Where a crop lies.

    Attributes:
        size_hw: Height and width of the whole scaled image, pixels.
        x0: Left column of the crop in it.
        y0: Upper row of the crop in it.
        flip: Whether what was cut is turned left to right, before the padding.
    """

    size_hw: tuple[int, int]
    x0: int
    y0: int
    flip: bool


@dataclass(frozen=True)
class View:
    """One crop of side c.

    Attributes:
        name: split/image_id.
        image: uint8 (c, c, 3) RGB; black where padded, unchanged where cut out.
        points_xy: float32 (m, 2), pixels of the crop, inside of the part that shows the image.
        heads: int64 (m,) places in the sample's points.
        labels: int64 (c, c) as in `models.base.Batch`, or None. Nobody's (-1) where padded; as without where cut out.
        valid: bool (c, c), False where padded or cut out.
        placement: Where it lies.
    """

    name: str
    image: np.ndarray
    points_xy: np.ndarray
    heads: np.ndarray
    labels: np.ndarray | None
    valid: np.ndarray
    placement: Placement


def generator(seed: int, epoch: int, name: str, repeat: int = 0) -> np.random.Generator:
    """Source of all randomness of one view: the same for the same image in the same epoch, whoever makes it.

    Args:
        seed: Of the run.
        epoch: From 0.
        name: split/image_id.
        repeat: Which crop of that image in that epoch.
    """
    digest = hashlib.sha256(f"{seed} {epoch} {repeat} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def place(height: int, width: int, settings: CropGeometry, rng: np.random.Generator) -> Placement:
    """Draw a scale, a place and a flip, all uniform.

    Args:
        height: Of the working copy, pixels.
        width: Of the working copy, pixels.
        settings: Ranges.
        rng: Source of randomness.
    """
    scale = rng.uniform(*settings.scale)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if settings.keep_side and min(size) < settings.crop:
        size = height, width
    y0, x0 = (int(rng.integers(max(0, side - settings.crop) + 1)) for side in size)
    return Placement(size, x0, y0, bool(rng.random() < settings.flip))


def cut(sample: Sample, placement: Placement, side: int) -> View:
    """The crop at a place, padded on the right and below where the scaled image ends.

    Heads whose point lies in the crop are kept, in the order of the sample; no kept head vanishes from the labels
    (`keep_heads`). Masks of the others are nobody's (-1).

    Args:
        sample: The image.
        placement: The place; it must meet the scaled image.
        side: Of the crop, pixels.
    """
    old_h, old_w = sample.pixels.shape[:2]
    new_h, new_w = placement.size_hw
    x0, y0 = placement.x0, placement.y0
    w, h = min(side, new_w - x0), min(side, new_h - y0)
    image = np.zeros((side, side, 3), np.uint8)
    shown = _pixels(sample.pixels, placement, h, w)
    image[:h, :w] = shown[:, ::-1] if placement.flip else shown
    valid = np.zeros((side, side), bool)
    valid[:h, :w] = True

    points = scale_points(sample.points_xy, (old_h, old_w), (new_h, new_w)) - [x0, y0]
    heads = np.flatnonzero(((points >= -0.5) & (points < [w - 0.5, h - 0.5])).all(1))
    points = points[heads]
    if placement.flip:
        points[:, 0] = w - 1 - points[:, 0]
    # Neither the flip nor float32 may put a head on the edge that belongs to the next pixel.
    edge = np.nextafter(np.array([w - 0.5, h - 0.5], np.float32), np.float32(-1))
    points_xy = np.minimum(points.astype(np.float32), edge)

    labels = None
    if sample.labels is not None:
        labels = np.full((side, side), -1, np.int64)
        rows, columns = sources(y0, h, old_h, new_h), sources(x0, w, old_w, new_w)
        place_of = np.full(len(sample.points_xy) + 2, -1, np.int64)  # the last is that of label -1
        place_of[0] = 0
        place_of[heads + 1] = np.arange(1, len(heads) + 1)
        found = place_of[sample.labels[np.ix_(rows, columns)]]
        own = own_pixels(sample.points_xy[heads], old_h, old_w)
        owned = sample.labels[own[:, 1], own[:, 0]] == heads + 1
        found = found[:, ::-1] if placement.flip else found
        labels[:h, :w] = keep_heads(np.ascontiguousarray(found), points_xy, owned)
    return View(sample.name, image, points_xy, heads, labels, valid, placement)


def _pixels(pixels: np.ndarray, placement: Placement, h: int, w: int) -> np.ndarray:
    """Pixels [y0, y0 + h) x [x0, x0 + w) of the whole image scaled by Pillow's bilinear filter, uint8 (h, w, 3)."""
    size = pixels.shape[:2]
    if size == placement.size_hw:
        return pixels[placement.y0 : placement.y0 + h, placement.x0 : placement.x0 + w]
    window, box = [], []
    for first, count, old, new in zip((placement.y0, placement.x0), (h, w), size, placement.size_hw, strict=True):
        factor = old / new
        margin = _MARGIN * max(1.0, factor)
        low = max(0, int(first * factor - margin))
        high = min(old, int(np.ceil((first + count) * factor + margin)))
        window.append(slice(low, high))
        box.append((first * factor - low, min((first + count) * factor - low, high - low)))
    part = Image.fromarray(np.ascontiguousarray(pixels[window[0], window[1]]))
    (top, bottom), (left, right) = box
    return np.asarray(part.resize((w, h), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def dress(view: View, look: Look, rng: np.random.Generator) -> View:
    """The view with other colours and a rectangle cut out; points and labels as they are.

    Brightness, contrast, saturation and hue come in random order, then grey, then blur (methods f.3). Padding stays
    black and is not touched. The rectangle may lie anywhere in the crop.

    Args:
        view: The crop.
        look: Probabilities and ranges.
        rng: Source of randomness.
    """
    image = torch.from_numpy(view.image).permute(2, 0, 1)
    shown_h, shown_w = (int(view.valid.any(axis).sum()) for axis in (1, 0))
    with one_thread():
        part = image[:, :shown_h, :shown_w]
        changed = _recolour(part, look, rng)
    if changed is not part:
        image = image.clone()
        image[:, :shown_h, :shown_w] = changed
    valid = view.valid
    if rng.random() < look.cutout:
        side = len(valid)
        height, width = (max(1, round(side * share)) for share in rng.uniform(*look.cutout_side, 2))
        top, left = (int(rng.integers(side - length + 1)) for length in (height, width))
        valid = valid.copy()
        valid[top : top + height, left : left + width] = False
    return replace(view, image=image.permute(1, 2, 0).contiguous().numpy(), valid=valid)


def _recolour(image: Tensor, look: Look, rng: np.random.Generator) -> Tensor:
    if rng.random() < look.jitter:
        light, contrast, saturation = (
            1 + rng.uniform(-1, 1) * reach for reach in (look.brightness, look.contrast, look.saturation)
        )
        hue = rng.uniform(-look.hue, look.hue)
        steps: list[Callable[[Tensor], Tensor]] = [
            lambda x: colours.adjust_brightness(x, light),
            lambda x: colours.adjust_contrast(x, contrast),
            lambda x: colours.adjust_saturation(x, saturation),
            lambda x: colours.adjust_hue(x, hue),
        ]
        for k in rng.permutation(len(steps)):
            image = steps[k](image)
    if rng.random() < look.grey:
        image = colours.rgb_to_grayscale(image, num_output_channels=3)
    if rng.random() < look.blur:
        sigma = rng.uniform(*look.blur_sigma)
        # Reflection at the border needs a kernel that is not larger than the picture.
        reach = min(int(np.ceil(3 * sigma)), min(image.shape[1:]) - 1)
        if reach > 0:
            image = colours.gaussian_blur(image, [2 * reach + 1] * 2, [sigma, sigma])
    return image


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch in one thread: crops are small, and sums that several threads share differ in the last bits.

    Data workers have one thread anyway, the main process has many.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw(sample: Sample, geometry: CropGeometry, looks: Sequence[Look], rng: np.random.Generator) -> list[View]:
    """One crop of an image in several looks, such as weak and strong, which share place, points and labels.

    The place is drawn first, then one look after the other: it does not depend on how many there are.

    Args:
        sample: The image.
        geometry: Where crops lie.
        looks: What happens to the colours of each.
        rng: Source of all randomness; see `generator`.
    """
    height, width = sample.pixels.shape[:2]
    view = cut(sample, place(height, width, geometry, rng), geometry.crop)
    return [dress(view, look, rng) for look in looks]


def normalised(view: View) -> Tensor:
    """The image as `models.base.Batch` has it: float32 (3, c, c), 0 where padded or cut out."""
    image = torch.from_numpy(view.image).permute(2, 0, 1).float().div_(255)
    image.sub_(torch.tensor(MEAN).reshape(3, 1, 1)).div_(torch.tensor(SPREAD).reshape(3, 1, 1))
    return image * torch.from_numpy(view.valid)
