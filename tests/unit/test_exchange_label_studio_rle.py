"""Brush run lengths against a slow reader and writer made bit by bit from the description of the code."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.corrections.exchange import label_studio_rle

LENGTHS = (3, 4, 8, 16)


def header(values: int, word: int = 8, lengths: tuple[int, ...] = LENGTHS) -> str:
    return f"{values:032b}{word - 1:05b}" + "".join(f"{length - 1:04b}" for length in lengths)


def packed(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def group(choice: int, values: list[int], count: int | None = None, lengths: tuple[int, ...] = LENGTHS) -> str:
    """Values one by one, or with a count the one value repeated."""
    size = len(values) if count is None else count
    return f"{int(count is not None)}{choice:02b}{size - 1:0{lengths[choice]}b}" + "".join(f"{v:08b}" for v in values)


def slow_decode(code: bytes) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def take(number: int) -> int:
        nonlocal at
        at += number
        return int(bits[at - number : at], 2)

    total, word = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = take(1)
        count = take(lengths[take(2)]) + 1
        out += [take(word)] * count if repeated else [take(word) for _ in range(count)]
    return out


def runs_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.diff(np.concatenate(([0], mask.ravel().astype(int), [0])))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def pixels_of(begin: np.ndarray, end: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, bool)
    for a, b in zip(begin.tolist(), end.tolist(), strict=True):
        assert 0 <= a < b <= size and not out[a:b].any()
        out[a:b] = True
    return out


def test_golden_codes():
    # One pixel that is set: 4 values; 8 bits (7); lengths 3, 4, 8, 16 (2, 3, 7, 15); repeated, 3 bits, 4 times; 255.
    bits = (
        "00000000000000000000000000000100"
        + "00111"
        + "0010"
        + "0011"
        + "0111"
        + "1111"
        + "1"
        + "00"
        + "011"
        + "11111111"
    )
    assert label_studio_rle.encode(np.array([0]), np.array([1]), 1) == packed(bits) == bytes(
        [0, 0, 0, 4, 0b00111001, 0b00011011, 0b11111100, 0b01111111, 0b11100000]
    )  # fmt: skip
    # 20,000 pixels, of which the last two are set: 65536 + 14456 values of 0, 8 of 255.
    code = label_studio_rle.encode(np.array([19_998]), np.array([20_000]), 20_000)
    assert code == packed(
        header(80_000)
        + "111"
        + "1" * 16
        + "0" * 8
        + "111"
        + f"{79_992 - 65_536 - 1:016b}"
        + "0" * 8
        + "100111"
        + "1" * 8
    )


def test_runs_on_either_side_of_what_each_length_can_say():
    for pixels in (1, 2, 3, 4, 5, 63, 64, 65, 16_383, 16_384, 16_385, 40_000):
        code = label_studio_rle.encode(np.array([0]), np.array([pixels]), pixels)
        assert slow_decode(code) == [255] * 4 * pixels
        begin, end = label_studio_rle.opaque(*label_studio_rle.decode(code, pixels))
        assert (begin.tolist(), end.tolist()) == ([0], [pixels])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 40))
def test_masks_are_coded_as_the_description_says(pattern, stretch):
    mask = np.repeat(np.array(pattern), stretch)
    code = label_studio_rle.encode(*runs_of(mask), mask.size)
    assert slow_decode(code) == np.repeat(mask * 255, 4).tolist()
    begin, end = label_studio_rle.opaque(*label_studio_rle.decode(code, mask.size))
    np.testing.assert_array_equal(pixels_of(begin, end, mask.size), mask)
    np.testing.assert_array_equal(begin, runs_of(mask)[0])


@st.composite
def codes(draw) -> tuple[bytes, list[int]]:
    """Codes of other writers: groups of any kind, of any lengths, that begin and end within pixels."""
    lengths = tuple(draw(st.lists(st.integers(1, 16), min_size=4, max_size=4)))
    bits, values = "", []
    for _ in range(draw(st.integers(1, 12))):
        choice = draw(st.integers(0, 3))
        most = min(1 << lengths[choice], 23)
        if draw(st.booleans()):
            count, value = draw(st.integers(1, most)), draw(st.integers(0, 255))
            bits, values = bits + group(choice, [value], count, lengths), values + [value] * count
        else:
            each = draw(st.lists(st.integers(0, 255), min_size=1, max_size=most))
            bits, values = bits + group(choice, each, None, lengths), values + each
    short = -len(values) % 4
    choice = lengths.index(max(lengths))
    for _ in range(short):  # the last pixel is completed value by value
        bits, values = bits + group(choice, [9], None, lengths), [*values, 9]
    return packed(header(len(values), 8, lengths) + bits), values


@settings(max_examples=300, deadline=None)
@given(codes())
def test_any_code_gives_the_alpha_that_the_slow_reader_finds(made):
    code, values = made
    assert slow_decode(code) == values
    begin, end, alpha = label_studio_rle.decode(code, len(values) // 4)
    assert begin[0] == 0 and end[-1] == len(values) // 4
    np.testing.assert_array_equal(begin[1:], end[:-1])
    assert np.repeat(alpha, end - begin).tolist() == values[3::4]


def test_a_long_background_is_counted_and_what_follows_is_not_lost():
    for chunks in (0, 1, 7, 8, 9, 40, 300):
        bits = group(3, [7], 65536) * chunks + group(3, [7], 65536 - 4) + group(0, [1, 2, 3, 250])
        begin, end, alpha = label_studio_rle.decode(packed(header(65536 * (chunks + 1)) + bits), 16384 * (chunks + 1))
        last = 16384 * (chunks + 1) - 1
        assert np.repeat(alpha, end - begin)[-3:].tolist() == [7, 7, 250]
        assert int((end - begin).sum()) == last + 1


@pytest.mark.parametrize(
    ("alpha", "wanted"),
    [
        ([0, 255, 127, 128, 1], [1, 3]),
        ([0, 100, 100, 50, 51], [1, 2, 4]),  # drawn half transparent by another program
        ([0, 1, 0, 1, 0], [1, 3]),
        ([0, 0, 0, 0, 0], []),
        ([255] * 5, [0, 1, 2, 3, 4]),
    ],
)
def test_more_than_half_of_the_most_opaque_is_mask(alpha, wanted):
    values = [part for value in alpha for part in (255, 255, 255, value)]  # colour says nothing
    code = packed(header(20) + group(2, values))
    begin, end = label_studio_rle.opaque(*label_studio_rle.decode(code, 5))
    assert np.flatnonzero(pixels_of(begin, end, 5)).tolist() == wanted


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (b"", "cut off in their header"),
        (packed(header(16))[:6], "cut off in their header"),
        (packed(header(12) + group(0, [0], 8)), "claim 12 values, 4 pixels have 16"),
        (packed(header(2**32 - 4)), "claim 4294967292 values, 4 pixels have 16"),
        (packed(header(16, 9) + group(1, [0], 16)), "values of 9 bits, known are 8"),
        (packed(header(16) + group(0, [0], 8)), "cut off after about"),
        (packed(header(16))[:-1] + b"\x06", "cut off after about"),
        (packed(header(16) + group(1, [1] * 16))[:-2], "cut off after about 16 of 16 values"),
        (packed(header(16) + group(2, [0], 17)), "more than the 16 values that they claim"),
        (packed(header(16) + group(0, [0], 8) + group(2, [1] * 9)), "more than the 16 values that they claim"),
    ],
)
def test_what_is_no_code_of_the_picture_is_refused(code, problem):
    with pytest.raises(ValueError, match=problem):
        label_studio_rle.decode(code, 4)


def test_nothing_is_made_for_what_is_only_claimed():
    pixels = 1 << 28
    code = packed(header(4 * pixels) + group(3, [255], 65536) * (4 * pixels // 65536))
    tracemalloc.start()
    begin, end = label_studio_rle.opaque(*label_studio_rle.decode(code, pixels))
    assert (begin.tolist(), end.tolist()) == ([0], [pixels])
    with pytest.raises(ValueError, match="cut off"):
        label_studio_rle.decode(code[:-30], pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_read_or_refused(tail):
    try:
        begin, end, _ = label_studio_rle.decode(packed(header(64))[:6] + tail, 16)
    except ValueError:
        return
    assert int((end - begin).sum()) == 16
