"""Damage to files, decided by a seed alone: bytes, text, JSON structures, and the inside of compressed files."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes, bytes], bytes]
"""Takes the generator, the valid content, and another valid content to splice with."""

INTEGERS = (0, 1, 2, 4, 7, 8, 14, 15, 16, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 2**27, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), 1e308, -1.7e308, 5e-324, -1.0, 2.0**53, 1e19)
NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "-1.7e308", "1e-400", "-0", "0", "-1", "00", "+5"),
    *(
        "9" * 20,
        "9" * 400,
        "9" * 5000,
        "1" * 400 + ".5",
        "0x10",
        "1_000",
        "1,5",
        ".5",
        "5.",
        "1e",
        "\u0661\u0662",
        "\u00b2",
    ),
    *("", " ", "null", "true", "false", '"7"', '""', "[]", "{}", "[1]", '{"a":1}', "nan", "inf", "None", "2147483648"),
    *("9007199254740993", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "3.5", "65536"),
)
STRINGS = (
    *(
        "",
        " ",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b.jpg",
        "C:\\x.jpg",
        "\\\\host\\x",
        "a\0b",
        "x" * 5000,
    ),
    *(
        "\ud800",
        "\U0001f600.jpg",
        "nan",
        "1e5",
        "{}",
        "__proto__",
        "img.jpg/",
        "./img.jpg",
        "-",
        ".hidden.jpg",
        "\u202e",
    ),
    *("%s%n", "$(touch x)", "\r\n", "\ufeff"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308, -1.7e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        [],
        {},
        [[]],
        [{}],
        {"": None},
        [None],
        [1, 2],
        [1, 2, 3],
        [[1, 2, 3]],
    ),
    *([1e308, 1e308, 1e308, 1e308], [True, False], ["1", "2"], {"x": 1}, *STRINGS),
)


def bits(rng: random.Random, data: bytes, _: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if made:
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def octets(rng: random.Random, data: bytes, _: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if made:
            made[rng.randrange(len(made))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(made)


def truncated(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start, stop = _range(rng, data)
    return data[:start] + data[stop:]


def doubled(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start, stop = _range(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 50)) + data[stop:]


def inserted(rng: random.Random, data: bytes, _: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 8, 64, 1000))) + data[at:]


def zeroed(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start, stop = _range(rng, data)
    return data[:start] + bytes([rng.choice((0, 0xFF))]) * (stop - start) + data[stop:]


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def numbers(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Binary numbers at a multiple of four bytes, where most formats have their sizes and types."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        order, at = rng.choice("<>"), rng.randrange(0, max(1, len(made)), rng.choice((1, 2, 4, 4)))
        if rng.random() < 0.7:
            value = rng.choice((*INTEGERS, rng.randrange(2**32), max(0, len(made) - at), rng.randrange(64)))
            packed = struct.pack(f"{order}I", value % 2**32)[: rng.choice((2, 4, 4, 4))]
        else:
            packed = struct.pack(f"{order}d", rng.choice(FLOATS))
        made[at : at + len(packed)] = packed
    return bytes(made)


def encoded(rng: random.Random, data: bytes, _: bytes) -> bytes:
    if rng.random() < 0.3:
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\xef\xbb\xbf\xef\xbb\xbf")) + data
    text = data.decode("latin-1")
    return text.encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "utf-7", "cp500")))


def whole(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Something else altogether."""
    junk = (b"", b"\0", b"\n", b"{}", b"[]", b"null", b"0", b'""', b"[" * 200_000, b'{"a":' * 100_000, b" " * 1000)
    return rng.choice((*junk, other, data * 2, rng.randbytes(100), bytes(1000), b"\xff" * 500, data + b"\0" * 7))


BYTES: tuple[Mutator, ...] = (bits, octets, truncated, cut, doubled, inserted, zeroed, spliced, numbers, encoded, whole)


