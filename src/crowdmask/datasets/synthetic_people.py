"""People of the synthetic crowd scenes: body, head, hair, face and headgear.

Everything that sits on the skull (hair, ears, hats, helmets, hoods, scarves)
counts as head; necks, shoulders and raised arms do not. Units are those of
:mod:`crowdmask.datasets.synthetic_paint`. Source of every number: our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crowdmask.datasets import synthetic_paint as paint
from crowdmask.datasets.synthetic_paint import CODE_BODY, CODE_CLOTH, CODE_HEAD, Pen, Style, blob


@dataclass(frozen=True)
class Look:
    """How one person is turned and coloured (angles in radians, colours RGB 0 to 255)."""

    sin: float
    cos: float
    pitch: float
    half: tuple[float, float]
    skin: np.ndarray
    hair: np.ndarray
    cloth: np.ndarray
    second: np.ndarray
    gear: str
    detail: bool


_GEAR = ("cap", "beanie", "helmet", "sunhat", "hood", "scarf", "turban", "band")
_GEAR_ODDS = np.cumsum([0.36, 0.15, 0.07, 0.1, 0.12, 0.1, 0.05, 0.05])


def random_look(rng: np.random.Generator, style: Style, unit: float) -> Look:
    """Draws one person's look; ``unit`` is the head height in pixels."""
    yaw = rng.normal(style.yaw_mean, style.yaw_spread)
    sin, cos = float(np.sin(yaw)), float(np.cos(yaw))
    gear = "none"
    if rng.random() < style.hat_rate:
        gear = _GEAR[min(int(np.searchsorted(_GEAR_ODDS, rng.random())), len(_GEAR) - 1)]
    half = (rng.uniform(0.36, 0.41) + 0.04 * abs(sin), 0.5 - 0.08 * style.pitch)
    return Look(
        sin,
        cos,
        style.pitch,
        half,
        paint.skin_tone(rng, style),
        paint.hair_colour(rng),
        paint.cloth_colour(rng, style),
        paint.muted(rng, paint.cloth_colour(rng, style)),
        gear,
        unit >= 9.0,
    )


def draw_person(
    rng: np.random.Generator,
    style: Style,
    x: float,
    y: float,
    unit: float,
    haze: float,
    frame: tuple[int, int],
) -> paint.Sprite:
    """Paints one person.

    Args:
        rng: random source.
        style: the scene's style.
        x: column of the head centre, pixels.
        y: row of the head centre, pixels.
        unit: head height, pixels.
        haze: how far the colours fade to the haze colour, 0 to 1.
        frame: (height, width) of the image, pixels.

    Returns:
        The sprite, clipped to the frame.
    """
    look = random_look(rng, style, unit)
    raised = rng.random() < style.arm_rate
    tall = 6.33 * (1.0 - 0.55 * style.pitch) + 0.4
    box = (-1.7, -1.75, 1.7, tall) if raised else (-1.45, -0.85, 1.45, tall)
    pen = Pen(x, y, unit, box, frame)
    arms_in_front = rng.random() < 0.5
    draw_body(pen, rng, look)
    if raised and not arms_in_front:
        draw_raised_arms(pen, rng, look)
    roll = rng.normal(0.0, 0.13)
    pen.turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    draw_head(pen, rng, look)
    pen.turn = np.eye(2)
    if raised and arms_in_front:
        draw_raised_arms(pen, rng, look)
    colour, alpha, head = pen.layers()
    if unit >= 7.0 and rng.random() < 0.4:
        colour = paint.pattern(pen, rng, look.second, colour)
    colour = paint.shade(pen, rng, style, colour, head, look.half)
    if haze > 0.0:
        colour *= 1.0 - haze
        colour += style.haze.astype(np.float32) * (haze / 255.0 * alpha.astype(np.float32))[..., None]
    colour = np.minimum(colour, alpha[..., None]).astype(np.uint8)
    return paint.Sprite(pen.x0, pen.y0, colour, alpha, head, y + 0.12 * unit * rng.normal())


