"""Overlay pictures: known colours at known pixels, and the page that lists them."""

import html
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.export import overlay
from crowdmask.masks.rle import Window, digest

# pycocotools 2.0.11 and numpy 2 disagree about `copy`; its decoder's result is right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIDE = 800
GREY = np.full((SIDE, SIDE + 100, 3), 100, np.uint8)
NO_POINTS = np.zeros((0, 2))


def square(x0, y0, side=40):
    return Window(x0, y0, np.ones((side, side), bool))


def blended(name):
    return [int(100 * (1 - overlay.FILL) + c * overlay.FILL + 0.5) for c in overlay.COLOURS[name]]


@pytest.mark.parametrize("name", overlay.COLOURS)
def test_outline_has_the_colour_of_the_source_and_the_inside_is_light(name):
    picture = overlay.draw(GREY, [square(100, 200)], [name], NO_POINTS)
    assert picture.dtype == np.uint8 and picture.shape[1] == SIDE + 100 and picture.shape[0] > SIDE
    for x, y in ((100, 200), (139, 239), (120, 200), (100, 220)):
        assert picture[y, x].tolist() == list(overlay.COLOURS[name])
    assert picture[220, 120].tolist() == blended(name)
    assert picture[199, 120].tolist() == picture[240, 140].tolist() == [34, 34, 34]
    assert picture[198, 120].tolist() == [100, 100, 100]


def test_every_source_of_the_tables_has_its_own_colour():
    assert tuple(overlay.COLOURS) == tables.SOURCES
    assert len(set(overlay.COLOURS.values())) == len(tables.SOURCES)


def test_touching_masks_both_show_their_outline():
    picture = overlay.draw(GREY, [square(100, 100), square(140, 100)], ["sam", "manual"], NO_POINTS)
    assert picture[120, 139].tolist() == list(overlay.COLOURS["sam"])
    assert picture[120, 140].tolist() == list(overlay.COLOURS["manual"])


def test_photo_is_not_changed_and_drawing_repeats():
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    before = photo.copy()
    arguments = [square(3, 4, 20)], ["sam"], np.array([[10.0, 10.0]])
    np.testing.assert_array_equal(overlay.draw(photo, *arguments), overlay.draw(photo, *arguments))
    np.testing.assert_array_equal(photo, before)


def test_points_are_white_dots_also_when_enlarged_or_outside():
    picture = overlay.draw(GREY, [], [], np.array([[50.2, 60.4], [-30.0, 5000.0]]))
    assert picture[60, 50].tolist() == picture[SIDE - 1, 0].tolist() == [255, 255, 255]
    small = np.zeros((50, 70, 3), np.uint8)
    picture = overlay.draw(small, [], [], np.array([[20.0, 30.0]]))
    assert picture.shape[1] == 700
    assert picture[305, 205].tolist() == [255, 255, 255]


def test_small_photos_and_small_masks_are_enlarged():
    assert overlay.zoom_for(50, 70, []) == 10
    assert overlay.zoom_for(256, 256, []) == 3
    assert overlay.zoom_for(768, 1024, []) == overlay.zoom_for(768, 1024, [square(0, 0, 60)]) == 1
    assert overlay.zoom_for(768, 1024, [square(0, 0, 10)]) == 2
    assert overlay.zoom_for(3000, 5000, [square(0, 0, 10)]) == 1


def test_masks_at_the_border_and_empty_masks():
    height, width = GREY.shape[:2]
    windows = [square(0, 0), square(width - 40, height - 40), Window(5, 5, np.zeros((0, 0), bool))]
    picture = overlay.draw(GREY, windows, ["sam", "circle", "pixel"], NO_POINTS)
    assert picture[0, 0].tolist() == list(overlay.COLOURS["sam"])
    assert picture[height - 1, width - 1].tolist() == list(overlay.COLOURS["circle"])


def test_unknown_source_and_wrong_number_are_refused():
    with pytest.raises(ValueError, match="unknown source 'magic'"):
        overlay.draw(GREY, [square(0, 0)], ["magic"], NO_POINTS)
    with pytest.raises(ValueError):
        overlay.draw(GREY, [square(0, 0)], [], NO_POINTS)


