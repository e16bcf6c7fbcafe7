"""Views: points, labels and pixels move together, under every scale, crop and flip."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training_cases import sample, texture

from crowdmask.config.crops import STRONG, CropGeometry, Look
from crowdmask.models.base import MEAN, SPREAD
from crowdmask.training.crops import collate
from crowdmask.training.label_maps import keep_heads, sources
from crowdmask.training.source import Sample, scale_points
from crowdmask.training.views import Placement, cut, draw, dress, generator, normalised, place

sides = st.integers(1, 90)


@st.composite
def scenes(draw_, largest=70):
    """An image with discs around points that keep apart, and a placement."""
    height, width = draw_(st.integers(1, largest)), draw_(st.integers(1, largest))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    points = []
    for point in rng.uniform([-0.5, -0.5], [width - 0.5, height - 0.5], (draw_(st.integers(0, 12)), 2)):
        if all(np.hypot(*(point - other)) > 8 for other in points):
            points.append(point)
    size = draw_(st.integers(1, 2 * largest)), draw_(st.integers(1, 2 * largest))
    side = draw_(st.integers(1, 60))
    y0, x0 = (draw_(st.integers(0, max(0, length - side))) for length in size)
    return sample(height, width, points, radius=3.0), Placement(size, x0, y0, draw_(st.booleans())), side


@given(scenes())
def test_points_and_labels_move_together(scene):
    one, where, side = scene
    view = cut(one, where, side)
    height, width = one.pixels.shape[:2]
    fx, fy = where.size_hw[1] / width, where.size_hw[0] / height
    w, h = min(side, where.size_hw[1] - where.x0), min(side, where.size_hw[0] - where.y0)
    # Which heads, and where: the plain formula.
    wanted = []
    for i, (x, y) in enumerate(one.points_xy):
        u, v = (x + 0.5) * fx - 0.5 - where.x0, (y + 0.5) * fy - 0.5 - where.y0
        if -0.5 <= u < w - 0.5 and -0.5 <= v < h - 0.5:
            wanted.append((i, w - 1 - u if where.flip else u, v))
    assert view.heads.tolist() == [i for i, _, _ in wanted]
    assert view.points_xy.dtype == np.float32
    np.testing.assert_allclose(view.points_xy, np.array([p[1:] for p in wanted]).reshape(-1, 2), atol=1e-4)
    assert (view.points_xy >= -0.5).all() and (view.points_xy < [w - 0.5, h - 0.5]).all()
    # The label of a pixel is that of the image's pixel in which its centre lies, up to pixels that heads keep.
    m = len(view.heads)
    place_of = {0: 0} | {int(i) + 1: k + 1 for k, i in enumerate(view.heads)}
    plain = np.full((side, side), -1)
    for y, x in itertools.product(range(h), range(w)):
        u = w - 1 - x if where.flip else x
        column = (2 * (where.x0 + u) + 1) * width // (2 * where.size_hw[1])
        row = (2 * (where.y0 + y) + 1) * height // (2 * where.size_hw[0])
        plain[y, x] = place_of.get(int(one.labels[row, column]), -1)
    assert (view.labels[h:] == -1).all() and (view.labels[:, w:] == -1).all()
    assert np.count_nonzero(view.labels != plain) <= 2 * m
    # Under each point lies its own mask, unless another head has the pixel; nobody vanishes while there is room.
    own = np.floor(view.points_xy + 0.5).astype(int)
    seen = set()
    for k, (x, y) in enumerate(own.tolist()):
        if (x, y) not in seen:
            assert view.labels[y, x] == k + 1
        seen.add((x, y))
    if m <= w * h:
        assert set(range(1, m + 1)) <= set(view.labels.ravel().tolist())
    assert view.valid[:h, :w].all() and view.valid.sum() == h * w
    assert not view.image[~view.valid].any()


@given(scenes(50), st.floats(0.5, 1.6))
def test_a_disc_stays_around_its_point(scene, scale):
    one, where, _ = scene
    height, width = one.pixels.shape[:2]
    size = max(1, round(height * scale)), max(1, round(width * scale))
    view = cut(one, Placement(size, 0, 0, where.flip), 100)
    fx, fy = size[1] / width, size[0] / height
    for k, (x, y) in enumerate(view.points_xy.tolist()):
        rows, columns = np.nonzero(view.labels == k + 1)
        # In pixels of the image, no pixel of the disc lies farther off than its radius and the roundings.
        distance = np.hypot((columns - x) / fx, (rows - y) / fy)
        assert len(rows) and distance.max() <= 3.0 + 0.75 * max(1, 1 / fx, 1 / fy) + 0.75


@given(sides, sides, st.integers(1, 200), st.integers(1, 200), st.integers(0, 9))
def test_scaling_points_and_back(height, width, new_h, new_w, seed):
    points = np.random.default_rng(seed).uniform([-0.5, -0.5], [width - 0.5, height - 0.5], (20, 2))
    there = scale_points(points, (height, width), (new_h, new_w))
    assert (there >= -0.5).all() and (there < [new_w - 0.5, new_h - 0.5]).all()
    np.testing.assert_allclose(scale_points(there, (new_h, new_w), (height, width)), points, atol=1e-9)


def test_scaling_maps_edges_to_edges():
    points = np.array([[-0.5, -0.5], [0, 0], [9.5 - 1e-13, 4.5 - 1e-13]])
    np.testing.assert_allclose(
        scale_points(points, (5, 10), (10, 30)), [[-0.5, -0.5], [1, 0.5], [29.5, 9.5]], atol=1e-9
    )
    assert (scale_points(points, (5, 10), (10, 30))[2] < [29.5, 9.5]).all()


@given(scenes())
def test_two_flips_are_none(scene):
    one, where, side = scene
    plain = cut(one, Placement(where.size_hw, where.x0, where.y0, False), side)
    flipped = cut(one, Placement(where.size_hw, where.x0, where.y0, True), side)
    w = int(plain.valid.any(0).sum())
    assert np.array_equal(flipped.image[:, :w][:, ::-1], plain.image[:, :w])
    assert np.array_equal(flipped.valid, plain.valid)
    back = flipped.points_xy.astype(float)
    back[:, 0] = w - 1 - back[:, 0]
    np.testing.assert_allclose(back, plain.points_xy, atol=1e-4)
    changed = np.count_nonzero(flipped.labels[:, :w][:, ::-1] != plain.labels[:, :w])
    assert changed <= 2 * len(plain.heads)  # pixels that heads keep lie on the other side of a tie


@given(sides, sides, st.floats(0.3, 3), st.integers(1, 64), st.integers(0, 2**31))
def test_a_crop_has_the_pixels_of_the_whole_scaled_image(height, width, scale, side, seed):
    pixels = texture(height, width, seed)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rng = np.random.default_rng(seed)
    y0, x0 = (int(rng.integers(max(0, length - side) + 1)) for length in size)
    view = cut(Sample("x", pixels, np.zeros((0, 2)), None), Placement(size, x0, y0, False), side)
    whole = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    part = whole[y0 : y0 + side, x0 : x0 + side]
    shown = view.image[: part.shape[0], : part.shape[1]].astype(int)
    assert np.abs(shown - part).max() <= 2  # one level a pass, where a sum lies between two levels


@given(sides, st.integers(1, 200), st.data())
def test_sources_are_the_nearest_pixels(length, new, data):
    start = data.draw(st.integers(0, new - 1))
    count = data.draw(st.integers(0, new - start))
    found = sources(start, count, length, new)
    from fractions import Fraction

    exact = [int((Fraction(k) + Fraction(1, 2)) * length / new) for k in range(start, start + count)]
    assert found.tolist() == exact
    assert all(0 <= k < length for k in exact)


# Edges


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 2)])
@pytest.mark.parametrize("side", [1, 4, 32])
@pytest.mark.parametrize("flip", [False, True])
def test_tiny_images(size, side, flip):
    height, width = size
    one = sample(height, width, [[(width - 1) / 2, (height - 1) / 2]], radius=1.0)
    view = cut(one, Placement(size, 0, 0, flip), side)
    shown = view.valid.sum()
    assert shown == min(height, side) * min(width, side)
    for k, (x, y) in enumerate(view.points_xy):
        assert view.labels[int(y + 0.5), int(x + 0.5)] == k + 1


def test_an_image_without_people():
    one = sample(40, 50, [])
    view = cut(one, Placement((40, 50), 3, 4, True), 32)
    assert view.points_xy.shape == (0, 2) and view.points_xy.dtype == np.float32
    assert (view.labels == 0).all() and view.valid.all()
    batch = collate([view])
    assert [len(points) for points in batch.points_xy] == [0] and batch.labels[0].dtype == torch.int64


@pytest.mark.parametrize("flip", [False, True])
def test_a_head_on_the_edge_is_in_exactly_one_of_two_crops(flip):
    # 15.5 is where the second crop begins; the head before it is nearer than float32 can tell.
    points = [[15.5, 5], [15.5 - 1e-12, 11], [-0.5, 9], [31.5 - 1e-12, 15]]
    one = sample(32, 32, points, radius=1.0)
    left, right = (cut(one, Placement((32, 32), x0, 0, flip), 32 if x0 else 16) for x0 in (0, 16))
    assert left.heads.tolist() == [1, 2] and right.heads.tolist() == [0, 3]
    for view, edge in ((left, 15.5), (right, 15.5)):
        assert (view.points_xy[:, 0] < edge).all() and (view.points_xy >= -0.5).all()


def test_more_heads_than_pixels_in_a_crop_lose_as_few_as_must_be():
    points = np.random.default_rng(0).uniform(-0.5, 9.5, (60, 2))
    one = sample(10, 10, points, radius=0.8)
    view = cut(one, Placement((3, 3), 0, 0, False), 8)
    assert len(view.heads) == 60
    assert len(set(view.labels[:3, :3].ravel().tolist())) == 9


def test_a_mask_whose_point_is_outside_is_nobodys():
    one = sample(20, 40, [[5, 10], [21, 10]], radius=4.0)
    view = cut(one, Placement((20, 40), 0, 0, False), 20)
    assert view.heads.tolist() == [0]
    assert set(view.labels.ravel().tolist()) == {0, 1, -1}
    assert np.array_equal(view.labels == -1, one.labels[:, :20] == 2)


def test_labels_of_nobody_in_the_copy_stay_nobodys():
    one = sample(20, 20, [[5, 10]], radius=2.0)
    labels = one.labels.copy()
    labels[0, :5] = -1
    view = cut(Sample("a", one.pixels, one.points_xy, labels), Placement((20, 20), 0, 0, False), 20)
    assert np.array_equal(view.labels, labels)


# Heads that would vanish


def test_keep_heads_changes_nothing_where_nobody_vanished():
    one = sample(30, 30, [[5, 5], [20, 20]])
    assert keep_heads(one.labels, one.points_xy, np.ones(2, bool)) is one.labels


def test_keep_heads_against_the_plain_way():
    rng = np.random.default_rng(4)
    for _ in range(300):
        h, w = rng.integers(1, 7, 2)
        m = int(rng.integers(1, 12))
        points = rng.uniform(-0.5, [w - 0.5, h - 0.5], (m, 2))
        labels = rng.integers(-1, m + 1, (h, w)).astype(np.int32)
        owned = rng.random(m) < 0.5
        before = labels.copy()
        found = keep_heads(labels, points, owned)
        assert np.array_equal(labels, before)
        assert np.array_equal(found, plain_keep(before, points, owned))


def plain_keep(labels, points, owned):
    out, (h, w) = labels.copy(), labels.shape
    own = [(int(np.floor(y + 0.5)), int(np.floor(x + 0.5))) for x, y in points]
    held = {}
    for i in range(len(points)):
        if owned[i] and own[i] not in held:
            held[own[i]] = i
            out[own[i]] = i + 1
    for i, (x, y) in enumerate(points):
        if (out == i + 1).any():
            continue
        free = []
        for row, column in itertools.product(range(h), range(w)):
            label = out[row, column]
            if label <= 0 or ((row, column) not in held and (out == label).sum() > 1):
                free.append(((column - x) ** 2 + (row - y) ** 2, row, column))
        if not free:
            break
        _, row, column = min(free)
        out[row, column] = i + 1
    return out


# Colours


def test_looks_share_the_crop():
    one = sample(80, 90, [[20, 20], [50, 60]])
    geometry = CropGeometry(crop=48)
    weak, strong = draw(one, geometry, [Look(), STRONG], generator(3, 0, one.name))
    (alone,) = draw(one, geometry, [Look()], generator(3, 0, one.name))
    assert np.array_equal(weak.image, alone.image) and weak.placement == strong.placement
    assert np.array_equal(weak.points_xy, strong.points_xy) and np.array_equal(weak.labels, strong.labels)
    assert not np.array_equal(weak.image, strong.image)
    assert strong.valid.sum() < weak.valid.sum()
    assert not (strong.valid & ~weak.valid).any()


def test_what_is_cut_out_is_a_rectangle_filled_with_the_mean():
    one = sample(64, 64, [[10, 10]])
    view = cut(one, Placement((64, 64), 0, 0, False), 64)
    sizes = set()
    for seed in range(40):
        cut_out = dress(view, Look(cutout=1.0), np.random.default_rng(seed))
        rows, columns = np.nonzero(~cut_out.valid)
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == h * w and 8 <= h <= 16 and 8 <= w <= 16
        sizes.add((h, w))
        image = normalised(cut_out)
        assert (image[:, ~torch.from_numpy(cut_out.valid)] == 0).all()
        assert np.array_equal(cut_out.image, view.image) and np.array_equal(cut_out.labels, view.labels)
    assert len(sizes) > 10


def test_normalised_pixels():
    view = cut(sample(5, 6, []), Placement((5, 6), 0, 0, False), 8)
    expected = (view.image / 255 - np.array(MEAN)) / np.array(SPREAD) * view.valid[:, :, None]
    found = normalised(view)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_colours_do_what_they_say():
    view = cut(sample(40, 40, []), Placement((40, 40), 0, 0, False), 40)
    rng = np.random.default_rng
    grey = dress(view, Look(grey=1.0), rng(0)).image
    assert (grey[:, :, 0] == grey[:, :, 1]).all() and (grey[:, :, 1] == grey[:, :, 2]).all()
    light = view.image @ np.array([0.2989, 0.587, 0.114])
    assert np.abs(grey[:, :, 0] - light).max() <= 1.01
    blurred = dress(view, Look(blur=1.0, blur_sigma=(2.0, 2.0)), rng(0)).image
    from scipy.ndimage import gaussian_filter

    reference = gaussian_filter(view.image.astype(float), (2, 2, 0), mode="mirror", truncate=3.0)
    assert np.abs(blurred - reference).max() <= 2
    none = Look(jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    assert np.abs(dress(view, none, rng(0)).image.astype(int) - view.image).max() <= 2  # through HSV and back
    only = Look(jitter=1.0, brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0)
    means = [dress(view, only, rng(seed)).image.mean() / view.image.mean() for seed in range(20)]
    assert 0.55 < min(means) < 0.85 and 1.1 < max(means) < 1.45


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 1)])
def test_strong_looks_of_tiny_images_leave_the_padding_black(size):
    view = cut(sample(*size, []), Placement(size, 0, 0, False), 16)
    for seed in range(20):
        found = dress(view, STRONG, np.random.default_rng(seed))
        assert not found.image[~view.valid].any()


def test_a_look_changes_no_view_but_its_own():
    view = cut(sample(40, 40, [[5, 5]]), Placement((40, 40), 0, 0, False), 40)
    before = view.image.copy(), view.valid.copy()
    for seed in range(5):
        dress(view, STRONG, np.random.default_rng(seed))
    assert np.array_equal(view.image, before[0]) and np.array_equal(view.valid, before[1])


def test_colours_do_not_depend_on_threads():
    view = cut(sample(300, 300, []), Placement((300, 300), 0, 0, False), 256)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.append(dress(view, STRONG, np.random.default_rng(2)).image)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(found[0], other) for other in found[1:])


# Places


def test_places_are_uniform_and_inside():
    settings = CropGeometry(crop=32, scale=(0.5, 2.0), flip=0.25)
    rng = np.random.default_rng(0)
    found = [place(100, 60, settings, rng) for _ in range(4000)]
    scales = np.array([p.size_hw[0] / 100 for p in found])
    assert scales.min() >= 0.49 and scales.max() <= 2.01
    assert np.abs(np.quantile(scales, [0.25, 0.5, 0.75]) - [0.875, 1.25, 1.625]).max() < 0.05
    assert abs(np.mean([p.flip for p in found]) - 0.25) < 0.03
    room = [(p.x0, p.size_hw[1] - 32) for p in found if p.size_hw[1] > 32]
    assert all(0 <= x <= most for x, most in room)
    assert abs(np.mean([x / most for x, most in room]) - 0.5) < 0.03
    assert {0, 1} <= {x / most for x, most in room}
    assert all(p.x0 == 0 for p in found if p.size_hw[1] <= 32)


def test_keep_side():
    rng = np.random.default_rng(0)
    settings = CropGeometry(crop=50, scale=(0.5, 2.0), keep_side=True)
    found = [place(100, 60, settings, rng).size_hw for _ in range(200)]
    assert all(min(size) >= 50 for size in found) and (100, 60) in found
    assert place(20, 30, CropGeometry(crop=50, scale=(0.5, 0.5), keep_side=True), rng).size_hw == (20, 30)


def test_golden_generators_differ_by_everything_they_are_made_from():
    known = [
        (0, 0, "train/1", 0),
        (1, 0, "train/1", 0),
        (0, 1, "train/1", 0),
        (0, 0, "test/1", 0),
        (0, 0, "train/1", 1),
    ]
    values = [generator(*key).random() for key in known]
    assert len(set(values)) == len(known)
    assert values == [generator(*key).random() for key in known]
    # The same numbers on every machine and in every version: a resumed run must not get other crops.
    assert generator(7, 3, "train/IMG_1", 1).integers(0, 10**6, 4).tolist() == [918997, 884980, 682910, 379721]
