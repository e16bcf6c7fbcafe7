"""Generic formats: layouts of all of them; COCO with its choices and every fault with its message."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crowdmask.datasets import stage
from crowdmask.errors import DataError
from layouts import generic
from layouts.reading import check_fault, everything, keys, points_of, reader, write

Maker = Callable[[Path], generic.Made]

MAKERS: dict[str, Maker] = {
    "coco keypoints": lambda root: generic.coco(root, "keypoints"),
    "coco boxes": lambda root: generic.coco(root, "boxes"),
    "coco both": lambda root: generic.coco(root, "both"),
    "coco, images in the root": lambda root: generic.coco(root, images="."),
    "coco in splits and folders": generic.coco_splits,
    **{f"csv, {name}": lambda root, name=name: generic.points_csv(root, name) for name in generic.DIALECTS},
    "csv in splits": lambda root: generic.points_csv(root, split="set"),
    "parquet": generic.points_parquet,
    "parquet, images in the root": lambda root: generic.points_parquet(root, "."),
    "labelme": generic.labelme,
    "labelme, annotations": lambda root: generic.labelme(root, "annotations"),
    "labelme, json": lambda root: generic.labelme(root, "json"),
    "labelme, labels in splits": lambda root: generic.labelme(root, "labels", ("test", "train")),
    "labelme in splits": lambda root: generic.labelme(root, None, ("train", "val")),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_layout_round_trip(tmp_path: Path, kind: str) -> None:
    truth = MAKERS[kind](tmp_path)
    made = reader(truth.entry)
    assert keys(made) == list(truth.points)
    refs = made.list_images()
    for ref in refs:
        key = f"{ref.split}/{ref.image_id}"
        annotation = made.read_annotation(ref)
        np.testing.assert_array_equal(annotation.points_xy, truth.points[key])
        assert annotation.points_xy.dtype == np.float64 and annotation.points_xy.shape[1:] == (2,)
        assert annotation.size_hw in (None, (generic.HEIGHT, generic.WIDTH))
        if len(truth.boxes.get(key, [])):
            np.testing.assert_array_equal(annotation.boxes_xyxy, truth.boxes[key])
        assert (tmp_path / ref.image).is_file() and (tmp_path / ref.annotation).is_file()
        assert "./" not in ref.image
    assert made.unlabelled() == []
    rows = list(stage.collect(made, refs, "stored"))
    assert [len(row["points"]) for row in rows] == [len(points) for points in truth.points.values()]
    assert not any(point["outside"] for row in rows for point in row["points"])
    with pytest.raises(DataError, match="no true masks"):
        made.read_truth(refs[0])


@pytest.mark.parametrize("kind", MAKERS)
def test_selection_and_skipped_images(tmp_path: Path, kind: str) -> None:
    truth = MAKERS[kind](tmp_path)
    first = next(iter(truth.points))
    assert first not in keys(reader(truth.entry, skip_images=[first]))
    splits = {key.partition("/")[0] for key in truth.points}
    assert len(keys(reader(truth.entry, limit=1))) == len(splits)
    with pytest.raises(DataError, match="names all/nobody, which is not there"):
        reader(truth.entry, skip_images=["all/nobody"]).list_images()


@pytest.mark.parametrize("kind", MAKERS)
def test_root_at_another_level(tmp_path: Path, kind: str) -> None:
    truth = MAKERS[kind](tmp_path / "set")
    with pytest.raises(DataError, match="set has the layout: set datasets"):
        reader(truth.entry, root=str(tmp_path)).list_images()
    with pytest.raises(DataError, match="the folder of the data set 'mine'"):
        reader(truth.entry, root=str(tmp_path / "no")).list_images()


# ------------------------------------------------------------------ COCO


def change_coco(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "annotations.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("head", "points"),
    [
        ("auto", [[10.0, 11.0]]),
        ("keypoint", [[10.0, 11.0]]),
        ("box", [[4.5, 3.5]]),  # the box [0, 0, 10, 8] covers the pixels 0 to 9 and 0 to 7
        ("box_top", [[4.5, 0.0]]),
    ],
)
def test_coco_head_points(tmp_path: Path, head: str, points: list[list[float]]) -> None:
    assert points_of(reader(generic.coco(tmp_path).entry, head=head))["all/a"] == points


def test_coco_keypoints_that_are_hidden_or_not_there(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["keypoints"] = [7, 8, 0, 5, 6, 1, 1, 2, 1]  # hidden, but labelled
        content["annotations"][1]["keypoints"] = [7, 8, 0, 0, 0, 0]

    change_coco(tmp_path, change)
    assert points_of(reader(entry))["all/b"] == [[5, 6], [4.5, 3.5]]
    with pytest.raises(DataError, match=r"row 1: the annotation has no labelled keypoint\. Set datasets.mine.head"):
        everything(reader(entry, head="keypoint"))
    change_coco(tmp_path, lambda content: content["annotations"][1].pop("bbox"))
    with pytest.raises(DataError, match="row 1: the annotation has neither labelled keypoint nor box"):
        everything(reader(entry))
    assert keys(reader(entry, skip_images=["all/b"])) == ["all/a", "all/empty"]
    everything(reader(entry, skip_images=["all/b"]))


def test_coco_category_and_crowd(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry

    def change(content: dict[str, Any]) -> None:
        content["categories"] += [{"id": "d", "name": "dog"}]
        content["annotations"][0]["category_id"] = "d"
        content["annotations"][1]["iscrowd"] = 1

    change_coco(tmp_path, change)
    counts = {wanted: [len(p) for p in points_of(reader(entry, category=wanted)).values()] for wanted in (None, "dog")}
    assert counts == {None: [1, 2, 0], "dog": [0, 1, 0]}
    made = reader(entry)
    assert made.read_annotation(made.list_images()[1]).attributes["iscrowd"].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no category 'cat'; it has: dog, head\. Correct datasets.mine.category"):
        reader(entry, category="cat").list_images()


def test_coco_images_without_entry_are_unlabelled(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry
    generic.save_image(tmp_path / "images" / "more" / "x.jpg")
    (tmp_path / "images" / "more" / "round").symlink_to(tmp_path / "images")
    made = reader(entry)
    assert [(ref.split, ref.image_id, ref.image, ref.annotation) for ref in made.unlabelled()] == [
        ("all", "more-x", "images/more/x.jpg", "")
    ]
    assert len(made.list_images()) == 3
    assert reader(entry, skip_images=["all/b"]).unlabelled() == made.unlabelled()


def test_coco_windows_names_and_links(tmp_path: Path) -> None:
    truth = generic.coco_splits(tmp_path / "store")
    path = tmp_path / "store" / "annotations" / "instances_val.json"
    path.write_text(path.read_text(encoding="utf-8").replace("val/", r".\\val\\"), encoding="utf-8")
    assert keys(reader(truth.entry)) == list(truth.points)
    (tmp_path / "root").mkdir()
    for name in ("images", "annotations"):  # people link large data instead of copying it
        (tmp_path / "root" / name).symlink_to(tmp_path / "store" / name)
    assert keys(reader(truth.entry, root=str(tmp_path / "root"))) == list(truth.points)


def set_name(name: Any) -> Callable[[Path], None]:
    return lambda root: change_coco(root, lambda content: content["images"][1].update(file_name=name))


def set_first(**values: Any) -> Callable[[Path], None]:
    return lambda root: change_coco(root, lambda content: content["annotations"][0].update(values))


COCO_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (write(b""), r"annotations\.json: the file is empty"),
    "no JSON": (write(b"{"), "not a readable JSON"),
    "no UTF-8": (write(b"\xff\xfe{}"), "not a readable JSON"),
    "deep JSON": (write(b"[" * 100_000), "not a readable JSON"),
    "a list": (write(b"[]"), "not a COCO file: it has no list 'images'"),
    "no annotations": (write(b'{"images": []}'), "no list 'annotations'"),
    "nothing": (write(b'{"images": [], "annotations": []}'), "no images found"),
    "image is no object": (write(b'{"images": [3], "annotations": []}'), "row 0: an entry of 'images' without"),
    "name is no text": (set_name(5), "row 1: an entry of 'images' without id or file_name"),
    "upwards": (set_name("../images/a.jpg"), r"row 1: the image name '\.\./images/a\.jpg' leads outside"),
    "upwards inside": (set_name("x/../../images/a.jpg"), "row 1: .* leads outside"),
    "upwards, Windows": (set_name("..\\images\\a.jpg"), "row 1: .* leads outside"),
    "absolute": (set_name("/etc/a.jpg"), "row 1: .* leads outside"),
    "drive": (set_name("C:\\a.jpg"), "row 1: .* leads outside"),
    "zero byte": (set_name("a\0.jpg"), "row 1: .* leads outside"),
    "no image": (set_name("a.json"), r"row 1: 'a\.json' names no image file"),
    "no name": (set_name(""), "row 1: '' names no image file"),
    "control character": (set_name("a\n.jpg"), "row 1: 'a.n' cannot be an image id"),
    "missing image": (
        set_name("gone.jpg"),
        r"row 1: names the image images/gone\.jpg, which is .*\.skip_images",
    ),
    "missing folder": (set_name("no/a.jpg"), r"row 1: names the image images/no/a\.jpg"),
    "a folder as image": (
        lambda root: ((root / "images" / "d.jpg").mkdir(), set_name("d.jpg")(root)) and None,
        r"names the image images/d\.jpg, which is not there",
    ),
    "image twice": (set_name("b.jpg"), r"row 1: the image b\.jpg is in 'images' twice"),
    "image twice, other spelling": (set_name(".//b.jpg"), r"row 1: the image b\.jpg is in 'images' twice"),
    "id twice": (
        lambda root: change_coco(root, lambda content: content["images"][1].update(id=100)),
        "row 1: the id 100 is in 'images' twice",
    ),
    "same image id": (
        lambda root: (generic.save_image(root / "images" / "b.png"), set_name("b.png")(root)) and None,
        r"row 1: b\.png and b\.jpg both have the id 'b'",
    ),
    "unknown image": (set_first(image_id=7), "row 0: an annotation of the image 7, which the file does not list"),
    "image id is a list": (set_first(image_id=[7]), "row 0: an annotation of the image"),
    "half keypoints": (set_first(keypoints=[1, 2]), "row 0: its keypoints are not triples"),
    "text keypoints": (set_first(keypoints=["1", 2, 2]), "row 0: its keypoints are not triples"),
    "text visibility": (set_first(keypoints=[1, 2, "2"]), "row 0: its keypoints are not triples"),
    "NaN keypoint": (set_first(keypoints=[1, float("nan"), 2]), r"row 0: its keypoint \(1, nan\) is not finite"),
    "huge keypoint": (set_first(keypoints=[10**400, 1, 2]), r"row 0: its keypoint \(inf, 1\) is not finite"),
    "box of three": (set_first(bbox=[1, 2, 3]), "row 0: its bbox is not four numbers"),
    "negative box": (set_first(bbox=[1, 2, -3, 4]), r"row 0: its bbox \[1, 2, -3, 4\] is not finite, or has a neg"),
    "infinite box": (set_first(bbox=[1, 2, float("inf"), 4]), "row 0: its bbox .* is not finite"),
    "no images folder": (lambda root: (root / "images").rename(root / "img") and None, "images: the folder is missing"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_coco_faults(tmp_path: Path, fault: str) -> None:
    check_fault(tmp_path, generic.coco(tmp_path).entry, *COCO_FAULTS[fault])


def test_coco_missing_image_is_healed_by_skipping_it(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry
    (tmp_path / "images" / "a.jpg").unlink()
    assert keys(reader(entry, skip_images=["all/a"])) == ["all/b", "all/empty"]


def test_coco_faulty_annotation_hinders_its_own_image_only(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry
    set_first(bbox=None, keypoints=[1])(tmp_path)
    made = reader(entry)
    a, b, _ = made.list_images()
    assert made.read_points(a).tolist() == [[10, 11]]
    with pytest.raises(DataError, match=r"skip_images: \[all/b\]"):
        made.read_points(b)


def test_every_fault_of_a_list_is_collected_for_the_audit(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry
    for name in ("a.jpg", "empty.png"):
        (tmp_path / "images" / name).unlink()
    generic.save_image(tmp_path / "images" / "more.jpg")
    found = reader(entry, skip_images=["all/nobody"]).pairing()  # type: ignore[attr-defined]
    assert [(fault.kind, fault.image_id) for fault in found.faults] == [
        ("missing_image", "a"),
        ("missing_image", "empty"),
        ("unknown_skip", ""),
    ]
    assert [ref.image_id for ref in found.refs] == ["b"] and [ref.image_id for ref in found.unlabelled] == ["more"]
    with pytest.raises(DataError, match="which is not there \\(and so for 1 more\\)"):
        reader(entry).list_images()
    write(b"{")(tmp_path)
    found = reader(entry).pairing()  # type: ignore[attr-defined]
    assert [fault.kind for fault in found.faults] == ["layout"] and found.refs == found.unlabelled == []


def test_coco_split_without_its_file(tmp_path: Path) -> None:
    truth = generic.coco_splits(tmp_path)
    (tmp_path / "annotations" / "instances_val.json").unlink()
    with pytest.raises(DataError, match=r"instances_val\.json: the file is missing\. Expected of"):
        reader(truth.entry).list_images()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"images": "../other"}, "images"),
        ({"images": "/"}, "images"),
        ({"annotations": {"all": "../annotations.json"}}, "annotations.all"),
    ],
)
def test_settings_that_lead_outside(tmp_path: Path, settings: dict[str, Any], key: str) -> None:
    entry = generic.coco(tmp_path).entry
    with pytest.raises(DataError, match=rf"datasets\.mine\.{key} is .*, which leads outside"):
        reader(entry, **settings).list_images()
    table = generic.points_csv(tmp_path).entry
    with pytest.raises(DataError, match=r"datasets\.mine\.table is '\.\./t\.csv', which leads outside"):
        reader(table, table="../t.csv").list_images()


def test_large_coco_file_is_listed_fast_and_read_once(tmp_path: Path) -> None:
    heads = {f"{k % 10}/{k:05d}.jpg": [(k % 30, 5.0)] * 4 for k in range(5000)}
    for name in heads:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "annotations.json").write_text(json.dumps(generic.coco_content(heads)), encoding="utf-8")
    entry = {"format": "coco", "root": str(tmp_path)}
    start = time.perf_counter()
    refs = reader(entry).list_images()
    assert len(refs) == 5000 and time.perf_counter() - start < 5
    start = time.perf_counter()
    made = reader(entry)
    assert sum(len(made.read_points(ref)) for ref in made.list_images()) == 20_000
    assert time.perf_counter() - start < 5


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    entry = generic.coco(tmp_path).entry
    made = reader(entry)
    assert len(made.list_images()) == 3
    change_coco(tmp_path, lambda content: content["images"].pop(2))
    assert len(made.list_images()) == 2


def test_listing_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from crowdmask import config; from crowdmask.datasets import reader_for\n"
        "for path, kind in (('c', 'coco'), ('t', 'points'), ('l', 'labelme')):\n"
        f"    e = config.load({{'datasets': {{'u': {{'format': kind, 'root': {str(tmp_path)!r} + '/' + path}}}}}})\n"
        "    assert reader_for('u', e.datasets['u'], 'r').list_images()\n"
        "print([m for m in ('torch', 'skimage', 'scipy', 'cv2', 'PIL', 'pandas') if m in sys.modules])"
    )
    for name, maker in (("c", generic.coco), ("t", generic.points_csv), ("l", generic.labelme)):
        (tmp_path / name).mkdir()
        maker(tmp_path / name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
