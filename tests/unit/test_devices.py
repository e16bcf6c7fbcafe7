"""Two processes against one: started once, since each has to load torch."""

import dataclasses
import math

import pytest
import torch
from lightning_fabric import Fabric
from standin import IDENTITY, Standin, batch, cosine, epoch_batches, make, validate

from crowdmask.errors import CrowdmaskError
from crowdmask.training import fit as fitting
from crowdmask.training.curves import read_log
from crowdmask.training.devices import launch
from crowdmask.training.fit import BEST, LAST, LOG, Plan, fit
from crowdmask.training.loop import Objective, train_epoch


def learn(on, batches, **more):
    model = make()
    objective, optimiser = on.setup(Objective(model, "points"), torch.optim.SGD(model.parameters(), lr=0.01))
    found = train_epoch(on, objective, optimiser, batches, 0, progress=False, **more)
    return found, model.state_dict()


def part(on, one):
    """This process's images of a joint batch of 5: the first has 2 of them, the second 3."""
    cut = slice(0, 5) if on.world_size == 1 else [slice(0, 2), slice(2, 5)][on.global_rank]
    parts = {name: getattr(one, name)[cut] for name in ("images", "points_xy", "valid", "names")}
    return dataclasses.replace(one, **parts)


def joint(on, **more):
    return learn(on, [part(on, batch(seed, 5)) for seed in (1, 2, 3)], **more)


def whole(on, folder, epochs=3, stop=None):
    """A training with noise of its own in each process; `stop` breaks off in that epoch."""
    model = make(noise=True)
    torch.manual_seed(on.global_rank)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)

    def batches(epoch):
        for step in range(3):
            if epoch == stop and step == 1:
                raise LookupError
            yield part(on, batch(10 * epoch + step, 5))

    plan = Plan("points", epochs, ema=0.9)
    return fit(on, model, optimiser, batches, validate, plan, folder, IDENTITY, cosine(optimiser), progress=False)


def everything(on, folder):
    """What both processes can do one after the other, then a fault of one."""
    here = folder / str(on.global_rank)
    torch.save(joint(on), here / "joint.pt")
    torch.save(joint(on, accumulate=2), here / "accumulated.pt")
    said = []
    try:
        torch.nn.SyncBatchNorm(4)(torch.rand(2, 4, 3, 3))
    except ValueError as error:
        said.append(str(error))
    try:
        learn(on, list(epoch_batches(0))[: 2 + on.global_rank])
    except CrowdmaskError as error:
        said.append(str(error))
    asked = []
    try:
        learn(on, epoch_batches(0), interrupted=lambda: asked.append(1) or (len(asked) == 3 and on.global_rank == 1))
    except KeyboardInterrupt:
        said.append(f"asked {len(asked)} times")
    whole(on, folder / "unbroken")
    try:
        whole(on, folder / "broken", stop=1)
    except LookupError:
        whole(on, folder / "broken")
    (here / "said").write_text("\n".join(said))
    batches = list(epoch_batches(0))
    if on.global_rank == 1:
        batches[3].images[:] = math.nan
    learn(on, batches)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder with what two processes found, and the error that ended them."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("0", "1"):
        (folder / name).mkdir()
    with pytest.raises(CrowdmaskError) as error:
        launch(everything, folder, processes=2)
    return folder, str(error.value)


@pytest.mark.parametrize(("name", "more"), [("joint", {}), ("accumulated", {"accumulate": 2})])
def test_two_processes_with_parts_of_a_batch_are_one_with_all_of_it(pair, name, more):
    wanted, wanted_weights = joint(Fabric(accelerator="cpu", devices=1), **more)
    for process in ("0", "1"):
        found, weights = torch.load(pair[0] / process / f"{name}.pt", weights_only=True)
        for key in ("total", "count", "blocks", "gradient_norm"):
            assert found[key] == pytest.approx(wanted[key], rel=1e-5), key
        for key, value in wanted_weights.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-5, atol=1e-7, msg=key)


def test_what_both_processes_were_told(pair):
    for process in ("0", "1"):
        norm, number, asked = (pair[0] / process / "said").read_text().splitlines()
        # Why processes on the CPU have their own statistics. Where this fails, torch has learned it.
        assert "SyncBatchNorm expected input tensor to be on" in norm
        assert "epoch 1, step 3: processes have different numbers of batches" in number
        assert asked == "asked 3 times"


def test_the_fault_of_one_process_ends_both_with_its_words(pair):
    assert "loss term count is nan, blocks is nan in epoch 1, step 4, images train/3-0" in pair[1]


def test_two_processes_go_on_as_if_unbroken(pair):
    one, other = pair[0] / "unbroken", pair[0] / "broken"
    for name in (LAST, BEST):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    logs = [[{k: v for k, v in row.items() if k != "images_per_s"} for row in read_log(f / LOG)] for f in (one, other)]
    assert len(logs[0]) == 3 and logs[0] == logs[1]


def test_one_process_does_not_take_over_from_two(pair):
    with pytest.raises(CrowdmaskError, match="was made by 2 processes, not 1"):
        whole(Fabric(accelerator="cpu", devices=1), pair[0] / "unbroken")


def interrupted(on):
    raise KeyboardInterrupt


def test_one_process_is_not_launched_but_called():
    assert launch(lambda on, value: (on.world_size, value), 7) == (1, 7)
    with pytest.raises(KeyboardInterrupt):
        launch(interrupted)


def test_sync_batch_norm_is_used_on_gpus(monkeypatch):
    """Without a GPU: what `fit` would do with the network."""
    model = make(norm=True)
    changed = torch.nn.SyncBatchNorm.convert_sync_batchnorm(Objective(model, "points"))
    assert isinstance(model.norm, torch.nn.SyncBatchNorm) and changed.model is model
    assert model.state_dict().keys() == Standin(norm=True).state_dict().keys()
    assert fitting.nn.SyncBatchNorm is torch.nn.SyncBatchNorm