def number_words(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Numbers written out, in JSON as in tables."""
    text = data.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"-?\d+(\.\d+)?", text))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 2, 5)))), key=lambda m: -m.start()):
        text = text[: match.start()] + rng.choice(NUMBERS) + text[match.end() :]
    return text.encode("utf-8", "surrogateescape")


def nested(rng: random.Random, data: bytes, _: bytes) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]*\"|null", text))
    depth = rng.choice((3, 50, 500, 990, 3000, 100_000))
    begin, end = rng.choice((("[", "]"), ('{"a":', "}"), ("[0,", "]")))
    match = rng.choice(found) if found else None
    start, stop = match.span() if match else (0, len(text))
    made = text[:start] + begin * depth + (text[start:stop] or "0") + end * depth + text[stop:]
    return made.encode("utf-8", "surrogateescape")


def lines(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Lines out, twice, exchanged; other ends of lines, other separators."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    choice = rng.randrange(6)
    if choice == 0:
        del rows[at]
    elif choice == 1:
        rows.insert(at, rng.choice(rows))
    elif choice == 2:
        rng.shuffle(rows)
    elif choice == 3:
        return rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\x1c", "\u2028".encode(), b"")).join(rows)
    elif choice == 4:
        old, new = rng.sample((b",", b";", b"\t", b" ", b"|", b".", b'"', b"'"), 2)
        return data.replace(old, new)
    else:
        words = rows[at].split(rng.choice((b" ", b",")))
        words[rng.randrange(len(words))] = rng.choice((*STRINGS, *NUMBERS)).encode("utf-8", "surrogatepass")
        rows[at] = rng.choice((b" ", b",")).join(words)
    return b"\n".join(rows)


TEXT: tuple[Mutator, ...] = (number_words, number_words, lines, lines, nested)


def structure(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """The right keys with wrong values, no values, or twice."""
    root = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(root)
        if not places:
            break
        parent, key = rng.choice(places)
        choice = rng.randrange(8)
        if choice == 0 and parent is not root:
            del parent[key]
        elif choice == 1 and isinstance(parent, list):
            parent.extend([parent[key]] * rng.choice((1, 2, 100)))
        elif choice == 2 and isinstance(parent, dict):
            parent[rng.choice(STRINGS)] = parent.pop(key)
        elif choice == 3:
            other, place = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[place]))
        else:
            parent[key] = rng.choice(VALUES)
    return json.dumps(root[0] if root else None).encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


JSON: tuple[Mutator, ...] = (*TEXT, structure, structure, structure, structure, structure)


def mat_inside(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The plain content of a compressed MATLAB variable, compressed again."""
    size = struct.unpack_from("<I", data, 132)[0] if len(data) > 136 else 0
    try:
        plain = zlib.decompress(data[136 : 136 + size])
    except zlib.error:
        return numbers(rng, data, other)
    packed = zlib.compress(rng.choice((numbers, numbers, bits, octets, truncated, cut, inserted))(rng, plain, plain))
    return data[:132] + struct.pack("<I", len(packed)) + packed + data[136 + size :]


def png_inside(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A chunk of a PNG file with its check sum made right again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    if kind == b"IDAT" and rng.random() < 0.5:
        body = zlib.compress(
            rng.choice((bits, truncated, zeroed, inserted, doubled))(rng, zlib.decompress(body), other)
        )
    else:
        body = rng.choice((bits, octets, numbers, truncated, inserted))(rng, body, other)
    chunks[index] = (rng.choice((kind, kind, kind, b"IDAT", b"tEXt", b"iTXt", b"eXIf", b"acTL", b"PLTE")), body)
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


def npy_header(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The header of an NPY file, which is a Python literal."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header = data[10:end].rstrip()
    words = (
        b"'<u2'",
        b"'|O'",
        b"'<f8'",
        b"'<U9'",
        b"True",
        b"(3, 4)",
        b"(-1, 2)",
        b"(99999999999, 9)",
        b"(0, 0)",
        b"()",
    )
    words += (
        b"[('a', '<i4')]",
        b"'<M8[s]'",
        b"'>i8'",
        b"(2147483647, 2147483647)",
        b"(1,)",
        b"(1, 2, 3)",
        b"'<c16'",
        b"1",
    )
    found = list(re.finditer(rb"'[<|>=]\w+'|False|True|\([^)]*\)|'\w+'", header))
    match = rng.choice(found)
    made = header[: match.start()] + rng.choice(words) + header[match.end() :] + b"\n"
    return data[:8] + len(made).to_bytes(2, "little") + made + data[end:]


def mutant(seed: int, data: bytes, other: bytes, own: tuple[Mutator, ...]) -> bytes:
    """Damaged content, the same for the same seed.

    Args:
        seed: Of all choices.
        data: Valid content.
        other: Another valid content.
        own: Damage that suits the format; half of the mutants have it.
    """
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
        kinds = own if own and rng.random() < 0.55 else BYTES
        try:
            data = rng.choice(kinds)(rng, data, other)
        except Exception:  # a second damage of a file that is no longer what it was
            data = bits(rng, data, other)
    return data


def _range(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, rng.randrange(1, len(data) + 2))))