def draw_body(pen: Pen, rng: np.random.Generator, look: Look) -> None:
    """Paints legs, torso, arms, neck and what hangs on them."""
    squash = 1.0 - 0.55 * look.pitch
    wide = rng.uniform(0.88, 1.15) * (0.62 + 0.38 * abs(look.cos))
    neck = 0.42 * squash + 0.1
    shoulder = neck + 0.26 * squash
    waist = shoulder + 2.35 * squash
    lean = rng.normal(0.0, 0.08)
    draw_legs(pen, rng, look, wide, waist, squash)
    left = np.array(
        [
            (0.0, neck - 0.12),
            (-0.24, neck - 0.06),
            (-0.62 * wide, shoulder - 0.14),
            (-0.9 * wide, shoulder),
            (-wide, shoulder + 0.35 * squash),
            (-0.82 * wide + lean, shoulder + 1.1 * squash),
            (-0.8 * wide + lean, waist),
        ]
    )
    right = left[::-1] * (-1.0, 1.0) + rng.normal(0, 0.03, (7, 2)) + (2 * lean, 0.0) * (left[::-1, 1:] > 1.5)
    torso = np.concatenate([left, right])
    pen.fill(torso, look.cloth, CODE_CLOTH)
    sleeve = look.cloth * rng.uniform(0.78, 0.95)
    bare = rng.random() < 0.45
    for side in (-1.0, 1.0):
        elbow = (side * (wide + rng.uniform(-0.06, 0.12)), shoulder + 1.25 * squash)
        hand = (side * wide * rng.uniform(0.55, 1.08), shoulder + rng.uniform(1.9, 2.6) * squash)
        top = (side * 0.86 * wide, shoulder + 0.2 * squash)
        pen.stroke(np.array([elbow, hand]), 0.25, look.skin * 0.9 if bare else sleeve, CODE_BODY)
        pen.stroke(np.array([top, elbow]), 0.31, sleeve, CODE_BODY)
        if not bare:
            pen.fill(blob(rng, hand[0], hand[1], 0.15, 0.15), look.skin * 0.9, CODE_BODY)
    collar = np.array([(-0.26, neck - 0.02), (0.26, neck - 0.02), (0.0, neck + rng.uniform(0.1, 0.42))])
    if look.cos > 0.2:
        pen.fill(collar, look.skin * 0.86, CODE_BODY)
    pen.fill(
        np.array([(-0.21, 0.1), (0.21, 0.1), (0.26, neck + 0.04), (-0.26, neck + 0.04)]),
        look.skin * 0.72,
        CODE_BODY,
    )
    if look.detail:
        draw_extras(pen, rng, look, wide, shoulder, squash)


def draw_legs(pen: Pen, rng: np.random.Generator, look: Look, wide: float, waist: float, squash: float) -> None:
    """Paints trousers or a skirt and shoes."""
    foot = waist + 3.3 * squash
    trousers = np.clip(rng.choice([25.0, 45.0, 80.0, 150.0]) + rng.normal(0, 12, 3), 5, 235)
    stride = rng.uniform(0.05, 0.45)
    for side in (-1.0, 1.0):
        end = side * stride
        leg = np.array(
            [
                (side * 0.82 * wide, waist - 0.15),
                (-side * 0.05, waist - 0.15),
                (end - side * 0.18, foot),
                (end + side * 0.2, foot),
            ]
        )
        pen.fill(leg, trousers * (1.0 if side > 0 else 0.85), CODE_BODY)
        pen.fill(blob(rng, end + 0.1 * look.sin, foot, 0.24, 0.13), trousers * 0.5, CODE_BODY)


