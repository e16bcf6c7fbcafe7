"""CVAT for images 1.1: what is written, what is read, what is refused."""

from __future__ import annotations

import json
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

from crowdmask.corrections.exchange import cvat
from crowdmask.errors import DataError

META = """<meta><task><id>7</id><name>heads</name><size>1</size><mode>annotation</mode>
<created>2024-05-01 10:00:00.000001+00:00</created><updated>2024-05-02 11:12:13.456789+00:00</updated>
<subset>Train</subset><labels><label><name>head</name><color>#33ddff</color><type>any</type><attributes><attribute>
<name>point_id</name><mutable>True</mutable><input_type>number</input_type><default_value>-1</default_value>
<values>-1\n2147483647\n1</values></attribute></attributes></label></labels>
<segments><segment><id>9</id><start>0</start><stop>0</stop><url>http://localhost:8080/api/jobs/9</url></segment>
</segments><owner><username>olga</username><email>olga@example.org</email></owner>
<assignee><username>ada</username><email>a@example.org</email></assignee></task>
<dumped>2024-05-03 00:00:00+00:00</dumped></meta>"""


def dump(shapes: str, size: str = 'width="8" height="6"', meta: str = META, head: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{head}<annotations>\n  <version>1.1</version>\n  {meta}\n'
        f'  <image id="0" name="images/a &amp; b.png" {size}>\n{shapes}\n  </image>\n</annotations>\n'
    )


def mask(rle: str = "1, 2, 3, 3", box: str = 'left="2" top="1" width="3" height="3"', inner: str = "") -> str:
    return f'<mask label="head" source="manual" occluded="0" rle="{rle}" {box} z_order="0">{inner}</mask>'


def polygon(points: str, more: str = "") -> str:
    return f'<polygon label="head" source="manual" occluded="0" points="{points}" z_order="0"{more}></polygon>'


def ident(value: str) -> str:
    return f'<attribute name="point_id">{value}</attribute>'


def only(content: str | bytes):
    (picture,) = cvat.read(file(content))
    return picture


