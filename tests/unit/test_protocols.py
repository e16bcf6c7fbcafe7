"""Splits, validation parts, labelled subsets and folds: sizes, stability, lists, and every fault with its message."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdmask import cli, config
from crowdmask.config import Protocols
from crowdmask.datasets import choosing, protocols
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import DataError, SettingsError


def refs(split: str, ids: list[str]) -> list[ImageRef]:
    return [ImageRef(split, image_id, f"{image_id}.jpg", f"{image_id}.mat") for image_id in ids]


def numbered(split: str, count: int, form: str = "IMG_{}") -> list[ImageRef]:
    return refs(split, sorted(form.format(n) for n in range(1, count + 1)))


def ids(found: list[ImageRef]) -> list[str]:
    return [ref.image_id for ref in found]


def run(images: list[ImageRef], hidden: list[ImageRef] | None = None, **settings: Any) -> protocols.Splits:
    return protocols.run("mine", images, hidden or [], Protocols.model_validate(settings))


TRAIN, TEST = numbered("train", 30), numbered("test", 10)

# ------------------------------------------------------------------ splits as they come


def test_splits_of_the_layout() -> None:
    made = run(TEST + TRAIN, refs("hidden", ["a"]))
    assert {split: found.count for split, found in made.splits.items()} == {"test": 10, "train": 30}
    assert made.splits["train"].source.kind == "layout"
    assert protocols.split_ids(made, "test")[:2] == ("test/IMG_1", "test/IMG_10")
    assert made.hidden["hidden"].images == ("hidden/a",)
    assert made.labelled == {} and made.folds is None


def test_validation_part_by_share() -> None:
    made = run(TEST + TRAIN, validation={"share": 0.1, "seed": 3})
    train, val = set(protocols.split_ids(made, "train")), set(protocols.split_ids(made, "val"))
    assert len(val) == 3 and not train & val and train | val == {f"train/{image}" for image in ids(TRAIN)}
    assert made.splits["val"].source == protocols.Source(kind="draw", share=0.1, seed=3)
    assert made.splits["train"].source.kind == "rest"
    assert protocols.split_ids(run(TRAIN, validation={"share": 0.1, "seed": 4}), "val") != tuple(sorted(val))


def test_validation_part_by_list(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes(b"IMG_2.jpg\r\nIMG_1\r\n")
    made = run(TRAIN, validation={"list": str(path)}, labelled={"p50": {"share": 0.5}})
    assert protocols.split_ids(made, "val") == ("train/IMG_1", "train/IMG_2")
    assert made.splits["val"].source == protocols.Source(
        kind="list", file=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    labelled, rest = protocols.labelled_ids(made, "p50"), protocols.unlabelled_ids(made, "p50")
    assert len(labelled) == 14 and len(rest) == 14  # of the 28 that are left to train on
    assert set(labelled) | set(rest) == set(protocols.split_ids(made, "train"))


# ------------------------------------------------------------------ by share


@given(st.integers(1, 60), st.floats(0.01, 0.99).map(lambda x: round(x, 2)), st.integers(0, 5))
def test_share_is_exact_and_independent_of_order(count: int, share: float, seed: int) -> None:
    images = numbered("train", count)
    chosen = choosing.by_share(images, share, seed, "labelled")
    hundredths = round(share * 100) * count
    assert len(chosen) == (hundredths + 50) // 100
    assert set(choosing.by_share(images[::-1], share, seed, "labelled")) == set(chosen)
    assert chosen == [ref for ref in images if ref in set(chosen)]


@given(st.integers(1, 60), st.integers(1, 99), st.integers(1, 99), st.integers(0, 5))
def test_larger_shares_hold_smaller_ones(count: int, one: int, two: int, seed: int) -> None:
    images = numbered("train", count)
    small, large = (set(choosing.by_share(images, n / 100, seed, "x")) for n in sorted((one, two)))
    assert small <= large


@given(st.integers(1, 60), st.integers(1, 99), st.integers(0, 5), st.text("abc", min_size=1, max_size=3))
def test_one_more_image_changes_at_most_one_other(count: int, hundredths: int, seed: int, name: str) -> None:
    images = numbered("train", count)
    new = refs("train", [name])
    before = set(choosing.by_share(images, hundredths / 100, seed, "x"))
    after = set(choosing.by_share(images + new, hundredths / 100, seed, "x")) - set(new)
    assert len(before ^ after) <= 1


def test_draws_are_the_same_everywhere() -> None:
    """A change here changes everybody's subsets: raise protocols.VERSION."""
    assert ids(choosing.by_share(TRAIN, 0.1, 0, "labelled")) == DRAWN


