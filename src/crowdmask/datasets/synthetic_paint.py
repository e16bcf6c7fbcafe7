"""Drawing of single people for the synthetic crowd scenes.

A person is drawn in *head units*: the head centre is (0, 0), one unit is the
head height in pixels, x runs right and y runs down. Shapes are filled without
anti-aliasing on a supersampled patch whose fourth channel says what each
sample shows (nothing, cloth, other body part or head); averaging the patch
down gives colour, alpha and head coverage that agree with each other exactly.

Source of every number here: our choice, tuned by looking at the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CODE_CLOTH = 80
CODE_BODY = 160
CODE_HEAD = 255

_ANGLES = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_HARMONICS = np.concatenate(
    [np.stack([np.cos(k * _ANGLES), np.sin(k * _ANGLES)], axis=1) / k for k in (2, 3, 4, 7)],
    axis=1,
)
_SKIN_DARK = np.array([62.0, 38.0, 27.0])
_SKIN_LIGHT = np.array([236.0, 192.0, 166.0])
_HAIR = np.array(
    [
        [18, 15, 14],
        [30, 22, 18],
        [52, 36, 26],
        [86, 60, 40],
        [128, 94, 60],
        [188, 156, 106],
        [150, 146, 142],
        [205, 202, 198],
        [120, 52, 28],
    ],
    dtype=np.float64,
)
_HAIR_ODDS = np.array([0.3, 0.2, 0.16, 0.11, 0.07, 0.05, 0.05, 0.04, 0.02])


@dataclass(frozen=True)
class Style:
    """What all the people of one scene have in common.

    Attributes:
        pitch: 0 for a camera at eye level, 1 for one that looks straight down.
        light: (3,) float64 unit vector to the light, x right, y down, z to the camera.
        ambient: share of light that comes from everywhere, 0 to 1.
        backlit: whether heads are dark with a bright rim.
        yaw_mean: direction the crowd faces, radians, 0 is towards the camera.
        yaw_spread: standard deviation of it, radians.
        hat_rate: probability of something worn on the head.
        arm_rate: probability of raised arms.
        palette: (K, 3) float64 clothing colours, RGB 0 to 255.
        palette_rate: probability of taking one of them.
        skin: (2,) float64 lower and upper end of the skin tones, 0 dark to 1 light.
        texture: (T, T) float32 noise tile, mean 0, about unit standard deviation.
        weave: strength of that noise on people.
        haze: (3,) float64 RGB colour that far people fade to.
    """

    pitch: float
    light: np.ndarray
    ambient: float
    backlit: bool
    yaw_mean: float
    yaw_spread: float
    hat_rate: float
    arm_rate: float
    palette: np.ndarray
    palette_rate: float
    skin: np.ndarray
    texture: np.ndarray
    weave: float
    haze: np.ndarray


@dataclass(frozen=True)
class Sprite:
    """A painted patch with its place in the image.

    Attributes:
        x0: image column of the patch's left edge, pixels.
        y0: image row of its top edge, pixels.
        colour: (h, w, 3) uint8 RGB, premultiplied by alpha.
        alpha: (h, w) uint8 coverage.
        head: (h, w) uint8 coverage by the head (all zero for clutter).
        depth: painter's order key; larger is nearer.
    """

    x0: int
    y0: int
    colour: np.ndarray
    alpha: np.ndarray
    head: np.ndarray
    depth: float

    def window(self) -> tuple[slice, slice]:
        """Image slices (rows, columns) that the patch covers."""
        h, w = self.alpha.shape
        return slice(self.y0, self.y0 + h), slice(self.x0, self.x0 + w)


class Pen:
    """A supersampled patch that takes shapes given in head units."""

    def __init__(
        self,
        x: float,
        y: float,
        unit: float,
        box: tuple[float, float, float, float],
        frame: tuple[int, int],
    ) -> None:
        """Opens a patch.

        Args:
            x: image column of the origin, pixels.
            y: image row of the origin, pixels.
            unit: pixels per head unit.
            box: left, top, right, bottom of the drawing in head units.
            frame: (height, width) of the image; the patch is clipped to it.
        """
        height, width = frame
        self.x0 = int(np.clip(np.floor(x + box[0] * unit), 0, width - 1))
        self.y0 = int(np.clip(np.floor(y + box[1] * unit), 0, height - 1))
        x1 = int(np.clip(np.ceil(x + box[2] * unit) + 1, self.x0 + 1, width))
        y1 = int(np.clip(np.ceil(y + box[3] * unit) + 1, self.y0 + 1, height))
        self.scale = 4 if unit < 14 else 3 if unit < 36 else 2
        self.shape = (y1 - self.y0, x1 - self.x0)
        self.unit = unit
        self.x, self.y = x, y
        self.samples = np.zeros((self.shape[0] * self.scale, self.shape[1] * self.scale, 4), np.uint8)
        self._gain = unit * self.scale
        self._shift = np.array([(x - self.x0 + 0.5) * self.scale - 0.5, (y - self.y0 + 0.5) * self.scale - 0.5])
        self.turn = np.eye(2)

    def _place(self, points: np.ndarray) -> np.ndarray:
        """Head units to fixed-point sample coordinates (4 fractional bits)."""
        return ((points @ self.turn) * (self._gain * 16.0) + self._shift * 16.0).astype(np.int32)

    def fill(self, points: np.ndarray, colour: np.ndarray, code: int) -> None:
        """Fills a polygon.

        Args:
            points: (K, 2) float64 corners in head units.
            colour: (3,) RGB, 0 to 255.
            code: one of the CODE values.
        """
        paint = (float(colour[0]), float(colour[1]), float(colour[2]), code)
        cv2.fillPoly(self.samples, [self._place(points)], paint, cv2.LINE_8, 4)

    def stroke(self, points: np.ndarray, width: float, colour: np.ndarray, code: int) -> None:
        """Draws a line of the given width (head units) through the points."""
        thick = max(1, round(width * self._gain))
        paint = (float(colour[0]), float(colour[1]), float(colour[2]), code)
        cv2.polylines(self.samples, [self._place(points)], False, paint, thick, cv2.LINE_8, 4)

    def reduce(self, mask: np.ndarray) -> np.ndarray:
        """Averages a (h*s, w*s) bool sample mask to (h, w) uint8 coverage."""
        return self._shrink(mask.view(np.uint8) * np.uint8(255))

    def _shrink(self, samples: np.ndarray) -> np.ndarray:
        size = (self.shape[1], self.shape[0])
        return cv2.resize(samples, size, interpolation=cv2.INTER_AREA)

    def layers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Averages down: float32 premultiplied colour, uint8 alpha, uint8 head."""
        code = self.samples[..., 3]
        small = self._shrink(self.samples)
        return (
            small[..., :3].astype(np.float32),
            self.reduce(code > 0),
            self.reduce(code == CODE_HEAD),
        )

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Head-unit coordinates: (w,) float32 of the columns and (h, 1) of the rows."""
        gx = (np.arange(self.x0, self.x0 + self.shape[1], dtype=np.float32) - self.x) / self.unit
        gy = (np.arange(self.y0, self.y0 + self.shape[0], dtype=np.float32) - self.y) / self.unit
        return gx.astype(np.float32), gy.astype(np.float32)[:, None]


def blob(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, rough: float = 0.02) -> np.ndarray:
    """An ellipse with a slightly irregular outline: (24, 2) float64 points."""
    radius = 1.0 + _HARMONICS @ rng.normal(0.0, rough, 8) if rough else np.ones(24)
    return _CIRCLE * radius[:, None] * (rx, ry) + (cx, cy)


def ruffle(rng: np.random.Generator, points: np.ndarray, amount: float) -> np.ndarray:
    """Frays an outline: (K, 2) points become (3 K, 2), moved by up to about ``amount``."""
    after = np.concatenate([points[1:], points[:1]])
    dense = np.stack([points, points * 0.67 + after * 0.33, points * 0.33 + after * 0.67], axis=1)
    return dense.reshape(-1, 2) + rng.normal(0.0, amount, (3 * len(points), 2))


def dome(rx: float, top: float, base: float, sag: float) -> np.ndarray:
    """Upper half of an ellipse from ``top`` down to ``base``, its base bent by ``sag``."""
    half = _CIRCLE[:13]
    upper = half * (rx, top - base) + (0.0, base)
    lower = half[::-1][1:-1] * (rx, sag) + (0.0, base)
    return np.concatenate([upper, lower])


def skin_tone(rng: np.random.Generator, style: Style) -> np.ndarray:
    """A skin colour, (3,) float64 RGB."""
    level = rng.uniform(style.skin[0], style.skin[1])
    tone = _SKIN_DARK + (_SKIN_LIGHT - _SKIN_DARK) * level
    return np.clip(tone * rng.uniform(0.9, 1.08) + rng.normal(0, 5, 3), 12, 252)


def muted(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Draws RGB colours, (..., 3) float64, part of the way to their grey."""
    grey = colour.mean(axis=-1, keepdims=True)
    return grey + (colour - grey) * rng.uniform(0.15, 0.95, (*colour.shape[:-1], 1))


