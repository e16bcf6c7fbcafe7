"""Image ids and batches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.datasets.base import ImageRef, batch_of, batches_of, safe_id
from crowdmask.errors import DataError


def refs(ids, split="train"):
    return [ImageRef(split, name, f"{name}.jpg", f"{name}.mat") for name in ids]


@pytest.mark.parametrize("name", ["IMG_1", "img_0001", "1", "a b", "x (1)+2,3=4@5.6-7", "_hidden", "A" * 200])
def test_usual_names_are_ids(name):
    assert safe_id("f", name) == name


@pytest.mark.parametrize(
    "name",
    ["", "abc\n", "\nabc", "a\nb", "a\tb", "a/b", "a\\b", "..", "a..b", ".hidden", "-x", " x", "a*b", "{a}", "é", "\0"],
)
def test_names_that_could_break_a_path_are_refused(name):
    with pytest.raises(DataError, match="cannot be an image id"):
        safe_id("f", name)


def test_a_small_split_has_an_image_a_batch():
    made = batches_of(refs(f"i{k}" for k in range(64)), 64)
    assert len(made) == 64
    assert all(batch == group[0].image_id and len(group) == 1 for (_, batch), group in made.items())


def test_a_larger_split_is_spread_over_the_batches():
    made = batches_of(refs(f"i{k}" for k in range(2000)), 64)
    assert len(made) == 64 and {split for split, _ in made} == {"train"}
    sizes = [len(group) for group in made.values()]
    assert sum(sizes) == 2000 and 10 <= min(sizes) and max(sizes) <= 60


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), unique=True, max_size=40), st.integers(1, 12))
def test_each_image_is_in_one_batch_and_order_is_kept(names, batches):
    listed = refs(names) + refs(names, "test")
    made = batches_of(listed, batches)
    assert sorted((r.split, r.image_id) for group in made.values() for r in group) == sorted(
        (r.split, r.image_id) for r in listed
    )
    for (split, _), group in made.items():
        assert all(ref.split == split for ref in group)
        assert group == [ref for ref in listed if ref in group]
    assert len(made) <= 2 * batches


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_one_more_image_touches_one_batch(extra):
    names = [f"img_{k:04d}" for k in range(100)]
    before = batches_of(refs(names), 16)
    after = batches_of(refs([*names, f"new{extra}"]), 16)
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    assert len(changed) == 1


def test_the_hash_is_the_same_on_every_machine_and_day():
    # Golden: another hash would move every image to another batch and rerun every SAM job.
    found = [batch_of(ref, 1000, 64) for ref in refs(["IMG_1", "img_0001", "0001"])]
    assert found == ["batch-0023", "batch-0042", "batch-0003"]


def test_splits_do_not_share_batches():
    made = batches_of(refs(["a", "b"], "train") + refs(["a"], "test"), 1)
    assert sorted(made) == [("test", "a"), ("train", "batch-0000")]