def draw_extras(pen: Pen, rng: np.random.Generator, look: Look, wide: float, shoulder: float, squash: float) -> None:
    """Paints some of: logo, jacket opening, rucksack, straps, neck scarf, bag."""
    kind = rng.random()
    mid = shoulder + 0.85 * squash
    if kind < 0.16:
        pen.fill(blob(rng, 0.0, mid, 0.34 * wide, 0.26 * squash, 0.08), look.second, CODE_BODY)
    elif kind < 0.3 and look.cos > 0.0:
        slit = np.array([(-0.1, shoulder - 0.2), (0.14, shoulder - 0.2), (0.16, mid + 1.4), (-0.14, mid + 1.4)])
        pen.fill(slit, look.second, CODE_BODY)
    elif kind < 0.44 and look.cos < 0.0:
        pen.fill(blob(rng, 0.0, mid + 0.1, 0.62 * wide, 0.8 * squash, 0.04), look.second * 0.8, CODE_BODY)
        pen.fill(blob(rng, 0.0, mid + 0.4, 0.4 * wide, 0.34 * squash, 0.04), look.second * 0.6, CODE_BODY)
    elif kind < 0.54:
        for side in (-1.0, 1.0):
            ends = np.array([(side * 0.5 * wide, shoulder - 0.1), (side * 0.55 * wide, mid + 0.6)])
            pen.stroke(ends, 0.14, look.second * 0.6, CODE_BODY)
    elif kind < 0.62:
        pen.stroke(np.array([(-0.6 * wide, shoulder), (0.7 * wide, mid + 1.0)]), 0.1, look.second, CODE_BODY)
        pen.fill(blob(rng, 0.8 * wide, mid + 1.1, 0.32, 0.4, 0.05), look.second * 0.8, CODE_BODY)
    elif kind < 0.72:
        pen.fill(blob(rng, 0.0, shoulder - 0.12, 0.42, 0.2, 0.08), look.second, CODE_BODY)
        pen.stroke(np.array([(0.1, shoulder), (0.2, mid + 0.3)]), 0.2, look.second * 0.9, CODE_BODY)


def draw_raised_arms(pen: Pen, rng: np.random.Generator, look: Look) -> None:
    """Paints one or two raised arms, sometimes with a phone or clapping hands."""
    squash = 1.0 - 0.55 * look.pitch
    shoulder = 0.52 + 0.16 * squash
    sides = (-1.0, 1.0) if rng.random() < 0.45 else (rng.choice([-1.0, 1.0]),)
    sleeve = look.cloth * 0.92 if rng.random() < 0.5 else look.skin * 0.9
    for side in sides:
        elbow = (side * rng.uniform(0.95, 1.4), shoulder - rng.uniform(0.1, 0.5))
        hand = (side * rng.uniform(0.35, 1.4), -rng.uniform(0.6, 1.5) * squash)
        pen.stroke(np.array([(side * 0.8, shoulder + 0.2), elbow]), 0.36, look.cloth, CODE_BODY)
        pen.stroke(np.array([elbow, hand]), 0.25, sleeve, CODE_BODY)
        pen.fill(blob(rng, hand[0], hand[1], 0.16, 0.2, 0.06), look.skin, CODE_BODY)
        if rng.random() < 0.2:
            pen.fill(
                np.array([(-0.14, -0.24), (0.14, -0.24), (0.14, 0.2), (-0.14, 0.2)]) + hand, np.full(3, 25.0), CODE_BODY
            )


