"""Masks of two files or folders against each other: all pairs of kinds agree, and hostile files are refused by name."""

import json
import re

import numpy as np
import pytest
from crowds import box, full, label_map, shaken, windows_of
from PIL import Image
from pycocotools import mask as coco
from test_evaluate import write_batch

from crowdmask import cli, json_stream, tables
from crowdmask.errors import DataError
from crowdmask.masks.rle import full_counts
from crowdmask.metrics import compare, mask_files, measures
from crowdmask.metrics.matching import overlaps

H, W = 40, 50


def run(pred, truth, missing="error"):
    return compare.run(pred, truth, missing)


def coco_file(path, images, style="compressed", order=None, **more):
    """`images`: name -> masks; annotations may be mixed up."""
    listed, annotations = [], []
    for number, (name, masks) in enumerate(images.items(), 1):
        listed.append({"id": number, "file_name": f"{name}.jpg", "height": H, "width": W})
        for mask in masks:
            counts = full_counts(mask, H, W).decode()
            if style == "runs":
                flat = np.concatenate([[False], mask.full(H, W).ravel(order="F"), [False]])
                edges = np.flatnonzero(flat[1:] != flat[:-1])
                counts = np.diff(np.concatenate([[0], edges, [H * W]])).tolist()
            entry = {"image_id": number, "category_id": 1, "segmentation": {"size": [H, W], "counts": counts}}
            annotations.append({"id": len(annotations) + 1, **entry})
    for k in order if order is not None else ():
        annotations.append(annotations.pop(k))
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "head"}]} | more
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def maps(folder, images, suffix="png"):
    for name, labels in images.items():
        path = folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "npy":
            np.save(path, labels)
        else:
            Image.fromarray(labels.astype(np.uint16)).save(path)
    return folder


@pytest.fixture
def scenes():
    """Label maps of the truth and of predictions."""
    rng = np.random.default_rng(0)
    true = {f"test/{name}": label_map(rng, H, W, n) for name, n in (("a", 12), ("b", 20), ("c", 0))}
    return {name: shaken(rng, labels) for name, labels in true.items()}, true


def expected(pred, true):
    rows = [measures.measure(windows_of(pred[name]), windows_of(true[name]), None, H, W) for name in true]
    return {name: None if v is None else round(v, 6) for name, v in measures.pooled(measures.total(rows)).items()}


KINDS = ("coco", "runs", "png", "npy")


def written(folder, images, kind):
    if kind in ("png", "npy"):
        return maps(folder / kind, images, kind)
    masks = {name: windows_of(labels) for name, labels in images.items()}
    return coco_file(folder / f"{kind}.json", masks, "runs" if kind == "runs" else "compressed", range(0, 10, 3))


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_all_kinds_give_the_same_figures(tmp_path, scenes, first, second):
    pred, true = scenes
    (tmp_path / "p").mkdir(), (tmp_path / "t").mkdir()
    found = run(written(tmp_path / "p", pred, first), written(tmp_path / "t", true, second))
    assert {name: found["measures"][name] for name in measures.METRICS} == expected(pred, true)
    assert found["images"] == 3 and found["left_out"] == 0 and not found["paired"]
    assert [row["image"] for row in found["per_image"]] == ["test/a", "test/b", "test/c"]
    assert found["measures"]["mean_iou"] is None and found["median_iou"] is None
    low, high = found["intervals"]["miou_gt"]
    assert low <= found["measures"]["miou_gt"] <= high
    json.dumps(found, allow_nan=False)


def test_outlines_are_drawn_as_pycocotools_draws_them(tmp_path):
    rings = [[3.2, 4.1, 20.7, 6.0, 15.5, 22.9], [30.0, 30.0, 36.0, 30.0, 36.0, 35.0, 30.0, 35.0]]
    images = [{"id": 1, "file_name": "a.png", "height": H, "width": W}]
    content = {"images": images, "annotations": [{"image_id": 1, "segmentation": rings, "iscrowd": 1}]}
    (tmp_path / "p.json").write_text(json.dumps(content), encoding="utf-8")
    mask = coco.decode(coco.merge(coco.frPyObjects(rings, H, W)))
    assert run(tmp_path / "p.json", maps(tmp_path / "t", {"a": mask.astype(int)}))["measures"]["miou_gt"] == 1.0