DRAWN = ["IMG_10", "IMG_13", "IMG_17"]


def test_validation_does_not_follow_the_subsets() -> None:
    images = numbered("train", 1000)
    one, two = (set(choosing.by_share(images, 0.5, 0, purpose)) for purpose in ("validation", "labelled"))
    assert 200 < len(one & two) < 300


# ------------------------------------------------------------------ by list


def test_list_syntax() -> None:
    text = "\ufeff# head\n\n IMG_3.jpg \nIMG_1 0 1\nIMG_2.JPEG # why\ntrain/IMG_4.png\n"
    assert ids(choosing.by_names("l", text, TRAIN)) == ["IMG_1", "IMG_2", "IMG_3", "IMG_4"]
    odd = refs("all", ["a b", "c.png", "0001"])
    assert ids(choosing.by_names("l", "a b.jpg\nc.png.jpg\n0001 1 2\n", odd)) == ["a b", "c.png", "0001"]
    assert ids(choosing.by_names("l", "c.png", odd)) == ["c.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IMG_1\n\nIMG_99.jpg\n", r"l: line 3: 'IMG_99.jpg' is not an image of the split 'train' \(30 images\)"),
        ("IMG_1\nIMG_1.jpg\n", r"line 2: IMG_1 is in line 1 already"),
        ("test/IMG_1\n", r"line 1: 'test/IMG_1' is not an image"),
        ("../IMG_1\n", r"line 1: '../IMG_1' is not an image"),
        ("# nothing\n", "names no image"),
        ("x" * 500, r"line 1: 'x{80}\.\.\.' is not"),
    ],
)
def test_faults_of_a_list(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choosing.by_names("l", text, TRAIN)


def test_a_labelled_image_must_not_be_validated_on(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("IMG_1\n")
    with pytest.raises(DataError, match=r"line 1: 'IMG_1' is not .* \(29 images, validation part left out\)"):
        run(TRAIN, validation={"list": str(tmp_path / "l")}, labelled={"p": {"list": str(tmp_path / "l")}})


def test_unreadable_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l"
    with pytest.raises(DataError, match="cannot be read"):
        run(TRAIN, labelled={"p": {"list": str(path)}})
    path.write_bytes(b"IMG_1\nIMG_\xff2\n")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        run(TRAIN, labelled={"p": {"list": str(path)}})
    monkeypatch.setattr(protocols, "MAX_LIST_BYTES", 3)
    with pytest.raises(DataError, match="13 bytes, more than the 3"):
        run(TRAIN, labelled={"p": {"list": str(path)}})


PUBLISHED = {
    "sha": (300, "IMG_{}", {"5": 15, "10": 30, "40": 120}),
    "shb": (400, "IMG_{}", {"5": 20, "10": 40, "40": 160}),
    "ucf": (1201, "img_{:04}", {"5": 55, "10": 109, "40": 433}),
    "jhu": (4372, "{:04}", {"5": 114, "10": 228, "40": 909}),
    "nwpu": (3609, "{:04}", {"5": 155, "10": 310, "40": 1243, "val": 310}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_lists(name: str, shared: Path) -> None:
    """Every published list is read as it is. They are draws of their own: the smaller are not parts of the larger."""
    folder = shared / "labelled_splits"
    if not folder.is_dir():
        pytest.skip(f"no published lists at {folder}")
    count, form, sizes = PUBLISHED[name]
    entries = {f"p{part}": {"list": str(folder / f"{name}-{part}.txt")} for part in sizes}
    made = run(numbered("train", count, form), labelled=entries)
    assert {part: made.labelled[f"p{part}"].count for part in sizes} == sizes
    five, ten, forty = (set(protocols.labelled_ids(made, f"p{part}")) for part in ("5", "10", "40"))
    assert not five <= ten and not ten <= forty
    for part, size in sizes.items():
        assert len(protocols.unlabelled_ids(made, f"p{part}")) == count - size


def test_nwpu_validation_list(shared: Path) -> None:
    folder = shared / "labelled_splits"
    if not folder.is_dir():
        pytest.skip(f"no published lists at {folder}")
    lists = {part: str(folder / f"nwpu-{part}.txt") for part in ("5", "10", "40", "val")}
    made = run(
        numbered("train", 3609, "{:04}"),
        validation={"list": lists.pop("val")},
        labelled={f"p{part}": {"list": path} for part, path in lists.items()},
    )
    assert made.splits["val"].count == 310 and made.splits["train"].count == 3299


# ------------------------------------------------------------------ folds


def test_folds_in_order_as_for_ucf_cc_50() -> None:
    made = run(numbered("all", 50, "{}"), folds={})
    for fold in range(5):
        train, test = protocols.fold_ids(made, fold + 1)
        assert set(test) == {f"all/{n}" for n in range(10 * fold + 1, 10 * fold + 11)}
        assert len(train) == 40 and not set(train) & set(test)
    assert made.folds is not None and made.folds.source.kind == "order"


@given(st.integers(2, 40), st.integers(2, 10), st.none() | st.integers(0, 9))
def test_folds_hold_each_image_once(count: int, k: int, seed: int | None) -> None:
    if count < k:
        with pytest.raises(DataError, match=r"cannot be divided .* Lower `k`"):
            run(numbered("all", count), folds={"k": k, "seed": seed})
        return
    made = run(numbered("all", count), folds={"k": k, "seed": seed})
    assert made.folds is not None
    tests = [image for fold in made.folds.folds for image in fold.test]
    assert sorted(tests) == sorted(protocols.split_ids(made, "all"))
    assert {fold.test_count for fold in made.folds.folds} <= {count // k, count // k + 1}
    for fold in made.folds.folds:
        assert sorted(fold.train + fold.test) == sorted(tests)
        assert (fold.train_count, fold.test_count) == (len(fold.train), len(fold.test))


def test_natural_order() -> None:
    assert ids(choosing.natural(refs("a", ["10", "2", "a10", "a9", "1", "01"]))) == ["01", "1", "2", "10", "a9", "a10"]


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"validation": {"of": "all", "share": 0.1}},
            r"mine.protocols.validation: there is no split 'all'; splits: test",
        ),
        ({"labelled": {"p": {"share": 0.01}}}, r"labelled\.p: a share of 0\.01 of 30 images is none. Raise"),
        ({"validation": {"share": 0.99}}, r"takes all images of the split 'train'"),
        ({"folds": {"of": "test", "k": 11}}, r"protocols\.folds: 10 images cannot be divided into 11 folds"),
        ({"folds": {}}, r"there is no split 'all'"),
    ],
)
def test_faults_of_the_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(TEST + TRAIN, **settings)


def test_a_layout_with_validation_has_no_second_one() -> None:
    with pytest.raises(DataError, match="has a split 'val' of 10 images already"):
        run(TRAIN + numbered("val", 10), validation={"share": 0.1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": {"shar": 0.1}}, r"protocols\.validation\.shar: unknown key \(did you mean share\?\)"),
        (
            {"validation": {"share": 2}},
            r"protocols\.validation\.share: must be a number > 0 and < 1, or null \(got 2\)",
        ),
        ({"validation": {}}, r"protocols\.validation: give either `list` or `share`"),
        ({"labelled": {"p": {"list": "a", "seed": 1}}}, r"protocols\.labelled\.p: `seed` goes with `share`"),
        ({"labelled": {"p": {"share": 0.1, "seed": -1}}}, r"protocols\.labelled\.p\.seed: must be"),
        ({"labelled": {"p/q": {"share": 0.1}}}, r"protocols\.labelled\.p/q: not a name: letters"),
        ({"labelled": {"p": 3}}, r"protocols\.labelled\.p: must be a section of keys and values \(got 3\)"),
        ({"folds": {"k": 1}}, r"protocols\.folds\.k: must be a whole number from 2 to 1000 \(got 1\)"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config.load({"datasets": {"sha": {"format": "ucf", "root": "x", "protocols": settings}}})


# ------------------------------------------------------------------ the file


def test_the_file_is_the_interface(tmp_path: Path) -> None:
    made = run(TEST + TRAIN, labelled={"p10": {"share": 0.1}}, folds={"of": "train", "k": 3, "seed": 1})
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_none=True)))
    assert protocols.load(path) == made
    with pytest.raises(DataError, match="no labelled subset 'p5'; known: p10"):
        protocols.labelled_ids(made, "p5")
    with pytest.raises(DataError, match="no split 'val'; known: test, train"):
        protocols.split_ids(made, "val")
    for fold in (0, 4):
        with pytest.raises(DataError, match=f"there is no fold {fold}; folds: 1 to 3"):
            protocols.fold_ids(made, fold)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "cannot|valid"),
        ('{"version": 2, "dataset": "a", "splits": {}, "hidden": {}, "labelled": {}}', "version: "),
        (
            '{"dataset": "a", "splits": {"t": {"count": 2, "source": {"kind": "layout"}, "images": []}},'
            ' "hidden": {}, "labelled": {}}',
            "splits.t: .*count is 2",
        ),
        ("[" * 100_000, "not valid JSON"),
        ("9" * 10_000, "not valid JSON|valid"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(DataError, match="cannot be read"):
        protocols.load(path)
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        protocols.load(path)


def test_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(1, 11):
        (tmp_path / f"{n}.jpg").touch()
        (tmp_path / f"{n}_ann.mat").touch()
    entry = {"format": "ucf", "root": str(tmp_path)}
    names = choosing.digest(numbered("all", 10, "{}"), [])
    settings = {"version": 1, "protocols": {"folds": {"k": 2}, "labelled": {"p": {"of": "all", "share": 0.2}}}}
    out = tmp_path / "out" / "splits.json"
    arguments = ["stage", "splits", "--name", "u", "--selection", json.dumps(entry), "--images", names]
    arguments += ["--settings", json.dumps(settings), "--output", str(out)]
    assert cli.main(arguments) == 0
    made = protocols.load(out)
    assert made.splits["all"].count == 10 and len(protocols.labelled_ids(made, "p")) == 2
    assert "all/10" in protocols.fold_ids(made, 2)[1]
    (tmp_path / "3.jpg").unlink()
    (tmp_path / "3_ann.mat").unlink()
    assert cli.main(arguments) == 1
    assert "Run Snakemake again" in capsys.readouterr().err


def test_the_module_is_light() -> None:
    code = (
        "import sys; from crowdmask.datasets import protocols;"
        "print([m for m in ('torch', 'skimage', 'scipy', 'cv2', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_drawn_validation_part_leaves_listed_subsets_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\n".join(f"IMG_{k}" for k in range(1, 21)))
    (tmp_path / "b").write_text("IMG_20\nIMG_21\nIMG_22")
    labelled = {"a": {"list": str(tmp_path / "a")}, "b": {"list": str(tmp_path / "b")}}
    for seed in range(20):
        made = run(TRAIN, validation={"share": 0.1, "seed": seed}, labelled=labelled)
        assert made.splits["val"].count == 3 and made.splits["train"].count == 27
        assert made.labelled["a"].count == 20 and made.labelled["b"].count == 3
        used = {name for part in made.labelled.values() for name in part.images}
        assert not used & set(made.splits["val"].images)
    with pytest.raises(DataError, match="takes all that no labelled list names"):
        run(TRAIN, validation={"share": 0.3}, labelled=labelled)
