"""Device slots: made-up device folders, no GPU needed."""

import multiprocessing
import os
import threading
import time

import pytest

from crowdmask import gpu
from crowdmask.errors import CrowdmaskError


@pytest.fixture
def free(monkeypatch):
    """A shell without CUDA_VISIBLE_DEVICES, on a machine without nvidia-smi, with a torch that would use a GPU."""
    monkeypatch.delenv(gpu.VARIABLE, raising=False)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


def devices(folder, names):
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ((), 0),
        (("nvidia0",), 1),
        (("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null"), 3),
        (("nvidiactl", "nvidia-uvm"), 0),
    ],
)
def test_count_of_device_files(free, tmp_path, names, number):
    assert gpu.count(devices(tmp_path, names)) == number


@pytest.mark.parametrize(
    ("visible", "number"), [("", 0), ("-1", 0), ("0", 1), ("2,5", 2), ("GPU-8c1f,MIG-77", 2), ("0, 1,", 2)]
)
def test_count_of_visible_devices(free, monkeypatch, tmp_path, visible, number):
    monkeypatch.setenv(gpu.VARIABLE, visible)
    assert gpu.count(devices(tmp_path, ["nvidia0", "nvidia1", "nvidia2"])) == number


@pytest.mark.parametrize(
    ("script", "number"),
    [("echo 'GPU 0: A (UUID: x)'; echo 'GPU 1: B (UUID: y)'", 2), ("echo No devices were found; exit 6", 0), ("", 0)],
)
def test_count_by_nvidia_smi_where_there_are_no_device_files(free, monkeypatch, tmp_path, script, number):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: str(program))
    assert gpu.count(tmp_path / "none") == number


def test_cpu_where_no_gpu_is_wanted(free, monkeypatch):
    monkeypatch.setattr(gpu, "count", lambda: 4)
    monkeypatch.setattr(gpu, "_take", None)  # no lock is touched
    with gpu.device_slot(0) as device:
        assert device == "cpu" and gpu.VARIABLE not in os.environ


def test_cpu_and_a_warning_where_there_is_none(free, monkeypatch, caplog):
    monkeypatch.setattr(gpu, "count", lambda: 0)
    with gpu.device_slot(1) as device:
        assert device == "cpu"
    assert "this machine shows none" in caplog.text


def test_cpu_and_a_warning_where_torch_cannot_use_it(free, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(gpu, "count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with gpu.device_slot(1, tmp_path) as device:
        assert device == "cpu"
    assert "this torch cannot use one" in caplog.text


@pytest.mark.parametrize("visible", ["3", "GPU-8c1f", ""])
def test_a_scheduler_that_chose_is_left_in_charge(free, monkeypatch, tmp_path, visible):
    monkeypatch.setenv(gpu.VARIABLE, visible)
    with gpu.device_slot(1, tmp_path) as device:
        assert device == "cuda" and os.environ[gpu.VARIABLE] == visible
    assert os.environ[gpu.VARIABLE] == visible and not list(tmp_path.iterdir())


def test_jobs_under_a_list_of_devices_take_one_of_it_each(free, monkeypatch, tmp_path):
    monkeypatch.setenv(gpu.VARIABLE, "2,GPU-8c/1f")
    with gpu.device_slot(1, tmp_path, 0.01):
        assert os.environ[gpu.VARIABLE] == "2"
        monkeypatch.setenv(gpu.VARIABLE, "2,GPU-8c/1f")  # what another job inherits
        with gpu.device_slot(1, tmp_path, 0.01) as device:
            assert device == "cuda" and os.environ[gpu.VARIABLE] == "GPU-8c/1f"
    assert os.environ[gpu.VARIABLE] == "2,GPU-8c/1f"


def test_the_slot_is_given_back_also_after_an_error(free, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "count", lambda: 1)
    for _ in range(2):
        with pytest.raises(RuntimeError), gpu.device_slot(1, tmp_path, poll_s=0.01) as device:
            assert device == "cuda" and os.environ[gpu.VARIABLE] == "0"
            raise RuntimeError
        assert gpu.VARIABLE not in os.environ


def test_three_jobs_share_two_devices(tmp_path):
    """`_take` opens the lock file anew each time, so threads exclude each other as processes do."""
    first, second = (gpu._take(tmp_path, ["0", "1"], 1, 0.01) for _ in range(2))
    assert [*first, *second] == ["0", "1"]
    third = []
    waiting = threading.Thread(target=lambda: third.append(gpu._take(tmp_path, ["0", "1"], 1, 0.01)))
    waiting.start()
    time.sleep(0.1)
    assert not third
    os.close(second["1"])
    waiting.join(5)
    assert [*third[0]] == ["1"]
    os.close(first["0"])
    os.close(third[0]["1"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.lock", "1.lock"]


def test_one_job_with_several_devices(free, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "count", lambda: 3)
    with gpu.device_slot(2, tmp_path, 0.01) as device:
        assert device == "cuda" and os.environ[gpu.VARIABLE] == "0,1"
        assert [*gpu._take(tmp_path, ["0", "1", "2"], 1, 0.01)] == ["2"]
    assert gpu.VARIABLE not in os.environ
    assert [*gpu._take(tmp_path, ["0", "1"], 2, 0.01)] == ["0", "1"]


@pytest.mark.parametrize("visible", ["3,5", "GPU-8c1f,GPU-11"])
def test_a_scheduler_that_chose_several_is_left_in_charge(free, monkeypatch, tmp_path, visible):
    monkeypatch.setenv(gpu.VARIABLE, visible)
    with gpu.device_slot(2, tmp_path) as device:
        assert device == "cuda" and os.environ[gpu.VARIABLE] == visible and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("visible", "said"), [(None, "this machine shows 1"), ("7", "CUDA_VISIBLE_DEVICES=7 names 1")])
def test_more_devices_than_there_are(free, monkeypatch, tmp_path, visible, said):
    monkeypatch.setattr(gpu, "count", lambda: 1)
    if visible:
        monkeypatch.setenv(gpu.VARIABLE, visible)
    with pytest.raises(CrowdmaskError, match=f"2 GPUs were asked for, but {said}"), gpu.device_slot(2, tmp_path):
        pass


def test_a_job_that_waits_for_two_holds_none(tmp_path):
    """Else two jobs with one device each would wait for each other."""
    names = ["0", "1"]
    first = gpu._take(tmp_path, names, 1, 0.01)
    pair = []
    waiting = threading.Thread(target=lambda: pair.append(gpu._take(tmp_path, names, 2, 0.01)))
    waiting.start()
    other = gpu._take(tmp_path, names, 1, 0.001)
    assert not pair and [*other] == ["1"]
    for handle in (*first.values(), *other.values()):
        os.close(handle)
    waiting.join(5)
    assert [*pair[0]] == names
    for handle in pair[0].values():
        os.close(handle)


def _job(folder, answers):
    answers.put(*gpu._take(folder, ["0", "1"], 1, 0.01))
    time.sleep(60)


def test_processes_take_different_devices_and_a_killed_one_frees_its_own(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    jobs = [context.Process(target=_job, args=(tmp_path, answers), daemon=True) for _ in range(2)]
    try:
        for job in jobs:
            job.start()
        taken = [answers.get(timeout=30) for _ in jobs]
        assert sorted(taken) == ["0", "1"]
        jobs[0].kill()
        jobs[0].join()
        (handle,) = gpu._take(tmp_path, ["0", "1"], 1, 0.01).values()
        os.close(handle)
    finally:
        for job in jobs:
            job.kill()
            job.join()
