"""Tables refuse what does not fit, at writing and at reading, and name it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window

SETTINGS = '{"r_max":200.0}'
KEY = {"split": "test", "image_id": "IMG_1"}
POINT = {"point_id": 0, "x": 1.5, "y": -2.0, "outside": True, **tables.NO_BOX}
WINDOW = Window(3, 4, np.ones((2, 5), bool)).columns()
ROWS = {
    "images": {**KEY, "path": "a/b.jpg", "height": 7, "width": 9, "mode": "RGB", "sha256": "0", "points": [POINT]},
    "truth": {**KEY, "point_id": 0, "instance_id": 12, **WINDOW},
    "superpixels": {**KEY, "point_id": 0, "superpixel": 1, "sharing": 1, **WINDOW},
    "segment": {**KEY, "point_id": 0, "score": 0.5, "stability": 1.0, "tile": 0, "zoom": 2.0, **WINDOW},
    "masks": {
        **KEY,
        **{"point_id": 0, "x": 1.0, "y": 2.0, "source": "circle", "verified": False, "author": None, "score": None},
        **{"radius_px": 5.5, "lost_px": 0, "area": 10, "sha256": "0"},
        **WINDOW,
    },
    "edits": {
        **KEY,
        **{"point_id": None, "row": 0, "action": "add", "outcome": "applied", "reason": "", "pixels": 10},
        **{"author": "A", "time": "2025-01-01T00:00:00Z"},
    },
    "review": {
        **KEY,
        **{"point_id": 0, "x": 1.0, "y": 2.0, "source": "sam", "verified": False, "score": 0.5},
        **dict.fromkeys(tables.REASONS, 0.25),
        **{"reasons": "a line", "predicted_iou": None, "true_iou": 0.75},
    },
    "candidates": {**KEY, "candidate_id": 0, "score": 0.5, "stability": 0.75, **WINDOW},
    "measures": {**KEY, "fallback": 3, "sums": [("images", 1.0), ("true", 12.0)]},
}

ROWS["export"] = {**ROWS["masks"], "path": "a/b.jpg", "height": 7, "width": 9, "image_sha256": "0"}


def write(path, table, rows, **options):
    return tables.write(path, table, rows, version=3, settings=SETTINGS, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "a.parquet"


def test_columns_are_those_asked_for(path):
    rows = [{**ROWS["truth"], "point_id": k} for k in range(7)]
    write(path, "truth", rows, rows_per_group=3)
    parts = list(tables.columns(path, "truth", ["point_id", "x0"], batch=2))
    assert [name for part in parts[:1] for name in part.schema.names] == ["point_id", "x0"]
    assert max(part.num_rows for part in parts) == 2
    assert [row["point_id"] for part in parts for row in part.to_pylist()] == list(range(7))
    with pytest.raises(DataError, match="columns are not those"):
        next(tables.columns(path, "masks", ["point_id"]))


def test_arrow_tables_are_written_as_they_are(path):
    with tables.writing(path, "truth", version=3, settings=SETTINGS) as writer:
        writer.write_table(pa.Table.from_pylist([ROWS["truth"]], schema=writer.schema))
        assert not path.exists()
    assert tables.read(path, "truth") == [ROWS["truth"]] and tables.metadata(path)[1] == 3


def test_there_is_an_example_of_every_table():
    assert ROWS.keys() == tables.TABLES.keys()


@pytest.mark.parametrize("table", ROWS)
def test_round_trip(path, table):
    assert write(path, table, [ROWS[table]]) == 1
    assert tables.read(path, table) == [ROWS[table]]
    assert list(tables.stream(path, table)) == [ROWS[table]]
    assert tables.metadata(path) == (table, 3, {"r_max": 200.0})


@pytest.mark.parametrize("table", ROWS)
def test_a_table_without_rows(path, table):
    assert write(path, table, []) == 0
    assert tables.read(path, table) == list(tables.stream(path, table)) == []


@pytest.mark.parametrize("table", ROWS)
def test_every_column_says_what_it_means(table):
    def check(fields):
        for field in fields:
            assert (field.metadata or {}).get(b"meaning"), f"{table}.{field.name}"
            if pa.types.is_list(field.type):
                check([field.type.value_type.field(i) for i in range(field.type.value_type.num_fields)])

    check(tables.TABLES[table])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_rows_are_written_in_groups_and_keep_their_order(path, count):
    rows = [{**ROWS["truth"], "point_id": i} for i in range(count)]
    assert write(path, "truth", iter(rows), rows_per_group=2) == count
    assert tables.read(path, "truth") == rows
    assert list(tables.stream(path, "truth", batch=3)) == rows


def test_equal_rows_make_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, "masks", [ROWS["masks"]] * 5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_values_are_fine(path):
    row = {**ROWS["truth"], "point_id": np.int64(5), "x0": np.int32(2)}
    write(path, "truth", [row])
    assert tables.read(path, "truth")[0]["point_id"] == 5


BAD = [
    ("images", {"height": None}, "height has empty values"),
    ("images", {"height": 1.5}, "height: 1.5 is not a whole number"),
    ("images", {"height": np.float32(3)}, "height: .*3.0.* is not a whole number"),
    ("images", {"height": "3"}, "height: '3' is not a whole number"),
    ("images", {"height": True}, "bool"),
    ("images", {"height": 2**31}, "too large|not in range"),
    ("images", {"height": 2**70}, "too large"),
    ("images", {"split": 3}, "table images: "),
    ("images", {"mode": b"\xff"}, "utf8"),
    ("images", {"mode": "\udc80"}, "surrogates"),
    ("images", {"points": None}, "points has empty values"),
    ("images", {"points": [None]}, r"points\[\] has empty values"),
    ("images", {"points": [{**POINT, "x": None}]}, r"points\[\].x has empty values"),
    ("images", {"points": [{**POINT, "point_id": 0.5}]}, r"points\[\].point_id: 0.5 is not a whole number"),
    ("images", {"points": [{**POINT, "z": 1.0}]}, r"points\[\]: keys differ: \['z'\]"),
    ("images", {"points": [{k: POINT[k] for k in POINT if k != "outside"}]}, r"points\[\]: keys differ: \['outside'\]"),
    ("images", {"points": [{**POINT, "x0": "1"}]}, "x0|double"),
    ("images", {"points": [{**POINT, "outside": 1}]}, "boolean"),
    ("masks", {"x": None}, "x has empty values"),
    ("masks", {"score": "high"}, "high"),
    ("masks", {"counts": 5}, "table masks: "),
]


@pytest.mark.parametrize(("table", "change", "expected"), BAD, ids=[f"{t}-{c}" for t, c, _ in BAD])
def test_bad_values_are_refused_and_nothing_is_left(path, table, change, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        write(path, table, [{**ROWS[table], **change}])
    assert str(caught.value).startswith(f"table {table}: ")
    assert list(path.parent.iterdir()) == []


def test_missing_and_additional_columns_are_named(path):
    row = {key: value for key, value in ROWS["truth"].items() if key != "w"}
    with pytest.raises(ValueError, match=r"table truth: columns differ: \['w', 'width'\]"):
        write(path, "truth", [{**row, "width": 5}])
    assert list(path.parent.iterdir()) == []


def test_a_failure_midway_keeps_the_old_file(path):
    write(path, "truth", [ROWS["truth"]])
    before = path.read_bytes()

    def rows():
        for _ in range(5):
            yield ROWS["truth"]
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write(path, "truth", rows(), rows_per_group=2)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_missing_file(tmp_path):
    for reader in (lambda p: tables.read(p, "masks"), lambda p: list(tables.stream(p, "masks")), tables.metadata):
        with pytest.raises(DataError, match=r"none\.parquet: file not found"):
            reader(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_parquet(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    for reader in (lambda p: tables.read(p, "masks"), tables.metadata):
        with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file .*Delete it"):
            reader(tmp_path / "a.parquet")


def test_a_cut_file(path):
    write(path, "masks", [ROWS["masks"]] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a Parquet file"):
        tables.read(path, "masks")


def test_no_flipped_byte_gives_other_rows(path):
    rows = [{**ROWS["images"], "image_id": f"{i * 7919 % 1000}"} for i in range(200)]
    write(path, "images", rows)
    whole = path.read_bytes()
    found = 0
    for position in range(4, len(whole), 13):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert tables.read(path, "images") == rows, f"byte {position}"
            assert list(tables.stream(path, "images")) == rows, f"byte {position}"
        except DataError as error:
            assert "Delete it" in str(error) or "delete it" in str(error)
            found += 1
    assert found > 0


@pytest.mark.parametrize("other", [table for table in ROWS if table != "masks"])
def test_another_table(path, other):
    write(path, other, [ROWS[other]])
    with pytest.raises(DataError, match="not those of the table 'masks'"):
        tables.read(path, "masks")
    with pytest.raises(DataError, match="not those of the table 'masks'"):
        list(tables.stream(path, "masks"))


def test_a_table_with_a_column_of_another_type_or_more(tmp_path):
    schema = tables.TRUTH
    for changed in (
        schema.set(0, pa.field("split", pa.large_string(), nullable=False)),
        schema.set(0, pa.field("split", pa.string(), nullable=True)),
        schema.append(pa.field("more", pa.int8(), nullable=False)),
        pa.schema(list(schema)[::-1]),
    ):
        pq.write_table(changed.empty_table(), tmp_path / "a.parquet")
        with pytest.raises(DataError, match="another version"):
            tables.read(tmp_path / "a.parquet", "truth")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"crowdmask.table": "truth"},
        {"crowdmask.table": "truth", "crowdmask.version": "x", "crowdmask.settings": "{}"},
        {"crowdmask.table": "truth", "crowdmask.version": "1", "crowdmask.settings": "{"},
    ],
)
def test_metadata_of_a_strange_file(tmp_path, metadata):
    pq.write_table(tables.TRUTH.with_metadata(metadata).empty_table(), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no crowdmask metadata"):
        tables.metadata(tmp_path / "a.parquet")


def test_by_image_keeps_order_and_keeps_splits_apart():
    rows = [
        {"split": "train", "image_id": "1", "point_id": 0},
        {"split": "test", "image_id": "1", "point_id": 0},
        {"split": "train", "image_id": "1", "point_id": 1},
    ]
    assert tables.by_image(rows) == {("train", "1"): [rows[0], rows[2]], ("test", "1"): [rows[1]]}


def test_an_unknown_table(path):
    with pytest.raises(KeyError):
        write(path, "nothing", [])
