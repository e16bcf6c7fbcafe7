"""Label Studio's brush run lengths: the RGBA values of a picture, row by row, packed in bits.

The code begins with the number of values (32 bits), the bits of a value less one (5 bits), and four lengths less one (4
bits each). What follows are groups until there are as many values: one bit, 1 = one value repeated, 0 = values one by
one; two bits that choose one of the four lengths; a number of that length, the values of the group less one; then one
value, or each. Bits come highest first; the last byte is filled up with zeros.
"""

from __future__ import annotations

from array import array

import numpy as np

CHANNELS = 4
"""Values of a pixel: red, green, blue, alpha."""
WORD = 8
"""Bits of a value; no picture has others."""

_LENGTHS = (3, 4, 8, 16)
_HEADER = 32 + 5 + 4 * 4
_LONGEST = 1 << _LENGTHS[-1]


def encode(begin: np.ndarray, end: np.ndarray, pixels: int) -> bytes:
    """Code of a mask: all four values of its pixels are 255, all others 0.

    Args:
        begin: int64 (n,), ascending: first pixels of its runs, row by row.
        end: int64 (n,): one past their last pixels, not adjacent to the next.
        pixels: Of the picture, fewer than 2^30.
    """
    bounds = np.concatenate(([0], np.column_stack([begin, end]).ravel(), [pixels])) * CHANNELS
    lengths = np.diff(bounds)
    values = np.arange(lengths.size) % 2 * 255
    lengths, values = lengths[lengths > 0], values[lengths > 0]
    # Runs beyond the longest that 16 bits can say are several.
    pieces = -(-lengths // _LONGEST)
    last = np.cumsum(pieces) - 1
    values = np.repeat(values, pieces)
    rest = lengths - (pieces - 1) * _LONGEST
    lengths = np.full(values.size, _LONGEST, np.int64)
    lengths[last] = rest
    choice = np.searchsorted([1 << bits for bits in _LENGTHS], lengths)
    size = np.asarray(_LENGTHS)[choice]
    repeated = (lengths > 1).astype(np.int64)
    codes = (((repeated << 2 | choice) << size | (lengths - 1)) << WORD) | values
    header = pixels * CHANNELS
    for number, bits in ((WORD - 1, 5), *((length - 1, 4) for length in _LENGTHS)):
        header = header << bits | number
    codes = np.concatenate(([header], codes))
    widths = np.concatenate(([_HEADER], 3 + size + WORD))
    place = np.repeat(np.cumsum(widths), widths) - np.arange(int(widths.sum())) - 1
    return np.packbits((np.repeat(codes, widths) >> place & 1).astype(np.uint8)).tobytes()


def decode(code: bytes, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alpha of the pixels as runs, without making the values.

    Args:
        code: The bytes.
        pixels: Of the picture that they must be of.

    Returns:
        begin, end: int64 (n,), in pixels, row by row, each run beginning where the one before ends; uint8 (n,): alpha.

    Raises:
        ValueError: another number of values, values of other than 8 bits, cut off, or more values than it says.
    """
    if len(code) * 8 < _HEADER:
        raise ValueError("the run lengths are cut off in their header")
    header = int.from_bytes(code[:7], "big") >> (56 - _HEADER)
    total, word = header >> 21, (header >> 16 & 31) + 1
    sizes = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if total != pixels * CHANNELS:
        raise ValueError(f"the run lengths claim {total} values, {pixels} pixels have {pixels * CHANNELS}")
    if word != WORD:
        raise ValueError(f"the run lengths have values of {word} bits, known are {WORD}")
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    begin, end, values = array("q"), array("q"), array("B")
    literals = array("q")  # of each group: bit of its first alpha, that one's pixel, how many
    at, done, available = _HEADER, 0, len(code) * 8
    while done < total:
        first = at >> 3
        window = int.from_bytes(code[first : first + 5].ljust(5, b"\0"), "big") >> (8 - (at & 7)) & 0xFFFFFFFF
        size = sizes[window >> 29 & 3]
        count = (window >> (29 - size) & ((1 << size) - 1)) + 1
        at += 3 + size
        if done + count > total:
            raise ValueError(f"the run lengths hold more than the {total} values that they claim")
        if window >> 31:
            at += WORD
            begin.append(done)
            values.append(window >> (21 - size) & 255)
            done += count
            if count == _LONGEST and at <= available:
                # A background is mostly such groups, all alike: those that follow are counted together.
                again = min(_alike(bits, at, 3 + size + WORD), (total - done) // count)
                at, done = at + again * (3 + size + WORD), done + again * count
            end.append(done)
        else:
            skipped = -(done + 1) % CHANNELS
            literals.extend((at + WORD * skipped, (done + skipped) // CHANNELS, (count - skipped + 3) // CHANNELS))
            at += WORD * count
            done += count
        if at > available:
            raise ValueError(f"the run lengths are cut off after about {done} of {total} values")
    return _alpha(bits, begin, end, values, literals)


def _alike(bits: np.ndarray, at: int, size: int) -> int:
    """How often the group of so many bits that ends at `at` follows again at once."""
    group, found, block = bits[at - size : at], 0, 8
    while True:
        rows = min(block, (bits.size - at) // size)
        same = (bits[at : at + rows * size].reshape(rows, size) == group).all(axis=1)
        if rows == 0 or not same.all():
            return found + (int(np.argmin(same)) if rows else 0)
        found, at, block = found + rows, at + rows * size, block * 4


def _alpha(
    bits: np.ndarray, begin: array, end: array, values: array, literals: array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels, of repeated values and of values one by one, in order."""
    # A run of values says the alpha of the pixels whose last value it holds.
    first, last = np.array(begin, np.int64) // CHANNELS, np.array(end, np.int64) // CHANNELS
    some = last > first
    first, last, alpha = first[some], last[some], np.array(values, np.uint8)[some]
    if not literals:
        return first, last, alpha
    place, pixel, count = np.array(literals, np.int64).reshape(-1, 3).T
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    place = np.repeat(place, count) + WORD * CHANNELS * within
    pixel = np.repeat(pixel, count) + within
    words = np.zeros(within.size, np.uint8)
    for bit in range(WORD):
        words |= bits[place + bit] << (WORD - 1 - bit)
    first, last = np.concatenate([first, pixel]), np.concatenate([last, pixel + 1])
    order = np.argsort(first)
    return first[order], last[order], np.concatenate([alpha, words])[order]


def opaque(begin: np.ndarray, end: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the pixels whose alpha is more than half of the most opaque one's.

    A brush writes 255 with a blurred edge, and other programs a lower value all over, so that neither any alpha above 0
    nor one fixed limit is right (our choice).

    Args:
        begin: First pixels of runs, as from `decode`.
        end: One past their last pixels.
        alpha: Of each run.

    Returns:
        begin, end: int64 (n,), in pixels, not adjacent.
    """
    on = 2 * alpha.astype(int) > int(alpha.max(initial=0))
    first, last = begin[on], end[on]
    # Neighbours of different alpha are one run.
    apart = first[1:] != last[:-1]
    return first[np.concatenate((first[:1] >= 0, apart))], last[np.concatenate((apart, last[:1] >= 0))]
