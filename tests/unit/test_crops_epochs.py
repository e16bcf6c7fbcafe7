"""Epochs: the same batches for any number of workers and processes, others in every epoch."""

import multiprocessing
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_cases import Project, sample, texture

from crowdmask.config.crops import STRONG, CropGeometry, Look, WorkingCopy
from crowdmask.models.base import Batch
from crowdmask.training.crops import Item, Loader, Plan, collate
from crowdmask.training.views import Placement, cut

GEOMETRY = CropGeometry(crop=32)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Images of several sizes, one without people, one smaller than a crop."""
    made = Project(tmp_path_factory.mktemp("crowd"))
    rng = np.random.default_rng(0)
    for k, (height, width, people) in enumerate([(60, 80, 12), (40, 40, 5), (20, 90, 8), (50, 50, 0), (9, 7, 1)]):
        points = rng.uniform([0, 0], [width - 1, height - 1], (people, 2)).tolist()
        made.add(f"i{k}", texture(height, width, k), points)
    return made


@pytest.fixture(scope="module")
def source(project: Project):
    return project.source()


def same(one: Batch, other: Batch) -> bool:
    return (
        one.names == other.names
        and torch.equal(one.images, other.images)
        and torch.equal(one.valid, other.valid)
        and len(one.points_xy) == len(other.points_xy)
        and all(map(torch.equal, one.points_xy, other.points_xy))
        and (one.labels is None) == (other.labels is None)
        and (one.labels is None or all(map(torch.equal, one.labels, other.labels)))
    )


LOOKS = (Look(), STRONG)


def loader(source, workers=0, looks=LOOKS, **plan) -> Loader:
    options = {"batch": 4, "repeats": 2, "seed": 5} | plan
    return Loader(source, Plan(len(source), **options), GEOMETRY, looks, workers)


# What a batch is


def test_batches_are_what_models_are_promised(source):
    seen = 0
    for batch in loader(source, looks=(Look(cutout=0.5),)).epoch(0):
        b = len(batch.images)
        seen += b
        assert batch.images.shape == (b, 3, 32, 32) and batch.images.dtype == torch.float32
        assert batch.valid.shape == (b, 32, 32) and batch.valid.dtype == torch.float32
        assert set(batch.valid.unique().tolist()) <= {0.0, 1.0}
        assert len(batch.points_xy) == len(batch.labels) == len(batch.names) == b
        for k in range(b):
            points, labels = batch.points_xy[k], batch.labels[k]
            assert points.dtype == torch.float32 and points.shape == (len(points), 2)
            assert ((points >= -0.5) & (points < 31.5)).all()
            assert labels.dtype == torch.int64 and labels.shape == (32, 32)
            assert labels.min() >= -1 and labels.max() <= len(points)
            assert (batch.images[k][:, batch.valid[k] == 0] == 0).all()
            assert set(range(1, len(points) + 1)) <= set(labels.unique().tolist())
    assert seen == 10


def test_batches_without_labels(project):
    batch = next(loader(project.source("points", masks=(), edits=())).epoch(0))
    assert batch.labels is None and len(batch.points_xy) == 4


def test_collating_keeps_the_order():
    views = [cut(sample(20, 20, [[k, k]], seed=k), Placement((20, 20), 0, 0, False), 20) for k in range(1, 4)]
    batch = collate(views)
    assert [points.tolist() for points in batch.points_xy] == [[[1, 1]], [[2, 2]], [[3, 3]]]
    assert batch.names == ("train/1", "train/2", "train/3")
    assert batch.to("cpu").images.shape == (3, 3, 20, 20)


# Determinism


def test_the_same_batches_for_any_number_of_workers(source):
    plain = loader(source)
    made = {workers: loader(source, workers) for workers in (1, 2)}
    for epoch in (0, 1, 0, 7):  # persistent workers must not lag behind by one
        expected = list(plain.looks(epoch))
        assert len(expected) == len(plain) == 3
        for workers, other in made.items():
            found = list(other.looks(epoch))
            assert len(found) == 3, workers
            for one, two in zip(expected, found, strict=True):
                assert all(map(same, one, two)), (epoch, workers)


def test_the_number_of_threads_changes_nothing(source):
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(list(loader(source).looks(0)))
    finally:
        torch.set_num_threads(threads)
    assert all(all(map(same, one, two)) for one, two in zip(*found, strict=True))


def test_the_global_generators_are_left_alone(source):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for workers in (0, 1):
        list(loader(source, workers).looks(0))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_batches_are_the_same(source):
    plan = Plan(len(source), 4, repeats=2, seed=5)
    for workers in (0, 1):
        pinned = Loader(source, plan, GEOMETRY, LOOKS, workers, pin=True)
        for one, two in zip(loader(source).looks(0), pinned.looks(0), strict=True):
            assert all(map(same, one, two)) and two[0].images.is_pinned()
            assert two[0].to("cuda").labels[0].device.type == "cuda"


def test_an_epoch_that_is_left_early_does_not_leak_into_the_next(source):
    plain, other = loader(source), loader(source, 2)
    begun = other.looks(3)
    next(begun)
    found = list(other.looks(4))
    assert all(all(map(same, one, two)) for one, two in zip(plain.looks(4), found, strict=True))


def test_an_epoch_goes_on_in_the_middle(source):
    whole = list(loader(source).looks(2))
    for first in range(4):
        rest = list(loader(source).looks(2, first))
        assert len(rest) == 3 - first
        assert all(all(map(same, one, two)) for one, two in zip(whole[first:], rest, strict=True))


def test_epochs_seeds_and_repeats_differ(source):
    def images(epoch, **plan):
        return torch.cat([batch.images for batch in loader(source, looks=(Look(),), **plan).epoch(epoch)])

    base = images(0)
    assert torch.equal(base, images(0))
    assert not torch.equal(base, images(1)) and not torch.equal(base, images(0, seed=6))
    crops = {}
    for batch in loader(source, looks=(Look(),)).epoch(0):
        for name, image in zip(batch.names, batch.images, strict=True):
            crops.setdefault(name, []).append(image)
    assert all(len(two) == 2 and not torch.equal(*two) for two in crops.values())


def test_the_crop_of_an_image_depends_on_no_other_image(project):
    """The same image in another list, and a batch of another size, gives the same crop in the same epoch."""
    whole = {name: batch.images[k] for batch in loader(project.source(), looks=(Look(),), repeats=1).epoch(1)
             for k, name in enumerate(batch.names)}  # fmt: skip
    wanted = [("train", "i2"), ("train", "i0")]
    part = loader(project.source(wanted=wanted), looks=(Look(),), repeats=1, batch=1)
    for batch in part.epoch(1):
        assert torch.equal(batch.images[0], whole[batch.names[0]])


def test_a_copy_that_is_not_kept_gives_the_same_batches(project, source):
    other = project.source(size=WorkingCopy(max_side=None, cache_gb=0), cache=project.root / "none")
    assert all(all(map(same, a, b)) for a, b in zip(loader(source).looks(0), loader(other).looks(0), strict=True))


def test_a_worker_reports_what_is_wrong(project):
    from crowdmask.errors import DataError

    broken = project.source(cache=project.root / "other")
    path = project.root / "i0.png"
    content = path.read_bytes()
    try:
        path.unlink()
        for workers in (0, 1):
            with pytest.raises(DataError, match=r"i0\.png: file not found") as caught:
                list(loader(broken, workers).looks(0))
            assert caught.value.path == str(path)
    finally:
        path.write_bytes(content)


def test_workers_end_with_the_loader(source):
    before = {child.pid for child in multiprocessing.active_children()}
    one = loader(source, 2)
    list(one.looks(0))
    mine = [child for child in multiprocessing.active_children() if child.pid not in before]
    assert len(mine) >= 2
    del one
    for child in mine:
        child.join(30)
        assert not child.is_alive()
    assert threading.active_count() < 20


# Plans


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(1, 4), st.integers(0, 3))
def test_ranks_together_see_the_joint_batch(images, batch, repeats, drop, ranks, epoch):
    try:
        shares = [Plan(images, batch, repeats, drop, 1, rank, ranks) for rank in range(ranks)]
    except ValueError:
        last = 0 if drop else images * repeats % batch
        assert (drop and images * repeats < batch) or batch % ranks or last % ranks
        return
    joint = Plan(images, batch, repeats, drop, 1).epoch(epoch)
    parts = [plan.epoch(epoch) for plan in shares]
    assert len(joint) == shares[0].batches == len(parts[0])
    for whole, *shared in zip(joint, *parts, strict=True):
        assert len({len(part) for part in shared}) == 1 and shared[0]
        assert [item for group in zip(*shared, strict=True) for item in group] == whole
    seen = [item for whole in joint for item in whole]
    assert len(seen) == len(set(seen)) and all(item.epoch == epoch for item in seen)
    if not drop:
        assert set(seen) == {Item(epoch, k, r) for k in range(images) for r in range(repeats)}
    else:
        assert len(seen) == images * repeats // batch * batch


def test_shards_are_parts_of_the_same_tensors(source):
    whole = list(loader(source, looks=(Look(),), drop_last=True).epoch(1))
    parts = [list(loader(source, looks=(Look(),), drop_last=True, rank=rank, ranks=2).epoch(1)) for rank in (0, 1)]
    for joint, *shared in zip(whole, *parts, strict=True):
        for rank, part in enumerate(shared):
            assert torch.equal(part.images, joint.images[rank::2])
            assert part.names == joint.names[rank::2]
            assert all(map(torch.equal, part.labels, joint.labels[rank::2]))


def test_orders_differ_by_epoch_and_seed_and_are_fair():
    orders = [[item.image for batch in Plan(50, 5, seed=seed).epoch(epoch) for item in batch]
              for seed, epoch in ((0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert all(one != two for one, two in pairwise(orders)) and orders[0] != orders[2]
    first = [Plan(10, 10, seed=0).epoch(epoch)[0][0].image for epoch in range(600)]
    assert min(np.bincount(first, minlength=10)) > 30  # 60 expected, a standard deviation of 7


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"images": 0}, "at least"),
        ({"batch": 0}, "at least"),
        ({"rank": 2, "ranks": 2}, "at least"),
        ({"images": 3, "batch": 4, "drop_last": True}, "do not fill a batch of 4"),
        ({"batch": 3, "ranks": 2}, "shared evenly"),
        ({"images": 5, "batch": 4, "ranks": 2}, "the last of 1"),
    ],
)
def test_plans_that_cannot_be(wrong, words):
    with pytest.raises(ValueError, match=words):
        Plan(**({"images": 8, "batch": 4} | wrong))


def test_a_plan_for_other_images(source):
    with pytest.raises(ValueError, match="a plan for 4 of 5 images"):
        Loader(source, Plan(4, 2), GEOMETRY)


# Settings


@pytest.mark.parametrize(
    "make",
    [
        lambda: CropGeometry(scale=(1.3, 0.7)),
        lambda: CropGeometry(scale=(0.0, 1.0)),
        lambda: CropGeometry(crop=0),
        lambda: CropGeometry(flip=1.5),
        lambda: CropGeometry(size=3),
        lambda: Look(cutout_side=(0.5, 0.2)),
        lambda: Look(blur_sigma=(0.0, 1.0)),
        lambda: Look(hue=0.6),
        lambda: WorkingCopy(max_side=0),
        lambda: WorkingCopy(cache_gb=-1.0),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ValueError):
        make()


# Pictures


def test_a_batch_is_drawn(source, tmp_path: Path):
    import cv2

    from crowdmask.errors import DataError
    from crowdmask.training import show

    found = show.run(source, GEOMETRY, (Look(), STRONG), tmp_path / "batch.png", batch=4, repeats=2, epoch=1, seed=5)
    batch = next(loader(source).epoch(1))
    assert found == {"crops": 4, "heads": sum(map(len, batch.points_xy)), "names": list(batch.names)}
    assert cv2.imread(str(tmp_path / "batch.png")).shape[1] == 4 * (512 + 6)
    with pytest.raises(DataError, match="batches 0 to 2, not 3"):
        show.run(source, GEOMETRY, (Look(),), tmp_path / "no.png", batch=4, repeats=2, number=3)
    assert not (tmp_path / "no.png").exists()


def test_drawn_crops_show_points_masks_and_what_is_ignored():
    from crowdmask.training import show

    one = sample(60, 64, [[20, 20], [70, 20]], radius=8.0)
    view = cut(one, Placement((60, 64), 0, 0, False), 64)
    picture = show.picture(collate([view]))
    zoom, top = 8, 20
    crop = picture[top : top + 64 * zoom, : 64 * zoom]
    assert crop[20 * zoom + 4, 20 * zoom + 4].tolist() == [255, 255, 255]  # the head
    ys, xs = np.nonzero(view.labels == 1)
    edge = crop[ys[0] * zoom, xs[0] * zoom]
    assert edge.tolist() == list(show.COLOURS[0])
    # Padding below is hatched both ways on light grey, background is the image as it was.
    below = {tuple(pixel) for pixel in crop[61 * zoom :].reshape(-1, 3).tolist()}
    assert below <= {(235, 235, 235), (150, 150, 150)} and len(below) == 2
    assert np.abs(crop[50 * zoom + 3, 50 * zoom + 3].astype(int) - view.image[50, 50]).max() <= 1
    without = show.picture(collate([cut(sample(60, 64, [[20, 20]], None), view.placement, 64)]))
    assert without.shape[1] == picture.shape[1]
