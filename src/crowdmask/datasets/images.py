"""Image files: decoded once, here, to 8-bit RGB, as stored or turned by their EXIF orientation.

What becomes of each kind of file (our choice):

| file | result |
|---|---|
| grey, bilevel | the value in all three channels (bilevel: 0 or 255) |
| palette | the colours of the palette |
| LA, RGBA, transparent palette | colour as stored, alpha ignored |
| CMYK, YCbCr | converted by Pillow, without colour profile |
| 16 bit, grey or colour | by `to_8bit` |
| several frames | the first |
| 32-bit integers beyond 16 bit, floats, Lab, HSV | refused |

The format is recognised from the content; the suffix only says which files of a folder are images.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from crowdmask.errors import DataError

Exif = Literal["stored", "apply"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""Suffixes, in lower case, of the files that count as images."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""What Pillow may take a file for (no EPS and the like, which start other programs)."""

_PLAIN = ("1", "L", "LA", "RGB", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_WAY_OUT = "Replace the file, or leave the image out: list it as split/id under datasets.NAME.skip_images."


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: uint8 (H, W, 3) RGB.
        mode: Colour mode of the file as Pillow names it.
        orientation: EXIF orientation of the file, 1 (upright) to 8, whether applied or not.
    """

    pixels: np.ndarray
    mode: str
    orientation: int


def read_image(path: str | Path, exif: Exif = "stored") -> np.ndarray:
    """Decode an image file.

    Args:
        path: The file.
        exif: `stored` = the pixels as they lie in the file, `apply` = turned as the EXIF orientation says.

    Returns:
        uint8 (H, W, 3) RGB, writable.

    Raises:
        DataError: missing, empty, truncated or corrupt file, or one of more than 179 million pixels.
    """
    return open_picture(path, exif).pixels


def path_of(root: str | Path, row: Mapping[str, Any]) -> Path:
    """File of a row of `tables.IMAGES`; opens nothing.

    Raises:
        DataError: the path leaves the root.
    """
    relative = PurePosixPath(row["path"])
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(row["path"], f"leads outside of {root}", "Delete the table that says so, and run again.")
    return Path(root, relative)


def read_row(root: str | Path, row: Mapping[str, Any], exif: Exif) -> np.ndarray:
    """Decode the image of a row of `tables.IMAGES`: uint8 (H, W, 3) RGB.

    Args:
        root: Folder of the data set.
        row: With `path`, `height` and `width`.
        exif: EXIF policy of the data set.

    Raises:
        DataError: as `read_image`; or the path leaves the root; or the file has another size than the table says.
    """
    path = path_of(root, row)
    pixels = read_image(path, exif)
    if pixels.shape[:2] != (row["height"], row["width"]):
        raise DataError(path, "its size changed since it was listed", "Run again from the images table on.")
    return pixels


def image_info(path: str | Path, exif: Exif = "stored") -> tuple[int, int, str]:
    """Height and width in pixels and Pillow's colour mode; decodes the whole file (same errors as `read_image`)."""
    picture = open_picture(path, exif)
    return picture.pixels.shape[0], picture.pixels.shape[1], picture.mode


def image_size(path: str | Path, exif: Exif = "stored") -> tuple[int, int]:
    """Height and width in pixels from the file's header alone, after the EXIF policy.

    Raises:
        DataError: the header cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from PIL import Image

            with Image.open(path, formats=FORMATS) as file:
                check_plausible(path, file)
                width, height = file.size
                orientation = _orientation(file) if exif == "apply" else 1  # for a PNG, this decodes the pixels
                if file.format == "TIFF":  # recent Pillow gives the turned size of a TIFF, older ones the stored one
                    width, height = file.tag_v2[256], file.tag_v2[257]  # type: ignore[attr-defined]
    except DataError:
        raise
    except Exception as error:
        raise _explain(path, error) from None
    return (width, height) if orientation >= 5 else (height, width)


def open_picture(path: str | Path, exif: Exif = "stored") -> Picture:
    """Decode an image file, with its colour mode and EXIF orientation (same errors as `read_image`)."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 million pixels and refuses above 179; damaged metadata does not matter here.
            warnings.simplefilter("ignore")
            pixels, mode, orientation = _decode(path)
    except DataError:
        raise
    except Exception as error:  # the decoders raise nearly anything on damaged files
        raise _explain(path, error) from None
    if pixels.size == 0:
        raise DataError(path, "the image has no pixels", _WAY_OUT)
    if exif == "apply":
        pixels = turn(pixels, orientation)
    return Picture(np.require(pixels, requirements=["C", "W"]), mode, orientation)


def _decode(path: str | Path) -> tuple[np.ndarray, str, int]:
    """Stored pixels, colour mode and orientation; raises whatever Pillow raises."""
    from PIL import Image

    # From memory: of a file, Pillow would reserve whatever size a damaged chunk claims.
    content = io.BytesIO(Path(path).read_bytes())
    with Image.open(content, formats=FORMATS) as file:
        check_plausible(path, file)
        mode, deep = file.mode, _is_deep_colour(file)
        # The tag of a TIFF is read before loading: Pillow turns a TIFF by itself and then forgets the tag. That of
        # others is read after: for a PNG, Pillow decodes the pixels to find it, which would hide that they are damaged.
        early = _orientation(file) if file.format == "TIFF" else 1
        file.load()
        late = _orientation(file)
        orientation, turned = max(early, late), late < early
        if deep:
            return _decode_deep_colour(path, orientation), mode, orientation
        if mode.startswith("I"):
            values = np.asarray(file)
            if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
                raise DataError(path, "its integers do not fit in 16 bits", "Convert the image to 8 or 16 bits.")
            grey = to_8bit(values)
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
        elif mode in _PLAIN:
            pixels = np.array(file.convert("RGB"))
        elif mode in ("P", "PA", "RGBA"):
            pixels = np.array(file.convert("RGBA"))[:, :, :3]
        else:
            raise DataError(path, f"colour mode {mode} is not supported", "Convert the image to 8-bit RGB.")
    if turned:
        pixels = turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))
    return pixels, mode, orientation


