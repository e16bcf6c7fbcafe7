"""Seeded crowd scenes with exact head masks, for training and tests.

One scene is: a camera, a placement of heads on a plane seen in perspective, a
painted person per head, clutter, and a photograph's faults. The truth comes
from the same layers as the picture. Source of every number: our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from crowdmask.datasets import synthetic_backdrop as backdrop
from crowdmask.datasets.synthetic_paint import Sprite, Style, muted
from crowdmask.datasets.synthetic_people import draw_person

MIN_VISIBLE_PIXELS = 6
MIN_VISIBLE_SHARE = 0.12
MIN_HEAD = 5.0
MAX_PEOPLE = 1500
_ROUNDS = 25


@dataclass(frozen=True)
class Scene:
    """A rendered crowd with its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) int32; 0 is background, i + 1 the visible head pixels of
            person i. Hair, ears and headgear are head; necks are not. A pixel
            belongs to a head when the head covers more than half of it and
            nothing nearer covers more than half.
        points_xy: (N, 2) float64 head points (x, y) in pixels, pixel centres at
            integers; point i, rounded, is a pixel of mask i. Far people first.
    """

    image: np.ndarray
    labels: np.ndarray
    points_xy: np.ndarray


@dataclass(frozen=True)
class Camera:
    """Where the crowd is in the frame and how large its heads are.

    Attributes:
        top: first row of the crowd, pixels.
        height: image height, pixels.
        width: image width, pixels.
        small: head height at ``top``, pixels.
        large: head height at the last row, pixels.
        pitch: 0 eye level to 1 straight down.
        gap: (2,) least distance of two heads across and down, in head heights.
        rows: whether people stand in rows.
        clump: strength of crowding together, 0 for even.
    """

    top: float
    height: int
    width: int
    small: float
    large: float
    pitch: float
    gap: tuple[float, float]
    rows: bool
    clump: float

    def head_size(self, y: np.ndarray) -> np.ndarray:
        """Head height in pixels at image rows ``y``: linear, as on a plane."""
        share = (y - self.top) / max(1.0, self.height - 1.0 - self.top)
        return self.small + (self.large - self.small) * np.clip(share, 0.0, 1.0)


def render_scene(seed: int, *, height: int = 768, width: int = 1024, people: int = 200) -> Scene:
    """Renders one crowd scene.

    Args:
        seed: non-negative; the same seed gives the same bytes with the same
            numpy and OpenCV.
        height: image height, pixels, at least 16.
        width: image width, pixels, at least 16.
        people: exact number of people with a visible head, 0 to 1,500.

    Returns:
        The scene.

    Raises:
        ValueError: If an argument is out of range or the frame cannot hold so
            many visible heads.
    """
    if height < 16 or width < 16:
        raise ValueError(f"the frame must be at least 16 x 16 pixels, not {width} x {height}")
    if not 0 <= people <= MAX_PEOPLE:
        raise ValueError(f"people must be 0 to {MAX_PEOPLE}, not {people}")
    rng = np.random.default_rng(seed)
    camera = plan_camera(rng, height, width, people)
    style = plan_style(rng, camera.pitch)
    image = backdrop.draw_backdrop(rng, height, width, camera.top, (camera.small, camera.large))
    sprites, labels, visible = populate(rng, camera, style, people)
    centres = np.array([s.centre for s in sprites if s.is_person]).reshape(-1, 2)
    sizes = camera.head_size(centres[:, 1])
    backdrop.cast_shadows(image, centres, sizes, camera.pitch, style.light)
    halo = float(rng.choice([0.0, rng.uniform(0.1, 0.4)], p=[0.3, 0.7]))
    for item in sprites:
        composite(image, item.sprite, halo)
    points = click_points(rng, labels, visible)
    return Scene(backdrop.develop(rng, image), labels, points)


def plan_camera(rng: np.random.Generator, height: int, width: int, people: int) -> Camera:
    """Chooses perspective, head sizes and crowding so that ``people`` fit.

    Raises:
        ValueError: If heads of the least size would not fit.
    """
    views = [rng.uniform(0.05, 0.35), rng.uniform(0.3, 0.65), rng.uniform(0.75, 0.95)]
    pitch = float(rng.choice(views, p=[0.5, 0.38, 0.12]))
    fill = float(rng.uniform(0.3, 0.9)) if people > 60 else float(rng.uniform(0.12, 0.5))
    top_share = rng.uniform(0.0, 0.4 * (1.0 - pitch))
    cost = 0.8 + 0.25 * pitch
    tight = width * height * (1.0 - top_share) / (cost * max(people, 1))
    if tight * 0.95 < MIN_HEAD**2:
        top_share, fill = 0.0, 1.0
        tight = width * height / (cost * max(people, 1))
        if tight * 1.6 < MIN_HEAD**2:
            raise ValueError(f"{people} visible heads do not fit in {width} x {height} pixels")
    top = top_share * height
    side = min(height, width)
    middle = float(np.clip(np.sqrt(fill * tight), MIN_HEAD, max(MIN_HEAD, min(75.0, side * 0.16))))
    ratio = float(np.exp(rng.uniform(0.9, 2.0) * (1.0 - pitch) * rng.choice([1.0, 0.15], p=[0.85, 0.15])))
    ratio = min(ratio, (middle / MIN_HEAD) ** 2)
    small = max(MIN_HEAD, middle / np.sqrt(ratio))
    large = min(middle * np.sqrt(ratio), side * 0.3)
    gap = (float(rng.uniform(0.75, 1.05)), float(rng.uniform(0.35, 0.55) + 0.4 * pitch))
    return Camera(top, height, width, small, large, pitch, gap, bool(rng.random() < 0.2), float(rng.uniform(0, 1.5)))


def plan_style(rng: np.random.Generator, pitch: float) -> Style:
    """Chooses the light, the colours and the mood of the crowd."""
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.3), rng.uniform(0.25, 0.8)])
    low = rng.uniform(0.0, 0.6)
    return Style(
        pitch=pitch,
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.4, 0.85)),
        backlit=bool(rng.random() < 0.1),
        yaw_mean=float(rng.choice([0.0, np.pi, rng.uniform(-np.pi, np.pi)], p=[0.4, 0.3, 0.3])),
        yaw_spread=float(rng.choice([0.35, 0.7, 2.5])),
        hat_rate=float(rng.choice([0.05, 0.15, 0.4, 0.75], p=[0.4, 0.3, 0.2, 0.1])),
        arm_rate=float(rng.choice([0.0, 0.03, 0.12, 0.35], p=[0.3, 0.4, 0.2, 0.1])),
        palette=muted(rng, rng.uniform(15, 225, (int(rng.integers(1, 5)), 3))),
        palette_rate=float(rng.choice([0.1, 0.3, 0.8], p=[0.5, 0.3, 0.2])),
        skin=np.array([low, min(1.0, low + rng.uniform(0.25, 0.8))]),
        texture=backdrop.texture_tile(rng),
        weave=float(rng.uniform(0.02, 0.07)),
        haze=rng.uniform(120, 220) + rng.normal(0, 8, 3),
    )


@dataclass(frozen=True)
class Item:
    """A sprite with the head centre (x, y) it was drawn around, pixels."""

    sprite: Sprite
    centre: tuple[float, float]
    is_person: bool


def populate(
    rng: np.random.Generator, camera: Camera, style: Style, people: int
) -> tuple[list[Item], np.ndarray, np.ndarray]:
    """Places and paints people till exactly ``people`` have a visible head.

    Returns:
        Items from far to near; labels (H, W) int32; visible pixels per person,
        (people,) int64.

    Raises:
        ValueError: If the frame cannot hold them.
    """
    frame = (camera.height, camera.width)
    haze = float(rng.choice([0.0, 0.15, 0.35], p=[0.5, 0.3, 0.2]))
    field = backdrop.noise_field(rng, 24, 24, 6.0)
    kept: list[Item] = []
    clutter: list[Item] = []
    for attempt in range(_ROUNDS):
        taken = np.array([item.centre for item in kept]).reshape(-1, 2)
        spots = place(rng, camera, field, taken, people - len(kept), 0.95**attempt)
        for x, y in spots:
            size = float(camera.head_size(y) * rng.uniform(0.88, 1.13))
            far = haze * (1.0 - (y - camera.top) / max(1.0, camera.height - camera.top))
            sprite = draw_person(rng, style, float(x), float(y), size, far, frame)
            kept.append(Item(sprite, (float(x), float(y)), True))
        if attempt == 0:
            points = np.array([item.centre for item in kept]).reshape(-1, 2)
            things = backdrop.draw_clutter(rng, style, points, camera.head_size(points[:, 1]), frame)
            clutter = [Item(thing, (0.0, 0.0), False) for thing in things]
        items = sorted(kept + clutter, key=lambda item: item.sprite.depth)
        labels = stack_labels(items, frame)
        persons = [item for item in items if item.is_person]
        visible = np.bincount(labels.ravel(), minlength=len(persons) + 1)[1:]
        full = np.array([np.count_nonzero(item.sprite.head > 127) for item in persons])
        good = visible >= np.maximum(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * full)
        if len(persons) == people and good.all():
            return items, labels, visible
        kept = [item for item, fine in zip(persons, good, strict=True) if fine]
        if attempt > _ROUNDS // 2:
            clutter = []
    raise ValueError(
        f"{people} visible heads do not fit in {camera.width} x {camera.height} pixels "
        f"(got {len(kept)} after {_ROUNDS} rounds)"
    )


def place(
    rng: np.random.Generator,
    camera: Camera,
    field: np.ndarray,
    taken: np.ndarray,
    count: int,
    ease: float,
) -> np.ndarray:
    """Finds head centres that keep their distance.

    Args:
        rng: random source.
        camera: the camera.
        field: (F, F) float32 noise; more people stand where it is high.
        taken: (M, 2) float64 centres already in use, pixels.
        count: how many to find.
        ease: factor on the least distance.

    Returns:
        (count, 2) float64 (x, y), pixels; distances shrink where space runs out.
    """
    spots = np.empty((len(taken) + count, 2))
    spots[: len(taken)] = taken
    sizes = np.empty(len(spots))
    sizes[: len(taken)] = camera.head_size(taken[:, 1])
    slack = ease
    for index in range(len(taken), len(spots)):
        while True:
            xs, ys = propose(rng, camera, field, 8)
            own = camera.head_size(ys)
            mean = (own[:, None] + sizes[None, :index]) / 2.0 * slack
            dx = (xs[:, None] - spots[None, :index, 0]) / (mean * camera.gap[0])
            dy = (ys[:, None] - spots[None, :index, 1]) / (mean * camera.gap[1])
            free = np.flatnonzero(~np.any(dx * dx + dy * dy < 1.0, axis=1))
            if free.size:
                pick = free[0]
                spots[index] = xs[pick], ys[pick]
                sizes[index] = own[pick]
                break
            slack *= 0.97
    return spots[len(taken) :]


def propose(rng: np.random.Generator, camera: Camera, field: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws candidate centres, as dense as the heads there are small."""
    u = rng.random(count)
    size = 1.0 / (1.0 / camera.small + u * (1.0 / camera.large - 1.0 / camera.small))
    span = camera.large - camera.small
    share = (size - camera.small) / span if span > 0.05 * camera.small else u
    if camera.rows and span > 0.05 * camera.small:
        step = 0.16
        level = (np.floor(np.log(size / camera.small) / step) + 0.5 + rng.normal(0, 0.08, count)) * step
        share = np.clip((camera.small * np.exp(level) - camera.small) / span, 0.0, 1.0)
    margin = 0.15 * camera.small
    ys = np.clip(camera.top + share * (camera.height - 1 - camera.top), margin, camera.height - 1 - margin)
    xs = rng.uniform(margin, camera.width - 1 - margin, count)
    if camera.clump > 0.0:
        rows = (ys / camera.height * (field.shape[0] - 1)).astype(int)
        cols = (xs / camera.width * (field.shape[1] - 1)).astype(int)
        order = np.argsort(-camera.clump * field[rows, cols] + rng.gumbel(size=count), kind="stable")
        return xs[order], ys[order]
    return xs, ys


