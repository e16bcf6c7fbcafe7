"""Measures of batches, the table that follows from them, and its figures."""

import csv
import io
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from crowdmask import tables
from crowdmask.ablation import measure, plots, report
from crowdmask.ablation.plan import Row
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window, digest
from crowdmask.metrics.measures import NAMES, pooled
from crowdmask.metrics.measures import measure as sums_of

OWN = {
    "prompt.mode": "point+superpixel",
    "exclusion.constraint": "nnec",
    "exclusion.disjoint": True,
    "exclusion.r_max": 200.0,
    "tiles.mode": "auto",
}


def square(x0, y0, side):
    return Window(x0, y0, np.ones((side, side), bool))


def images_of(count):
    """Images of three points with true squares of 10 px."""
    images, truth = [], []
    for k in range(count):
        key = {"split": "test", "image_id": f"i{k}"}
        at = [(10, 10), (40, 12), (70, 40 + k)]
        points = [
            {"point_id": i, "x": x + 4.5, "y": y + 4.5, "outside": False, **tables.NO_BOX}
            for i, (x, y) in enumerate(at)
        ]
        images.append(
            {**key, "path": "a.png", "height": 90, "width": 100, "mode": "RGB", "sha256": "0", "points": points}
        )
        truth += [
            {**key, "point_id": i, "instance_id": i + 1, **square(x, y, 10).columns()} for i, (x, y) in enumerate(at)
        ]
    return images, truth


def masks_of(images, truth, shift, circles=0):
    """The true masks, moved to the right."""
    made = []
    for row in truth:
        window = square(row["x0"] + shift, row["y0"], 10)
        made.append(
            {
                **{key: row[key] for key in ("split", "image_id", "point_id")},
                **{"x": 1.0, "y": 1.0, "source": "circle" if row["point_id"] < circles else "sam", "verified": False},
                **{"author": None, "score": None, "radius_px": 9.0, "lost_px": 0, "area": window.area},
                **{"sha256": digest(window)},
                **window.columns(),
            }
        )
    return made


def test_rows_are_the_sums_of_each_image():
    images, truth = images_of(2)
    masks = masks_of(images, truth, 5, circles=1)
    made = list(measure.rows(images, masks, truth))
    assert [(row["image_id"], row["fallback"]) for row in made] == [("i0", 1), ("i1", 1)]
    for row, image in zip(made, images, strict=True):
        mine = [r for r in truth if r["image_id"] == image["image_id"]]
        expected = sums_of(
            [Window.from_columns(r) for r in masks if r["image_id"] == image["image_id"]],
            [Window.from_columns(r) for r in mine],
            [(0, 0), (1, 1), (2, 2)],
            90,
            100,
            true_xy=tables.points_of(image),
        )
        assert row["sums"] == list(expected.items())
        assert pooled(dict(row["sums"]))["mean_iou"] == pytest.approx(1 / 3)


def test_masks_are_paired_by_point_whatever_their_order_and_missing_ones_count_zero():
    images, truth = images_of(1)
    masks = masks_of(images, truth, 0)
    (whole,) = measure.rows(images, masks[::-1], truth[1:] + truth[:1])
    assert pooled(dict(whole["sums"]))["mean_iou"] == 1
    (less,) = measure.rows(images, masks[1:], truth)
    assert pooled(dict(less["sums"]))["mean_iou"] == pytest.approx(2 / 3)


def test_a_point_without_true_mask_is_an_error_and_an_image_without_points_is_none():
    images, truth = images_of(1)
    with pytest.raises(DataError, match="test/i0: 3 points but 2 true masks"):
        list(measure.rows(images, masks_of(images, truth, 0), truth[1:]))
    (row,) = measure.rows([{**images[0], "points": []}], [], [])
    assert dict(row["sums"])["true"] == 0 and row["fallback"] == 0


@pytest.fixture
def measured(tmp_path):
    """Rows with known IoU on 6 images in two batches: the own one 2/3, better 1, worse 1/3, and one more name."""
    images, truth = images_of(6)
    rows = []
    changes = {
        "default": {},
        "better": {"exclusion.r_max": 50.0},
        "worse": {"exclusion.r_max": None},
        "same": {"exclusion.r_max": 90.0},
        "point": {"prompt.mode": "point", "exclusion.constraint": "half"},
        "oracle": {},
    }
    for name, shift in (("default", 2), ("better", 0), ("worse", 5), ("same", 2), ("point", 5), ("oracle", 0)):
        kind = {"default": "own", "oracle": "baseline"}.get(name, "variant")
        masks = "default" if name == "same" else name
        paths = [tmp_path / "measures" / masks / f"b{k}.parquet" for k in (0, 1)]
        for k, path in enumerate(paths):
            batch = images[3 * k : 3 * k + 3]
            made = measure.rows(batch, masks_of(images, truth, shift, circles=1), truth)
            tables.write(path, "measures", made, version=1, settings="{}")
        rows.append((Row(name, kind, masks, changes[name]), paths))
    return rows