def test_a_list_of_results_takes_the_images_of_the_truth(tmp_path, scenes):
    pred, true = scenes
    truth = written(tmp_path, true, "coco")
    results = coco_file(tmp_path / "p.json", {name: windows_of(labels) for name, labels in pred.items()})
    rows = json.loads(results.read_text())["annotations"]
    results.write_text(json.dumps([{**row, "score": 1 / row["id"]} for row in rows]), encoding="utf-8")
    found = run(results, truth)
    assert {name: found["measures"][name] for name in measures.METRICS} == expected(pred, true)
    assert found["measures"]["ap"] is not None
    with pytest.raises(DataError, match="a list of results, which does not say how its images are called"):
        run(results, maps(tmp_path / "maps", true))


# ---- our own tables and files


def project(folder):
    """Tables of a small data set where the workflow puts them; a mask is lost, one added, an image empty."""
    made = folder / "results" / "crowd"
    truth = [box(0, 0, 10, 10), box(20, 20, 10, 10)]
    points = [(5.0, 5.0), (25.0, 25.0)]
    some = {0: (box(0, 0, 10, 5), 5.0, "sam"), 7: (box(40, 30, 5, 5), 5.0, "manual")}
    images = [
        (("test", "a"), (H, W), points, some, truth, [box(0, 0, 1, 1)] * 2),
        (("test", "b"), (H, W), [(1.0, 1.0)], {}, [box(0, 0, 3, 3)], [box(0, 0, 1, 1)]),
        (("test", "c"), (H, W), [], {}, [], []),
    ]
    for stage, path in zip(
        ("datasets", "merge", "truth", "superpixels"), write_batch(folder, "x", images), strict=True
    ):
        (made / stage / "test").mkdir(parents=True)
        path.rename(made / stage / "test" / "x.parquet")
    return made


@pytest.mark.parametrize("depth", ["", "test", "test/x.parquet"])
def test_our_tables_are_joined_by_point(tmp_path, depth):
    made = project(tmp_path)
    found = run(made / "merge" / depth, made / "truth" / depth)
    assert found["images"] == 3 and found["paired"] and found["predictions"] == 2 and found["true_masks"] == 3
    assert found["measures"]["mean_iou"] == round(0.5 / 3, 6) and found["median_iou"] == 0
    assert found["measures"]["precision_50"] == 0.5 and found["measures"]["recall_50"] == round(1 / 3, 6)
    assert [row["count"] for row in found["by_density"]] == [0, 0, 2, 0, 1]


def test_our_coco_file_against_our_tables(tmp_path):
    from crowdmask.export.coco import write_coco

    made = project(tmp_path)
    batches = [(made / "datasets/test/x.parquet", made / "merge/test/x.parquet")]
    write_coco(tmp_path / "masks.json", batches, "crowd", "head", "{}")
    by_file, by_table = (run(path, made / "truth") for path in (tmp_path / "masks.json", made / "merge"))
    for key in ("measures", "intervals", "by_size", "by_density", "median_iou", "per_image", "paired"):
        assert by_file[key] == by_table[key], key
    # Point 0 has id 0, which is an id.
    assert by_file["measures"]["mean_iou"] == round(0.5 / 3, 6)


def test_tables_alone_do_not_say_how_large_images_are(tmp_path):
    made = project(tmp_path)
    (made / "datasets" / "test" / "x.parquet").unlink()
    with pytest.raises(DataError, match=r"how large the image test/a is\. Leave the tables"):
        run(made / "merge", made / "truth", "ignore")


def test_other_tables_are_refused(tmp_path):
    made = project(tmp_path)
    with pytest.raises(DataError, match="a table of images, which holds no masks"):
        run(made / "datasets", made / "truth")
    (made / "datasets").rename(tmp_path / "away")
    with pytest.raises(DataError, match="a table of superpixels, in a folder with tables of masks"):
        run(made, made / "truth")


# ---- names


def named(*names):
    return [mask_files.name_of(name) if isinstance(name, str) else mask_files.name_in_split(*name) for name in names]


class Side:
    def __init__(self, tmp_path, *names):
        self.path, self._names = tmp_path, named(*names)

    def names(self):
        return self._names


@pytest.mark.parametrize(
    ("preds", "trues", "expected"),
    [
        (["a.png", "b.png"], ["b.jpg", "a.jpg"], [("b", "b"), ("a", "a")]),
        (["images/a.png"], ["labels/a.npy"], [("images/a", "labels/a")]),
        ([("test", "a"), ("train", "a")], ["train/a.png", "test/a.png"], [("train/a",) * 2, ("test/a",) * 2]),
        ([("test", "a")], ["part/img/a.jpg"], [("test/a", "part/img/a")]),
        ([("all", "a")], [("test", "a")], [("a", "test/a")]),
        ([r"win\a.png"], ["a.png"], [("win/a", "a")]),
        (["a.b.png"], ["x/a.b.jpg"], [("a.b", "x/a.b")]),
    ],
)
def test_images_are_joined(tmp_path, preds, trues, expected):
    pairs = mask_files.joined(Side(tmp_path, *preds), Side(tmp_path, *trues), "error")
    assert [(a.full, b.full) for a, b in pairs] == expected


