"""Lists of a JSON file, entry by entry: the same as the whole file, wherever it is cut."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask import json_stream
from crowdmask.errors import DataError
from crowdmask.json_stream import entries

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    before=st.dictionaries(st.text().filter(lambda key: key not in ("a", "b")), VALUES, max_size=3),
    a=st.lists(VALUES, max_size=5),
    b=st.lists(VALUES, max_size=5),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    mark=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_the_same_as_the_whole_file(tmp_path_factory, before, a, b, indent, ascii_only, mark, chunk):
    path = tmp_path_factory.mktemp("json") / "x.json"
    for content, expected in (
        ({**before, "b": b, "a": a}, [("b", v) for v in b] + [("a", v) for v in a]),
        (a, [("", v) for v in a]),
    ):
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            return
        path.write_bytes(b"\xef\xbb\xbf" * mark + text + b"\n" * (not mark))
        kept, json_stream.CHUNK = json_stream.CHUNK, chunk
        try:
            found = list(entries(path, ("a", "b"), "x"))
            assert [(entry.key, entry.value) for entry in found if entry.row is not None] == expected
            whole = path.read_bytes()
            for entry in found:
                assert json.loads(whole[entry.begin : entry.begin + entry.size]) == entry.value
        finally:
            json_stream.CHUNK = kept


def read(path, content, wanted=("a",)):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(entries(path, wanted, "Do it again."))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("  ", "the file is empty"),
        ("3", "where one of { is expected"),
        ('"a"', "where one of { is expected"),
        ("{", "a key is no text"),
        ('{"a": [1, 2', "it ends too early"),
        ('{"a": [1, 2]', "it ends too early"),
        ('{"a": [1 2]}', "where one of ,] is expected"),
        ('{"a": [1,]}', "Expecting value"),
        ('{"a": [1], }', "a key is no text"),
        ('{"a" [1]}', "where one of : is expected"),
        ('{"a": [1]} x', "something follows"),
        ("[1] [2]", "something follows"),
        ('{"a": {"b": 1}}', "'a' is no list"),
        ('{"a": [], "a": []}', "key 'a' twice"),
        ('{"a": [{"x": 1, "x": 2}]}', "key 'x' twice"),
        ('{"a": [NaN]}', "NaN is not a number"),
        ('{"b": -Infinity}', "-Infinity is not a number"),
        ('{"a": [1.5e', "'e' where one of ,] is expected"),
        (b'{"a": ["\xff"]}', "invalid start byte"),
        (b'{"a": ["\xc3', "unexpected end of data"),
        ('{"a": ["\n"]}', "control character"),
        ('{"a": [' + "9" * 5000 + "]}", "Exceeds the limit"),
        ('{"a": [' + "[" * 200_000 + "]" * 200_000 + "]}", "recursion"),
        ('{"b": ' + '{"x":' * 200_000 + "1" + "}" * 200_000 + "}", "recursion"),
    ],
)
def test_faults_are_named(tmp_path, monkeypatch, content, message, chunk):
    if chunk < 100 and len(content) > 10_000:
        chunk *= 1000
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: not valid JSON .*{re.escape(message)}"):
        read(path, content)


def test_long_entries_are_refused_and_long_files_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    path = tmp_path / "x.json"
    assert len(read(path, json.dumps({"b": "x" * 900, "a": ["y" * 500] * 100}))) == 100
    for content in ({"a": ["y" * 3000]}, {"b": "x" * 3000}, {"b" * 3000: 1}):
        with pytest.raises(DataError, match="an entry of more than 1000 characters"):
            read(path, json.dumps(content))


def test_only_a_part_of_the_file_is_held(tmp_path):
    import tracemalloc

    path = tmp_path / "x.json"
    path.write_text('{"a": [' + ",".join('{"counts": "%s"}' % ("x" * 1000) for _ in range(40_000)) + "]}")
    tracemalloc.start()
    count = sum(1 for _ in entries(path, ("a",), "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000 and path.stat().st_size > 40e6 and peak < 12e6


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="file not found"):
        list(entries(tmp_path / "no.json", (), "x"))
