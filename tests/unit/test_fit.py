"""A whole training: broken and unbroken, early stopping, the best epoch, checkpoints that do not fit."""

import csv
import dataclasses
import math
import multiprocessing
import os
import signal

import pytest
import torch
from standin import IDENTITY, Standin, epoch_batches, make, train

from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.training import state
from crowdmask.training.curves import read_log
from crowdmask.training.fit import BEST, LAST, LOG, Plan
from crowdmask.training.state import Identity, Progress, read

PLAN = Plan("points", epochs=5, clip=1.0, ema=0.9)


class Stop(Exception):
    pass


def broken_off(stop_epoch, stop_step, act):
    def batches(epoch):
        for step, one in enumerate(epoch_batches(epoch)):
            if (epoch, step) == (stop_epoch, stop_step):
                act()
            yield one

    return batches


def stop():
    raise Stop


def log(folder):
    """Rows without the one column that is a measured time."""
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in read_log(folder / LOG)]


def same(one, other):
    assert log(one) == log(other)
    for name in (LAST, BEST):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    done, model = train(folder, PLAN)
    return folder, done, model


def killed(folder):
    train(folder, PLAN, batches=broken_off(2, 3, lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_killed_in_the_third_epoch_and_gone_on_with(unbroken, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(log(tmp_path)) == 2
    (tmp_path / ".last.safetensors.abc.safetensors").write_bytes(b"half")  # had it been writing
    drawn = []
    done, model = train(tmp_path, PLAN, batches=lambda epoch: drawn.append(epoch) or epoch_batches(epoch))
    assert drawn == [2, 3, 4] and done == unbroken[1]
    same(tmp_path, unbroken[0])
    for name, value in unbroken[2].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert not list(tmp_path.glob(".*"))


def test_what_a_training_leaves(unbroken):
    folder, done, _ = unbroken
    assert done.epoch == 5 and not done.stopped
    rows = log(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0]) == ["epoch", "total", "count", "blocks", "lr", "gradient_norm", "val_mae", "val_worst"]
    errors = [float(row["val_mae"]) for row in rows]
    assert done.best_epoch == errors.index(min(errors)) + 1 and done.best["mae"] == min(errors)
    rates = [float(row["lr"]) for row in rows]
    # Cosine over 25 steps: the last step of epoch k is number 5 k - 1.
    assert rates == pytest.approx([0.025 * (1 + math.cos(math.pi * (5 * k - 1) / 25)) for k in range(1, 6)])
    best = read(folder / BEST, "model", "")
    assert best.header["epoch"] == done.best_epoch and best.header["metrics"] == done.best
    assert best.header["settings"] == {"lr": 0.05, "sides": [1, 2]}
    last = read(folder / LAST, "checkpoint", "")
    assert int(last.tensors["average/updates"]) == 25
    assert any(not torch.equal(best.tensors[name], value) for name, value in last.part("model").items())


def test_the_kept_weights_are_those_that_were_validated(tmp_path):
    """With an average: its weights; without: the network's own."""
    seen = {}

    def looking(model, epoch):
        seen[epoch] = {name: value.clone() for name, value in model.state_dict().items()}
        assert not model.training
        return {"mae": -epoch}

    for ema in (0.9, None):
        train(tmp_path / str(ema), dataclasses.replace(PLAN, epochs=2, ema=ema), validation=looking)
        kept = read(tmp_path / str(ema) / BEST, "model", "").tensors
        assert kept.keys() == seen[2].keys() and all(torch.equal(kept[name], seen[2][name]) for name in kept)
        trained = read(tmp_path / str(ema) / LAST, "checkpoint", "").part("model")
        assert all(torch.equal(kept[name], trained[name]) for name in kept) == (ema is None)


SCHEDULES = {
    "warm-up": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / 7)),
    "steps": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 3, 3], 0.1),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    "chain": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 2), torch.optim.lr_scheduler.CosineAnnealingLR(o, 9)], [2]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # of SequentialLR itself
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD])
def test_schedules_and_optimisers_go_on(tmp_path, schedule, optimiser):
    plan = dataclasses.replace(PLAN, epochs=4, ema=None, advance="epoch" if schedule == "steps" else "step")
    options = {"schedule": SCHEDULES[schedule], "optimiser": optimiser}
    train(tmp_path / "one", plan, **options)
    with pytest.raises(Stop):
        train(tmp_path / "two", plan, batches=broken_off(2, 1, stop), **options)
    train(tmp_path / "two", plan, **options)
    same(tmp_path / "one", tmp_path / "two")
    rates = [float(row["lr"]) for row in log(tmp_path / "one")]
    if schedule == "steps":
        assert rates == pytest.approx([0.05, 0.05, 0.005, 0.00005])
    assert len(set(rates)) > 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_between_two_steps(unbroken, tmp_path, number):
    before = signal.getsignal(number)
    steps = []

    def batches(epoch):
        for step, one in enumerate(epoch_batches(epoch)):
            if (epoch, step) == (1, 2):
                os.kill(os.getpid(), number)
            steps.append((epoch, step))
            yield one

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, PLAN, batches=batches)
    assert steps[-1] == (1, 2) and len(log(tmp_path)) == 1 and signal.getsignal(number) is before
    train(tmp_path, PLAN)
    same(tmp_path, unbroken[0])


