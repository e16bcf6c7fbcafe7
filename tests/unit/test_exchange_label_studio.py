"""Label Studio JSON: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from exchange_cases import (
    assert_same,
    file,
    full,
    label,
    label_maps,
    masks_of,
    mutations,
    picture_of,
    record,
    survive,
    task,
)
from exchange_cases import tricky as tricky_masks
from hypothesis import given, settings
from test_exchange_label_studio_rle import group, header, packed, slow_decode

from crowdmask.corrections.exchange import jsons, label_studio
from crowdmask.errors import DataError

DRAWN = picture_of("..##. .#.#. .###.")
SIZE = {"original_width": 5, "original_height": 3, "image_rotation": 0}


def code(alpha: np.ndarray) -> list[int]:
    """Brush code as written by hand: every pixel's four values one by one."""
    bits = "".join(group(0, [value] * 4) for value in alpha.ravel().tolist())
    return list(packed(header(4 * alpha.size) + bits))


def brush(alpha: np.ndarray | None = None, **more) -> dict:
    alpha = DRAWN * 255 if alpha is None else alpha
    value = {"format": "rle", "rle": code(alpha), "brushlabels": ["head"]}
    return {"id": "Xy1", "type": "brushlabels", "from_name": "mask", "to_name": "image", "origin": "manual", **SIZE,
            "value": value, **more}  # fmt: skip


def outline(points: list, **more) -> dict:
    value = {"points": points, "closed": True, "polygonlabels": ["head"]}
    return {"id": "Xy2", "type": "polygonlabels", **SIZE, "value": value, **more}


def annotation(*regions: dict, **more) -> dict:
    return {"id": 5, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": list(regions),
            "created_at": "2024-05-01T10:00:00.123456Z", "updated_at": "2024-05-02T10:00:00.123456Z",
            "lead_time": 3.5, **more}  # fmt: skip


def export(*annotations: dict, **more) -> dict:
    return {"id": 1, "annotations": list(annotations), "drafts": [], "predictions": [], "project": 3,
            "data": {"image": "/data/upload/3/1a2b3c4d-0001-a.png"}, "meta": {}, **more}  # fmt: skip


def pictures(*tasks) -> list:
    return list(label_studio.read(file(json.dumps(tasks))))


def refused(content) -> str:
    content = content if isinstance(content, bytes | str) else json.dumps(content)
    with pytest.raises(DataError) as caught:
        list(label_studio.read(file(content)))
    return str(caught.value)


def written(tmp_path, *tasks) -> bytes:
    paths = label_studio.write(tmp_path, record(*tasks))
    assert [path.name for path in paths] == ["tasks.json", "label_config.xml"]
    return paths[0].read_bytes()


# Writing


@settings(max_examples=100, deadline=None)
@given(label_maps())
def test_masks_come_back_as_they_went(tmp_path_factory, labels):
    height, width = labels.shape
    masks = masks_of(labels)
    (picture,) = label_studio.read(
        file(written(tmp_path_factory.mktemp("out"), task(masks, crop=(0, 0, width, height))))
    )
    if masks:
        assert (picture.height, picture.width, picture.name) == (height, width, "0001-a.png")
    assert_same(picture, masks)


def test_masks_of_a_crop_are_in_its_pixels_and_what_it_does_not_show_is_left_out(tmp_path):
    masks = tricky_masks()
    content = written(tmp_path, task(masks), task(masks, "0002-a.png", crop=(18, 2, 30, 30)))
    whole, crop = label_studio.read(file(content))
    assert_same(whole, masks)
    assert_same(crop, {key: value[2:32, 18:48] for key, value in masks.items() if value[2:32, 18:48].any()})