def draw_head(pen: Pen, rng: np.random.Generator, look: Look) -> None:
    """Paints skull, ears, hair, face and headgear, far parts first."""
    hx, hy = look.half
    bald = look.gear == "none" and rng.random() < 0.07
    long_hair = rng.random() < 0.33 and not bald
    grow = rng.uniform(1.0, 1.2)
    if long_hair:
        drop = rng.uniform(0.05, 0.28)
        back = blob(rng, -0.08 * look.sin, 0.02 + drop / 2, hx * 1.12 * grow, hy + drop / 2, 0.025)
        back = paint.ruffle(rng, back, 0.015)
        pen.fill(back, look.hair * 0.8, CODE_HEAD)
        if look.cos > 0.1:
            throat = np.array([(-0.2, 0.2), (0.2, 0.2), (0.26, 0.62 + drop), (-0.26, 0.62 + drop)])
            pen.fill(throat + np.array([0.1 * look.sin, 0.0]), look.skin * 0.7, CODE_BODY)
    jaw = blob(rng, 0.0, 0.0, hx, hy, 0.012)
    low = np.maximum(jaw[:, 1], 0.0) / hy
    jaw[:, 0] *= 1.0 - rng.uniform(0.12, 0.26) * low * low
    jaw[:, 0] += 0.05 * look.sin * low
    pen.fill(jaw, look.skin * (0.96 if look.cos > 0 else 0.88), CODE_HEAD)
    if long_hair and look.cos < 0.0:
        pen.fill(back, look.hair * 0.9, CODE_HEAD)
    if not long_hair:
        for side in (-1.0, 1.0):
            if side * look.sin < 0.55:
                ear = (side * hx * abs(look.cos) - 0.05 * look.sin, 0.06 + 0.1 * look.pitch)
                pen.fill(blob(rng, ear[0], ear[1], 0.065, 0.12), look.skin * 0.85, CODE_HEAD)
    if not bald:
        shrink = 1.0 if long_hair and look.cos < 0.3 else rng.uniform(0.72, 0.86)
        cap = blob(rng, -0.05 * look.sin, -0.56 + hy * shrink + 0.02, hx * 1.03 * grow, hy * shrink + 0.02, 0.03)
        pen.fill(paint.ruffle(rng, cap, rng.uniform(0.006, 0.03)), look.hair, CODE_HEAD)
        if look.gear == "none":
            draw_hairstyle(pen, rng, look, cap)
    if look.cos > (0.0 if long_hair else -0.35):
        draw_face(pen, rng, look, bald)
    if look.gear != "none":
        draw_gear(pen, rng, look)


def draw_hairstyle(pen: Pen, rng: np.random.Generator, look: Look, cap: np.ndarray) -> None:
    """Adds to the hair cap (24, 2): locks on its edge, strands, a bun, a tail or a thin crown."""
    hx, hy = look.half
    crown = np.array([-0.08 * look.sin, -0.3 - 0.1 * max(look.cos, 0.0)])
    if look.detail:
        for tip in cap[12:24:2] + rng.normal(0.0, 0.03, (6, 2)):
            tint = look.hair * rng.uniform(0.7, 1.35) + rng.uniform(0, 5)
            pen.stroke(np.array([crown + (tip - crown) * 0.1, crown + (tip - crown) * 0.96]), 0.045, tint, CODE_HEAD)
    if look.detail and rng.random() < 0.12:
        for tip in crown + (cap - crown) * rng.uniform(0.8, 0.98, (24, 1)):
            size = rng.uniform(0.04, 0.1)
            pen.fill(blob(rng, tip[0], tip[1], size, size, 0.0), look.hair * rng.uniform(0.85, 1.1), CODE_HEAD)
    kind = rng.random()
    if kind < 0.06:
        pen.fill(blob(rng, rng.normal(0, 0.05), -hy - 0.1, 0.16, 0.13, 0.04), look.hair * 1.08, CODE_HEAD)
    elif kind < 0.13 and look.cos < 0.4:
        pen.fill(blob(rng, -0.2 * look.sin, 0.22, 0.12, 0.34, 0.04), look.hair * 1.12, CODE_HEAD)
    elif kind < 0.19 and (look.cos < -0.2 or look.pitch > 0.6):
        spot = blob(rng, crown[0], -hy + 0.2, hx * rng.uniform(0.35, 0.75), rng.uniform(0.1, 0.2), 0.06)
        pen.fill(spot * (1.15, 1.1), look.skin * 0.4 + look.hair * 0.6, CODE_HEAD)
        pen.fill(paint.ruffle(rng, spot, 0.03), look.skin * 0.8 + look.hair * 0.15, CODE_HEAD)


