"""What surrounds the people of a synthetic scene: ground, clutter, the camera's faults.

Source of every number here: our choice, tuned by looking at the pictures.
"""

from __future__ import annotations

import cv2
import numpy as np

from crowdmask.datasets import synthetic_paint as paint
from crowdmask.datasets.synthetic_paint import CODE_BODY, Pen, Sprite, Style, blob


def noise_field(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise, (height, width) float32, mean 0; ``cell`` is its grain in pixels."""
    rows, cols = max(2, int(height / cell) + 2), max(2, int(width / cell) + 2)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def octaves(rng: np.random.Generator, height: int, width: int, cells: tuple[float, ...]) -> np.ndarray:
    """Mean of several noise fields, (height, width) float32."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        total += noise_field(rng, height, width, cell)
    return total / np.sqrt(np.float32(len(cells)))


def texture_tile(rng: np.random.Generator, side: int = 512) -> np.ndarray:
    """A noise tile for cloth and hair, (side, side) float32."""
    return octaves(rng, side, side, (1.0, 2.0, 4.0))


def draw_backdrop(
    rng: np.random.Generator, height: int, width: int, top: float, scale: tuple[float, float]
) -> np.ndarray:
    """Paints the scene without people.

    Args:
        rng: random source.
        height: image height, pixels.
        width: image width, pixels.
        top: row where the crowd begins, pixels.
        scale: head height at that row and at the last row, pixels.

    Returns:
        (height, width, 3) float32 RGB, about 0 to 255.
    """
    image = draw_ground(rng, height, width, top, scale)
    line = int(np.clip(top - 0.2 * scale[0], 0, height))
    if line > 4:
        image[:line] = draw_far(rng, line, width, scale[0])
        edge = image[max(0, line - 3) : line + 3]
        edge[:] = cv2.blur(edge, (3, 5))
    return image


def draw_ground(
    rng: np.random.Generator, height: int, width: int, top: float, scale: tuple[float, float]
) -> np.ndarray:
    """Paints pavement, grass, sand, or rows of seats: (height, width, 3) float32."""
    kind = rng.integers(5)
    base = np.array([[120, 118, 114], [78, 104, 52], [178, 160, 128], [88, 84, 84], [60, 70, 120]], np.float32)[kind]
    base = base * np.float32(rng.uniform(0.6, 1.15)) + rng.normal(0, 9, 3).astype(np.float32)
    image = np.empty((height, width, 3), np.float32)
    image[:] = base
    rows = np.arange(height, dtype=np.float32)
    size = scale[0] + (scale[1] - scale[0]) * np.clip((rows - top) / max(1.0, height - top), 0, 1)
    size = np.maximum(size, 3.0)
    walk = np.cumsum(1.0 / size)
    across = (np.arange(width, dtype=np.float32) - width * rng.uniform(0.2, 0.8))[None, :] / size[:, None]
    tone = np.zeros((height, width), np.float32)
    if kind in (0, 3):
        step = rng.uniform(1.5, 4.0)
        lines = (np.mod(walk / step * 2.0, 1.0) < 0.06)[:, None] | (np.mod(across / step, 1.0) < 0.03)
        tone -= 14.0 * lines
        if kind == 3 and rng.random() < 0.6:
            band = np.mod(across + walk[:, None] * rng.uniform(-0.3, 0.3), rng.uniform(9, 20)) < 0.5
            tone += 80.0 * band
    if kind == 4:
        seat_rows = np.mod(walk / 0.9, 1.0)
        seats = (np.mod(across / 1.5, 1.0) > 0.12) & (seat_rows > 0.3)[:, None]
        tone += np.where(seats, 14.0 - 30.0 * seat_rows[:, None], -26.0)
    rough = octaves(rng, height, width, (2.0, 6.0)) * (10.0 if kind in (1, 2) else 5.0)
    tone += rough + noise_field(rng, height, width, width / 5) * 11.0
    image += tone[..., None]
    return image


def draw_far(rng: np.random.Generator, height: int, width: int, unit: float) -> np.ndarray:
    """Paints what stands behind the crowd: sky, buildings, trees, a hall or a wall."""
    kind = rng.integers(4)
    ramp = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    high = np.array([[110, 150, 205], [175, 180, 188], [28, 26, 34], [150, 140, 150]], np.float32)[kind]
    low = np.array([[205, 218, 232], [215, 216, 218], [64, 56, 60], [228, 196, 170]], np.float32)[kind]
    image = np.broadcast_to(high + (low - high) * ramp, (height, width, 3)).copy()
    image += noise_field(rng, height, width, max(8.0, width / 8))[..., None] * 7.0
    if kind == 2:
        for _ in range(int(rng.integers(4, 16))):
            spot = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(image, spot, int(rng.integers(2, 7)), (250, 240, 215), -1, cv2.LINE_AA)
        return cv2.GaussianBlur(image, (5, 5), 1.4)
    x = -10
    while x < width and rng.random() < 0.97:
        wide = int(min(rng.uniform(5, 22) * max(unit, 5.0), width * 0.45))
        if rng.random() < 0.65:
            draw_building(image, rng, x, wide)
        else:
            draw_tree(image, rng, x + wide // 2, wide)
        x += int(wide * rng.uniform(0.7, 1.3))
    return image


def draw_building(image: np.ndarray, rng: np.random.Generator, x: int, wide: int) -> None:
    """Paints a house front with windows, in place, standing on the last row."""
    height = image.shape[0]
    roof = int(height * rng.uniform(-0.3, 0.6))
    wall = np.array([rng.uniform(80, 200)] * 3) * (1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 1.0))
    cv2.rectangle(image, (x, roof), (x + wide, height), wall.tolist(), -1)
    pitch_x, pitch_y = max(5, wide // int(rng.integers(3, 8))), max(6, int(wide / rng.uniform(3, 6)))
    glass = (wall * rng.uniform(0.35, 0.75) + (0, 4, 12)).tolist()
    for wx in range(x + pitch_x // 4, x + wide - pitch_x // 2, pitch_x):
        for wy in range(roof + pitch_y // 2, height - pitch_y // 2, pitch_y):
            cv2.rectangle(image, (wx, wy), (wx + pitch_x // 2, wy + pitch_y // 2), glass, -1)


def draw_tree(image: np.ndarray, rng: np.random.Generator, x: int, wide: int) -> None:
    """Paints a tree crown of many leaf clumps and a trunk, in place."""
    height = image.shape[0]
    middle = height * rng.uniform(0.3, 0.8)
    trunk = max(2, wide // 14)
    cv2.rectangle(image, (x - trunk, int(middle)), (x + trunk, height), (66, 52, 40), -1)
    green = np.array([60.0, 86.0, 44.0]) * rng.uniform(0.6, 1.3)
    clumps = rng.normal(0.0, 0.2, (12, 2)) * (wide, 0.8 * wide) + (x, middle)
    for spot in clumps.astype(int):
        cv2.circle(image, (int(spot[0]), int(spot[1])), max(2, int(0.12 * wide)), (green * 0.8).tolist(), -1)
    size = min(6.0, 0.03 * wide)
    for part in range(420):
        spot = clumps[part % 12] + rng.normal(0, 0.07, 2) * wide
        lit = 0.6 + 0.5 * part / 420.0 - 0.4 * (spot[1] - middle) / wide
        tint = np.clip(green * lit * rng.uniform(0.8, 1.2), 0, 255).tolist()
        axes = (max(1, int(size * rng.uniform(0.4, 1.6))), max(1, int(size * rng.uniform(0.3, 1.0))))
        cv2.ellipse(image, (int(spot[0]), int(spot[1])), axes, float(rng.uniform(0, 180)), 0, 360, tint, -1)


def cast_shadows(image: np.ndarray, points: np.ndarray, sizes: np.ndarray, pitch: float, light: np.ndarray) -> None:
    """Darkens the ground under and beside the people, in place.

    Args:
        image: (H, W, 3) float32 RGB.
        points: (N, 2) float64 head centres, pixels.
        sizes: (N,) float64 head heights, pixels.
        pitch: the camera's pitch, 0 to 1.
        light: (3,) direction to the light.
    """
    height, width = image.shape[:2]
    mask = np.zeros(((height + 1) // 2, (width + 1) // 2), np.uint8)
    tall = 6.4 * (1.0 - 0.62 * pitch)
    for (x, y), size in zip(points / 2.0, sizes / 2.0, strict=True):
        foot = (int(x - light[0] * size * 1.2), int(y + tall * size))
        if foot[1] - size < mask.shape[0]:
            axes = (max(1, int(size * (1.0 + abs(light[0])))), max(1, int(size * 0.5)))
            cv2.ellipse(mask, foot, axes, 0, 0, 360, 150, -1)
    mask = cv2.blur(mask, (5, 5))
    dark = 1.0 - cv2.resize(mask, (width, height)).astype(np.float32) / 255.0
    image *= dark[..., None]


def draw_clutter(
    rng: np.random.Generator,
    style: Style,
    points: np.ndarray,
    sizes: np.ndarray,
    frame: tuple[int, int],
) -> list[Sprite]:
    """Paints a few things that are no people: some stand in front of heads.

    Args:
        rng: random source.
        style: the scene's style.
        points: (N, 2) float64 head centres, pixels; clutter goes near them.
        sizes: (N,) float64 head heights, pixels.
        frame: (height, width), pixels.

    Returns:
        Sprites without head coverage.
    """
    if len(points) == 0:
        return []
    names = ("pole", "sign", "flag", "balloon", "umbrella", "ball", "bag")
    wanted = rng.choice(names, size=2)
    count = int(rng.integers(0, 3 + min(12, len(points) // 25)))
    sprites = []
    for _ in range(count):
        near = int(rng.integers(len(points)))
        unit = float(sizes[near])
        spot = points[near] + rng.normal(0, 2.2, 2) * unit
        sprites.append(draw_thing(rng, style, str(rng.choice(wanted)), spot, unit, frame))
    return sprites


def draw_thing(
    rng: np.random.Generator,
    style: Style,
    name: str,
    spot: np.ndarray,
    unit: float,
    frame: tuple[int, int],
) -> Sprite:
    """Paints one piece of clutter whose holder's head would be at ``spot``."""
    pen = Pen(float(spot[0]), float(spot[1]), unit, (-3.4, -5.5, 3.4, 6.0), frame)
    colour, second = paint.cloth_colour(rng, style), paint.cloth_colour(rng, style)
    dark = np.full(3, rng.uniform(25, 90))
    if name == "pole":
        pen.stroke(np.array([(0.0, -5.5), (0.0, 6.0)]), rng.uniform(0.12, 0.35), dark, CODE_BODY)
    elif name == "sign":
        wide, tall = rng.uniform(0.8, 1.8), rng.uniform(0.5, 1.0)
        pen.stroke(np.array([(0.0, -1.5), (0.0, 1.5)]), 0.1, dark, CODE_BODY)
        board = np.array([(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)])
        board = board @ np.array([[1.0, rng.normal(0, 0.1)], [0.0, 1.0]]) + (0.0, -1.9)
        pen.fill(board, colour * 0.3 + 160, CODE_BODY)
        for row in (-0.35, 0.05, 0.4):
            ends = np.array([(-wide * 0.75, -1.9 + row * tall), (wide * rng.uniform(0.1, 0.8), -1.9 + row * tall)])
            pen.stroke(ends, 0.14 * tall, second * 0.5, CODE_BODY)
    elif name == "flag":
        pen.stroke(np.array([(0.0, -5.0), (0.2, 1.0)]), 0.1, dark, CODE_BODY)
        xs = np.linspace(0.0, 2.6, 8)
        wave = 0.18 * np.sin(xs * 2.4 + rng.uniform(0, 6))
        for part in range(3):
            high, low = -5.0 + part * 0.55 + wave, -4.45 + part * 0.55 + wave
            cloth = np.concatenate([np.stack([xs, high], 1), np.stack([xs, low], 1)[::-1]])
            pen.fill(cloth, (colour, second, colour * 0.5)[part], CODE_BODY)
    elif name in ("balloon", "ball"):
        lift = -1.6 if name == "balloon" else 1.2
        ry = 0.6 if name == "balloon" else 0.45
        pen.stroke(np.array([(0.0, lift), (0.1, 1.6)]), 0.03, dark, CODE_BODY)
        pen.fill(blob(rng, 0.0, lift, 0.48, ry, 0.01), colour, CODE_BODY)
        pen.fill(blob(rng, -0.12, lift - 0.14, 0.26, 0.3, 0.02), colour * 0.8 + 30, CODE_BODY)
        pen.fill(blob(rng, -0.18, lift - 0.2, 0.09, 0.12, 0.02), colour * 0.6 + 80, CODE_BODY)
    elif name == "umbrella":
        pen.stroke(np.array([(0.0, -1.2), (0.1, 1.8)]), 0.08, dark, CODE_BODY)
        top = paint.dome(1.7, -1.7 - 0.3 * style.pitch, -0.7, 0.12 + style.pitch)
        pen.fill(top, colour, CODE_BODY)
        for x in (-0.9, 0.0, 0.9):
            pen.stroke(np.array([(0.0, -1.65), (x, -0.62)]), 0.04, colour * 0.7, CODE_BODY)
    else:
        pen.fill(blob(rng, 0.0, 1.6, 0.6, 0.75, 0.05), colour * 0.7, CODE_BODY)
        pen.stroke(np.array([(-0.3, 1.0), (0.0, 0.6), (0.3, 1.0)]), 0.12, dark, CODE_BODY)
    tint, alpha, head = pen.layers()
    gx, _ = pen.grid()
    tint = tint * np.clip(0.92 + 0.12 * float(style.light[0]) * gx, 0.5, 1.15)[None, :, None]
    tint = np.clip(np.minimum(tint, alpha[..., None]), 0, 255).astype(np.uint8)
    return Sprite(pen.x0, pen.y0, tint, alpha, head, float(spot[1]) + 0.3 * unit)


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Adds light, colour cast, blur, noise and compression.

    Args:
        rng: random source.
        image: (H, W, 3) float32 RGB, 0 to 255.

    Returns:
        (H, W, 3) uint8 RGB. No pixel moves: every blur is centred.
    """
    height, width = image.shape[:2]
    if rng.random() < 0.45:
        light = noise_field(rng, height, width, max(height, width) / 2.5)
        image = image * np.clip(1.0 + 0.13 * light, 0.65, 1.4)[..., None]
    image = soften(rng, image)
    cast = 1.0 + rng.normal(0.0, 0.05, 3).astype(np.float32)
    contrast, offset = np.float32(rng.uniform(0.75, 1.25)), np.float32(rng.normal(4, 12))
    image = (image * cast - 110.0) * contrast + 110.0 + offset
    if rng.random() < 0.85:
        low, high = np.percentile(image[::7, ::7], (1.0, 99.0))
        black, white = rng.uniform(0, 40), rng.uniform(215, 258)
        image = (image - low) * np.float32((white - black) / max(40.0, high - low)) + np.float32(black)
    image = np.clip(image, 0.0, 255.0)
    gamma = float(np.exp(rng.normal(0.0, 0.2)))
    if rng.random() < 0.1:
        image[:] = image.mean(axis=2, keepdims=True)
    grain = float(rng.uniform(0.5, 7.0)) if rng.random() < 0.8 else 0.0
    if grain:
        shot = rng.standard_normal((height, width), dtype=np.float32) * np.float32(grain)
        image += shot[..., None]
    table = (255.0 * (np.arange(256) / 255.0) ** gamma + 0.5).astype(np.uint8)
    out = cv2.LUT(np.clip(image + 0.5, 0, 255).astype(np.uint8), table)
    if rng.random() < 0.6:
        quality = int(rng.integers(35, 92))
        packed = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(out)


def soften(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blurs by focus, motion or low resolution, or not at all."""
    height, width = image.shape[:2]
    kind = rng.random()
    if kind < 0.35:
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.1)))
    if kind < 0.45:
        length = int(rng.choice([3, 5]))
        kernel = np.zeros((length, length), np.float32)
        if rng.random() < 0.5:
            kernel[length // 2] = 1.0 / length
        else:
            kernel[np.arange(length), np.arange(length)] = 1.0 / length
        return cv2.filter2D(image, -1, kernel)
    if kind < 0.62 and min(height, width) >= 16:
        ratio = rng.uniform(0.5, 0.85)
        size = (max(8, int(width * ratio)), max(8, int(height * ratio)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return image