def test_the_second_signal_acts_at_once(tmp_path):
    seen = []

    def batches(epoch):
        yield from epoch_batches(epoch)
        os.kill(os.getpid(), signal.SIGINT)
        seen.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        seen.append("second")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, PLAN, batches=batches)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["first"] and not (tmp_path / LAST).exists()


def given(values):
    """A validation that gives these, one after the other."""
    return lambda model, epoch: {"mae": values[epoch - 1], "gain": 10 - values[epoch - 1]}


def test_early_stopping(tmp_path):
    values = [5.0, 3.0, 3.0, 4.0, 2.0, 2.5, 2.6, 2.7, 1.0]
    plan = dataclasses.replace(PLAN, epochs=9, patience=3, ema=None)
    done, _ = train(tmp_path, plan, validation=given(values))
    assert done == Progress(epoch=8, best_epoch=5, best={"mae": 2.0, "gain": 8.0}, waited=3, stopped=True)
    assert read(tmp_path / BEST, "model", "").header["epoch"] == 5
    # A training that has stopped is not begun again.
    again, _ = train(tmp_path, plan, validation=given(values), batches=stop)
    assert again == done


def test_patience_goes_on_after_a_break(tmp_path):
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 0.5]
    plan = dataclasses.replace(PLAN, epochs=6, patience=4, ema=None)
    with pytest.raises(Stop):
        train(tmp_path, plan, validation=given(values), batches=broken_off(3, 0, stop))
    done, _ = train(tmp_path, plan, validation=given(values))
    assert (done.epoch, done.best_epoch, done.stopped) == (5, 1, True)


def test_the_best_by_a_metric_that_grows(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=3, metric="gain", larger_is_better=True, evaluate_every=2)
    done, _ = train(tmp_path, plan, validation=given([0.0, 4.0, 3.0]))
    assert (done.best_epoch, done.best["gain"]) == (3, 7.0)
    assert [row["val_gain"] for row in log(tmp_path)] == ["", "6.0", "7.0"]


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    done, model = train(tmp_path, dataclasses.replace(PLAN, epochs=2, ema=None), validation=None)
    assert done == Progress(epoch=2, best_epoch=2)
    kept = read(tmp_path / BEST, "model", "").tensors
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("metrics", "said"),
    [({"rmse": 1.0}, "no metric 'mae' .*but rmse"), ({}, "but nothing"), ({"mae": math.nan}, "mae is nan")],
)
def test_a_validation_that_cannot_be_used(tmp_path, metrics, said):
    with pytest.raises(CrowdmaskError, match=f"epoch 2: .*{said}"):
        train(tmp_path, validation=lambda model, epoch: {"mae": 1.0} if epoch == 1 else metrics)
    assert len(log(tmp_path)) == 1


def test_a_fault_in_training_leaves_the_checkpoint(unbroken, tmp_path, monkeypatch):
    plain = Standin.losses

    def broken(self, found, one, supervision, epoch):
        terms = plain(self, found, one, supervision, epoch)
        return {**terms, "count": terms["count"] * (math.nan if epoch == 2 else 1)}

    monkeypatch.setattr(Standin, "losses", broken)
    with pytest.raises(CrowdmaskError, match="loss term count is nan in epoch 3, step 1, images train/200-0"):
        train(tmp_path, PLAN)
    assert read(tmp_path / LAST, "checkpoint", "").header["progress"]["dict"][0] == ["epoch", 2]
    monkeypatch.undo()
    train(tmp_path, PLAN)
    same(tmp_path, unbroken[0])


@pytest.mark.parametrize(("what", "done"), [("log", 2), ("checkpoint", 2), ("model", 3)])
def test_a_full_disk_leaves_the_checkpoint(tmp_path, monkeypatch, what, done):
    """ENOSPC while the third epoch's log, checkpoint or best weights are half written."""
    validation = given([5.0, 4.0, 3.0, 2.0, 1.0])  # each epoch is better, so that its weights are written
    train(tmp_path / "whole", PLAN, validation=validation)
    calls = []
    save = state.save_file

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) == (1 if what == "checkpoint" else 2):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    def full_log(self, rows):
        self.writer.writerow(["half"])
        raise OSError(28, "No space left on device")

    def act():
        if what == "log":
            monkeypatch.setattr(csv.DictWriter, "writerows", full_log)
        else:
            monkeypatch.setattr(state, "save_file", full)

    with pytest.raises(DataError, match=r"cannot be written.*No space left on device.*Make room"):
        train(tmp_path / "full", PLAN, validation=validation, batches=broken_off(2, 0, act))
    monkeypatch.undo()
    assert not list((tmp_path / "full").glob(".*"))
    assert read(tmp_path / "full" / LAST, "checkpoint", "").header["progress"]["dict"][0] == ["epoch", done]
    assert len(log(tmp_path / "full")) == (2 if what == "log" else 3)
    train(tmp_path / "full", PLAN, validation=validation)
    same(tmp_path / "whole", tmp_path / "full")