def stack_labels(items: list[Item], frame: tuple[int, int]) -> np.ndarray:
    """Paints the truth from far to near: (H, W) int32."""
    labels = np.zeros(frame, np.int32)
    number = 0
    for item in items:
        rows, cols = item.sprite.window()
        view = labels[rows, cols]
        view[item.sprite.alpha > 127] = 0
        if item.is_person:
            number += 1
            view[item.sprite.head > 127] = number
    return labels


def composite(image: np.ndarray, sprite: Sprite, halo: float) -> None:
    """Lays a sprite over the (H, W, 3) float32 image, in place.

    ``halo`` (0 to 1) darkens what is close behind the sprite: people block light.
    """
    rows, cols = sprite.window()
    view = image[rows, cols]
    keep = (255 - sprite.alpha).astype(np.float32) / 255.0
    if halo > 0.0:
        reach = max(3, sprite.alpha.shape[1] // 9)
        near = cv2.blur(sprite.alpha, (reach, reach), borderType=cv2.BORDER_REPLICATE)
        keep *= 1.0 - (halo / 255.0) * near.astype(np.float32)
    view *= keep[..., None]
    view += sprite.colour


def click_points(rng: np.random.Generator, labels: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Clicks near the centre of every visible head.

    Args:
        rng: random source.
        labels: (H, W) int32.
        visible: (N,) int64 pixels per person, all positive.

    Returns:
        (N, 2) float64 (x, y); rounded, each is a pixel of its own mask.
    """
    count = len(visible)
    if count == 0:
        return np.zeros((0, 2))
    ys, xs = np.nonzero(labels)
    owner = labels[ys, xs] - 1
    centre = np.stack([np.bincount(owner, v, count) for v in (xs, ys)], axis=1) / visible[:, None]
    points = centre + rng.normal(0.0, 0.08, (count, 2)) * np.sqrt(visible)[:, None]
    nearest = np.rint(points).astype(int)
    height, width = labels.shape
    nearest = np.clip(nearest, 0, (width - 1, height - 1))
    points = np.clip(points, 0.0, (width - 1.0, height - 1.0))
    lost = np.flatnonzero(labels[nearest[:, 1], nearest[:, 0]] != np.arange(count) + 1)
    order = np.argsort(owner, kind="stable")
    starts = np.concatenate([[0], np.cumsum(visible)])
    for person in lost:
        own = order[starts[person] : starts[person + 1]]
        gap = (xs[own] - points[person, 0]) ** 2 + (ys[own] - points[person, 1]) ** 2
        pick = own[int(np.argmin(gap))]
        points[person] = np.array([xs[pick], ys[pick]]) + rng.uniform(-0.3, 0.3, 2)
    return np.clip(points, 0.0, (width - 1.0, height - 1.0))
