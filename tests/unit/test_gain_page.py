"""What corrections changed, as crops, page and JSON."""

from __future__ import annotations

import base64
import html.parser
import io
import itertools
import json
import re

import numpy as np
import pytest
from edited import H, W, box, compared, file_of, replace, runs, three, window
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdmask import tables
from crowdmask.corrections import gain, gain_page, gain_pictures, gain_run, merge, native
from crowdmask.errors import DataError
from crowdmask.files import sha256
from crowdmask.masks import rle

HOSTILE = '<script>alert("x")</script>'

# The crops


@pytest.mark.parametrize(
    ("masks", "point", "wanted"),
    [
        ([box(4, 4, 2, 2)], None, (0, 0, 16, 12)),  # no place for 24 pixels
        ([None], (-5, 99), (0, 0, 16, 12)),
        ([rle.Window(0, 0, np.zeros((0, 0), bool))], None, (0, 0, 16, 12)),
    ],
)
def test_a_small_image_is_shown_whole(masks, point, wanted):
    windows = [window(mask) if isinstance(mask, np.ndarray) else mask for mask in masks]
    assert gain_pictures.place(windows, point, H, W) == wanted


@given(st.integers(0, 400), st.integers(0, 300), st.integers(1, 90), st.integers(1, 90), st.integers(0, 499))
def test_a_place_lies_in_the_image_and_holds_masks_and_point(x, y, w, h, px):
    mask = rle.Window(x, y, np.ones((h, w), bool)).within(0, 0, 500, 400)
    x0, y0, cw, ch = gain_pictures.place([mask, None], (px, 7.6), 400, 500)
    assert 0 <= x0 and 0 <= y0 and x0 + cw <= 500 and y0 + ch <= 400
    assert x0 <= min(x, px) and max(x + w - 1, px) < x0 + cw and y0 <= min(y, 7) and max(y + h - 1, 7) < y0 + ch
    assert cw == ch or ch == 400


def test_a_panel_shows_the_outline_in_its_colour_and_nothing_without_a_mask():
    photo = np.full((60, 60, 3), 120, np.uint8)
    mask = rle.Window(20, 20, np.ones((20, 20), bool))
    shown = [("with", mask, gain_pictures.GREEN), ("without", None, gain_pictures.ORANGE)]
    made = dict(gain_pictures.panels(photo, shown))
    arrays = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for name, data in made.items()}
    assert {array.shape for array in arrays.values()} == {(200, 200, 3)}
    assert np.abs(arrays["without"] - 120).max() <= 2
    # Of 32 pixels shown on 200, the mask takes the middle 125: from 37.5 to 162.5.
    inside = arrays["with"][100]
    edge = np.abs(inside - gain_pictures.GREEN).sum(axis=1)
    assert set(np.flatnonzero(edge < 60)) >= {38, 161} and not np.any(edge[45:155] < 60)
    assert np.abs(inside[60:140] - 120).max() <= 8


# The page


def some_page(*edits: dict, truth=None, totals=None) -> str:
    page, sums = gain_page.Page(HOSTILE, truth is not None), gain.Totals(truth is not None)
    file = file_of(*edits)
    merged, table = merge.merge_image(three(), file, H, W, "a" * 64)
    found = gain.of_image(file, table, three(), merged, truth, "a.json")
    sums.add(table, found)
    page.add(found, lambda: np.full((H, W, 3), 99, np.uint8))
    return page.html(sums.result())


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


def test_what_files_say_is_text_on_the_page():
    tool = {"tool": '"><img src=x onerror=alert(1)>'}
    nasty = {"author": HOSTILE, "note": "</table>" + HOSTILE + "\u202egnp", "provenance": tool}
    page = some_page(
        replace(0, box(1, 4, 3, 2), **nasty),
        replace(0, box(1, 4, 5, 3), **nasty),
        replace(2, box(8, 4, 3, 2), base="0" * 64, seen=runs(box(8, 4, 3, 3)), **nasty),
        truth={},
    )
    tags = parsed(page)
    names = {tag for tag, _ in tags.found}
    assert "script" not in names and not names & {"a", "link", "iframe", "object"}
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for tag, attrs in tags.found if tag == "img")
    assert not any(key.startswith("on") for _, attrs in tags.found for key in attrs)
    assert HOSTILE in tags.text and "\u202e" not in page
    assert not re.search(r"(src|href)=[\"']?(?!data:)\w+:", page)