def draw_face(pen: Pen, rng: np.random.Generator, look: Look, bald: bool) -> None:
    """Paints the face oval with a hint of eyes, nose, mouth, beard, glasses or mask."""
    hx, hy = look.half
    turn = max(look.cos, 0.0)
    cx, cy = 0.24 * look.sin, 0.12 + 0.16 * look.pitch + rng.normal(0, 0.012)
    rx = hx * (0.42 + 0.45 * turn)
    ry = min(0.36 * (1.0 - 0.45 * look.pitch), hy - cy)
    if not bald:
        oval = blob(rng, cx, cy, rx, ry, 0.02)
        brow_line = oval[:, 1] < cy
        oval[brow_line, 1] += rng.uniform(-0.02, 0.14) + rng.normal(0.0, 0.018, int(brow_line.sum()))
        pen.fill(oval, look.skin, CODE_HEAD)
        pen.fill(blob(rng, cx - 0.3 * rx, cy + 0.1, 0.3 * rx, 0.1, 0.0), look.skin * (1.04, 0.98, 0.96), CODE_HEAD)
        pen.fill(blob(rng, cx + 0.3 * rx, cy + 0.1, 0.3 * rx, 0.1, 0.0), look.skin * (1.02, 0.95, 0.93), CODE_HEAD)
    if not look.detail:
        pen.stroke(np.array([(cx - rx * 0.6, cy - 0.08), (cx + rx * 0.6, cy - 0.08)]), 0.09, look.skin * 0.7, CODE_HEAD)
        return
    flat = 1.0 - 0.5 * look.pitch
    eye = cy - 0.09 * flat
    dark = look.skin * 0.35
    if rng.random() < 0.14:
        pen.fill(blob(rng, cx, cy + 0.22 * flat, rx * 0.78, 0.15 * flat, 0.04), look.hair, CODE_HEAD)
    pen.fill(blob(rng, cx + 0.05 * look.sin, cy + 0.07 * flat, 0.05, 0.09 * flat, 0.0), look.skin * 0.84, CODE_HEAD)
    mouth = np.array([(cx - 0.1 * turn - 0.02, cy + 0.2 * flat), (cx + 0.1 * turn + 0.04, cy + 0.2 * flat)])
    pen.stroke(mouth, 0.04, look.skin * (0.82, 0.62, 0.6), CODE_HEAD)
    shades = rng.random() < 0.14
    for side in (-1.0, 1.0):
        ex = cx + side * 0.155 * turn + 0.06 * look.sin
        if abs(ex) > hx * 0.93 or side * look.sin > 0.9:
            continue
        if shades:
            pen.fill(blob(rng, ex, eye, 0.11 * max(turn, 0.5), 0.075, 0.0), np.full(3, 18.0), CODE_HEAD)
            continue
        pen.fill(blob(rng, ex, eye, 0.09, 0.06 * flat, 0.0), look.skin * 0.74, CODE_HEAD)
        pen.fill(blob(rng, ex, eye + 0.005, 0.042, 0.028, 0.0), dark, CODE_HEAD)
        brow = np.array([(ex - 0.07, eye - 0.075), (ex + 0.07, eye - 0.075)])
        pen.stroke(brow, 0.03, look.hair * 0.4 + look.skin * 0.4, CODE_HEAD)
    if shades:
        pen.stroke(np.array([(cx - rx * 0.9, eye), (cx + rx * 0.9, eye)]), 0.03, np.full(3, 25.0), CODE_HEAD)
    elif rng.random() < 0.06:
        tint = np.array([[205.0, 222.0, 232.0], [235.0, 235.0, 235.0], [40.0, 40.0, 44.0]])[rng.integers(3)]
        pen.fill(blob(rng, cx, cy + 0.16 * flat, rx * 0.86, 0.17 * flat, 0.03), tint, CODE_HEAD)


