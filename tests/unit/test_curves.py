"""Logs of trainings: CSV, TensorBoard, pictures."""

import csv
import math

import pytest
from PIL import Image

from crowdmask.errors import DataError
from crowdmask.training import curves
from crowdmask.training.curves import board, draw, log_epoch, read_log


def test_numbers_read_back_as_they_were(tmp_path):
    values = {"total": 0.1 + 0.2, "lr": 1e-300, "whole": 3, "bad": math.inf}
    log_epoch(tmp_path / "log.csv", 1, values)
    assert (tmp_path / "log.csv").read_text() == "epoch,total,lr,whole,bad\n1,0.30000000000000004,1e-300,3.0,inf\n"
    (row,) = read_log(tmp_path / "log.csv")
    assert {name: float(row[name]) for name in values} == values


def test_epochs_that_are_done_again_are_replaced(tmp_path):
    log = tmp_path / "log.csv"
    for epoch in (1, 2, 3, 4):
        log_epoch(log, epoch, {"total": epoch})
    log_epoch(log, 3, {"total": 30})
    assert [(row["epoch"], row["total"]) for row in read_log(log)] == [("1", "1.0"), ("2", "2.0"), ("3", "30.0")]
    log_epoch(log, 1, {"other": 1})
    assert log.read_text() == "epoch,other\n1,1.0\n"


def test_columns_that_come_later(tmp_path):
    log = tmp_path / "log.csv"
    log_epoch(log, 1, {"total": 1, "lr": 2})
    log_epoch(log, 2, {"total": 1, "split": 3, "lr": 2, "val_mae": 4})
    log_epoch(log, 3, {"total": 1, "lr": 2})
    assert log.read_text() == "epoch,total,lr,split,val_mae\n1,1.0,2.0,,\n2,1.0,2.0,3.0,4.0\n3,1.0,2.0,,\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epoch,total\n1,2,3\n", "row 0: has too few or too many values"),
        (b"epoch,total\n1,2\n2\n", "row 1: has too few or too many values"),
        (b"step,total\n1,2\n", "no number of an epoch"),
        (b"epoch,total\n-1,2\n", "no number of an epoch"),
        (b"epoch,total\n\xff,2\n", "is no CSV"),
        (b'epoch,total\n1,"2\n', "is no CSV"),
    ],
)
def test_a_file_that_is_no_log_is_left_alone(tmp_path, content, said):
    log = tmp_path / "log.csv"
    log.write_bytes(content)
    with pytest.raises(DataError, match=f"log.csv.*{said}"):
        log_epoch(log, 3, {"total": 1})
    assert log.read_bytes() == content


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with board(tmp_path, 0) as write:
        for epoch in (1, 2, 3):
            write(epoch, {"total": epoch / 8, "val_mae": 8 * epoch})
    with board(tmp_path, 1) as write:  # broken off in the second epoch of the first run
        write(2, {"total": 20})
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/total", "validation/mae"}
    assert [(e.step, e.value) for e in events.Scalars("train/total")] == [(1, 0.125), (2, 20.0)]


def test_without_tensorboard(tmp_path, monkeypatch):
    with board(tmp_path / "unwanted", 0, wanted=False) as write:
        write(1, {"total": 1})
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    with board(tmp_path / "missing", 0) as write:
        write(1, {"total": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    log, picture = tmp_path / "log.csv", tmp_path / f"curves.{suffix}"
    for epoch in (1, 2, 3):
        log_epoch(
            log, epoch, {"total": 1 / epoch, "lr": 0.1, "gradient_norm": 1} | ({"val_mae": 4} if epoch == 2 else {})
        )
    assert draw(log, picture)
    if suffix == "png":
        with Image.open(picture) as opened:
            assert opened.size == (1200, 480)
    else:
        text = picture.read_text()
        assert text.count('id="axes_') == 4 and "val_mae" in text


def test_no_picture(tmp_path, monkeypatch):
    log = tmp_path / "log.csv"
    with pytest.raises(DataError, match="no epochs to draw"):
        draw(log, tmp_path / "curves.svg")
    log_epoch(log, 1, {"total": 1})
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    assert not draw(log, tmp_path / "curves.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_the_log_is_plain_csv(tmp_path):
    log_epoch(tmp_path / "log.csv", 1, {'a,"b"': 1})
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["epoch", 'a,"b"'], ["1", "1.0"]]
