"""Settings of counting models, and the images and network of a training run."""

import numpy as np
import pytest
from pydantic import ValidationError

from crowdmask.config.counting import MODELS, RUN_PRESETS, Counting, CountingRun
from crowdmask.config.crops import CropGeometry, Look, WorkingCopy
from crowdmask.datasets.protocols import Splits
from crowdmask.errors import DataError
from crowdmask.training import runs


def splits(**sizes):
    made = {
        split: {"count": n, "source": {"kind": "layout"}, "images": [f"{split}/{k}" for k in range(n)]}
        for split, n in sizes.items()
    }
    return Splits.model_validate({"dataset": "mine", "splits": made, "hidden": {}, "labelled": {}})


def folded(n, k):
    images = [f"all/{i}" for i in range(n)]
    folds = [
        {"train": [x for x in images if x not in images[i::k]], "test": images[i::k],
         "train_count": n - len(images[i::k]), "test_count": len(images[i::k])}
        for i in range(k)
    ]  # fmt: skip
    whole = splits(all=n).model_dump()
    return Splits.model_validate({**whole, "folds": {"of": "all", "source": {"kind": "order"}, "folds": folds}})


@pytest.mark.parametrize("preset", RUN_PRESETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_preset_is_valid(preset, model):
    run = Counting(preset=preset).of(model)
    assert isinstance(run.part(WorkingCopy), WorkingCopy) and isinstance(run.part(Look), Look)
    assert run.part(CropGeometry).crop % 32 == 0 and (model != "pet" or run.crop % 256 == 0)


def test_a_models_own_settings_are_stronger_than_the_preset():
    settings = Counting(preset="paper", run=CountingRun(lr=0.5, ema=0.9), models={"p2r": {"epochs": 3}})
    assert (settings.of("p2r").epochs, settings.of("p2r").lr, settings.of("p2r").ema) == (3, 5e-5, 0.9)
    assert settings.of("zip").epochs == 2600
    with pytest.raises(ValidationError, match=r"counting\.models\.p2r\.epoch"):
        Counting(models={"p2r": {"epoch": 3}})


def test_names_of_runs():
    assert runs.parse("fold0", 7) == (0, 7) and runs.parse("fold12-seed3", 7) == (12, 3)
    for name in ("fold", "fold1-seed", "fold1-seed2x", "1"):
        with pytest.raises(ValueError, match="is no run"):
            runs.parse(name, 0)


def test_the_layouts_splits():
    run = runs.images_of(splits(train=20, val=3, test=4), "fold0", 0.1, 5)
    assert (len(run.train), len(run.validation), len(run.test), run.seed) == (20, 3, 4, 5)
    run = runs.images_of(splits(train=20, test=4), "fold0", 0.1, 5)
    assert (len(run.train), len(run.validation), len(run.test)) == (18, 2, 4)
    assert not set(run.validation) & set(run.train)
    other = runs.images_of(splits(train=20, test=4), "fold0-seed9", 0.1, 5)
    assert (other.train, other.validation, other.seed) == (run.train, run.validation, 9)
    run = runs.images_of(splits(train=20, val=3), "fold0", 0.1, 5)  # nothing else has points: val is the test
    assert (len(run.train), len(run.validation), run.test) == (18, 2, ("val/0", "val/1", "val/2"))
    with pytest.raises(DataError, match="fold0 needs `train`"):
        runs.images_of(splits(all=9), "fold0", 0.1, 0)


def test_folds():
    found = [runs.images_of(folded(10, 5), f"fold{k}", 0.25, 0) for k in range(1, 6)]
    assert sorted(sum((run.test for run in found), ())) == sorted(f"all/{i}" for i in range(10))
    for run in found:
        assert len(run.validation) == 2 and len(run.train) == 6
        assert not set(run.test) & {*run.train, *run.validation}
    with pytest.raises(DataError, match="no fold 6"):
        runs.images_of(folded(10, 5), "fold6", 0.25, 0)


@pytest.mark.parametrize("model", MODELS)
def test_networks_of_a_seed(model):
    settings = Counting(models={model: {"width": 32, "backbone_width": 4}}).of(model)
    points = [np.array([[3.0, 3.0], [4.0, 4.0], [20.0, 9.0]])]
    first, again, other = (runs.build(model, settings, points, [(32, 40)], seed) for seed in (1, 1, 2))
    equal = [bool((a == b).all()) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(equal)
    assert any(bool((a != b).any()) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    if model in ("ebc", "zip"):
        assert first.centres.tolist() == [0, 1, 2, 3, 4]  # one block holds one head, one holds two
