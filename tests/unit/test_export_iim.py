"""IIM's pictures of heads and its ground-truth lines."""

import json

import numpy as np
import pytest
from exported import DRAWN, RING, batch, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from crowdmask.errors import DataError
from crowdmask.export import iim
from crowdmask.masks.rle import Window


@settings(max_examples=100)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)))
def test_heads_are_set_apart(painted):
    heads = iim.apart(painted)
    assert not heads[painted == 0].any()
    assert set(np.unique(painted[heads])) == set(np.unique(painted)) - {0}  # nobody is lost
    areas = np.bincount(painted.ravel())
    values = np.where(heads, painted, 0)
    lost = {int(value) for value in np.unique(painted) if value and (values == value).sum() < areas[value]}
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = values[first], values[second]
        # Two that still touch: one of them is whole, because it would have been lost.
        for left, right in zip(a[(a != b) & (a > 0) & (b > 0)], b[(a != b) & (a > 0) & (b > 0)], strict=True):
            assert not {int(left), int(right)} <= lost
    several, touching = iim.confused(painted, heads)
    components, count = ndimage.label(heads)
    naive = [len(np.unique(components[values == value])) for value in np.unique(values) if value]
    assert several == sum(number > 1 for number in naive)
    shared = {
        int(v) for k in range(1, count + 1) for v in [np.unique(values[components == k])] if v.size > 1 for v in v
    }
    assert touching == len(shared)


def test_iim_picture_and_its_heads(tmp_path):
    separate = {0: DRAWN[0], 3: RING, 9: DRAWN[9]}
    report = write("iim", tmp_path / "i", [batch(tmp_path, {"a": separate, "b": DRAWN, "none": {}})])
    first, second, third = iim.read(tmp_path / "i", "train")
    assert (first.image_id, first.ids.tolist(), third.ids.tolist()) == ("a", [0, 1, 2], [])
    found = {(w.x0, w.y0): w for w in first.windows}
    for mask in separate.values():
        window = Window(0, 0, mask).tight()
        np.testing.assert_array_equal(found[window.x0, window.y0].mask, window.mask)
    with Image.open(tmp_path / "i/train/masks/b.png") as picture:
        assert picture.mode == "L" and set(np.unique(np.array(picture))) == {0, 1}
    # The ring gives up its four pixels around the one in its hole; 7 is two pieces, 12 three.
    counts = json.loads(report.read_text())["counts"]
    assert (counts["pixels_given_up"], counts["in_several_components"], counts["still_touching"]) == (4, 2, 0)
    assert len(second.windows) == 9
    assert (tmp_path / "i/train/train.txt").read_text() == "a\nb\nnone\n"


def test_iim_lines(tmp_path):
    boxes = {3: (1.0, 2.0, 11.0, 26.0)}
    drawn = {"0021": {0: DRAWN[0], 3: RING, 9: DRAWN[9]}, "3": {}}
    report = write("iim", tmp_path / "i", [batch(tmp_path, drawn, boxes=boxes)])
    text = (tmp_path / "i/train/train_gt_loc.txt").read_text()
    # Golden: 1 x 1; the annotated 10 x 24; 1 x 12. Points x = id + 0.25, y = 2.5.
    assert text == "21 3 0 3 0 0 0 3 3 5 13 2 9 3 0 6 1\n3 0\n"
    found = iim.read_locations(tmp_path / "i/train/train_gt_loc.txt")
    assert found[21].tolist() == [[0, 3, 0, 0, 0], [3, 3, 5, 13, 2], [9, 3, 0, 6, 1]] and found[3].shape == (0, 5)
    assert [entry["number"] for entry in json.loads(report.read_text())["files"]] == [21, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["0007", "12"], [7, 12]), (["IMG_4", "IMG_2"], [1, 2]), (["1", "01"], [1, 2]), (["²"], [1]), ([], [])],
)
def test_iim_numbers_of_images(names, expected):
    assert iim.numbers(names) == expected


def test_iim_levels_are_closed_above():
    sides = [(1, 10), (1, 11), (10, 10), (101, 1), (10, 100), (100, 100), (1000, 100), (1000, 101)]
    assert [sum(w * h > bound for bound in iim.LEVELS) for w, h in sides] == [0, 1, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "line", ["1", "1 1 2 3", "1 -1", "a 0", "1 1 2 3 4 5 6 7", "1 0\n1 0", "9999999999999999999 0"]
)
def test_iim_line_faults(tmp_path, line):
    path = tmp_path / "gt.txt"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"gt\.txt"):
        iim.read_locations(path)


def test_iim_pictures_of_other_values_are_refused(tmp_path):
    (tmp_path / "train/masks").mkdir(parents=True)
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(tmp_path / "train/masks/a.png")
    with pytest.raises(DataError, match="holds the value 255"):
        list(iim.read(tmp_path, "train"))