def refused(content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        list(cvat.read(file(content)))
    return str(caught.value)


def written(tmp_path, *tasks):
    paths = cvat.write(tmp_path, record(*tasks))
    assert [path.name for path in paths] == ["annotations.xml", "labels.json"]
    return paths[0].read_bytes()


# Writing


@settings(max_examples=150, deadline=None)
@given(label_maps())
def test_masks_come_back_as_they_went(tmp_path_factory, labels):
    masks = masks_of(labels)
    height, width = labels.shape
    content = written(tmp_path_factory.mktemp("out"), task(masks, crop=(0, 0, width, height)))
    picture = only(content)
    assert (picture.height, picture.width, picture.name) == (height, width, "0001-a.png")
    assert_same(picture, masks)


def test_masks_of_a_crop_are_in_its_pixels_and_what_it_does_not_show_is_left_out(tmp_path):
    masks = tricky_masks()
    content = written(tmp_path, task(masks), task(masks, "0002-a.png", crop=(18, 2, 30, 30)))
    whole, crop = cvat.read(file(content))
    assert_same(whole, masks)
    cut = {key: value[2:32, 18:48] for key, value in masks.items() if value[2:32, 18:48].any()}
    assert len(cut) == 2
    assert_same(crop, cut)


def test_a_file_is_what_cvat_takes(tmp_path):
    drawn = {12: picture_of("..... ..##. .#.#. .###. .....")}
    root = ElementTree.fromstring(written(tmp_path, task(drawn, "a\"<&>'\n.png")))
    assert [child.tag for child in root] == ["version", "meta", "image"]
    assert root.findtext("version") == "1.1"
    (image,) = root.findall("image")
    assert image.attrib == {"id": "0", "name": "a\"<&>'\n.png", "width": "5", "height": "5"}
    (shape,) = image
    # The box has the rows .## / #.# / ###: one background pixel, then two, ...
    wanted = {"rle": "1, 3, 1, 4", "left": "1", "top": "1", "width": "3", "height": "3"}
    assert shape.attrib == {"label": "head", "source": "manual", "occluded": "0", "z_order": "0", **wanted}
    (attribute,) = shape
    assert (attribute.tag, attribute.get("name"), attribute.text) == ("attribute", "point_id", "12")
    declared = root.find("meta/task/labels/label")
    assert declared.findtext("name") == "head"
    said = {child.tag: child.text for child in declared.find("attributes/attribute")}
    (label,) = json.loads((tmp_path / "labels.json").read_text())
    (raw,) = label["attributes"]
    assert (label["name"], label["type"]) == ("head", "any")
    assert raw == {
        "name": "point_id",
        "mutable": True,
        "input_type": "number",
        "default_value": "-1",
        "values": ["-1", "2147483647", "1"],
    }
    assert said == {**raw, "mutable": "True", "values": "-1\n2147483647\n1"}


def test_a_mask_whose_first_pixel_is_set_begins_with_an_empty_background(tmp_path):
    root = ElementTree.fromstring(written(tmp_path, task({3: picture_of("## #.")})))
    assert root.find("image/mask").get("rle") == "0, 3, 1"


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the name 'a.*png' cannot stand in XML. Rename the image"):
        cvat.write(tmp_path, record(task({1: picture_of("#")}, "a\x01.png")))
    assert not (tmp_path / "annotations.xml").exists()


# Reading


def test_a_dump_of_a_task_is_read():
    shapes = mask(inner=ident("12")) + polygon("1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00")
    picture = only(dump("<tag label='blurred' source='manual'></tag>" + shapes))
    assert (picture.name, picture.height, picture.width) == ("images/a & b.png", 6, 8)
    assert (picture.tool, picture.author, picture.time) == ("CVAT 1.1", "ada", "2024-05-02T11:12:13.456789+00:00")
    (first, drawn), (second, outline) = full(picture)
    assert (first, second) == (12, None)
    assert [shape.exact for shape in picture.shapes] == [True, False]
    np.testing.assert_array_equal(drawn, picture_of("........ ...##... ........ ..###... ........ ........"))
    # Corners of pixels: from 1 to 4 are the pixels 1, 2 and 3.
    np.testing.assert_array_equal(outline, picture_of("........ .###.... .###.... ........ ........ ........"))
    centres = np.zeros((6, 8), bool)
    centres[1:4, 1:5] = True
    assert any(np.array_equal(window.full(6, 8), centres) for window in picture.shapes[1].readings[1:])
    assert picture.shapes[0].where == "image 0 (images/a & b.png), mask 0"


def test_a_mask_on_the_whole_picture_takes_no_more_than_its_pixels():
    picture = only(dump(mask("1000000, 3, 999, 1, 98998997", 'left="0" top="0" width="10000" height="10000"'),
                        'width="10000" height="10000"'))  # fmt: skip
    (window,) = picture.shapes[0].readings
    # Pixels 1,000,000 to 1,000,002 are row 100, columns 0 to 2; 1,001,002 is row 100, column 1002.
    assert (window.x0, window.y0, window.mask.shape) == (0, 100, (1, 1003))
    assert np.flatnonzero(window.mask).tolist() == [0, 1, 2, 1002]


def test_fragments_with_one_id_are_shapes_of_their_own():
    square = "{0}.00,0.00;{1}.00,0.00;{1}.00,2.00;{0}.00,2.00"
    parts = [polygon(square.format(x, x + 2), ' group_id="4"').replace("><", f">{ident('9')}<") for x in (0, 4)]
    picture = only(dump("".join(parts)))
    assert [shape.point_id for shape in picture.shapes] == [9, 9]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("12", 12), (" 12\n", 12), ("12.0", 12), ("0", 0), ("-1", None), ("", None), ("head", None), ("12.5", None),
     ("1e3", None), ("2147483647", 2147483647), ("2147483648", None), ("9" * 5000, None), ("١٢", None)],
)  # fmt: skip
def test_an_id_is_a_whole_number_or_lost(text, wanted):
    assert only(dump(mask(inner=ident(text)))).shapes[0].point_id == wanted


def test_other_attributes_are_no_ids():
    inner = '<attribute name="age">5</attribute>'
    assert only(dump(mask(inner=inner))).shapes[0].point_id is None
    assert only(dump(mask(inner=ident("4") + inner))).shapes[0].point_id == 4