def limited(folder):
    import resource

    def act():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # a checkpoint has more

    try:
        train(folder, PLAN, batches=broken_off(2, 0, act))
    except DataError as error:
        (folder / "said").write_text(str(error))


def test_a_limit_of_the_system_leaves_the_checkpoint(unbroken, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=limited, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"{tmp_path / LAST}: cannot be written") and "Make room" in said
    assert (tmp_path / LAST).stat().st_size > 8000 and not list(tmp_path.glob(".*"))
    train(tmp_path, PLAN)
    same(tmp_path, unbroken[0])


@pytest.fixture
def half(tmp_path):
    """Folder of a training after two epochs."""
    with pytest.raises(Stop):
        train(tmp_path, PLAN, batches=broken_off(2, 0, stop))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identity": Identity("p2r", IDENTITY.settings, IDENTITY.data)}, "checkpoint of standin, not of p2r"),
        (
            {"identity": dataclasses.replace(IDENTITY, settings={"lr": 0.1, "sides": (1, 3), "new": 1})},
            "other settings: settings.lr: 0.05 in the file, 0.1 now; settings.new: only now; "
            "settings.sides[1]: 2 in the file, 3 now",
        ),
        ({"identity": dataclasses.replace(IDENTITY, data={"images": "4a"})}, "other data: data.images: '3f' in the"),
        ({"plan": dataclasses.replace(PLAN, clip=2.0)}, "settings.plan.clip: 1.0 in the file, 2.0 now"),
        ({"optimiser": torch.optim.SGD}, "optimiser: AdamW in the file, SGD now"),
        (
            {"schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 1)},
            "schedule: CosineAnnealingLR in the file, StepLR",
        ),
        ({"model": make(norm=False)}, "does not fit the model: unknown tensor norm.bias"),
    ],
)
def test_a_checkpoint_of_another_training(half, changes, said):
    before = (half / LAST).read_bytes(), (half / LOG).read_bytes()
    with pytest.raises(DataError) as error:
        train(half, **changes)
    text = str(error.value)
    assert text.startswith(f"{half / LAST}: ") and said in text
    assert "Restore what it was made with to go on, or delete the file to start anew." in text
    assert before == ((half / LAST).read_bytes(), (half / LOG).read_bytes())
    same_settings = Identity("standin", {"sides": (1, 2), "lr": 0.05}, {"images": "3f"})
    assert train(half, identity=same_settings)[0].epoch == 5


def test_the_best_is_written_again_where_the_kill_came_between(tmp_path):
    validation = given([5.0, 4.0, 3.0, 2.0, 1.0])
    train(tmp_path / "one", PLAN, validation=validation)
    with pytest.raises(Stop):
        train(tmp_path / "two", PLAN, validation=validation, batches=broken_off(3, 0, stop))
    (tmp_path / "two" / BEST).unlink()
    train(tmp_path / "two", dataclasses.replace(PLAN), validation=validation)
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("how", ["gone", "of another epoch"])
def test_the_best_that_is_lost(tmp_path, how):
    validation = given([1.0, 4.0, 3.0, 2.0, 5.0])
    with pytest.raises(Stop):
        train(tmp_path, PLAN, validation=validation, batches=broken_off(3, 0, stop))
    if how == "gone":
        (tmp_path / BEST).unlink()
    else:
        train(tmp_path / "other", dataclasses.replace(PLAN, epochs=2), validation=given([5.0, 4.0]))
        (tmp_path / "other" / BEST).replace(tmp_path / BEST)
    with pytest.raises(DataError, match=f"{BEST}: .*Delete {LAST} beside it to train anew"):
        train(tmp_path, PLAN, validation=validation)


def test_bfloat16_goes_on_too(tmp_path):
    plan = dataclasses.replace(PLAN, bf16=True, epochs=3)
    train(tmp_path / "one", plan)
    with pytest.raises(Stop):
        train(tmp_path / "two", plan, batches=broken_off(1, 2, stop))
    train(tmp_path / "two", plan)
    same(tmp_path / "one", tmp_path / "two")


def test_a_schedule_that_wants_a_metric(tmp_path):
    with pytest.raises(ValueError, match="not supported"):
        train(tmp_path, schedule=torch.optim.lr_scheduler.ReduceLROnPlateau)