def test_values_differences_and_shares(measured):
    made = {found.row.name: found for found in report.compare(measured, 200, 1)}
    assert list(made) == ["default", "better", "worse", "same", "point", "oracle"]
    for name, iou in (("default", 2 / 3), ("better", 1), ("worse", 1 / 3), ("same", 2 / 3)):
        assert made[name].values["mean_iou"] == pytest.approx(iou)
        assert made[name].intervals["mean_iou"] == pytest.approx([iou, iou])  # all images are alike
        assert made[name].fallback == pytest.approx(1 / 3)
        assert tuple(made[name].values) == tuple(report.METRICS)
    assert made["default"].against is None
    assert made["better"].against["mean_iou"]["difference"] == pytest.approx(1 / 3)
    assert made["worse"].against["mean_iou"]["high"] == pytest.approx(-1 / 3)
    assert made["worse"].against["mean_iou"]["p"] == pytest.approx(2 / 201)
    assert made["worse"].values["f1_50"] == 0


def test_rows_of_other_images_and_sums_are_refused(measured, tmp_path):
    with pytest.raises(DataError, match="it has other images than the first row"):
        report.compare([measured[0], (measured[1][0], measured[1][1][:1])], 10, 1)
    path = tmp_path / "old.parquet"
    old = {"split": "test", "image_id": "i0", "fallback": 0, "sums": [("images", 1.0)]}
    tables.write(path, "measures", [old], version=1, settings="{}")
    with pytest.raises(DataError, match="other sums than this version"):
        report.read([path])


def test_files(measured, tmp_path):
    folder = tmp_path / "out"
    report.write("set", measured, 100, 1, OWN, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"table.csv", "table.md", "table.html", "sweeps.svg", "sweeps.png", "prompts.svg", "prompts.png"}
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [row["name"] for row in rows] == ["default", "better", "worse", "same", "point", "oracle"]
    assert float(rows[0]["mean_iou"]) == pytest.approx(2 / 3, abs=1e-5) and rows[0]["mean_iou_difference"] == ""
    assert float(rows[2]["mean_iou_difference"]) == pytest.approx(-1 / 3, abs=1e-5)
    assert rows[2]["changes"] == '{"exclusion.r_max": null}'
    text = (folder / "table.md").read_text()
    assert "6 images, 18 true masks." in text
    assert "| worse | exclusion.r_max = null | 0.333 [0.333, 0.333] |" in text
    assert "-0.333 [-0.333, -0.333] *" in text and "| oracle | baseline | 1.000" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {len(report.HEAD) + 1}
    page = (folder / "table.html").read_text()
    assert page.count("<tr>") == 7 and page.count("data:image/png") == 2
    for name in ("sweeps", "prompts"):
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200


def test_the_same_measures_give_the_same_files(measured, tmp_path):
    for name in ("a", "b"):
        report.write("set", measured, 50, 1, OWN, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_names_are_text_on_the_page(measured):
    made = report.compare(measured, 20, 1)
    page = report.page("<b>set</b>", made, (6, 18), {})
    assert "<b>set</b>" not in page and "&lt;b&gt;set" in page


def row_of(name, **changes):
    row = Row(name, "variant", name, {key.replace("__", "."): value for key, value in changes.items()})
    return SimpleNamespace(
        row=row, values={m: 0.5 for m in plots.METRICS}, intervals={m: [0.4, 0.6] for m in plots.METRICS}
    )


def test_a_sweep_is_over_rows_that_change_one_number_with_the_own_value_among_them():
    own = row_of("default")
    made = [
        own,
        row_of("none", exclusion__r_max=None),
        row_of("20", exclusion__r_max=20.0),
        row_of("50", exclusion__r_max=50),
        row_of("both", exclusion__r_max=30.0, exclusion__r_min=1.0),
        row_of("alone", exclusion__r_min=1.0),
        row_of("word", prompt__mode="point"),
        row_of("flag", exclusion__disjoint=False),
    ]
    curves = plots.swept(made, OWN)
    assert curves.keys() == {"exclusion.r_max"}
    assert [(value, m.row.name) for value, m in curves["exclusion.r_max"]] == [
        (20.0, "20"),
        (50, "50"),
        (200.0, "default"),
        (None, "none"),
    ]


def test_bars_are_grouped_by_prompt_and_coloured_by_constraint():
    made = [
        row_of("default"),
        row_of("half", exclusion__constraint="half"),
        row_of("point", prompt__mode="point"),
        row_of("point-half", prompt__mode="point", exclusion__constraint="half"),
        row_of("point-none", prompt__mode="point", exclusion__constraint="none", exclusion__disjoint=False),
        row_of("r", exclusion__r_max=5.0),  # not one of them
    ]
    figure = plots.prompts(made, OWN)
    axes = figure.axes[0]
    assert len(axes.patches) == 5
    assert [label.get_text() for label in axes.get_xticklabels()] == ["point+superpixel", "point"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["nnec", "half", "none, overlapping"]


def test_figures_of_nothing_but_the_own_settings():
    own = row_of("default")
    for figure in (plots.sweeps([own], OWN), plots.prompts([own], OWN)):
        assert plots.render(figure, "png")[:4] == b"\x89PNG"
    undefined = row_of("x", exclusion__r_max=1.0)
    undefined.values["mean_iou"] = undefined.intervals["mean_iou"] = None
    made = [own, undefined, row_of("y", exclusion__r_max=2.0)]
    assert plots.render(plots.sweeps(made, OWN), "svg").startswith(b"<?xml")


def test_all_names_are_read_back(tmp_path):
    images, truth = images_of(1)
    path = tmp_path / "m.parquet"
    tables.write(path, "measures", measure.rows(images, masks_of(images, truth, 0), truth), version=1, settings="{}")
    keys, table, fallback = report.read([path])
    assert keys == [("test", "i0")] and table.shape == (1, len(NAMES)) and fallback == 0