def test_the_page_has_each_section_with_its_crops():
    truth = {n: window(box(1 + 4 * n, 3, 3, 4)) for n in range(3)}
    page = some_page(
        replace(0, box(1, 3, 3, 4)),
        {"action": "delete", "point_id": 0},
        replace(0, box(1, 3, 5, 4)),
        replace(2, box(9, 3, 3, 4), base="0" * 64, seen=runs(box(8, 4, 3, 3))),
        truth=truth,
    )
    text = parsed(page).text
    for heading in (
        "Largest changes (1)",
        "Corrected heads, the largest change first (1)",
        "Stale edits (1)",
        "Neighbours that lost pixels, most first (1)",
        "Superseded edits (2)",
    ):
        assert heading in text
    # Before 9 of 12 true pixels; after 12 of 20.
    assert "0.750 → 0.600" in text and "mean gain -0.150" in text
    assert page.count("<img ") == 6
    for data in re.findall(r"base64,([^\"]+)", page):
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()


def test_without_edits_the_page_says_so():
    page = gain_page.Page("a", True).html(gain.Totals(True).result())
    assert "No edits" in page and "<table" not in page


def test_the_page_is_bounded_and_reads_no_image_that_it_does_not_show(monkeypatch):
    monkeypatch.setattr(gain_page, "panels", lambda photo, shown, point=None: [("it", bytes(photo[0, 0]))])
    page, reads = gain_page.Page("a", False), []
    size = 3 * gain_page.ROWS_SHOWN
    head = compared(replace(0, box(1, 3, 3, 4))).corrected[0]
    stale = compared(replace(0, box(1, 3, 3, 4), base="0" * 64)).stale[0]
    # Ever smaller changes: only the first are shown.
    for number in range(size, 0, -1):
        record = {**head.record, "image_id": f"i{number}", "changed_px": number}
        again = gain.Corrected(record, head.before, head.after, None)
        found = gain.ImageGain([again], [{**record, "pixels": 1}], [stale], [record])
        page.add(found, lambda number=number: reads.append(number) or np.zeros((H, W, 3), np.uint8))
    totals = gain.Totals(False)
    totals.images = size
    text = parsed(page.html(totals.result())).text
    assert len(set(reads)) == max(gain_page.CROPS_SHOWN, gain_page.STALE_SHOWN)
    assert f"{size - gain_page.CROPS_SHOWN:,} more in corrections.json" in text
    assert f"{size - gain_page.ROWS_SHOWN:,} more in corrections.json" in text
    assert f"test/i{size}," in text and "test/i1," not in text


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_the_top_are_the_highest_of_equal_ones_the_earlier(keys, size):
    top = gain_page.Top(size)
    for number, key in enumerate(keys):
        takes = top.takes(key)
        top.add(key, number)
        assert takes == (number in [item for _, item in top.items])
    wanted = sorted(range(len(keys)), key=lambda n: (-keys[n], n))[:size]
    assert [item for _, item in top.items] == wanted and top.seen == len(keys)


# From tables to files


