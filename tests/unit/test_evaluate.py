"""Evaluation: drawn shapes with known IoU, and everything again on full frames."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window, digest
from crowdmask.metrics import evaluate, evaluate_page
from crowdmask.metrics.baselines import circles, disjoint, watershed_masks
from crowdmask.metrics.instances import intersect, intersection, paired_iou, window_iou

# pycocotools 2.0.11 and numpy 2 disagree about `copy`; its decoder's result is right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

EMPTY = Window(3, 3, np.zeros((0, 0), bool))


def box(x0, y0, w, h):
    return Window(x0, y0, np.ones((h, w), bool))


def naive_iou(a, b):
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


# ---- metrics on windows


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        (box(0, 0, 10, 10), box(0, 0, 10, 10), 1.0),
        (box(0, 0, 10, 10), box(5, 0, 10, 10), 1 / 3),
        (box(0, 0, 10, 10), box(2, 2, 5, 5), 0.25),
        (box(0, 0, 10, 10), box(10, 0, 10, 10), 0.0),
        (box(0, 0, 10, 10), EMPTY, 0.0),
        (EMPTY, EMPTY, 0.0),
    ],
)
def test_known_iou(a, b, iou):
    assert window_iou(a, b) == window_iou(b, a) == pytest.approx(iou)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_windows_equal_full_frames(seed):
    rng = np.random.default_rng(seed)
    full, windows = [], []
    for _ in range(4):
        h, w = rng.integers(0, 9, 2)
        y, x = rng.integers(0, 20 - h), rng.integers(0, 30 - w)
        windows.append(Window(int(x), int(y), rng.random((h, w)) < 0.5))
        full.append(windows[-1].full(20, 30))
    assert intersection(*windows[:2]) == np.count_nonzero(full[0] & full[1])
    np.testing.assert_array_equal(intersect(*windows[:2]).full(20, 30), full[0] & full[1])
    expected = [naive_iou(full[0], full[2]), naive_iou(full[1], full[3])]
    np.testing.assert_allclose(paired_iou(windows[:2], windows[2:]), expected, rtol=0, atol=1e-15)


def test_pairs_must_pair():
    assert paired_iou([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 masks cannot be paired with 2"):
        paired_iou([EMPTY], [EMPTY, EMPTY])


# ---- baselines


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    reach=st.sampled_from([0, 0.3, 3, 60]),
)
def test_circles_equal_full_frames(seed, height, width, reach):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 45, (6, 2))
    radii = rng.uniform(0, 1, 6) * reach
    yy, xx = np.mgrid[:height, :width]
    for (x, y), radius, window in zip(points, radii, circles(points, radii, height, width), strict=True):
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        expected = (xx - x) ** 2 + (yy - y) ** 2 <= radius**2
        expected[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] = True
        np.testing.assert_array_equal(window.full(height, width), expected)
        assert window.area == np.count_nonzero(expected)


def test_contested_pixels_go_to_the_nearest_point_and_ties_to_the_first():
    points = np.array([[10.0, 10.0], [14.0, 10.0], [30.0, 10.0]])
    around = circles(points, np.array([4.0, 4.0, 2.0]), 20, 40)
    first, second, third = (mask.full(20, 40) for mask in disjoint(around, points, 20, 40))
    assert first[10, 6:13].all() and not first[10, 13:].any()
    assert second[10, 13:19].all() and not second[10, 12]
    np.testing.assert_array_equal(third, around[2].full(20, 40))
    np.testing.assert_array_equal(first | second, around[0].full(20, 40) | around[1].full(20, 40))


def discs(shape, centres, radius, value=210):
    image = np.full((*shape, 3), 30, np.uint8)
    for centre in centres:
        cv2.circle(image, centre, radius, (value,) * 3, -1)
    return image


def test_watershed_finds_drawn_discs():
    centres = [(30, 40), (90, 40), (60, 90)]
    image = discs((130, 120), centres, 12)
    made = watershed_masks(image, np.array(centres, float), np.full(3, 25.0))
    true = [Window(0, 0, discs((130, 120), [c], 12)[..., 0] > 100) for c in centres]
    assert paired_iou(made, true).min() > 0.85


def test_watershed_masks_are_disjoint_within_their_circles_and_hold_their_point():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    points, radii = rng.uniform(0, 59, (15, 2)), rng.uniform(3, 15, 15)
    made = watershed_masks(image, points, radii)
    assert sum(m.full(60, 80).astype(int) for m in made).max() == 1
    for mask, circle, (x, y) in zip(made, circles(points, radii, 60, 80), points, strict=True):
        assert intersection(mask, circle) == mask.area
        assert mask.full(60, 80)[int(y + 0.5), int(x + 0.5)]


def test_watershed_edge_cases():
    image = discs((20, 20), [(10, 10)], 4)
    assert watershed_masks(image, np.zeros((0, 2)), np.zeros(0)) == []
    everywhere = watershed_masks(image, np.array([[10.0, 10.0]]), np.array([100.0]))
    assert everywhere[0].area == 400
    twins = watershed_masks(image, np.array([[10.0, 10.0], [10.2, 10.0]]), np.array([8.0, 8.0]))
    assert len(twins) == 2 and twins[0].area > 40 and twins[1].area < 5 and intersection(*twins) == 0
    dim = discs((60, 60), [(30, 30)], 10, value=60)
    assert watershed_masks(dim, np.array([[30.0, 30.0]]), np.array([20.0]), relative=True)[0].area > 200


# ---- the whole evaluation


def mask_row(key, point_id, window, radius, source="sam"):
    row = {"split": key[0], "image_id": key[1], "point_id": point_id, "x": 0.0, "y": 0.0, "source": source}
    row |= {"verified": False, "author": None, "score": None, "radius_px": radius, "lost_px": 0, "area": window.area}
    return row | {"sha256": digest(window), **window.columns()}


def write_batch(folder, name, images):
    """`images`: (key, (H, W), points, {point_id: (mask, radius, source)}, truth, superpixels) each."""
    rows = {table: [] for table in ("images", "masks", "truth", "superpixels")}
    for key, (height, width), points, masks, truth, superpixels in images:
        base = {"split": key[0], "image_id": key[1]}
        listed = [{"point_id": i, "x": x, "y": y, "outside": False, **tables.NO_BOX} for i, (x, y) in enumerate(points)]
        if not (folder / f"{key[1]}.png").exists():
            cv2.imwrite(str(folder / f"{key[1]}.png"), np.zeros((height, width), np.uint8))
        rows["images"].append(
            {**base, "path": f"{key[1]}.png", "height": height, "width": width, "mode": "L", "sha256": "0"}
            | {"points": listed}
        )
        rows["masks"] += [mask_row(key, i, *made) for i, made in masks.items()]
        rows["truth"] += [{**base, "point_id": i, "instance_id": i + 1, **w.columns()} for i, w in enumerate(truth)]
        rows["superpixels"] += [
            {**base, "point_id": i, "superpixel": i + 1, "sharing": 1, **w.columns()} for i, w in enumerate(superpixels)
        ]
    paths = []
    for table, content in rows.items():
        paths.append(folder / f"{name}-{table}.parquet")
        tables.write(paths[-1], table, content, version=1, settings="{}")
    return tuple(paths)


def run(folder, batches, watershed=False):
    output, page = folder / "evaluation.json", folder / "evaluation.html"
    result = evaluate.run("crowd <1>", batches, folder, "stored", output, page, '{"a":1}', watershed)
    assert json.loads(output.read_text()) == result
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == text.count("data:image/jpeg") == sum(row["points"] > 0 for row in result["per_image"])
    assert "crowd &lt;1&gt;" in text and "://" not in text
    return result


def test_known_numbers(tmp_path):
    truth = [box(0, 0, 10, 10), box(20, 20, 20, 20), box(50, 0, 4, 4)]
    masks = {
        0: (box(0, 0, 10, 5), 4.0, "sam"),
        1: (box(20, 20, 20, 20), 30.0, "circle"),
        7: (box(60, 30, 5, 5), 5.0, "manual"),
    }
    points = [(5.0, 5.0), (30.0, 30.0), (52.0, 2.0)]
    image = (("test", "a"), (50, 70), points, masks, truth, [box(0, 0, 10, 10)] * 3)
    result = run(tmp_path, [write_batch(tmp_path, "b", [image])])
    assert (result["images"], result["points"], result["masks"]) == (1, 3, 3)
    assert (result["deleted"], result["added"]) == (1, 1)
    assert result["mean_iou"] == 0.5 and result["median_iou"] == 0.5 and result["share_iou_50"] == round(2 / 3, 6)
    assert result["fallback_share"] == round(1 / 3, 6)
    assert result["mean_iou_superpixel"] == round(1 / 3, 6)
    assert "mean_iou_watershed" not in result
    assert [(size["count"], size["mean_iou"]) for size in result["by_size"]] == [
        (1, 0.0),
        (1, 0.5),
        (1, 1.0),
        (0, None),
    ]
    assert result["per_image"] == [
        {"split": "test", "image_id": "a", "points": 3, "predictions": 3, "mean_iou": 0.5, "miou_gt": 0.5}
        | {"f1_50": round(2 / 3, 6)}
    ]
    # The added mask is a prediction too many, the deleted one a head too few.
    found = result["measures"]
    assert found["precision_50"] == found["recall_50"] == round(2 / 3, 6) and found["mae"] == 0.0
    assert found["pq"] == round(1 / 3, 6) and found["mean_iou"] == 0.5  # IoU of exactly 1/2 is no segment
    assert result["intervals"]["mean_iou"] is None  # nothing can be said from one image
    assert [row["count"] for row in result["by_density"]] == [0, 0, 0, 3, 0]
    cell = result["baselines"]["superpixel"]
    assert cell["measures"]["mean_iou"] == round(1 / 3, 6)
    assert cell["difference"]["mean_iou"]["difference"] == round(1 / 6, 6)
    assert result["settings"] == {"a": 1} and result["version"] == evaluate.VERSION


def test_equal_to_full_frames_over_batches(tmp_path):
    rng = np.random.default_rng(5)
    height, width = 48, 64
    ious = {
        name: []
        for name in ("", "_circle", "_circle_disjoint", "_superpixel", "_superpixel_circle", "_oracle", "_watershed")
    }
    areas, batches = [], []
    yy, xx = np.mgrid[:height, :width]
    for name in "pqr":
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
        n = 6
        points = rng.integers(5, [width - 5, height - 5], (n, 2)).astype(float)
        radii = rng.uniform(3, 12, n)
        made = [
            [
                Window(int(rng.integers(0, 40)), int(rng.integers(0, 30)), rng.random(rng.integers(1, 18, 2)) < 0.7)
                for _ in range(n)
            ]
            for _ in range(3)
        ]
        masks = {i: (made[0][i], radii[i], "sam") for i in rng.permutation(n)}
        batches.append(write_batch(tmp_path, name, [(("all", name), (height, width), points, masks, made[1], made[2])]))
        shed = watershed_masks(image, points, radii)
        distances = (xx - points[:, 0, None, None]) ** 2 + (yy - points[:, 1, None, None]) ** 2
        owner = np.where(distances <= radii[:, None, None] ** 2, distances, np.inf).argmin(axis=0)
        for i, (x, y) in enumerate(points):
            mask, true, cell = (group[i].full(height, width) for group in made)
            circle = (xx - x) ** 2 + (yy - y) ** 2 <= radii[i] ** 2
            for key, pred in zip(
                ious,
                (mask, circle, circle & (owner == i), cell, cell & circle, true & circle, shed[i].full(height, width)),
                strict=True,
            ):
                ious[key].append(naive_iou(pred, true))
            areas.append(np.count_nonzero(true))
    result = run(tmp_path, batches, watershed=True)
    for key, values in ious.items():
        assert result[f"mean_iou{key}"] == pytest.approx(np.mean(values), abs=1e-6), key
    assert result["median_iou"] == pytest.approx(np.median(ious[""]), abs=1e-6)
    assert sum(size["count"] for size in result["by_size"]) == result["points"] == 18
    low, high = result["intervals"]["mean_iou"]
    assert low <= result["mean_iou"] <= high and low < high
    for key in set(ious) - {""}:
        other = result["baselines"][key[1:]]
        assert other["difference"]["mean_iou"]["difference"] == pytest.approx(
            np.mean(ious[""]) - np.mean(ious[key]), abs=2e-6
        )
    small = np.array(areas) < 64
    assert result["by_size"][0]["count"] == small.sum()
    assert result["by_size"][0]["mean_iou"] == pytest.approx(np.array(ious[""])[small].mean(), abs=1e-6)
    assert [row["image_id"] for row in result["per_image"]] == ["p", "q", "r"]


def test_images_without_points_and_no_images(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    batch = write_batch(tmp_path, "b", [(("all", "a"), (9, 9), [], {}, [], [])])
    result = run(tmp_path, [batch], watershed=True)
    assert (result["images"], result["points"], result["mean_iou"], result["fallback_share"]) == (1, 0, None, None)
    assert result["per_image"][0]["mean_iou"] is None and result["mean_iou_watershed"] is None
    assert run(tmp_path, [])["mean_iou"] is None


def test_all_masks_deleted(tmp_path):
    points = [(4.0, 4.0), (4.0, 8.0)]
    image = (("all", "a"), (20, 20), points, {}, [box(3, 3, 3, 3), box(3, 7, 3, 3)], [box(0, 0, 2, 2)] * 2)
    result = run(tmp_path, [write_batch(tmp_path, "b", [image])])
    assert (result["deleted"], result["masks"], result["mean_iou"]) == (2, 0, 0.0)
    # Without its row the circle is that of the nearest neighbour, 4 pixels away: it covers the 9 true pixels.
    assert result["mean_iou_oracle"] == 1.0


@pytest.mark.parametrize(("truth", "cells", "message"), [([], 1, "no true mask"), ([EMPTY], 0, "no superpixel")])
def test_missing_rows_are_named(tmp_path, truth, cells, message):
    image = (("all", "a"), (9, 9), [(1.0, 1.0)], {}, truth, [box(0, 0, 1, 1)] * cells)
    with pytest.raises(DataError, match=f"point 0 of image all/a has {message}"):
        run(tmp_path, [write_batch(tmp_path, "b", [image])])


def test_masks_of_an_unknown_image_are_refused(tmp_path):
    one = write_batch(tmp_path, "one", [(("all", "a"), (9, 9), [], {}, [], [])])
    two = write_batch(tmp_path, "two", [(("all", "b"), (9, 9), [], {3: (box(0, 0, 1, 1), 5.0, "sam")}, [], [])])
    with pytest.raises(DataError, match="image all/b is not in"):
        run(tmp_path, [(one[0], two[1], one[2], one[3])])


def test_scores_rank_the_detections(tmp_path):
    """A wrong mask lowers the average precision where it is the surest, and not where it comes last."""
    truth, points = [box(0, 0, 10, 10), box(20, 20, 10, 10)], [(5.0, 5.0), (25.0, 25.0)]
    found = []
    for scores in ((0.9, 0.1), (0.1, 0.9)):
        masks = {0: (truth[0], 5.0, "sam"), 1: (box(40, 0, 5, 5), 5.0, "sam")}
        image = (("all", "a"), (50, 60), points, masks, truth, [box(0, 0, 1, 1)] * 2)
        batch = write_batch(tmp_path, "b", [image])
        rows = [{**row, "score": scores[row["point_id"]]} for row in tables.read(batch[1], "masks")]
        tables.write(batch[1], "masks", rows, version=1, settings="{}")
        found.append(run(tmp_path, [batch])["measures"]["ap_50"])
    assert found == [round(51 / 101, 6), round(51 / 202, 6)]


def test_the_page_shows_the_worst_images_first(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "WORST", 2)
    images = []
    for name, width in (("good", 10), ("bad", 1), ("half", 5), ("none", 10)):
        masks = {0: (box(0, 0, width, 10), 5.0, "sam")}
        points, truth = ([(5.0, 5.0)], [box(0, 0, 10, 10)]) if name != "none" else ([], [])
        images.append((("all", name), (30, 30), points, masks, truth, [box(0, 0, 1, 1)] * len(truth)))
    batch = write_batch(tmp_path, "b", images)
    page = tmp_path / "page.html"
    evaluate.run("x", [batch], tmp_path, "stored", tmp_path / "e.json", page, "{}", False)
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 2
    assert text.index("1. <strong>all/bad</strong>, mean IoU 0.100") < text.index("2. <strong>all/half</strong>")


def test_outlines_lie_on_the_masks(tmp_path):
    photo = np.zeros((90, 120, 3), np.uint8)
    data = evaluate_page.thumbnail(photo, [box(30, 30, 20, 20)], [box(80, 10, 20, 20)])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert max(picture.shape) == evaluate_page.SIDE
    scale = evaluate_page.SIDE / 120
    for colour, (left, top) in ((evaluate_page.MASK, (30, 30)), (evaluate_page.TRUTH, (80, 10))):
        near = np.abs(picture - colour).sum(axis=2) < 200
        y, x = np.nonzero(near)
        expected = np.array([left + 0.5, left + 19.5, top + 0.5, top + 19.5]) * scale
        np.testing.assert_allclose([x.min(), x.max(), y.min(), y.max()], expected, atol=2)