def test_a_file_is_what_label_studio_takes(tmp_path):
    name = "0001 ä+&#?%.png"
    (made,) = json.loads(written(tmp_path, task({12: DRAWN}, name)))
    assert made.keys() == {"data", "predictions"}
    address = urlsplit(made["data"]["image"])
    assert (address.path, parse_qs(address.query)["d"]) == ("/data/local-files/", [f"images/{name}"])
    (prediction,) = made["predictions"]
    (region,) = prediction["result"]
    values = np.array(slow_decode(bytes(region["value"].pop("rle")))).reshape(3, 5, 4)
    np.testing.assert_array_equal(values, np.repeat(DRAWN[:, :, None] * 255, 4, axis=2))
    assert region == {
        "id": "p12",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        **SIZE,
        "value": {"format": "rle", "brushlabels": ["head"]},
        "meta": {"text": ["point_id=12"]},
    }
    config = ElementTree.parse(tmp_path / "label_config.xml").getroot()
    assert config.find("Image").attrib.items() >= {"name": "image", "value": "$image"}.items()
    assert config.find("BrushLabels").attrib == {"name": "mask", "toName": "image"}
    assert [label.get("value") for label in config.iter("Label")] == ["head", "head"]
    (picture,) = label_studio.read(file((tmp_path / "tasks.json").read_bytes()))
    assert picture.name == name


def test_large_exports_are_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(label_studio, "LARGEST", 5000)
    tasks = [task(tricky_masks(), f"{n:04d}-a.png") for n in range(7)]
    paths = label_studio.write(tmp_path, record(*tasks))
    assert [path.name for path in paths][:2] == ["tasks.json", "tasks-2.json"]
    assert 3 <= len(paths) <= 8 and paths[-1].name == "label_config.xml"
    back = [picture for path in paths[:-1] for picture in label_studio.read(file(path.read_bytes()))]
    assert [picture.name for picture in back] == [task.name for task in tasks]


# Reading


def test_an_export_is_read():
    ring = outline([[20, 0], [80, 0], [80, 66.66666666666667], [20, 66.66666666666667]])
    (picture,) = pictures(export(annotation(brush(meta={"text": ["point_id=12"]}), ring)))
    assert (picture.name, picture.height, picture.width) == ("0001-a.png", 3, 5)
    assert (picture.tool, picture.author) == ("Label Studio", "user 1")
    assert picture.time == "2024-05-02T10:00:00.123456+00:00"
    (first, drawn), (second, polygon) = full(picture)
    assert (first, second) == (12, None)
    assert [shape.exact for shape in picture.shapes] == [True, False]
    np.testing.assert_array_equal(drawn, DRAWN)
    # From 20 to 80 % of five pixels: the corners 1 to 4, pixels 1, 2 and 3.
    np.testing.assert_array_equal(polygon, picture_of(".###. .###. ....."))
    assert picture.shapes[1].where == "task 0, annotation 0, region 1"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/3/1a2b3c4d-0001-a.png", "0001-a.png"),
        ("/data/local-files/?d=images/0001-a.png", "0001-a.png"),
        ("/data/local-files/?d=export%2Fimages%2F0001%20%C3%A4%2B%26%3F.png", "0001 ä+&?.png"),
        ("/data/local-files/?d=images/a.png&x=1", "a.png"),
        ("s3://bucket/folder/0001-a.png", "0001-a.png"),
        ("https://x.org:80/a/0001-a.png?token=/b#c", "0001-a.png"),
        ("images\\0001-a.png", "0001-a.png"),
        ("0001-a.png", "0001-a.png"),
        ("1a2b3c4-0001.png", "1a2b3c4-0001.png"),
        ("1A2B3C4D-0001.png", "1A2B3C4D-0001.png"),
        ("http://[broken/0001-a.png", "0001-a.png"),
        ("%ff.png", "\ufffd.png"),
    ],
)
def test_the_name_is_the_end_of_the_address_without_the_prefix_of_uploads(address, name):
    (picture,) = pictures(export(annotation(brush()), data={"image": address, "other": "b.png"}))
    assert picture.name == name