def test_who_and_when_of_jobs_projects_and_their_tasks():
    person = "<{0}><username>{1}</username><email>{1}@x</email></{0}>"
    job = f"<meta><job><id>3</id>{person.format('assignee', 'bob')}<updated>2024-01-01</updated></job></meta>"
    assert (only(dump("", meta=job)).author, only(dump("", meta=job)).time) == ("bob", "2024-01-01T00:00:00")
    tasks = "".join(
        f"<task><id>{n}</id><updated>2024-01-0{n} 00:00:00+00:00</updated>{person.format('assignee', who)}</task>"
        for n, who in ((1, "eve"), (2, "kim"))
    )
    project = f"<meta><project><id>1</id>{person.format('owner', 'pat')}<tasks>{tasks}</tasks></project></meta>"
    picture = only(dump("", size='width="8" height="6" task_id="2"', meta=project))
    assert (picture.author, picture.time) == ("kim", "2024-01-02T00:00:00+00:00")
    nobody = (
        "<meta><task><owner><username>pat</username></owner><assignee></assignee></task><dumped>soon</dumped></meta>"
    )
    assert (only(dump("", meta=nobody)).author, only(dump("", meta=nobody)).time) == ("pat", None)
    assert (only(dump("", meta="")).author, only(dump("", meta="")).time) == (None, None)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_file_read_in_small_pieces_is_the_same(monkeypatch, tmp_path, chunk):
    content = written(tmp_path, task(tricky_masks()), task(tricky_masks(), "0002-ä.png"))
    whole = [(p.name, [(s.where, s.point_id) for s in p.shapes]) for p in cvat.read(file(content))]
    monkeypatch.setattr(cvat, "_CHUNK", chunk)
    pictures = list(cvat.read(file(content)))
    assert [(p.name, [(s.where, s.point_id) for s in p.shapes]) for p in pictures] == whole
    for picture in pictures:
        assert_same(picture, tricky_masks())


def test_belonging():
    assert cvat.belongs(file(dump("")))
    assert cvat.belongs(file(b"\xef\xbb\xbf" + dump("").encode()))
    assert cvat.belongs(file("<annotations/>"))
    assert not cvat.belongs(file("<annotation><filename>a.png</filename></annotation>"))  # Pascal VOC
    assert not cvat.belongs(file('{"x": "<annotations>"}'))
    assert not cvat.belongs(file(""))


# Refusing


BOMB = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefg", "bcdefgh", strict=True)) + "]>"  # fmt: skip # noqa: E501


@pytest.mark.parametrize(
    "head",
    [BOMB, "<!DOCTYPE annotations>", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>",
     "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>", "<!DOCTYPE x [<!ENTITY % p SYSTEM 'http://x/y'> %p;]>"],
)  # fmt: skip
def test_no_document_type_and_no_entity_is_let_in(head):
    content = dump(mask(inner=ident("&h;")), head=head)
    assert cvat.belongs(file(content))
    assert "it declares a document type or entities" in refused(content)


