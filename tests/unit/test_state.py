"""Checkpoints and models as files: damaged ones, others', and values that must come back as they were."""

import json
import math
import random
from collections import Counter as Multiset

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from standin import IDENTITY, Standin, make

from crowdmask.errors import DataError
from crowdmask.training.plain import differences, listed, to_plain, to_value
from crowdmask.training.randomness import random_state, set_random_state
from crowdmask.training.state import (
    Progress,
    check_tensors,
    load_checkpoint,
    load_model,
    read,
    save_checkpoint,
    save_model,
)

CPU = torch.device("cpu")
NOISE = {name: value[None] for name, value in random_state(CPU).items()}


def build(name, settings):
    assert (name, settings) == ("standin", {"lr": 0.05, "sides": [1, 2]})
    return Standin(norm=True)


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, IDENTITY, make(norm=True), Progress(7, 5, {"mae": 0.1}), {"more": [1, None]})
    return path


def trained():
    """A model with an optimiser that has learned, and a schedule."""
    model = make(norm=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.rand(2, 3, 16, 16))["density"].sum().backward()
    optimiser.step()
    return model, optimiser, torch.optim.lr_scheduler.StepLR(optimiser, 1)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    model, optimiser, schedule = trained()
    save_checkpoint(path, IDENTITY, Progress(1), model, None, optimiser, schedule, NOISE)
    return path


def go_on(path):
    model, optimiser, schedule = trained()
    return load_checkpoint(path, IDENTITY, 1, model, None, optimiser, schedule)


def rewrite(path, tensors=lambda found: found, header=lambda text: text):
    """The file with other tensors or another header."""
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["crowdmask"]
    text = header(text)
    save_file(tensors(load_file(path)), path, None if text is None else {"crowdmask": text})


def test_a_model_knows_what_it_is(model_file):
    model = load_model(model_file, build)
    assert not model.training
    for name, value in make(norm=True).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    header = read(model_file, "model", "").header
    assert header["epoch"] == 5 and header["metrics"] == {"mae": 0.1} and header["more"] == [1, None]
    assert header["data"] == {"images": "3f"} and {"torch", "python", "crowdmask"} == set(header["versions"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "head.bias"}, "no tensor head.bias"),
        (lambda t: {**t, "heads": torch.zeros(1)}, "unknown tensor heads"),
        (lambda t: {**t, "head.bias": torch.zeros(2)}, r"tensor head.bias has shape \(2,\), not \(1,\)"),
        (lambda t: {**t, "head.bias": torch.zeros(1).half()}, "head.bias has dtype torch.float16, not torch.float32"),
    ],
)
def test_a_model_whose_tensors_do_not_fit(model_file, change, said):
    rewrite(model_file, change)
    with pytest.raises(DataError, match=f"{model_file.name}: does not fit the model standin: .*{said}"):
        load_model(model_file, build)


def test_at_most_five_faults_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"no tensor 0; .*no tensor 4; and 4 more"):
        check_tensors(tmp_path, {}, {str(k): torch.zeros(1) for k in range(9)}, "model", "")
    assert listed(["a", "b"]) == "a; b"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "file not found"),
        (b"", "damaged, or no safetensors file"),
        (b"PK\x03\x04 a pickle in a zip", "damaged, or no safetensors file"),
        ("cut", "damaged, or no safetensors file"),
    ],
)
def test_files_that_cannot_be_read(model_file, content, said):
    if content is None:
        model_file.unlink()
    else:
        model_file.write_bytes(model_file.read_bytes()[:-9] if content == "cut" else content)
    with pytest.raises(DataError, match=said):
        load_model(model_file, build)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (lambda text: None, "no header 'crowdmask'"),
        (lambda text: "{", "no header 'crowdmask'"),
        (lambda text: "[1]", "no header 'crowdmask'"),
        (lambda text: '{"format": 1}', "no header 'crowdmask'"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "has format 99, this version reads 1"),
        (lambda text: text.replace('"model", "metrics', '"model", "metrics'), ""),
    ],
)
def test_headers_that_cannot_be_used(model_file, header, said):
    rewrite(model_file, header=header)
    if said:
        with pytest.raises(DataError, match=said):
            load_model(model_file, build)
    else:
        load_model(model_file, build)