def test_legend_shows_only_what_occurs_and_wraps():
    def shown(strip, name):
        return bool((strip == overlay.COLOURS[name]).all(axis=2).any())

    wide = overlay.legend(1000, ["sam", "sam", "circle"], 3)
    assert shown(wide, "sam") and shown(wide, "circle") and not shown(wide, "manual")
    narrow = overlay.legend(150, list(overlay.COLOURS), 4)
    assert narrow.shape[1] == 150 and narrow.shape[0] > wide.shape[0]
    assert all(shown(narrow, name) for name in overlay.COLOURS)


def test_outline_of_a_ring_has_both_rims():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = False
    edge = overlay.outline(mask)
    assert edge[0].all() and edge[4, 3] and edge[4, 5] and edge[3, 4] and not edge[3, 3] and not edge[4, 4]
    assert overlay.outline(np.ones((9, 9), bool), 2)[1, 1:-1].all()


def write_tables(folder, points, windows):
    image = {"split": "test", "image_id": "a", "path": "photos/a.png", "height": 40, "width": 60, "mode": "RGB"}
    image |= {
        "sha256": "0",
        "points": [{"point_id": i, "x": x, "y": y, "outside": False, **tables.NO_BOX} for i, x, y in points],
    }
    row = {
        "split": "test",
        "image_id": "a",
        "x": 1.0,
        "y": 1.0,
        "source": "sam",
        "verified": False,
        "author": None,
        "score": None,
    }
    row |= {"radius_px": 5.0, "lost_px": 0}
    rows = [{**row, "point_id": i, "area": w.area, "sha256": digest(w), **w.columns()} for i, w in enumerate(windows)]
    paths = folder / "images.parquet", folder / "masks.parquet"
    tables.write(paths[0], "images", [image], version=1, settings="{}")
    tables.write(paths[1], "masks", rows, version=1, settings="{}")
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos" / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    return paths


def test_run_draws_one_image_of_the_tables(tmp_path):
    paths = write_tables(tmp_path, [(0, 12.0, 12.0), (1, 30.0, 20.0)], [square(5, 5, 15)])
    output = tmp_path / "out" / "a.png"
    assert overlay.run(tmp_path, "stored", *paths, "test", "a", output) == "2 points; masks: 1 sam"
    first = output.read_bytes()
    picture = cv2.cvtColor(cv2.imread(str(output)), cv2.COLOR_BGR2RGB)
    assert picture.shape[1] == 60 * 12
    assert picture[5 * 12, 5 * 12].tolist() == list(overlay.COLOURS["sam"])
    overlay.run(tmp_path, "stored", *paths, "test", "a", output)
    assert output.read_bytes() == first


def test_run_names_what_is_missing_or_changed(tmp_path):
    paths = write_tables(tmp_path, [], [])
    with pytest.raises(DataError, match="no image test/b"):
        overlay.run(tmp_path, "stored", *paths, "test", "b", tmp_path / "b.png")
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((41, 60, 3), np.uint8))
    with pytest.raises(DataError, match="size changed"):
        overlay.run(tmp_path, "stored", *paths, "test", "a", tmp_path / "a.png")


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.images, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


def test_page_escapes_all_text(tmp_path):
    bad = '<script>alert("1")</script>'
    overlay.index(tmp_path / "index.html", [("train", bad, 'train/a "b" #1.png', f"{bad} & more"), ("x", "y", "p", "")])
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "<script" not in text and html.escape(bad) in text
    page = _Page()
    page.feed(text)
    assert [image["src"] for image in page.images] == ["train/a%20%22b%22%20%231.png", "p"]
    assert page.images[0]["alt"] == f"train / {bad}" and "& more" in page.text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "2 pictures." in text


def test_caption_counts():
    assert overlay.caption(1200, ["circle", "sam", "sam"]) == "1,200 points; masks: 2 sam, 1 circle"
    assert overlay.caption(0, []) == "0 points; masks: none"