@pytest.fixture
def project(tmp_path):
    """Tables of three images, of which the first and the last have edits, and the images."""
    names = ("a", "b", "c")
    rows = {"images": [], "masks": [], "merged": [], "edits": [], "truth": []}
    for name in names:
        photo = tmp_path / "root" / f"{name}.png"
        photo.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(photo)
        points = [{"point_id": n, "x": 2.0 + 4 * n, "y": 5.0, "outside": False, **tables.NO_BOX} for n in range(3)]
        place = {"split": "test", "image_id": name, "path": photo.name, "height": H, "width": W, "mode": "RGB"}
        rows["images"].append({**place, "sha256": sha256(photo), "points": points})
        own = [{**r, "image_id": name} for r in three()]
        file = None
        if name != "b":
            file = file_of(replace(0, box(1, 3, 3, 4)), image_id=name)
            path = tmp_path / "corrections" / "test" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(native.dump(file), encoding="utf-8")
        merged, table = merge.merge_image(own, file, H, W, "a" * 64)
        rows["masks"] += own
        rows["merged"] += merged
        rows["edits"] += table
        rows["truth"] += [
            {
                "split": "test",
                "image_id": name,
                "point_id": n,
                "instance_id": n + 1,
                **window(box(1, 3, 3, 4)).columns(),
            }
            for n in range(3)
        ]
    save(tmp_path, rows)
    return tmp_path, rows


def save(folder, rows):
    for name, values in rows.items():
        table = "masks" if name == "merged" else name
        tables.write(folder / f"{name}.parquet", table, values, version=1, settings="{}")


def stage(folder, truth=True):
    paths = [folder / f"{name}.parquet" for name in ("images", "masks", "merged", "edits", "truth")]
    batch = gain_run.Batch(*paths[:4], paths[4] if truth else None)
    place = (folder / "corrections", folder / "root", "stored", '{"version":1}')
    return gain_run.run("it", [batch], *place, folder / "out.json", folder / "out.html")


def test_tables_become_a_page_and_json(project):
    folder, _ = project
    found = stage(folder)
    assert found["images"] == 2 and found["truth"]["corrected"]["mean_gain"] == 0.25
    read = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert read["totals"] == found and [image["image_id"] for image in read["images"]] == ["a", "c"]
    assert [head["iou"] for image in read["images"] for head in image["corrected"]] == [0.75, 0.75]
    assert (folder / "out.html").read_text(encoding="utf-8").count("<img ") == 2 * 3
    first = {name: (folder / name).read_bytes() for name in ("out.json", "out.html")}
    stage(folder)
    assert {name: (folder / name).read_bytes() for name in first} == first


def test_without_truth_nothing_is_said_of_it(project):
    folder, _ = project
    assert stage(folder, truth=False)["truth"] is None
    assert "truth" not in parsed((folder / "out.html").read_text(encoding="utf-8")).text


def test_an_image_without_edits_is_not_read(project):
    folder, rows = project
    for name in ("a", "b", "c"):
        (folder / "root" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"a\.png"):
        stage(folder)
    assert not (folder / "out.json").exists()
    save(folder, {**rows, "edits": []})
    assert stage(folder)["images"] == 0
    assert "No edits" in (folder / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", ["masks", "merged", "edits", "truth"])
def test_tables_in_another_order_or_of_another_image_are_refused(project, table):
    folder, rows = project
    for values in ([*reversed(rows[table])], [*rows[table], {**rows[table][0], "image_id": "zz"}]):
        save(folder, {**rows, table: values})
        with pytest.raises(DataError, match=rf"{table}\.parquet: image test/\w+ is not in"):
            stage(folder)


def test_an_edit_file_that_is_gone_or_another_is_named(project):
    folder, _ = project
    path = folder / "corrections" / "test" / "c.json"
    path.write_text(native.dump(file_of({"action": "delete", "point_id": 0}, image_id="c")), encoding="utf-8")
    with pytest.raises(DataError, match=r"c\.json: the tables are not of these edits"):
        stage(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"c\.json: cannot be read"):
        stage(folder)


def test_images_are_taken_one_at_a_time(project, monkeypatch):
    """The next image's masks are asked for only when the page has taken the one before."""
    folder, _ = project
    order = []
    compare, add = gain.of_image, gain_page.Page.add
    monkeypatch.setattr(gain, "of_image", lambda *args: order.append("compare") or compare(*args))
    monkeypatch.setattr(gain_page.Page, "add", lambda *args: order.append("page") or add(*args))
    stage(folder)
    assert order == list(itertools.chain.from_iterable([["compare", "page"]] * 2))
