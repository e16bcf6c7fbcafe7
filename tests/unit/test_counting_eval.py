"""Counting evaluation: by hand, and with a model that is told the answer."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import scene
from standin import make

from crowdmask.errors import CrowdmaskError
from crowdmask.models.base import Prediction
from crowdmask.training.counting_eval import evaluate, measures


def points(*xy):
    return np.array(xy, np.float32).reshape(-1, 2)


def image(people, seed=0, side=50):
    pixels, xy, _ = scene(people, side, seed, radius=3)
    return SimpleNamespace(name=f"train/{seed}", pixels=pixels, points_xy=xy)


def test_counts_by_hand():
    heads = [np.zeros((n, 2)) for n in (0, 4, 10)]
    predictions = [Prediction(count) for count in (1.0, 2.0, 10.5)]
    found = measures(predictions, heads)
    assert found == pytest.approx({"mae": 3.5 / 3, "rmse": math.sqrt(5.25 / 3), "nae": (2 / 4 + 0.5 / 10) / 2})
    assert measures([Prediction(0.0)], [np.zeros((0, 2))]) == {"mae": 0.0, "rmse": 0.0, "nae": 0.0}


def test_places_by_hand():
    """Two points near one head count once; the second image has a point and no heads."""
    predictions = [
        Prediction(3.0, points((10, 10), (11, 10), (37, 30)), np.ones(3)),
        Prediction(1.0, points((5, 5)), np.ones(1)),
        Prediction(0.0, points(), np.ones(0)),
    ]
    heads = [points((10, 11), (30, 30)), points(), points((1, 1))]
    found = measures(predictions, heads)
    assert found["mae"] == 1.0
    assert (found["precision_4px"], found["recall_4px"], found["f1_4px"]) == pytest.approx((1 / 4, 1 / 3, 2 / 7))
    assert (found["precision_8px"], found["recall_8px"], found["f1_8px"]) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert "f1_2.5px" in measures(predictions, heads, [2.5])


def test_nothing_found_and_nothing_there():
    found = measures([Prediction(0.0, points(), np.ones(0))], [points()])
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize("training", [True, False])
def test_every_image_in_order(monkeypatch, training):
    model = make(norm=True).train(training)
    images = [image(n, seed) for seed, n in enumerate((3, 0, 5))]
    seen = []
    found = evaluate(model, iter(images), each=lambda one, prediction: seen.append((one.name, prediction.count)))
    assert model.training == training
    assert found.names == ("train/0", "train/1", "train/2") and found.true == (3, 0, 5)
    assert [p.count for p in found.predictions] == [count for _, count in seen]
    assert all(p.density_hw.shape == (13, 13) for p in found.predictions)
    wanted = np.abs(np.array([count for _, count in seen]) - [3, 0, 5])
    assert found.metrics["mae"] == pytest.approx(wanted.mean())
    assert set(found.metrics) == {"mae", "rmse", "nae"}
    # Statistics of batch norm do not learn from what is evaluated.
    assert int(model.norm.num_batches_tracked) == 0
    again = evaluate(model, images, bf16=True)
    assert again.metrics["mae"] == pytest.approx(found.metrics["mae"], rel=0.05) and again.metrics != found.metrics


def test_no_images():
    with pytest.raises(CrowdmaskError, match="no images to evaluate"):
        evaluate(make(), [])


def test_a_model_of_no_use():
    model = make()
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    with pytest.raises(CrowdmaskError, match="counts nan heads in image train/0"):
        evaluate(model, [image(2)])