def draw_gear(pen: Pen, rng: np.random.Generator, look: Look) -> None:
    """Paints what is worn on the head; ``look.gear`` names it."""
    hx, hy = look.half
    colour = look.second
    base = -0.14 + 0.1 * look.pitch
    if look.gear == "cap":
        pen.fill(paint.dome(hx * 1.07, -hy - 0.07, base, 0.07), colour, CODE_HEAD)
        pen.stroke(np.array([(0.0, -hy - 0.05), (0.1 * look.sin, base)]), 0.025, colour * 0.8, CODE_HEAD)
        if look.cos > -0.3:
            wide, deep = 0.24 + 0.12 * abs(look.cos), 0.07 + 0.1 * look.pitch
            brim = blob(rng, 0.42 * look.sin, base + 0.05 + 0.06 * look.cos, wide, deep, 0.02)
            pen.fill(brim, colour * 0.7, CODE_HEAD)
    elif look.gear == "beanie":
        pen.fill(paint.dome(hx * 1.1, -hy - 0.12, base + 0.06, 0.05), colour, CODE_HEAD)
        band = np.array([(-hx * 1.02, base), (0.0, base + 0.05), (hx * 1.02, base)])
        pen.stroke(band, 0.13, colour * 0.82, CODE_HEAD)
        if rng.random() < 0.3:
            pen.fill(blob(rng, 0.0, -hy - 0.16, 0.13, 0.12, 0.05), look.cloth, CODE_HEAD)
    elif look.gear == "helmet":
        pen.fill(paint.dome(hx * 1.22, -hy - 0.1, base + 0.12, 0.05), colour, CODE_HEAD)
        pen.fill(blob(rng, -0.12, -hy * 0.62, 0.12, 0.08, 0.0), colour * 0.5 + 120, CODE_HEAD)
    elif look.gear == "sunhat":
        brim = blob(rng, 0.0, base, rng.uniform(0.6, 0.82), 0.12 + 0.45 * look.pitch, 0.03)
        pen.fill(brim, colour * 0.85, CODE_HEAD)
        pen.fill(paint.dome(hx * 1.02, -hy - 0.05, base, 0.1), colour, CODE_HEAD)
        pen.stroke(np.array([(-hx, base - 0.04), (0.0, base + 0.04), (hx, base - 0.04)]), 0.08, colour * 0.4, CODE_HEAD)
    elif look.gear in ("hood", "scarf"):
        cloth = look.cloth if look.gear == "hood" else colour
        grow = 1.2 if look.gear == "hood" else 1.08
        if look.gear == "scarf":
            drape = np.array([(-hx, 0.2), (hx, 0.2), (0.62, 0.85), (-0.62, 0.85)])
            keep = pen.samples[..., 3] == CODE_HEAD
            saved = pen.samples[keep]
            pen.fill(drape, cloth * 0.86, CODE_BODY)
            pen.samples[keep] = saved
        pen.fill(blob(rng, -0.05 * look.sin, 0.0, hx * grow, hy * grow, 0.02), cloth * 0.95, CODE_HEAD)
        if look.cos > -0.3:
            mid = (0.22 * look.sin, 0.1 + 0.15 * look.pitch)
            open_x = hx * (0.42 + 0.3 * max(look.cos, 0.0))
            pen.fill(blob(rng, mid[0], mid[1] - 0.02, open_x * 1.1, 0.37, 0.02), cloth * 0.45, CODE_HEAD)
            pen.fill(blob(rng, mid[0], mid[1], open_x, 0.33, 0.02), look.skin * 0.92, CODE_HEAD)
            for side in (-1.0, 1.0):
                spot = blob(rng, mid[0] + side * 0.13, mid[1] - 0.08, 0.06, 0.04, 0.0)
                pen.fill(spot, look.skin * 0.45, CODE_HEAD)
            lips = np.array([(mid[0] - 0.07, mid[1] + 0.16), (mid[0] + 0.07, mid[1] + 0.16)])
            pen.stroke(lips, 0.04, look.skin * (0.72, 0.52, 0.5), CODE_HEAD)
            pen.fill(blob(rng, mid[0], mid[1] + 0.03, 0.045, 0.07, 0.0), look.skin * 0.78, CODE_HEAD)
    elif look.gear == "turban":
        pen.fill(blob(rng, 0.0, -0.33, hx * 1.2, 0.27, 0.03), colour, CODE_HEAD)
        pen.stroke(np.array([(-hx, -0.25), (0.0, -0.42), (hx, -0.2)]), 0.04, colour * 0.75, CODE_HEAD)
    else:
        pen.stroke(np.array([(-hx, -0.2), (0.0, -0.22), (hx, -0.2)]), 0.1, colour, CODE_HEAD)