def test_the_picture_may_stand_under_another_key():
    (picture,) = pictures(export(annotation(brush()), data={"photo": "x/a.JPG", "who": "bob", "n": 3}))
    assert picture.name == "a.JPG"


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"id": "p12"}, 12),
        ({"id": "p12x"}, None),
        ({"id": "p99999999999"}, None),
        ({"id": "p12", "meta": {"text": ["point_id=13"]}}, 13),
        ({"meta": {"text": ["a note", "point_id = 14, unsure"]}}, 14),
        ({"meta": {"text": "point_id=15"}}, 15),
        ({"meta": {"text": [None, 3]}, "id": "p1"}, 1),
        ({"meta": {"text": ["my_point_id=14"]}}, None),
        ({"meta": {"text": ["point_id=2147483648"]}}, None),
        ({"meta": {"text": ["point_id=123456789012"]}}, None),
        ({"meta": ["point_id=3"], "id": 7}, None),
    ],
)
def test_the_id_is_in_the_text_or_the_regions_id(more, wanted):
    (picture,) = pictures(export(annotation(brush(**more))))
    assert picture.shapes[0].point_id == wanted


def test_each_annotator_is_a_picture_and_the_cancelled_are_none():
    who = [{"id": 4, "email": "ada@example.org"}, {"id": 9}, 17, None, "kim"]
    made = [annotation(brush(), completed_by=value) for value in who]
    found = pictures(
        export(*made, annotation(brush(), was_cancelled=True), predictions=[annotation(outline([[0, 0]]))])
    )
    assert [picture.author for picture in found] == ["ada@example.org", "user 9", "user 17", None, "kim"]
    assert {picture.name for picture in found} == {"0001-a.png"}


def test_predictions_count_where_nobody_has_annotated():
    prediction = annotation(brush(id="p3"))
    (picture,) = pictures(export(predictions=[prediction, 77]))
    assert picture.shapes[0].point_id == 3
    assert pictures(export(annotation(brush(), was_cancelled=True), predictions=[prediction])) == []
    assert pictures(export(), {"data": {}, "annotations": None}) == []


def test_an_annotation_without_regions_is_an_empty_picture():
    (deleted,) = pictures(export(annotation(), predictions=[annotation(brush())]))
    assert (deleted.height, deleted.width, deleted.shapes) == (3, 5, ())
    (unknown,) = pictures(export(annotation()))
    assert (unknown.height, unknown.width, unknown.shapes) == (0, 0, ())


def test_a_shape_that_is_written_once_for_each_answer_counts_once():
    first = brush(type="brush")
    again = brush(type="labels", value={**first["value"], "labels": ["head"]})
    rated = brush(type="choices", value={**first["value"], "choices": ["sure"]})
    other = brush(DRAWN[::-1] * 255)
    note = {"id": "z", "type": "choices", "value": {"choices": ["crowd"]}}
    link = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    (picture,) = pictures(export(annotation(first, again, note, rated, link, other, brush(id="own"))))
    assert [shape.where[-1] for shape in picture.shapes] == ["0", "5", "6"]


def test_a_blurred_brush_is_cut_in_its_middle():
    alpha = np.array([[0, 3, 127, 128, 255], [0, 0, 255, 255, 90], [0] * 5])
    (picture,) = pictures(export(annotation(brush(alpha))))
    np.testing.assert_array_equal(full(picture)[0][1], alpha >= 128)


def test_a_task_alone_and_a_byte_order_mark_and_spaces_are_fine():
    one = json.dumps(export(annotation(brush())))
    many = json.dumps([export(annotation(brush())), export(annotation(brush(id='x"]}\\')))], indent=3)
    for content, number in ((one, 1), (many, 2), (f"\ufeff {many} \n", 2), ("[]", 0), (" [ ] ", 0)):
        assert len(list(label_studio.read(file(content)))) == number