def check_plausible(path: str | Path, file: Any) -> None:
    """Refuse a PNG or BMP whose file cannot hold the pixels that its header claims, before they are allocated.

    Deflate makes at most 1032 bytes of one (zlib's technical notes), and a pixel has at least one bit. The run lengths
    of a BMP make at most 255 pixels of two bytes.

    Raises:
        DataError: it cannot.
    """
    width, height = file.size
    most = {"PNG": 8 * 1032, "BMP": 128}.get(file.format)
    if most and width * height > most * os.path.getsize(path):
        raise DataError(
            path, f"its header claims {width} x {height} pixels, which so short a file cannot hold", _WAY_OUT
        )


def _is_deep_colour(file: Any) -> bool:
    """Whether a colour image has 16 bits a channel, of which Pillow would keep the upper 8."""
    for tile in file.tile:
        raw = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if isinstance(raw, str) and ";16" in raw and file.mode in ("LA", "RGB", "RGBX", "RGBA"):
            return True
    return False


def _decode_deep_colour(path: str | Path, orientation: int) -> np.ndarray:
    import cv2

    tiff = Path(path).read_bytes()[:4] in (b"II*\0", b"MM\0*")
    values = None if tiff and orientation != 1 else cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3:
        raise DataError(path, "16-bit colour of a kind that is not supported", "Convert the image to 8-bit RGB.")
    colour = values[:, :, 2::-1]
    return to_8bit(colour) if colour.dtype == np.uint16 else colour


def to_8bit(values: np.ndarray) -> np.ndarray:
    """16-bit samples as uint8 (our choice), by the largest value of the image.

    Up to 255: 8-bit data in 16-bit samples, kept. Up to 4095: 12-bit data, 4095 becomes 255. Otherwise the full range,
    65535 becomes 255. Rounded to nearest. A full-range image whose brightest sample is below 4096 comes out brighter.

    Args:
        values: Integers 0 to 65535, any shape.
    """
    top = int(values.max(initial=0))
    if top <= 255:
        return values.astype(np.uint8)
    full = 4095 if top <= 4095 else 65535
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to stored pixels.

    Args:
        pixels: (H, W, ...) as stored.
        orientation: 1 to 8 (Exif 2.3, tag 0x0112); 5 to 8 swap height and width.

    Returns:
        The upright picture; a view for some orientations.
    """
    if orientation == 2:
        return pixels[:, ::-1]
    if orientation == 3:
        return pixels[::-1, ::-1]
    if orientation == 4:
        return pixels[::-1]
    if orientation == 5:
        return pixels.swapaxes(0, 1)
    if orientation == 6:
        return pixels[::-1].swapaxes(0, 1)
    if orientation == 7:
        return pixels[::-1, ::-1].swapaxes(0, 1)
    if orientation == 8:
        return pixels[:, ::-1].swapaxes(0, 1)
    return pixels


def _orientation(file: Any) -> int:
    """Orientation tag of an open image; 1 where absent, unreadable or not 1 to 8."""
    try:
        value = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata: the pixels may still be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _explain(path: str | Path, error: Exception) -> DataError:
    """What a person needs to know of an exception of Pillow or of the file system."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return DataError(path, "file not found (or a link that leads nowhere)", _WAY_OUT)
    if isinstance(error, OSError) and error.errno is not None:  # of the file system: Pillow's own have no number
        return DataError(path, f"cannot be read ({error.strerror})", _WAY_OUT)
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return DataError(path, f"more than {limit} pixels, which are not decompressed", _WAY_OUT)
    if os.path.getsize(path) == 0:
        return DataError(path, "the file is empty (0 bytes)", _WAY_OUT)
    if isinstance(error, UnidentifiedImageError):
        return DataError(path, "not an image of a known format", _WAY_OUT)
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(path, f"the image is truncated or corrupt ({reason})", _WAY_OUT)