@pytest.mark.parametrize(
    ("preds", "trues", "message"),
    [
        (["a.png"], ["a.png", "b.png"], "1 of its images are not in .*: b"),
        (["a.png", "b.png"], ["a.png"], "1 of its images are not in .*: b"),
        ([("train", "a")], [("test", "a")], "1 of its images are not in"),
        (["x/a.png", "y/a.png"], ["a.png"], "a may be any of x/a, y/a"),
        (["a.png"], ["x/a.png", "y/a.png"], "a may be any of x/a, y/a"),
    ],
)
def test_images_that_cannot_be_joined(tmp_path, preds, trues, message):
    with pytest.raises(DataError, match=message):
        mask_files.joined(Side(tmp_path, *preds), Side(tmp_path, *trues), "error")


def test_missing_images_may_be_ignored(tmp_path):
    found = mask_files.joined(Side(tmp_path, "a.png", "b.png"), Side(tmp_path, "c.png", "b.png"), "ignore")
    assert [(a.full, b.full) for a, b in found] == [("b", "b")]
    with pytest.raises(DataError, match="no image in common"):
        mask_files.joined(Side(tmp_path, "a.png"), Side(tmp_path, "c.png"), "ignore")


def test_two_single_label_maps_need_no_names(tmp_path):
    labels = label_map(np.random.default_rng(0), H, W, 9)
    maps(tmp_path, {"one": labels, "other": labels}, "npy")
    assert run(tmp_path / "one.npy", tmp_path / "other.npy")["measures"]["pq"] == 1.0


# ---- files that cannot be used

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}


def entry(**more):
    return {"image_id": 1, "segmentation": {"size": [4, 5], "counts": [3, 2, 15]}} | more


def mask(**more):
    return entry(segmentation={"size": [4, 5], "counts": [3, 2, 15]} | more)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1, 2", "list of results"),
        ('{"images": [NaN], "annotations": []}', "not valid JSON"),
        (b'\xff{"images": []}', "not valid JSON"),
        ("{}", "not a COCO file with masks"),
        ({"images": {}, "annotations": []}, "'images' is no list"),
        ({"images": [3]}, r"images\[0\] is no object"),
        ({"images": [{**IMAGE, "height": 1e9}]}, "image 1 needs `height` and `width`, whole numbers from 1 to 65535"),
        ({"images": [{**IMAGE, "height": 0}]}, "image 1 needs `height` and `width`"),
        (
            {"images": [IMAGE, {**IMAGE, "id": 2}], "annotations": []},
            "the image a is listed twice, with the ids 1 and 2",
        ),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, r"images\[1\] has the id 1 of another image"),
        (
            {"images": [IMAGE], "annotations": [entry(image_id=2)]},
            "annotation 0 is of the image 2, which is not listed",
        ),
        ({"images": [IMAGE], "annotations": [7]}, "annotation 0 is of no image"),
        (
            {"images": [IMAGE], "annotations": [entry(segmentation=None)]},
            r"annotation 0 of image a\.jpg: it has no mask",
        ),
        ({"images": [IMAGE], "annotations": [entry(segmentation=[])]}, "it has no mask"),
        ({"images": [IMAGE], "annotations": [entry(segmentation=[[1, 2, 3]])]}, "an x lacks its y"),
        ({"images": [IMAGE], "annotations": [entry(segmentation=[[0, 0, 1e7, 0, 0, 1e5]])]}, "no number within"),
        ({"images": [IMAGE], "annotations": [mask(size=[5, 4])]}, "of another size than the image"),
        ({"images": [IMAGE], "annotations": [mask(counts=[3, 2])]}, "add up to 5, not to the 20"),
        ({"images": [IMAGE], "annotations": [mask(counts=[3, -2, 19])]}, "a run length is negative"),
        ({"images": [IMAGE], "annotations": [mask(counts="@@@")]}, "counts"),
        ({"images": [IMAGE], "annotations": [mask(counts=None)]}, "counts are neither text nor a list"),
    ],
)
def test_hostile_coco_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    truth = maps(tmp_path / "truth", {"a": np.ones((4, 5), int)})
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{message}"):
        run(path, truth)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: "):
        run(truth, path)


