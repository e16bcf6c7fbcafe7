"""Superpixel parts against a computation on the whole frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.config import Superpixels
from crowdmask.geometry import clip_points, own_pixels
from crowdmask.masks.rle import Window
from crowdmask.masks.superpixels import clip_to_circle, own_parts, rows, slic_labels


def picture(height, width, seed=0):
    """Smooth colours with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1)
    return np.clip(128 + 90 * base + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def enlarged(labels, height, width):
    """Nearest neighbour: the cell in which the centre of each pixel lies."""
    h, w = labels.shape
    out = np.zeros((height, width), labels.dtype)
    for y in range(height):
        for x in range(width):
            out[y, x] = labels[min(int((y + 0.5) * h / height), h - 1), min(int((x + 0.5) * w / width), w - 1)]
    return out


def parts_by_definition(labels, points, height, width):
    """(label, sharing, full mask) of each point; nearest point of the same superpixel, ties to the lower row."""
    full = enlarged(labels, height, width)
    pixels = own_pixels(points, height, width)
    inside = clip_points(points, height, width)
    own = [full[y, x] for x, y in pixels]
    ys, xs = np.mgrid[:height, :width]
    for i, label in enumerate(own):
        sharing = [j for j in range(len(points)) if own[j] == label]
        mine = full == label
        for j in sharing:
            if tuple(inside[j]) == tuple(inside[i]):
                continue
            mine_now = (xs - inside[i, 0]) ** 2 + (ys - inside[i, 1]) ** 2
            theirs = (xs - inside[j, 0]) ** 2 + (ys - inside[j, 1]) ** 2
            # Of points at the same place the lowest row stands for all.
            first_i = min(k for k in sharing if tuple(inside[k]) == tuple(inside[i]))
            first_j = min(k for k in sharing if tuple(inside[k]) == tuple(inside[j]))
            mine &= (mine_now < theirs) | ((mine_now == theirs) & (first_i < first_j))
        mine[pixels[i][1], pixels[i][0]] = True
        yield int(label), len(sharing), mine


@st.composite
def scenes(draw):
    """A label map, the size of the image it stands for, and points (some outside, some at the same place)."""
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    height, width = h * draw(st.integers(1, 3)) + draw(st.integers(0, 2)), w + draw(st.integers(0, 7))
    seed = draw(st.integers(0, 2**32 - 1))
    _, labels = np.unique(np.random.default_rng(seed).integers(1, 5, (h, w)), return_inverse=True)
    labels = labels.reshape(h, w).astype(np.int32) + 1
    place = st.tuples(st.integers(-4, 2 * width + 4), st.integers(-4, 2 * height + 4))
    points = np.array(draw(st.lists(place, max_size=8)), float).reshape(-1, 2) / 2
    return labels, points, height, width


@settings(deadline=None)
@given(scenes())
def test_parts_are_those_of_the_whole_frame(scene):
    labels, points, height, width = scene
    found = list(own_parts(labels, points, height, width))
    expected = list(parts_by_definition(labels, points, height, width))
    assert len(found) == len(points)
    for (label, sharing, part), (true_label, true_sharing, full), pixel in zip(
        found, expected, own_pixels(points, height, width), strict=True
    ):
        assert (label, sharing) == (true_label, true_sharing)
        np.testing.assert_array_equal(part.full(height, width), full)
        assert part.full(height, width)[pixel[1], pixel[0]]
        assert part.mask.any(axis=0)[[0, -1]].all() and part.mask.any(axis=1)[[0, -1]].all()  # tight


def test_points_at_one_place_get_the_same_part_and_others_what_is_nearer():
    labels = np.ones((4, 10), np.int32)
    points = np.array([[2, 1], [7, 1], [2, 1.0]])
    parts = [part.full(4, 10) for _, _, part in own_parts(labels, points, 4, 10)]
    np.testing.assert_array_equal(parts[0], parts[2])
    assert not (parts[0] & parts[1]).any() and (parts[0] | parts[1]).all()
    assert parts[0][:, :5].all() and parts[1][:, 5:].all()


def test_a_point_outside_takes_part_from_its_place_at_the_border():
    labels = np.ones((4, 12), np.int32)
    far = [part.full(4, 12) for *_, part in own_parts(labels, np.array([[2, 1], [500.0, 1]]), 4, 12)]
    near = [part.full(4, 12) for *_, part in own_parts(labels, np.array([[2, 1], [11.0, 1]]), 4, 12)]
    np.testing.assert_array_equal(far, near)


def test_many_points_in_one_superpixel_need_no_memory_for_each():
    points = np.random.default_rng(0).uniform(0, 199, (400, 2))
    total = np.zeros((200, 200), int)
    for _, sharing, part in own_parts(np.ones((200, 200), np.int32), points, 200, 200):
        assert sharing == 400
        total[part.y0 : part.y0 + part.mask.shape[0], part.x0 : part.x0 + part.mask.shape[1]] += part.mask
    assert total.min() == 1  # nobody's pixel is left over


@pytest.mark.parametrize("radius", [0.05, 0.5, 1.0, 2.25, 9.0, np.inf])
def test_clip_to_circle_is_the_part_within_the_radius(radius):
    rng = np.random.default_rng(1)
    for _ in range(30):
        height, width = rng.integers(1, 12, 2)
        x, y = rng.uniform(0, width - 1), rng.uniform(0, height - 1)
        px, py = own_pixels(np.array([[x, y]]), height, width)[0]
        full = rng.random((height, width)) < 0.6
        full[py, px] = True
        part = Window(0, 0, full).tight()
        found = clip_to_circle(part, x, y, radius, height, width).full(height, width)
        ys, xs = np.mgrid[:height, :width]
        expected = full & ((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)
        if not expected.any():
            expected[py, px] = True
        np.testing.assert_array_equal(found, expected)
        assert found[py, px]


def test_labels_are_numbered_from_1_without_gaps():
    labels = slic_labels(picture(60, 90), Superpixels(n_segments=40))
    assert labels.shape == (60, 90) and labels.dtype == np.int32
    assert np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))
    assert 20 <= labels.max() <= 80