def test_belonging():
    assert label_studio.belongs(file(json.dumps([export(annotation(brush()))])))
    assert label_studio.belongs(file(json.dumps(export(predictions=[]))))
    assert label_studio.belongs(file(json.dumps([{"image": "a.png", "mask": [brush()["value"]]}])))  # JSON-MIN
    assert not label_studio.belongs(file(json.dumps({"images": [], "annotations": [], "categories": []})))  # COCO
    assert not label_studio.belongs(file(json.dumps([{"image_id": 1, "segmentation": {}}])))
    assert not label_studio.belongs(file("<data>annotations</data>"))
    assert not label_studio.belongs(file(""))


# Refusing


def with_rle(rle, **more) -> dict:
    return export(annotation(brush(value={"format": "rle", "rle": rle}, **more)))


HUGE = list(packed(header(10_000_000_000 % 2**32) + group(3, [255], 65536)))


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (with_rle(HUGE), "region 0: the run lengths claim 1410065408 values, 15 pixels have 60"),
        (with_rle(HUGE, original_width=65535, original_height=65535), "its size 65535 x 65535 is beyond 65535"),
        (with_rle(HUGE, original_width=10**12), "its size 1000000000000 x 3 is beyond 65535 pixels a side"),
        (with_rle([1, 2, -3]), "its rle holds numbers that are no bytes (0 to 255)"),
        (with_rle([1, 2, 256]), "its rle holds numbers that are no bytes (0 to 255)"),
        (with_rle([1, 2.5]), "its rle is no list of whole numbers"),
        (with_rle(["1"]), "its rle is no list of whole numbers"),
        (with_rle([]), "cut off in their header"),
        (with_rle(code(DRAWN * 255)[:-9]), "the run lengths are cut off after about"),
        (with_rle("0,1"), "a region of the type 'brushlabels' that is neither brush nor polygon"),
        (export(annotation(brush(original_width=0))), "its size is no pair of whole numbers from 1: 0 x 3"),
        (export(annotation(brush(original_height=None))), "no pair of whole numbers from 1: 5 x None"),
        (export(annotation(brush(original_height=[2]))), "no pair of whole numbers from 1: 5 x a list of 1"),
        (export(annotation(brush(), brush(original_width=6))), "region 1: its picture has 6 x 3 pixels, that"),
        (export(annotation(brush(image_rotation=90))), "its picture was turned"),
        (export(annotation(outline([[0, 0], [1, 1], [2]]))), "its points are not pairs of numbers"),
        (export(annotation(outline([[0, 0], [1, True], [2, 1]]))), "its points are not pairs of numbers"),
        (export(annotation(outline([[0, 0], [1, "1"], [2, 1]]))), "its points are not pairs of numbers"),
        (export(annotation(outline([]))), "an outline without points"),
        (export(annotation(outline([[0, 0], [1, 10**400], [2, 1]]))), "a coordinate is not finite"),
        (export(annotation(outline([[0, 0], [1, 1e30], [2, 1]]))), "a coordinate beyond 1000000 pixels"),
        (export(annotation(outline([[1, 1]] * 1_000_000))), "an outline of more than 100000 points"),
        (export(annotation({"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 2, "height": 3}})),
         "task 0, annotation 0, region 0: a region of the type 'rectanglelabels' that is neither brush nor polygon"),
        (export(annotation({"type": "ellipselabels", "value": {"x": 1, "radiusX": 2}})), "'ellipselabels' that is"),
        (export(annotation({"type": "bitmask", "value": {"imageDataURL": "data:"}})), "'bitmask' that is neither"),
        (export(annotation({"type": {}, "value": 3})), "the type a table of 0 that is neither"),
        (export(annotation(7)), "region 0: it is no table"),
        (export(7), "annotation 0: it is no table, so this is not a full export"),
        (export(annotation(result={"a": 1})), "its 'result' is no list"),
        (export(annotation(), annotations=3), "task 0: its 'annotations' is no list"),
        ({"image": "a.png", "mask": [{"format": "rle", "rle": [1]}]}, "this is not a full export (JSON-MIN has none)"),
        (export(annotation(brush()), data={"a": "x.png", "b": "y.png"}), "which of its data is the picture? a list"),
        (export(annotation(brush()), data={"image": "folder/"}), "which of its data is the picture?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(task, problem):
    message = refused([task])
    assert message.startswith("x.dat: task 0") and problem in message
    assert message.endswith(".") and len(message) < 700


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[{"data": {}, "annotations": [{"x": NaN}]}]', "task 0: not valid JSON (NaN is not a number)"),
        ("[" + "[" * 1000, "not valid JSON: after 0 of task"),
        ('[{"data": ' + "[" * 1000, "task 0: nested deeper than 64"),
        ('{"data": ' + "[" * 100_000, "nested too deeply"),
        ('[{"data": {}}', "not valid JSON: after 1 of task there is no next one, and no end"),
        ('[{"data": {}} {"data": {}}]', "not valid JSON: task 1 does not follow upon a comma"),
        ('[,{"data": {}}]', "not valid JSON: task 0 does not follow upon a comma"),
        ('[{"data": {}},]', "not valid JSON: after 1 of task"),
        ('[{"data": {}}] x', "not valid JSON: after 1 of task"),
        ('[{"data": {"a]', "task 0: not valid JSON"),
        ('[{"data": {]}]', "task 0: not valid JSON"),
        ("[1, 2]", "not valid JSON: after 0 of task"),
        ('[{"data": ' + "9" * 5000 + "}]", "task 0: not valid JSON"),
        (b'[{"data": "\xff"}]', "task 0: not UTF-8 text"),
        ("", "not valid JSON"),
        ("null", "task 0: it has no table 'data'"),
    ],
    ids=label,
)
def test_what_is_no_json_is_refused(content, problem):
    assert problem in refused(content)


def test_what_would_take_too_much_memory_is_not_begun(monkeypatch):
    monkeypatch.setattr(jsons, "MAX_MEMORY", 60_000)
    assert "task 1: too large to be read at once" in refused([export(annotation(brush())), with_rle([0] * 2000)])
    monkeypatch.setattr(jsons, "MAX_BRACKETS", 100)
    assert "task 0: more than 100 lists and tables" in refused([export(meta=[[]] * 200)])
    assert "too large to be read at once" in refused(export(meta=[[]] * 2000))
    monkeypatch.setattr(jsons, "MAX_BYTES", 100)
    assert "more than the 100 that are read" in refused([export()])


def test_masks_that_claim_gigabytes_together_are_refused_before_they_are_made():
    side = 8192
    rle = list(packed(header(4 * side * side) + group(3, [255], 65536) * (4 * side * side // 65536)))
    one = brush(value={"rle": rle}, original_width=side, original_height=side)
    message = refused([export(annotation(*({**one, "id": str(number)} for number in range(6))))])
    assert "region 4: the boxes of the picture's shapes hold too many pixels altogether" in message


def test_damage_gives_pictures_or_a_named_refusal(tmp_path):
    masks = {key: value[:, :20] for key, value in tricky_masks().items() if value[:, :20].any()}
    (made,) = json.loads(written(tmp_path, task(masks)))
    ring = outline([[1, 1], [9.5, 2], [4, 8.25]], original_width=20, original_height=40)
    made["annotations"] = [annotation(*made.pop("predictions")[0]["result"][:2], ring)]
    parts = [b"-1", b"256", b"99999999999", b"NaN", b"[", b"}", b'"', b",", b"null", b"{}", b"1e999", b"\xff", b'"p1"']
    fine, wrong = survive(label_studio.read, mutations(json.dumps([made]).encode(), 400, parts))
    assert fine > 20 and wrong > 200
