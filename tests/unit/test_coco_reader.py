"""Large COCO files read image by image, against pycocotools and json."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from crowdmask import json_stream
from crowdmask.errors import DataError
from crowdmask.export import coco_reader
from crowdmask.export.coco_reader import CocoFile

H, W = 12, 17


def counts_of(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def content(rng, images=3, annotations=8):
    made = {
        "info": {"note": 'é "[{]}" \\ ü'},
        "categories": [{"id": 1, "name": "head"}],
        "images": [{"id": 10 + k, "file_name": f"train/ä{k}.jpg", "height": H, "width": W} for k in range(images)],
        "annotations": [],
    }
    for number in range(annotations):
        mask = rng.random((H, W)) < 0.3
        counts = counts_of(mask)
        if number % 3 == 1:
            flat = np.concatenate([[0], mask.ravel(order="F"), [1 - mask[-1, -1]]])
            edges = np.flatnonzero(np.diff(flat))
            counts = np.diff(np.concatenate([[0], edges])).tolist()
            assert sum(counts) == H * W
        drawn = {"size": [H, W], "counts": counts}
        if number % 3 == 2:
            drawn = [[1.0, 1.5, 9.25, 2, 6, 8.5], [10, 3, 15, 3, 15, 7]]
        image = int(rng.integers(10, 10 + images))
        made["annotations"].append(
            {"id": number + 1, "image_id": image, "category_id": 1, "segmentation": drawn, "note": "é{[", "iscrowd": 0}
        )
    return made


def write(path, value, **how):
    path.write_text(json.dumps(value, **how), encoding="utf-8")
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    chunk=st.sampled_from([1, 7, 64, 1 << 20]),
    how=st.integers(0, 3),
    order=st.permutations(["info", "categories", "images", "annotations"]),
)
def test_any_layout_gives_what_pycocotools_gives(tmp_path, monkeypatch, capsys, seed, chunk, how, order):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    made = content(np.random.default_rng(seed))
    made = {key: made[key] for key in order}
    options = [{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}][how]
    path = write(tmp_path / "coco.json", made, **options)
    theirs = COCO(str(path))
    file = CocoFile(path)
    assert file.info == made["info"] and file.categories == {1: "head"} and file.count == 8
    assert [(i.id, i.file_name) for i in file.images.values()] == [(i["id"], i["file_name"]) for i in made["images"]]
    seen = 0
    for (image, annotations), found in zip(file.annotations(), file.instances(), strict=True):
        expected = theirs.imgToAnns[image.id]
        assert annotations == expected
        assert found.ids.tolist() == [e["id"] for e in expected] and found.image_id == image.file_name[6:-4]
        for window, entry in zip(found.windows, expected, strict=True):
            np.testing.assert_array_equal(window.full(H, W), theirs.annToMask(entry).astype(bool))
            seen += 1
    assert seen == 8


def test_a_file_without_masks_and_one_with_a_mark(tmp_path):
    path = tmp_path / "empty.json"
    path.write_bytes(b'\xef\xbb\xbf {"images": [], "annotations" : [ ] }\n')
    assert list(CocoFile(path).instances()) == []


def test_our_keys_are_kept(tmp_path):
    entry = {"id": 5, "image_id": 1, "segmentation": {"size": [2, 2], "counts": [0, 4]}, "point_id": 0}
    image = {"id": 1, "file_name": "a/b.jpg", "height": 2, "width": 2, "image_id": "b", "split": "a"}
    found = next(CocoFile(write(tmp_path / "c.json", {"images": [image], "annotations": [entry]})).instances())
    assert (found.image_id, found.split, found.ids.tolist(), found.windows[0].area) == ("b", "a", [0], 4)


def good():
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [{"id": 7, "image_id": 1, "segmentation": {"size": [2, 3], "counts": [1, 5]}}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("[]", "a list of results"),
        ('{"images": [], "annotations": [}', "not valid JSON"),
        ('{"images": [], "annotations": [{"image_id": 1}', "it ends too early"),
        ('{"images": []}', "it lacks"),
        ('{"images": [], "annotations": 3}', "is no list"),
        ('{"images": [], "annotations": []} x', "something follows after its end"),
        ('{"images": [], "images": [], "annotations": []}', "key 'images' twice"),
        ('{"images": [{"id": 1, "id": 1}], "annotations": []}', "key 'id' twice in one object"),
        ('{"images": [NaN], "annotations": []}', "NaN is not a number"),
        ('{"images": [' + "[" * 100_000, "recursion"),
        (b'{"images": ["\xff"]}', "not valid UTF-8"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        CocoFile(path)
    assert "x.json" in str(caught.value)


def test_a_cut_file_is_an_error_wherever_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    whole = json.dumps(good())
    for end in range(len(whole)):
        path = tmp_path / "cut.json"
        path.write_text(whole[:end])
        with pytest.raises(DataError):
            CocoFile(path)


def test_an_entry_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 200)
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    made = good()
    made["annotations"][0]["note"] = ["x"] * 1000
    with pytest.raises(DataError, match="an entry of more than 200 characters"):
        CocoFile(write(tmp_path / "large.json", made))


FAULTS = [
    (("images", 0, "height"), 0, "needs `height`"),
    (("images", 0, "height"), 60_000, None),
    (("images", 0, "id"), "1", "no whole number as `id`"),
    (("annotations", 0, "image_id"), 2, "not listed"),
    (("annotations", 0, "segmentation"), None, "no mask"),
    (("annotations", 0, "segmentation"), [], "no mask"),
    (("annotations", 0, "segmentation"), [[1, 2]], "fewer than three"),
    (("annotations", 0, "segmentation"), [[1, 2, 3]], "an x lacks its y"),
    (("annotations", 0, "segmentation"), [[1, 2, 1e30, 3, 4, 5]], "within"),
    (("annotations", 0, "segmentation", "size"), [3, 2], "another size"),
    (("annotations", 0, "segmentation", "counts"), [1, 4], "add up to 5"),
    (("annotations", 0, "segmentation", "counts"), [-1, 7], "a run length is negative"),
    (("annotations", 0, "segmentation", "counts"), "é", "foreign character"),
    (("annotations", 0, "segmentation", "counts"), "15000", "add up"),
]


@pytest.mark.parametrize(("place", "value", "message"), FAULTS)
def test_faults_are_named(tmp_path, place, value, message):
    made = good()
    part = made
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(DataError, match=message or "size|pixels"):
        list(CocoFile(write(tmp_path / "x.json", made)).instances())


def test_a_twice_listed_image_is_refused(tmp_path):
    made = good()
    made["images"] *= 2
    with pytest.raises(DataError, match="the id 1 of another image"):
        CocoFile(write(tmp_path / "x.json", made))


def test_masks_too_large_for_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_reader, "MAX_KEPT", 4)
    with pytest.raises(DataError, match=r"a\.jpg: the boxes"):
        list(CocoFile(write(tmp_path / "x.json", good())).instances())


def test_masks_that_cost_more_than_the_file_pays_for_are_refused(tmp_path, monkeypatch):
    made = good()
    made["annotations"] = [{**made["annotations"][0], "segmentation": [[0, 0, 3, 0, 3, 2]]}] * 40
    path = write(tmp_path / "x.json", made)
    assert len(next(CocoFile(path).instances()).windows) == 40
    monkeypatch.setattr(coco_reader, "MAX_WORK", 1000)
    monkeypatch.setattr(coco_reader, "WORK_A_BYTE", 0)
    with pytest.raises(DataError, match=r"annotation \d+ of image a\.jpg: .*too costly to draw"):
        list(CocoFile(path).instances())


@pytest.mark.parametrize("most", [0, 5, 1 << 20])
def test_masks_of_all_kinds_keep_their_order_however_many_are_decoded_at_once(tmp_path, monkeypatch, most):
    monkeypatch.setattr(coco_reader, "_TOGETHER", most)
    made = content(np.random.default_rng(5), images=1, annotations=20)
    printed = made["annotations"][0]["segmentation"]
    path = write(tmp_path / "x.json", made)
    theirs = COCO(str(path))
    # As Python prints bytes, which some tools write.
    printed["counts"] = str(printed["counts"].encode())
    found = next(CocoFile(write(path, made)).instances())
    for window, entry in zip(found.windows, theirs.dataset["annotations"], strict=True):
        np.testing.assert_array_equal(window.full(H, W), theirs.annToMask(entry).astype(bool))


def test_half_a_pair_of_utf_16_is_a_foreign_character(tmp_path):
    made = good()
    made["annotations"][0]["segmentation"]["counts"] = "\ud800"
    with pytest.raises(DataError, match=r"annotation 0 .*foreign character"):
        list(CocoFile(write(tmp_path / "x.json", made)).instances())


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    made = good()
    file = CocoFile(write(tmp_path / "x.json", made))
    made["images"][0]["id"] = made["annotations"][0]["image_id"] = 2
    write(tmp_path / "x.json", made)
    with pytest.raises(DataError, match="has changed while it was read"):
        list(file.instances())
