"""The file of splits: made from names alone, again when a name, a list or a setting changes, and only then."""

import json
import os

import pytest
from flow import Flow

TARGET = "results/heads/splits.json"
SETTINGS = {"labelled": {"p50": {"of": "all", "list": "lists/p50.txt"}}, "folds": {"k": 2}}


def entry(**protocols):
    return {"datasets": {"heads": {"format": "ucf", "root": "data", "protocols": {**SETTINGS, **protocols}}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set whose images cannot be opened, with its splits."""
    flow = Flow(tmp_path_factory.mktemp("splits"), entry())
    add(flow, *(str(n) for n in range(1, 5)))
    (flow.folder / "lists").mkdir()
    (flow.folder / "lists" / "p50.txt").write_text("1.jpg\n2\n")
    flow.make(TARGET)
    return flow


def add(flow, *names):
    (flow.folder / "data").mkdir(exist_ok=True)
    for name in names:
        (flow.folder / "data" / f"{name}.jpg").write_bytes(b"")
        (flow.folder / "data" / f"{name}_ann.mat").write_bytes(b"")


def content(flow):
    return json.loads(flow.path("heads", "splits.json").read_text(encoding="utf-8"))


def test_splits_subsets_and_folds(made):
    read = content(made)
    assert read["splits"]["all"]["count"] == 4
    assert read["labelled"]["p50"]["images"] == ["all/1", "all/2"]
    assert read["labelled"]["p50"]["source"]["file"] == "lists/p50.txt"
    assert [fold["test"] for fold in read["folds"]["folds"]] == [["all/1", "all/2"], ["all/3", "all/4"]]
    assert made.plan(TARGET) == {}


def test_what_makes_it_run_again(made, tmp_path):
    flow = made.copy(tmp_path / "it")
    os.utime(flow.folder / "data" / "1.jpg")
    assert flow.plan(TARGET) == {}
    add(flow, "5")
    flow.make(TARGET)
    assert content(flow)["splits"]["all"]["count"] == 5
    (flow.folder / "lists" / "p50.txt").write_text("3\n")
    flow.make(TARGET)
    assert content(flow)["labelled"]["p50"]["images"] == ["all/3"]
    flow.configure(entry(folds={"k": 3}))
    flow.make(TARGET)
    assert len(content(flow)["folds"]["folds"]) == 3
    assert flow.plan(TARGET) == {}


def test_faults_name_the_list(made, tmp_path):
    flow = made.copy(tmp_path / "it")
    (flow.folder / "lists" / "p50.txt").write_text("1\n9\n")
    done = flow.run(TARGET)
    assert done.code and "lists/p50.txt: line 2: '9' is not an image of the split 'all' (4 images" in done.tail
    (flow.folder / "lists" / "p50.txt").unlink()
    done = flow.run(TARGET)
    assert done.code and "lists/p50.txt: no such list, which datasets.heads.protocols names" in done.tail