def test_a_checkpoint_is_no_model_and_a_model_no_checkpoint(model_file, checkpoint):
    with pytest.raises(DataError, match="is a checkpoint, not a model"):
        load_model(checkpoint, build)
    with pytest.raises(DataError, match="is a model, not a checkpoint"):
        go_on(model_file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "optimiser/0/exp_avg"}, "tensors of some weights are missing"),
        (lambda t: {k: v for k, v in t.items() if not k.startswith("optimiser/1/")}, "of some weights are missing"),
        (lambda t: {**t, "optimiser/99/exp_avg": torch.zeros(1)}, "unknown tensor optimiser/99/exp_avg"),
        (lambda t: {**t, "optimiser/x/exp_avg": torch.zeros(1)}, "unknown tensor optimiser/x/exp_avg"),
        (lambda t: {**t, "optimiser/1/exp_avg": torch.zeros(9)}, "optimiser/1/exp_avg has shape"),
        (lambda t: {k: v for k, v in t.items() if k != "random/torch"}, "random generators.*no tensor torch"),
        (lambda t: {**t, "model/more": torch.zeros(1)}, "does not fit the model: unknown tensor more"),
        (lambda t: {**t, "average/x": torch.zeros(1)}, "average of the weights: True in the file, False now"),
    ],
)
def test_a_checkpoint_whose_tensors_do_not_fit_changes_nothing(checkpoint, change, said):
    rewrite(checkpoint, change)
    model, optimiser, schedule = trained()
    with torch.no_grad():
        model.head.bias.add_(1)
    before = model.head.bias.clone()
    with pytest.raises(DataError, match=said):
        load_checkpoint(checkpoint, IDENTITY, 1, model, None, optimiser, schedule)
    assert torch.equal(model.head.bias, before)


@pytest.mark.parametrize("key", ["progress", "optimiser", "schedule", "processes"])
def test_a_checkpoint_with_a_damaged_header(checkpoint, key):
    def without(text):
        header = json.loads(text)
        del header[key]
        return json.dumps(header)

    rewrite(checkpoint, header=without)
    with pytest.raises(DataError, match="damaged header"):
        go_on(checkpoint)


def test_an_optimiser_with_other_groups(checkpoint):
    model = make(norm=True)
    optimiser = torch.optim.AdamW([{"params": [weight]} for weight in model.parameters()], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1)
    with pytest.raises(DataError, match="the optimiser's groups have other parameters"):
        load_checkpoint(checkpoint, IDENTITY, 1, model, None, optimiser, schedule)


def test_random_generators_go_on():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)

    def draw():
        normal = np.random.standard_normal()  # noqa: NPY002
        return random.random(), random.gauss(0, 1), np.random.random(), normal, torch.rand(1).item()  # noqa: NPY002

    draw()  # an odd number of normal numbers: each generator keeps the second of a pair
    state = random_state(CPU)
    wanted = [draw() for _ in range(3)]
    stacked = {name: torch.stack([torch.ones_like(value), value]) for name, value in state.items()}
    set_random_state({name: value[1] for name, value in stacked.items()}, CPU)
    assert [draw() for _ in range(3)] == wanted
    assert state["normal"][0] == 1 and state["numpy"][-1] == 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.floats(allow_nan=False), inner)
        | st.dictionaries(st.integers(), st.integers()).map(Multiset)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_values_come_back_as_they_were(value):
    back = to_value(json.loads(json.dumps(to_plain(value), allow_nan=False)))
    assert back == value and repr(back) == repr(value)


def test_values_that_json_has_not():
    assert math.isnan(to_value(to_plain(math.nan)))
    with pytest.raises(TypeError, match="cannot hold a Tensor"):
        to_plain([torch.zeros(1)])


def test_differences():
    found = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [1], "f": 0.1}
    assert differences(found, json.loads(json.dumps(found))) == []
    other = {"a": 1, "b": {"c": [1, 3]}, "e": [1, 2], "f": 0.1, "g": 0}
    assert differences(found, other, "settings") == [
        "settings.b.c[1]: 2 in the file, 3 now",
        "settings.b.d: only in the file",
        "settings.e: [1] in the file, [1, 2] now",
        "settings.g: only now",
    ]
