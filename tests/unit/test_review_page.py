"""The stage and the page of the masks to look at."""

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from PIL import Image

from crowdmask import tables
from crowdmask.config import Review
from crowdmask.corrections import review_page, review_run
from crowdmask.errors import DataError
from crowdmask.export.overlay import COLOURS
from crowdmask.masks.rle import Window, digest

# pycocotools 2.0.11 and numpy 2 disagree about `copy`; its decoder's result is right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

H, W = 50, 90
TEXT = '{"version":1}'
VOID = {"meta", "img", "br", "rect", "path", "line", "circle", "polyline"}


class Checked(HTMLParser):
    """Refuses elements that are not closed in order, and keeps what is of interest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        assert not {"href", "onload", "onerror"} & dict(attrs).keys() and tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def disc(x, y, radius):
    rows, columns = np.mgrid[:H, :W]
    return Window(0, 0, (columns - x) ** 2 + (rows - y) ** 2 <= radius**2).tight()


def masks_of(image, verified=()):
    """Three discs; the surer SAM is, the higher the number of the image and of the point."""
    found = []
    for i, (x, y) in enumerate([(15, 20), (45, 25), (75, 30)]):
        mask = disc(x, y, 7 + i)
        key = {"split": "test", "image_id": image, "point_id": i}
        found.append(
            {**key, "x": float(x), "y": float(y), "source": "sam", "verified": i in verified, "author": None,
             "score": 0.3 + 0.1 * i + 0.03 * int(image[-1]), "radius_px": 20.0, "lost_px": 0, "area": mask.area,
             "sha256": digest(mask), **mask.columns()}
        )  # fmt: skip
    return found


def batch(folder, image, *, verified=(), truth=True, name=None):
    """Tables and photo of a batch of one image."""
    rng = np.random.default_rng(int(image[-1]))
    Image.fromarray(rng.integers(0, 255, (H, W, 3), dtype=np.uint8)).save(folder / f"{image}.png")
    masks = masks_of(image, verified)
    key = {"split": "test", "image_id": image}
    point = {"outside": False, **tables.NO_BOX}
    points = [{"point_id": m["point_id"], "x": m["x"], "y": m["y"], **point} for m in masks]
    window = [{k: m[k] for k in ("split", "image_id", "point_id", "x0", "y0", "w", "h", "counts")} for m in masks]
    content = {
        "images": [{**key, "path": f"{image}.png", "height": H, "width": W, "mode": "RGB", "sha256": "0",
                    "points": points}],
        "masks": masks,
        "segment": [{**w, "score": 0.5, "stability": 0.5, "tile": 0, "zoom": 1.0} for w in window],
        "superpixels": [{**w, "superpixel": 1, "sharing": 1} for w in window],
        "truth": [{**w, "instance_id": i, **(Window(0, 0, np.ones((3, 3), bool)).columns() if i == 0 else {})}
                  for i, w in enumerate(window)],
    }  # fmt: skip
    paths = []
    for table, rows in content.items():
        paths.append(folder / f"{name or image}.{table}.parquet")
        tables.write(paths[-1], table, rows, version=1, settings="{}")
    return review_run.Batch(*paths[:4], paths[4] if truth else None)


def run(folder, batches, **values):
    out = review_run.Outputs(folder / "o" / "a.parquet", folder / "o" / "a.html", folder / "o" / "a.json")
    report = review_run.run("it", batches, folder, "stored", Review(**values), TEXT, out)
    assert json.loads(out.report.read_text(encoding="utf-8")) == report
    return report, tables.read(out.table, "review"), out.page.read_text(encoding="utf-8")


def test_the_worst_come_first_and_verified_masks_do_not_come(tmp_path):
    batches = [batch(tmp_path, f"im{k}", verified=[0] if k == 1 else []) for k in range(4)]
    report, rows, page = run(tmp_path, batches, crops=5)
    assert [(row["image_id"], row["point_id"]) for row in rows] == [(f"im{k}", i) for k in range(4) for i in range(3)]
    assert rows[3]["verified"] and rows[3]["score"] == 0
    assert (report["images"], report["masks"], report["verified"]) == (4, 12, 1)
    assert sum(report["scores"]) == 11 and report["reasons"]["low_iou"] >= 5
    left = sorted((row for row in rows if not row["verified"]), key=lambda row: -row["score"])[:5]
    shown = [(f"{row['image_id']}", row["point_id"]) for row in left]
    found = re.findall(r"<strong>test/(im\d)</strong> point (\d)", page)
    assert [(image, int(point)) for image, point in found] == shown
    assert shown[:4] == [("im0", 0), ("im2", 0), ("im3", 0), ("im0", 1)]
    assert "im1 point 0" not in page.replace("</strong>", "")


def test_the_page_needs_nothing_else_and_is_the_same_each_time(tmp_path):
    batches = [batch(tmp_path, "im0"), batch(tmp_path, "im1")]
    report, rows, page = run(tmp_path, batches)
    parsed = Checked(page)
    assert len(parsed.images) == 6
    for image in parsed.images:
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"), validate=True)
        assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (review_page.SIDE, 2 * review_page.SIDE + 2, 3)
    assert "Does the score find the bad masks?" in parsed.text and "--worst 2" in parsed.text
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert run(tmp_path, batches) == (report, rows, page)


def test_equal_scores_keep_their_order(tmp_path):
    batches = [batch(tmp_path, "im0"), batch(tmp_path, "im1"), batch(tmp_path, "im2")]
    weightless = {name: 0.0 for name in tables.REASONS}
    _, _, page = run(tmp_path, batches, crops=4, bias=0.0, **weightless)
    found = re.findall(r"<strong>test/(im\d)</strong> point (\d)", page)
    assert found == [("im0", "0"), ("im0", "1"), ("im0", "2"), ("im1", "0")]


def test_each_image_of_the_sheet_is_opened_once_and_no_other(tmp_path, monkeypatch):
    batches = [batch(tmp_path, f"im{k}", verified=range(3) if k % 2 else ()) for k in range(4)]
    opened = []
    real = review_run.read_row
    monkeypatch.setattr(
        review_run, "read_row", lambda root, row, exif: opened.append(row["path"]) or real(root, row, exif)
    )
    run(tmp_path, batches, crops=5)
    assert opened == ["im0.png", "im2.png"]
    opened.clear()
    _, _, page = run(tmp_path, batches, crops=0)
    assert opened == [] and "No mask is left to look at" in page


def test_truth(tmp_path):
    report, rows, page = run(tmp_path, [batch(tmp_path, "im0"), batch(tmp_path, "im1")])
    assert [row["true_iou"] for row in rows[1:3]] == [1.0, 1.0] and rows[0]["true_iou"] < 0.5
    found = report["truth"]
    assert (found["masks"], found["bad"], found["images"]) == (6, 2, 2)
    assert found["measures"]["score"]["auc"] == 1.0
    report, rows, page = run(tmp_path, [batch(tmp_path, "im0", truth=False)])
    assert report["truth"] is None and {row["true_iou"] for row in rows} == {None}
    assert "find the bad masks" not in page


def test_text_from_files_is_escaped(tmp_path):
    odd = "<script>alert(1)</script>&'"
    row = {**masks_of("im0")[0], "image_id": odd, "reasons": "<b>", "score": 0.5}
    report = {"dataset": odd, "images": 1, "masks": 1, "verified": 0, "scores": [1, 0], "truth": None,
              "reasons": dict.fromkeys(tables.REASONS, 0)}  # fmt: skip
    text = review_page.page(report, [review_page.Crop(row, b"x")])
    assert odd in Checked(text).text and "<b>" not in text.replace("<b>1</b>", "").replace("<b>0</b>", "")


# ---- pictures


def pixels(data):
    both = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB).astype(int)
    return both[:, : review_page.SIDE], both[:, review_page.SIDE + 2 :]


def test_a_picture_shows_the_photo_and_the_outline_where_the_mask_is():
    photo = np.full((H, W, 3), 100, np.uint8)
    mask, other = disc(45, 25, 9), disc(63, 25, 8)
    plain, drawn = pixels(review_page.picture(photo, [other, mask], 1, "circle", np.array([45.0, 25.0])))
    x0, y0, side = review_page.crop_box(mask, np.array([45.0, 25.0]))
    assert (x0, y0, side) == (17, -3, 57)
    # The crop leaves the image by 3 rows above and 4 below, which are grey.
    assert np.abs(plain[20:150] - 100).max() < 6 and np.abs(plain[:8] - 128).max() < 6
    near = np.abs(drawn - np.array(COLOURS["circle"])).max(axis=2) < 60
    rows, columns = np.nonzero(near)
    scale = review_page.SIDE / side
    apart = np.hypot((columns + 0.5) / scale + x0 - 45.5, (rows + 0.5) / scale + y0 - 25.5)
    assert len(rows) > 100 and apart.min() > 7 and apart.max() < 10.5
    assert drawn[88, 88].min() > 200  # the point
    right = int((71 - x0) * scale)  # of the other mask: a white line, paler than that of this one
    faint = drawn[88, right - 5 : right + 6].max(axis=1)
    assert 130 < faint.max() < 230 and plain[88, right - 5 : right + 6].max() < 110


@pytest.mark.parametrize("point", [(0.0, 0.0), (89.0, 49.0), (45.0, 49.0)])
def test_crops_at_the_border_and_of_a_pixel(point):
    x, y = map(int, point)
    one = Window(x, y, np.ones((1, 1), bool))
    x0, y0, side = review_page.crop_box(one, np.array(point))
    assert side == review_page.LEAST and x0 <= x < x0 + side and y0 <= y < y0 + side
    photo = np.zeros((H, W, 3), np.uint8)
    assert pixels(review_page.picture(photo, [one], 0, "pixel", np.array(point)))[0].shape[0] == review_page.SIDE


def test_a_crop_holds_its_point_too():
    x0, y0, side = review_page.crop_box(Window(50, 30, np.ones((2, 2), bool)), np.array([5.0, 5.0]))
    assert x0 < 5 and y0 < 5 and x0 + side > 52 and y0 + side > 32


# ---- faults


@pytest.mark.parametrize(("table", "what"), [("segment", "SAM mask"), ("superpixels", "superpixel")])
def test_a_point_that_a_stage_does_not_know(tmp_path, table, what):
    made = batch(tmp_path, "im0")
    path = getattr(made, table)
    tables.write(path, table, tables.read(path, table)[:2], version=1, settings="{}")
    with pytest.raises(DataError, match=f"point 2 of image test/im0 has no {what}"):
        run(tmp_path, [made])
    assert list((tmp_path / "o").iterdir()) == []


def test_masks_of_an_unknown_image(tmp_path):
    made = batch(tmp_path, "im0")
    tables.write(made.masks, "masks", masks_of("im0") + masks_of("im1"), version=1, settings="{}")
    with pytest.raises(DataError, match="image test/im1 is not in"):
        run(tmp_path, [made])
