"""Label maps out and back."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from exchange_cases import HEX, assert_same, assert_sound, label_maps, mutations, record, survive, task, tricky
from hypothesis import given, settings
from PIL import Image

from crowdmask.corrections.exchange import label_map
from crowdmask.corrections.exchange.base import File, Picture
from crowdmask.errors import DataError

LABELS = np.zeros((20, 30), np.uint8)
LABELS[3:6, 2:5] = 1
LABELS[10, 10] = 255
LABELS[-1, -1] = 255


def small_ids(masks: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {min(number, label_map.MAX_ID): mask for number, mask in masks.items()}


def written(folder: Path, *tasks) -> list[File]:
    paths = label_map.write(folder, record(*tasks, tool="label-map"))
    return [File(str(path), path.read_bytes(), HEX) for path in paths]


def encoded(values: np.ndarray | Image.Image, kind: str = "PNG", **how) -> bytes:
    out = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(out, kind, **how)
    return out.getvalue()


def read(content: bytes, name: str = "maps/0001-a.png") -> Picture:
    (picture,) = label_map.read(File(name, content, HEX))
    assert_sound(picture)
    return picture


def problem(content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        list(label_map.read(File("x.dat", content, HEX)))
    assert str(caught.value).startswith("x.dat: ") and caught.value.fix
    return caught.value.problem


# Out


def test_opencv_sees_id_plus_1_in_16_bits(tmp_path):
    masks = {0: LABELS == 1, label_map.MAX_ID: LABELS == 255}
    (made,) = written(tmp_path, task(masks, "0001-a.jpg"))
    assert Path(made.name) == tmp_path / "SegmentationMap" / "0001-a.png"
    values = cv2.imread(made.name, cv2.IMREAD_UNCHANGED)
    assert values.dtype == np.uint16 and values.shape == LABELS.shape
    np.testing.assert_array_equal(values, (LABELS == 1) * 1 + (LABELS == 255) * 65_535)


def test_a_crop_has_its_own_coordinates_and_no_heads_from_elsewhere(tmp_path):
    files = written(tmp_path, task({5: LABELS == 1, 6: LABELS == 255}, "a.png", (3, 4, 10, 8)), task({6: LABELS > 1}))
    first, second = (next(label_map.read(file)) for file in files)
    assert_same(first, {5: (LABELS == 1)[4:12, 3:13], 6: (LABELS == 255)[4:12, 3:13]})
    assert_same(second, {6: LABELS > 1})
    assert (first.name, first.height, first.width) == ("a", 8, 10)


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_ids_and_pixels_come_back(tmp_path_factory, labels):
    masks = {int(value) * 1000 + 7: labels == value for value in np.unique(labels) if value}
    folder = tmp_path_factory.mktemp("map")
    (made,) = written(folder, task(masks, "ä.b.png", (0, 0, *labels.shape[::-1])))
    assert label_map.belongs(made)
    (picture,) = label_map.read(made)
    assert (picture.name, picture.height, picture.width) == ("ä.b", *labels.shape)
    assert_same(picture, masks)


def test_the_awkward_masks_come_back(tmp_path):
    masks = small_ids(tricky())
    (made,) = written(tmp_path, task(masks))
    assert_same(next(label_map.read(made)), masks)


def test_overlapping_masks_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"points 4 and 9 overlap.*coco") as caught:
        written(tmp_path, task({4: LABELS == 1, 9: LABELS < 2}))
    assert caught.value.path.endswith("0001-a.png")
    assert not list(tmp_path.rglob("*.png"))


def test_ids_beyond_16_bits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"id 65535 is larger than 65534.*coco"):
        written(tmp_path, task({65_535: LABELS == 1}))


# Back


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
    ],
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_pictures_of_8_and_16_bits_are_read(kind, how, depth):
    scale = 257 if depth == np.uint16 else 1
    picture = read(encoded(LABELS.astype(depth) * depth(scale), kind, **how), "maps/0001-a.tif")
    assert (picture.name, picture.height, picture.width, picture.tool) == ("0001-a", 20, 30, "label map")
    assert_same(picture, {scale - 1: LABELS == 1, 255 * scale - 1: LABELS == 255})
    assert [shape.where for shape in picture.shapes] == [f"value {scale}", f"value {255 * scale}"]


def test_a_tiff_of_16_bits_with_the_high_byte_first_is_read():
    values = (LABELS.astype(int) * 256).astype(">u2")
    tags = [(256, 30), (257, 20), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 20), (279, values.nbytes)]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", tag, 4, 1, v) for tag, v in tags)
    content = b"MM\0*" + struct.pack(">I", 8 + values.nbytes) + values.tobytes() + directory + bytes(4)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), -1), values)
    assert_same(read(content), {255: LABELS == 1, 255 * 256 - 1: LABELS == 255})


def test_opencvs_own_files_are_read():
    values = LABELS.astype(np.uint16) * 3
    for suffix in (".png", ".tiff"):
        assert_same(read(cv2.imencode(suffix, values)[1].tobytes()), {2: LABELS == 1, 764: LABELS == 255})


def test_a_map_without_values_has_no_shapes():
    assert read(encoded(LABELS * 0)).shapes == []


def test_masks_that_cross_bands_are_whole(monkeypatch):
    monkeypatch.setattr(label_map, "_BAND", 70)  # two rows
    chance = np.random.default_rng(0)
    values = chance.integers(0, 5, (21, 30)).astype(np.uint16)
    values[0, 0], values[-1, -1] = 9, 9
    assert_same(read(encoded(values)), {int(v) - 1: values == v for v in np.unique(values) if v})


@pytest.mark.parametrize(
    ("name", "picture", "wanted"),
    [
        ("SegmentationMap/a.png", encoded(LABELS), True),
        ("b.zip:x/segmentationmap/a.png", encoded(LABELS), True),
        ("a.png", encoded(LABELS), True),
        ("a.tif", encoded(LABELS.astype(np.uint16), "TIFF"), True),
        ("SegmentationMap/a.png", encoded(Image.new("RGB", (3, 3))), True),
        ("SegmentationMap/a.png", b"\x89PNG", True),
        ("SegmentationMap/a.txt", b"text", False),
        ("images/a.png", encoded(LABELS), False),
        ("x.zip:images/a.png", encoded(LABELS), False),
        ("b.zip:a.png", encoded(Image.new("RGB", (3, 3))), False),
        ("a.png", encoded(Image.new("P", (3, 3))), False),
        ("a.jpg", encoded(LABELS, "JPEG"), False),
        ("a.json", b"{}", False),
    ],
)
def test_maps_are_told_from_pictures_by_channel_and_folder(name, picture, wanted):
    assert label_map.belongs(File(name, picture, HEX)) is wanted


# Refused


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """Chunk by chunk, so that the header may claim anything."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable picture"),
        (b"text", "not a readable picture"),
        (encoded(LABELS, "JPEG"), "not a readable picture"),
        (encoded(LABELS)[:-30], "not a readable picture"),
        (encoded(LABELS.astype(np.uint16), "TIFF")[:-300], "not a readable picture"),
        (encoded(Image.new("RGB", (3, 3))), "colour mode RGB"),
        (encoded(Image.new("LA", (3, 3))), "colour mode LA"),
        (encoded(Image.new("P", (3, 3))), "colour mode P"),
        (encoded(Image.new("1", (3, 3))), "colour mode 1"),
        (encoded(Image.new("F", (3, 3)), "TIFF"), "colour mode F"),
        (encoded(Image.new("I", (3, 3)), "TIFF"), "of the form I;32"),
        (png(3, 1, 4, 0, bytes(3)), "of the form L;4"),
        (png(3, 1, 2, 0, bytes(2)), "of the form L;2"),
        (encoded(LABELS, "TIFF", tiffinfo={262: 0}), "of the form L;I"),
        (encoded(LABELS, "TIFF", tiffinfo={274: 6}), "turned by its orientation"),
        (png(65_535, 65_535, 16, 0, bytes(9)), "bomb"),
        (png(65_536, 1, 16, 0, bytes(9)), "more than 268435456 pixels"),
        (png(13_000, 13_000, 16, 0, bytes(9)), "so short a file cannot hold"),
        (png(3, 3, 16, 0, bytes(9)), "not a readable picture"),
    ],
)
def test_what_is_no_map_is_refused(content, words):
    assert words in problem(content)


def test_a_wrong_checksum_is_refused():
    content = bytearray(encoded(LABELS))
    content[content.index(b"IDAT") + 6] ^= 1
    assert "not a readable picture" in problem(bytes(content))


def test_values_all_over_the_map_are_refused_before_their_boxes_are_made(monkeypatch):
    values = np.zeros((20, 30), np.uint8)
    values[0, 0] = values[-1, -1] = 1
    values[0, 1] = values[-1, 10] = 2
    monkeypatch.setattr(label_map, "MAX_KEPT", 20 * 30 + 20 * 10)
    assert len(read(encoded(values)).shapes) == 2
    monkeypatch.setattr(label_map, "MAX_KEPT", 20 * 30 + 20 * 10 - 1)
    assert "boxes of its 2 values" in problem(encoded(values))


@pytest.mark.parametrize("how", [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_damaged_maps_are_refused_or_read(how):
    content = encoded(LABELS.astype(np.uint16) * 100, how[0], **how[1])
    parts = [b"\0", b"\xff\xff\xff\xff", b"\x7f", b"IDAT", b"\0\0\0\x10"]
    fine, refused = survive(label_map.read, mutations(content, 300, parts))
    assert refused > 30 and fine + refused == 300