def cloth_colour(rng: np.random.Generator, style: Style) -> np.ndarray:
    """A clothing colour, (3,) float64 RGB: from the palette, a neutral or any hue."""
    kind = rng.random()
    if kind < style.palette_rate:
        base = style.palette[rng.integers(len(style.palette))] * rng.uniform(0.8, 1.12)
    elif kind < style.palette_rate + (1 - style.palette_rate) * 0.6:
        base = np.full(3, rng.choice([22.0, 40.0, 70.0, 120.0, 190.0, 228.0])) * rng.uniform(0.85, 1.1)
        base = base + rng.normal(0, 7, 3)
    else:
        base = muted(rng, rng.uniform(20, 215, 3))
    return np.clip(base + rng.normal(0, 4, 3), 6, 246)


def hair_colour(rng: np.random.Generator) -> np.ndarray:
    """A hair colour, (3,) float64 RGB."""
    base = _HAIR[np.searchsorted(np.cumsum(_HAIR_ODDS), rng.random() * 0.9999)]
    return np.clip(base * rng.uniform(0.75, 1.3), 6, 240)


def shade(
    pen: Pen,
    rng: np.random.Generator,
    style: Style,
    colour: np.ndarray,
    head: np.ndarray,
    half: tuple[float, float],
) -> np.ndarray:
    """Lights a patch: a ball for the head, a cylinder that darkens downwards for the body.

    Args:
        pen: the patch.
        rng: random source.
        style: the scene's light.
        colour: (h, w, 3) float32 premultiplied RGB.
        head: (h, w) uint8 head coverage.
        half: head half width and half height in head units.

    Returns:
        ``colour``, changed in place.
    """
    gx, gy = pen.grid()
    nx, ny = gx / np.float32(half[0] * 1.12), gy / np.float32(half[1] * 1.12)
    nz = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.03))
    lx, ly, lz = (float(v) for v in style.light)
    amb = style.ambient
    if style.backlit:
        ball = 0.5 + 3.0 * np.maximum(0.72 - nz, 0.0) * np.maximum(0.0, 0.5 - ny)
    else:
        ball = amb + (1.25 - amb) * np.maximum(lx * nx + ly * ny + lz * nz, 0.0)
    body = amb + (1.1 - amb) * np.clip(lz + lx * gx / 1.2, 0.0, 1.2) * 0.9
    body = body * np.clip(1.05 - 0.16 * np.maximum(gy, 0.0), 0.5, 1.0)
    under = (gx * gx) / 0.3 + ((gy - 0.62) * (gy - 0.62)) / 0.08
    body = body * (1.0 - 0.4 * np.exp(-under))
    size = style.texture.shape[0]
    h, w = pen.shape
    ty, tx = rng.integers(0, size - min(h, size - 1)), rng.integers(0, size - min(w, size - 1))
    noise = style.texture[ty : ty + h, tx : tx + w]
    cover = head.astype(np.float32) / 255.0
    light = body + (ball - body) * cover
    if noise.shape == light.shape:
        light = light * (1.0 + style.weave * noise)
    colour *= np.clip(light, 0.12, 1.6)[..., None]
    return colour


def pattern(pen: Pen, rng: np.random.Generator, second: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lays stripes, checks or folds over the cloth of a patch; returns float32 colour."""
    gx, gy = pen.grid()
    kind = rng.integers(4)
    rate = rng.uniform(8.0, 22.0)
    if kind == 0:
        wave = np.sin(rate * gy + 0.0 * gx)
    elif kind == 1:
        wave = np.sin(rate * gx + 0.0 * gy)
    elif kind == 2:
        wave = np.sin(rate * gx) * np.sin(rate * gy)
    else:
        wave = np.where(gy > rng.uniform(0.9, 1.8), 1.0, -1.0) + 0.0 * gx
    weight = np.clip(wave * 2.0 + 0.5, 0.0, 1.0).astype(np.float32)
    weight = weight * (pen.reduce(pen.samples[..., 3] == CODE_CLOTH).astype(np.float32) / 255.0)
    return colour * (1.0 - weight[..., None]) + second.astype(np.float32) * weight[..., None]
