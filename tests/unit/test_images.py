"""Decoding of image files: every kind of pixel, EXIF, and files that cannot be used."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from crowdmask.datasets.images import image_info, image_size, open_picture, read_image, to_8bit, turn
from crowdmask.errors import DataError


def noise(height: int = 20, width: int = 30, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, raw: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def rgb_of(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[:, :, None], 3, axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff"])
def test_lossless_rgb_is_kept(tmp_path: Path, name: str) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.dtype == np.uint8 and read.flags.writeable and read.flags.c_contiguous
    np.testing.assert_array_equal(read, pixels)
    assert image_info(tmp_path / name) == (20, 30, "RGB")
    assert image_size(tmp_path / name) == (20, 30)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_lossy_formats_are_read(tmp_path: Path, name: str) -> None:
    pixels = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, quality=95)
    assert np.abs(read_image(tmp_path / name).astype(int) - pixels).max() <= 4


def test_suffix_may_lie(tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), pixels)


def test_grey_bilevel_and_palette(tmp_path: Path) -> None:
    grey = noise()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_image(tmp_path / "l.png"), rgb_of(grey))
    Image.fromarray(grey > 127).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), rgb_of(np.where(grey > 127, 255, 0)))
    palette = Image.fromarray(noise()).quantize(16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))
    assert [image_info(tmp_path / f"{name}.png")[2] for name in "l1p"] == ["L", "1", "P"]


def test_alpha_is_ignored(tmp_path: Path) -> None:
    pixels = noise(channels=4)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), pixels[:, :, :3])
    Image.fromarray(pixels[:, :, :2]).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), rgb_of(pixels[:, :, 0]))
    palette = Image.fromarray(noise()).quantize(8)
    palette.save(tmp_path / "p.png", transparency=bytes([0, 128, 255, 3]))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk(tmp_path: Path, name: str) -> None:
    cmyk = Image.new("CMYK", (30, 20), (0, 128, 255, 0))
    cmyk.save(tmp_path / name)
    assert image_info(tmp_path / name) == (20, 30, "CMYK")
    assert np.abs(read_image(tmp_path / name).astype(int) - (255, 127, 0)).max() <= 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),
        ([0, 256, 2048, 4095], [0, 16, 128, 255]),
        ([0, 128, 129, 4096, 32768, 65535], [0, 0, 1, 16, 128, 255]),
        ([], []),
    ],
)
def test_16_bit_rule(values: list[int], expected: list[int]) -> None:
    result = to_8bit(np.array(values, np.uint16))
    assert result.dtype == np.uint8
    assert result.tolist() == expected


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_16_bit_grey_and_colour(tmp_path: Path, suffix: str, top: int) -> None:
    deep = np.random.default_rng(1).integers(0, top + 1, (20, 30, 3), dtype=np.uint16)
    deep[0, 0] = top
    cv2.imwrite(str(tmp_path / f"grey.{suffix}"), deep[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / f"grey.{suffix}"), rgb_of(to_8bit(deep[:, :, 0])))
    cv2.imwrite(str(tmp_path / f"rgb.{suffix}"), deep[:, :, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / f"rgb.{suffix}"), to_8bit(deep))


def test_16_bit_with_alpha(tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 4096, (20, 30, 4), dtype=np.uint16)
    deep[:, :, 3] = 65535
    cv2.imwrite(str(tmp_path / "rgba.png"), deep[:, :, [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), to_8bit(deep[:, :, :3]))
    rows = deep[:, :, [0, 3]].astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    (tmp_path / "la.png").write_bytes(png(30, 20, 16, 4, raw))
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), rgb_of(to_8bit(deep[:, :, 0])))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, plain = tmp_path / f"a.{suffix}", tmp_path / f"plain.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(noise())
    picture.save(path, exif=exif)
    picture.save(plain)
    stored = read_image(plain)
    reference = Image.fromarray(stored)
    reference.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(reference))
    np.testing.assert_array_equal(read_image(path, "stored"), stored)
    np.testing.assert_array_equal(read_image(path, "apply"), upright)
    np.testing.assert_array_equal(turn(stored, orientation), upright)
    assert image_size(path, "stored") == (20, 30)
    assert image_size(path, "apply") == upright.shape[:2]
    assert open_picture(path).orientation == orientation


@pytest.mark.parametrize("value", [0, 9, 77])
def test_exif_orientation_without_meaning(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "apply"), noise())


def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert image_info(tmp_path / "a.jpg", "apply") == (20, 30, "RGB")


def test_large_image_loads(tmp_path: Path) -> None:
    """NWPU-Crowd has images of 4028 x 19044 pixels; Pillow only warns from 89 million on."""
    Image.new("L", (9500, 9500)).save(tmp_path / "big.png")
    assert image_info(tmp_path / "big.png") == (9500, 9500, "L")


LARGE = noise(200, 300)
FAULTS: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("a.jpg", None, "file not found"),
    "zero bytes": ("a.jpg", b"", "empty"),
    "text": ("a.jpg", b"<html>not found</html>", "not an image"),
    "only a header": ("a.jpg", encoded("JPEG", LARGE)[:30], "a.jpg"),
    "half a JPEG": ("a.jpg", encoded("JPEG", LARGE)[:5000], "truncated"),
    "JPEG without its last bytes": ("a.jpg", encoded("JPEG", LARGE)[:-2], "truncated"),
    "half a PNG": ("a.png", encoded("PNG", LARGE)[:5000], "truncated"),
    "half a BMP": ("a.bmp", encoded("BMP", LARGE)[:5000], "truncated"),
    "half a TIFF": ("a.tif", encoded("TIFF", LARGE)[:5000], "a.tif"),
    "half a WebP": ("a.webp", encoded("WEBP", LARGE)[:5000], "corrupt"),
    "flipped byte in a PNG": (
        "a.png",
        encoded("PNG", LARGE)[:5000] + b"\x55" + encoded("PNG", LARGE)[5001:],
        "corrupt",
    ),
    "0 x 0 pixels": ("a.png", png(0, 0, 8, 2, b""), "a.png"),
    "decompression bomb": ("a.png", png(30_000, 30_000, 1, 0, b""), "not decompressed"),
    "BMP that claims 12,000 x 12,000 pixels": (
        "a.bmp",
        encoded("BMP", LARGE)[:18] + struct.pack("<ii", 12_000, 12_000) + encoded("BMP", LARGE)[26:],
        "which so short a file cannot hold",
    ),
    "PostScript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_file_is_named_with_the_way_out(tmp_path: Path, fault: str) -> None:
    name, content, words = FAULTS[fault]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for function in (read_image, image_info):
        with pytest.raises(DataError, match=words) as caught:
            function(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "skip_images" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_jpeg_is_noticed(tmp_path: Path) -> None:
    content = encoded("JPEG", noise())
    for length in range(0, len(content), 7):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("values", [np.full((4, 5), 70_000, np.int32), np.full((4, 5), -1, np.int32)])
def test_32_bit_integers_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="16 bits"):
        read_image(tmp_path / "a.tif")


def test_float_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="colour mode F"):
        read_image(tmp_path / "a.tif")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "a.jpg")