@pytest.mark.parametrize(("height", "width", "shape"), [(200, 100, (64, 32)), (100, 200, (32, 64)), (64, 64, (64, 64))])
def test_large_images_are_segmented_at_working_size(height, width, shape):
    image = picture(height, width)
    labels = slic_labels(image, Superpixels(n_segments=30, max_side=64))
    assert labels.shape == shape
    points = np.array([[width - 1, height - 1], [0, 0], [width / 2, height / 3]])
    for (_, _, part), (px, py) in zip(
        own_parts(labels, points, height, width), own_pixels(points, height, width), strict=True
    ):
        full = part.full(height, width)
        assert full[py, px] and full.sum() > 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 1500), (2, 2)])
def test_tiny_and_thin_images(shape):
    height, width = shape
    labels = slic_labels(picture(height, width), Superpixels())
    points = np.array([[0, 0], [width - 1, height - 1]], float)
    parts = list(own_parts(labels, points, height, width))
    assert len(parts) == 2
    assert parts[0][2].full(height, width)[0, 0] and parts[1][2].full(height, width)[-1, -1]


def test_grey_and_flat_images():
    grey = np.repeat(picture(50, 50)[:, :, :1], 3, axis=2)
    assert slic_labels(grey, Superpixels(n_segments=30)).max() > 10
    flat = slic_labels(np.full((50, 50, 3), 77, np.uint8), Superpixels(n_segments=30))
    assert flat.min() == 1 and flat.max() > 10  # no colour: about a grid


def test_labels_are_the_same_every_time():
    image = picture(80, 70)
    first = slic_labels(image, Superpixels(n_segments=60))
    np.testing.assert_array_equal(first, slic_labels(image.copy(), Superpixels(n_segments=60)))


def test_rows_of_the_table(tmp_path):
    from PIL import Image

    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    image = {"split": "all", "image_id": "a", "path": "a.png", "height": 40, "width": 50, "mode": "RGB"}
    here = [{"x": 10.0, "y": 12.0}, {"x": 70.0, "y": -5.0}]
    made = list(
        rows(
            [{**image, "points": here}, {**image, "image_id": "none", "path": "missing.png", "points": []}],
            str(tmp_path),
            "stored",
            Superpixels(n_segments=20),
        )
    )
    assert [(row["image_id"], row["point_id"]) for row in made] == [("a", 0), ("a", 1)]
    assert Window.from_columns(made[0]).full(40, 50)[12, 10]
    assert Window.from_columns(made[1]).full(40, 50)[0, 49]
