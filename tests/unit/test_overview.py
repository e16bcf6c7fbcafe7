"""First page of a data set's results."""

from html.parser import HTMLParser

from crowdmask import overview, tables
from crowdmask.masks.rle import Window, digest


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs)["href"])


def tables_of(folder):
    import numpy as np

    point = {"point_id": 0, "x": 1.0, "y": 1.0, "outside": False, **tables.NO_BOX}
    image = {
        "split": "test",
        "image_id": "a",
        "path": "a.png",
        "height": 9,
        "width": 9,
        "mode": "L",
        "sha256": "0" * 64,
    }
    tables.write(folder / "i.parquet", "images", [{**image, "points": [point]}], version=1, settings="{}")
    window = Window(0, 0, np.ones((2, 2), bool))
    mask = {
        "split": "test", "image_id": "a", "point_id": 0, "x": 1.0, "y": 1.0, "source": "circle", "verified": True,
        "author": "ada", "score": None, "radius_px": 5.0, "lost_px": 0, "area": 4, "sha256": digest(window),
        **window.columns(),
    }  # fmt: skip
    added = {**mask, "point_id": 1, "source": "manual"}
    tables.write(folder / "m.parquet", "masks", [mask, added], version=1, settings="{}")
    return [folder / "i.parquet"], [folder / "m.parquet"]


def test_counts_of_tables(tmp_path):
    numbers = overview.counted(*tables_of(tmp_path))
    assert numbers == {"images": 1, "points": 1, "masks": 2, "from circle": 1, "from manual": 1, "verified": 2}
    assert overview.counted([], []) == {"images": 0, "points": 0, "masks": 0}


def test_page_has_every_setting_version_and_link(tmp_path):
    images, masks = tables_of(tmp_path)
    pages = [tmp_path / "overlays" / "index.html", tmp_path / "review.html"]
    settings = {"exclusion": {"r_max": None, "tie": "nearest"}, "preset": "<b>&"}
    overview.run("crowd", images, masks, pages, settings, tmp_path / "index.html")
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(html)
    assert links.found == ["overlays/index.html", "review.html"]
    assert "<td>r_max</td><td>null</td>" in html and "<td>tie</td><td>nearest</td>" in html
    assert "&lt;b&gt;&amp;" in html and "<b>&" not in html
    for name, number in overview.versions().items():
        assert f"<td>{name}</td><td>{number}</td>" in html


def test_packages_that_are_not_there_are_left_out():
    assert overview.versions(["numpy", "no-such-package"]).keys() == {"Python", "numpy"}