@pytest.mark.parametrize("kind", ["box", "points", "polyline", "ellipse", "cuboid", "skeleton"])
def test_shapes_that_are_no_masks_are_named_not_dropped(kind):
    message = refused(dump(mask() + f'<{kind} label="he ad" points="1,1" xtl="1"></{kind}>'))
    assert message.startswith(
        f"x.dat: image 0 (images/a & b.png), {kind} 1: a shape of the label 'he ad' that is no mask"
    )
    assert "draw it as mask or polygon" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (dump(mask("1, -2, 7, 3")), "mask 0: its rle holds a negative run"),
        (dump(mask("1, 2, 3, 4")), "its rle adds up to 10 pixels, its box has 9"),
        (dump(mask("9999999999, 1")), "its rle is no list of whole numbers of at most 9 digits"),
        (dump(mask("1, 2.5, 5.5")), "its rle is no list of whole numbers"),
        (dump(mask("")), "its rle is no list of whole numbers"),
        (dump(mask("1," * (1 << 22) + "1")), "mask 0: its rle has more than 4194304 runs"),
        (dump(mask("1,,8")), "its rle is no list of whole numbers"),
        (dump(mask("٩")), "its rle is no list of whole numbers"),
        (dump(mask("9", 'left="6" top="1" width="3" height="3"')), "is not within the 8 x 6 pixels of the image"),
        (dump(mask("9", 'left="-1" top="1" width="3" height="3"')), "is not within the 8 x 6 pixels of the image"),
        (dump(mask("9", 'left="1" top="1" width="3"')), "is not within the 8 x 6 pixels of the image"),
        (dump(mask("0", 'left="1" top="1" width="0" height="3"')), "is not within the 8 x 6 pixels of the image"),
        (dump(mask("1, 99999", 'left="0" top="0" width="100000" height="100000"')), "is not within the 8 x 6 pixels"),
        (dump(mask(), 'width="100000" height="100000"'), "its size 100000 x 100000 is beyond 65535 pixels a side"),
        (dump(mask(), 'width="40000" height="40000"'), "beyond 65535 pixels a side or 268435456 altogether"),
        (dump(mask(), 'width="8"'), "its size is no pair of whole numbers from 1: '8' x None"),
        (dump("", 'width="0" height="nan"'), "its size is no pair of whole numbers from 1: '0' x 'nan'"),
        (dump(polygon("1,1;2,nan;3,3")), "polygon 0: a coordinate is not finite"),
        (dump(polygon("1,1;2,1e999;3,3")), "a coordinate is not finite"),
        (dump(polygon("1,1;2,2000000;3,3")), "a coordinate beyond 1000000 pixels"),
        (dump(polygon("1,1;2;3,3")), "its points are not pairs of numbers"),
        (dump(polygon("")), "its points are not pairs of numbers"),
        (dump(polygon("1,1;2,x;3,3")), "its points are not pairs of numbers"),
        (dump(polygon("1.00,1.00;" * 1_000_000 + "1,1")), "an outline of more than 100000 points"),
        (dump("<blob/>"), "blob 0: this element is not known here"),
        (dump("").replace('name="images/a &amp; b.png"', ""), "image 0 (): it has no name"),
        (dump("<track/>").replace("<image", "<track id='1'/><image"), "it has tracks of a video"),
        (dump("<a>" * 40), "image 0 (images/a & b.png), a 0: this element is not known here"),
        (dump("", meta="<meta>" + "<a>" * 40), "nested deeper than 32"),
        ("<annotations><image", "line 1: not valid XML"),
        ("<annotations>\n<x>&undeclared;</x></annotations>", "line 2: not valid XML"),
        ("<project/>", "its root is 'project', not 'annotations'"),
        ("", "not valid XML"),
        (b"\xff\xfe<\x00a", "not valid XML"),
        (dump("\udcff").encode("utf-8", "surrogateescape"), "not valid XML"),
    ],
    ids=label,
)
def test_what_does_not_fit_is_refused_by_name(content, problem):
    message = refused(content)
    assert message.startswith("x.dat: ") and problem in message
    assert message.endswith(".") and len(message) < 700


def test_masks_that_claim_gigabytes_together_are_refused_before_they_are_made():
    side = 8000
    one = mask(f"0, {side * side}", f'left="0" top="0" width="{side}" height="{side}"')
    size = f'width="{side}" height="{side}"'
    assert "its box has 81000000 pixels, more than 67108864" in refused(
        dump(mask("0, 81000000", 'left="0" top="0" width="9000" height="9000"'), 'width="9000" height="9000"')
    )
    message = refused(dump(one * 40, size))
    assert "mask 4: the boxes of the picture's shapes hold too many pixels altogether" in message
    images = dump(one, size).split("<image")[1].split("</annotations>")[0]
    content = f"<annotations>{''.join(f'<image{images}' for _ in range(40))}</annotations>"
    found = cvat.read(file(content))
    with pytest.raises(DataError, match=r"image 16 .* with it the file's shapes are too large"):
        for _ in range(40):
            next(found)


def test_too_many_shapes_are_refused(monkeypatch):
    monkeypatch.setattr("crowdmask.corrections.exchange.checks.MAX_SHAPES", 3)
    assert len(only(dump(mask() * 3)).shapes) == 3
    assert "mask 3: more than 3 shapes on one picture" in refused(dump(mask() * 4))


def test_a_giant_element_is_refused(monkeypatch):
    monkeypatch.setattr(cvat, "_CHUNK", 100)
    monkeypatch.setattr(cvat, "MAX_ELEMENT", 5000)
    assert "an element of more than 5000 bytes" in refused(dump(mask("1, " * 3000 + "1")))
    monkeypatch.setattr(cvat, "MAX_BYTES", 5000)
    assert "more than the 5000 that are read" in refused(dump(mask("1, " * 3000 + "1")))


def test_damage_gives_pictures_or_a_named_refusal(tmp_path):
    content = written(tmp_path, task(tricky_masks())) + b"\n"
    content = content.replace(b"</image>", polygon("1.00,1.00;9.50,2.00;4.00,8.25").encode() + b"</image>")
    parts = [b"-1", b"0", b"99999999999", b"nan", b"&a;", b"<!DOCTYPE a>", b"<", b'"', b",", b";", b"</image>", b"\x00",
             b"<mask>", b"1e9", b"\xff"]  # fmt: skip
    fine, wrong = survive(cvat.read, mutations(content, 400, parts))
    assert fine > 20 and wrong > 200