def test_deep_and_long_entries_are_refused(tmp_path, monkeypatch):
    truth = maps(tmp_path / "truth", {"a": np.ones((4, 5), int)})
    path = tmp_path / "bad.json"
    start = json.dumps({"images": [IMAGE]})[:-1] + ', "annotations": ['
    deep = '{"image_id": 1, "segmentation": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path.write_text(start + deep + "]}", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.json: "):
        run(path, truth)
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 500)
    numbers = ",".join("1" for _ in range(300_000))
    path.write_text(start + '{"image_id": 1, "segmentation": [' + numbers + "]}]}", encoding="utf-8")
    with pytest.raises(DataError, match="an entry of more than 1000 characters"):
        run(path, truth)
    # Many short entries are no long one.
    many = ",".join(json.dumps(entry()) for _ in range(9000))
    path.write_text(start + many + "]}", encoding="utf-8")
    assert run(path, truth)["predictions"] == 9000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no such file or folder"),
        (lambda p: p.mkdir(), "holds neither label maps"),
        (lambda p: p.write_text("x"), "cannot be read from a file of kind '.txt'"),
    ],
)
def test_other_paths_are_refused(tmp_path, make, message):
    truth = maps(tmp_path / "truth", {"a": np.ones((4, 5), int)})
    path = tmp_path / "x.txt"
    make(path)
    for sides in ((path, truth), (truth, path)):
        with pytest.raises(DataError, match=message):
            run(*sides)


def test_label_maps_that_cannot_be_used(tmp_path):
    truth = maps(tmp_path / "truth", {"a": np.ones((4, 5), int)})
    pred = tmp_path / "pred"
    maps(pred, {"a": np.ones((5, 4), int)})
    with pytest.raises(DataError, match=r"image a has 4 x 5 pixels, in .* 5 x 4"):
        run(pred, truth)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(pred / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a picture in colour mode RGB"):
        run(pred, truth)
    np.save(pred / "a.npy", np.ones((4, 5), int))
    with pytest.raises(DataError, match=r"is the second label map of the image a"):
        run(pred, truth)
    (pred / "a.png").unlink()
    np.save(pred / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: not a readable label map"):
        run(pred, truth)
    (pred / "a.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="holds both Parquet tables and pictures"):
        run(pred, truth)


def test_masks_of_another_image_size_are_refused(tmp_path):
    made = project(tmp_path)
    rows = tables.read(made / "datasets/test/x.parquet", "images")
    tables.write(
        made / "datasets/test/x.parquet", "images", [{**r, "height": 20} for r in rows], version=1, settings=""
    )
    with pytest.raises(DataError, match="a mask of image test/a leaves the image of 50 x 20 pixels"):
        run(made / "merge", made / "truth")


# ---- the command


def test_the_command_prints_figures_or_json(tmp_path, scenes, capsys):
    pred, true = scenes
    sides = [str(written(tmp_path, images, kind)) for images, kind in ((pred, "coco"), (true, "png"))]
    assert cli.main(["evaluate", *sides]) == 0
    said = capsys.readouterr().out
    assert "no point ids on both sides" in said and "mean_iou " not in said
    values = expected(pred, true)
    assert re.search(rf"^f1_50 +{values['f1_50']:.4f}   \[0\.\d+, 0\.\d+\]$", said, re.M)
    assert cli.main(["evaluate", *sides, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measures"]["pq"] == values["pq"]
    (tmp_path / "png" / "test" / "c.png").unlink()
    assert cli.main(["evaluate", *sides]) == 1
    assert "coco.json: 1 of its images are not in" in capsys.readouterr().err
    assert cli.main(["evaluate", *sides, "--missing", "ignore", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 1


def test_the_order_of_annotations_does_not_matter(tmp_path):
    rng = np.random.default_rng(3)
    masks = {name: windows_of(label_map(rng, H, W, 15)) for name in "abc"}
    order = rng.integers(0, 20, 60).tolist()
    source = mask_files.CocoMasks(coco_file(tmp_path / "x.json", masks, order=order), None)
    try:
        for name in source.names():
            found = overlaps(source.read(name).windows, masks[name.full])
            assert (found.iou[found.assigned] == 1).all() and len(found.assigned) == len(masks[name.full])
            frames = full(source.read(name).windows, H, W)
            assert frames.sum() == full(masks[name.full], H, W).sum()
    finally:
        source.close()
