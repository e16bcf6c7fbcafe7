"""Pictures for people: masks outlined over the photo, colour by source, and a page that lists them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from crowdmask import files, geometry, tables
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window

VERSION = 1
"""Raised when the pictures change for the same tables."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "sam": (86, 180, 233),
    "circle": (230, 159, 0),
    "pixel": (204, 121, 167),
    "manual": (0, 158, 115),
}
"""RGB by source: sky blue, orange, reddish purple and bluish green of Okabe and Ito's colour-blind-safe palette."""

FILL, GREY = 0.3, 0.5
"""Shares of the source's colour inside of a mask, and of grey in the photo, so that the colours stand out."""

SMALL_SIDE, LARGE_SIDE, READABLE_PX = 700, 2400, 32
"""A picture's longest side is enlarged to at least the first, and no further than the second for masks smaller than
the third (pixels; our choice)."""

_INK, _PAPER = (34, 34, 34), (255, 255, 255)


def zoom_for(height: int, width: int, windows: Sequence[Window]) -> int:
    """Whole-number enlargement with which outlines can be told apart."""
    side = max(height, width)
    zoom = -(-SMALL_SIDE // side)
    sizes = [max(window.mask.shape) for window in windows if window.mask.size]
    if sizes:
        wanted = int(np.ceil(READABLE_PX / np.median(sizes)))
        zoom = max(zoom, min(wanted, LARGE_SIDE // side))
    return max(zoom, 1)


def draw(image_rgb: np.ndarray, windows: list[Window], sources: list[str], points_xy: np.ndarray) -> np.ndarray:
    """Draw masks and points over a photo, with a legend below.

    A mask's outermost pixels are its outline, in the colour of its source, with a dark rim around it; its inside is
    lightly filled; a point is a white dot with a dark rim. The photo is drawn paler than it is. Small photos, and
    photos of small masks, are enlarged by a whole number first.

    Args:
        image_rgb: uint8 (H, W, 3).
        windows: N masks inside of the image, some may be empty.
        sources: Source of each mask, keys of `COLOURS`.
        points_xy: (M, 2), pixels of the photo; drawn at the border where outside.

    Returns:
        uint8 (zoom * H + legend, zoom * W, 3), RGB.

    Raises:
        ValueError: masks and sources differ in number, or a source is unknown.
    """
    height, width = image_rgb.shape[:2]
    zoom = zoom_for(height, width, windows)
    grey = cv2.cvtColor(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    canvas = cv2.addWeighted(image_rgb, 1 - GREY, grey, GREY, 0)
    if zoom > 1:
        canvas = cv2.resize(canvas, (width * zoom, height * zoom), interpolation=cv2.INTER_CUBIC)
    masks = []
    for window, source in zip(windows, sources, strict=True):
        if source not in COLOURS:
            raise ValueError(f"unknown source {source!r}; known: {', '.join(COLOURS)}")
        if window.area:
            masks.append((Window(window.x0 * zoom, window.y0 * zoom, _enlarged(window.mask, zoom)), COLOURS[source]))
    for mask, colour in masks:
        view = _part(canvas, mask)
        view[mask.mask] = (view[mask.mask] * (1 - FILL) + np.array(colour) * FILL + 0.5).astype(np.uint8)
    # All rims before all outlines: of masks that touch, each shows its own colour.
    for mask, _ in masks:
        grown = Window(mask.x0 - 1, mask.y0 - 1, np.pad(mask.mask, 1))
        rim = cv2.dilate(grown.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~grown.mask
        x0, y0 = max(grown.x0, 0), max(grown.y0, 0)
        seen = Window(x0, y0, rim[y0 - grown.y0 :, x0 - grown.x0 :])
        view = _part(canvas, seen)
        view[seen.mask[: view.shape[0], : view.shape[1]]] = _INK
    for mask, colour in masks:
        _part(canvas, mask)[outline(mask.mask, 2 if zoom > 1 else 1)] = colour
    # The centre of a pixel lies in the middle of the square that it becomes.
    for x, y in geometry.clip_points(points_xy, height, width) * zoom + (zoom - 1) / 2:
        centre = (int(np.floor(x + 0.5)), int(np.floor(y + 0.5)))
        cv2.circle(canvas, centre, 2, _INK, -1)
        cv2.circle(canvas, centre, 1, _PAPER, -1)
    return np.concatenate([canvas, legend(canvas.shape[1], sources, len(points_xy))])


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Pixels of a bool (h, w) mask at most `thickness` steps up, down, left or right from a pixel outside of it.

    The array's surroundings count as outside.
    """
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _enlarged(mask: np.ndarray, zoom: int) -> np.ndarray:
    return mask.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _part(array: np.ndarray, window: Window) -> np.ndarray:
    """View of a picture below a window; smaller than the window where that leaves the picture right or below."""
    h, w = window.mask.shape
    return array[window.y0 : window.y0 + h, window.x0 : window.x0 + w]


def legend(width: int, sources: Sequence[str], points: int) -> np.ndarray:
    """Strip with the number of masks of each source and of points, uint8 (h, width, 3); larger on wider pictures."""
    unit = max(1.0, width / 1100)
    font, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.55 * unit, max(1, round(unit))
    key, gap, height = round(12 * unit), round(10 * unit), round(32 * unit)
    entries = [(name, sources.count(name)) for name in COLOURS if name in sources] + [("points", points)]
    rows: list[list[tuple[int, str, str]]] = [[]]
    x = gap
    for name, count in entries:
        text = f"{name} {count:,}"
        need = key + 3 * gap + cv2.getTextSize(text, font, scale, thick)[0][0]
        if rows[-1] and x + need > width:
            rows.append([])
            x = gap
        rows[-1].append((x, name, text))
        x += need
    strip = np.full((height * len(rows), width, 3), 255, np.uint8)
    for index, row in enumerate(rows):
        middle = index * height + height // 2
        for x, name, text in row:
            if name in COLOURS:
                cv2.rectangle(strip, (x, middle - key // 2), (x + key, middle + key // 2), COLOURS[name], -1)
            else:
                cv2.circle(strip, (x + key // 2, middle), key // 3, _INK, thick, cv2.LINE_AA)
            base = (x + key + gap * 3 // 4, middle + round(6 * unit))
            cv2.putText(strip, text, base, font, scale, _INK, thick, cv2.LINE_AA)
    return strip


def run(
    root: str | Path,
    exif: Exif,
    images_path: str | Path,
    masks_path: str | Path,
    split: str,
    image_id: str,
    output: str | Path,
) -> str:
    """Draw one image of a data set to a PNG file.

    Args:
        root: Folder that image paths are relative to.
        exif: EXIF policy of the data set.
        images_path: `images` table that has the image.
        masks_path: `masks` table of the same batch.
        split: Split of the image.
        image_id: The image.
        output: PNG file to write.

    Returns:
        Caption: the numbers of points and of masks by source.

    Raises:
        DataError: the image is not in the table, or its file cannot be read or has another size than the table says.
    """

    def wanted(row: dict) -> bool:
        return row["split"] == split and row["image_id"] == image_id

    image = next((row for row in tables.stream(images_path, "images", batch=64) if wanted(row)), None)
    if image is None:
        raise DataError(images_path, f"no image {split}/{image_id}", "Ask for an image that the table has.")
    photo = read_row(root, image, exif)
    rows = [row for row in tables.stream(masks_path, "masks") if wanted(row)]
    points = np.array([[point["x"], point["y"]] for point in image["points"]], float).reshape(-1, 2)
    sources = [row["source"] for row in rows]
    picture = draw(photo, [Window.from_columns(row) for row in rows], sources, points)
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(output, "the picture could not be encoded", "Report this with the image.")
    with files.replacing(output) as temporary:
        temporary.write_bytes(data.tobytes())
    return caption(len(points), sources)


def caption(points: int, sources: Sequence[str]) -> str:
    """Such as `132 points; masks: 130 sam, 2 circle`."""
    counts = [f"{sources.count(name):,} {name}" for name in COLOURS if name in sources]
    return f"{points:,} points; masks: {', '.join(counts) or 'none'}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Masks over photos</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }}
figure {{ margin: 0 0 2.5rem; }}
img {{ max-width: 100%; height: auto; display: block; border: 1px solid #ccc; }}
figcaption {{ margin: .4rem 0; }}
.key {{ display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }}
</style>
</head>
<body>
<h1>Masks over photos</h1>
<p>{count} Colours by source:{key}</p>
{figures}
</body>
</html>
"""


def index(output_html: str | Path, pictures: Sequence[tuple[str, str, str, str]]) -> None:
    """Write a page of pictures that needs no other file than the pictures.

    Args:
        output_html: Page to write.
        pictures: (split, image id, path of the PNG relative to the page, caption) of each; any text is escaped.
    """
    figures = []
    for split, image_id, path, text in pictures:
        name, link = html.escape(f"{split} / {image_id}"), html.escape(quote(path))
        figures.append(
            f"<figure>\n<figcaption><strong>{name}</strong>{html.escape(f': {text}' if text else '')}</figcaption>\n"
            f'<a href="{link}"><img src="{link}" alt="{name}" loading="lazy"></a>\n</figure>'
        )
    key = "".join(
        f'<span class="key" style="background: rgb{colour}"></span>{name}' for name, colour in COLOURS.items()
    )
    count = f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}."
    page = _PAGE.format(count=count, key=key, figures="\n".join(figures))
    with files.replacing(output_html) as temporary:
        temporary.write_text(page, encoding="utf-8")
