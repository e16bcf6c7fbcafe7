"""Which images are handed out: by name, or the worst first."""

from __future__ import annotations

import pytest

from crowdmask.corrections import selection
from crowdmask.errors import SettingsError

KNOWN = [("test", "a"), ("test", "b"), ("train", "a"), ("train", "x, y"), ("train", "scene-0001")]


def test_images_by_name():
    assert selection.named(["test/a,b", "train/a test/a"], KNOWN) == [("test", "a"), ("test", "b"), ("train", "a")]
    assert selection.named(["x, y"], KNOWN) == [("train", "x, y")]
    assert selection.named([" b , scene-0001 "], KNOWN) == [("test", "b"), ("train", "scene-0001")]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a"], "several images are called 'a': write one of test/a, train/a"),
        (["scene-0002"], "No image 'scene-0002'; similar: train/scene-0001"),
        (["b", "tset/b", "%%%%"], "No image 'tset/b'; similar: test/b.* No image '%%%%' and none of a similar name"),
        ([","], "names no image"),
    ],
)
def test_names_that_are_none(texts, words):
    with pytest.raises(SettingsError, match=words):
        selection.named(texts, KNOWN)


def test_the_worst_images_by_their_ten_highest_scores():
    rows = [("test", "a", 0.5)] * 10 + [("test", "a", 0.0)] * 100
    rows += [("test", "b", 0.0)] * 30 + [("test", "b", 1.0)]
    rows += [("train", "a", 0.5), ("train", "a", None), ("train", "a", float("nan")), ("gone", "x", 9.0)]
    scores = selection.image_scores(rows)
    assert scores == {("test", "a"): 0.5, ("test", "b"): 0.1, ("train", "a"): 0.5, ("gone", "x"): 9.0}
    order = [("test", "a"), ("train", "a"), ("test", "b")]
    assert selection.worst(scores, KNOWN, 9) == order
    assert selection.worst(scores, KNOWN[::-1], 2) == [("train", "a"), ("test", "a")]
    assert selection.worst(scores, KNOWN, 1) == order[:1]
