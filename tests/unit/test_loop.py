"""One epoch: sums, weights, errors, averages, accumulation."""

import copy
import dataclasses
import math
import warnings

import pytest
import torch
from lightning_fabric import Fabric
from standin import Standin, batch, epoch_batches, make

from crowdmask.errors import CrowdmaskError
from crowdmask.training.devices import launch, make_fabric
from crowdmask.training.loop import Average, Objective, train_epoch


def fabric():
    return Fabric(accelerator="cpu", devices=1)


def run(model, batches, rate=0.1, epoch=0, bf16=False, on=None, **more):
    """One epoch of plain gradient descent."""
    on = on or fabric()
    objective, optimiser = on.setup(
        Objective(model, "points", bf16), torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    )
    return train_epoch(on, objective, optimiser, batches, epoch, progress=False, **more)


def by_hand(model, batches, rate=0.1, clip=None):
    """The same, written out, with one batch a step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    sums, norms, images = {"total": 0.0, "count": 0.0, "blocks": 0.0}, [], 0
    model.train()
    for one in batches:
        terms = model.losses(model(one.images), one, "points", 0)
        total = 0.5 * terms["count"] + 0.1 * terms["blocks"]
        optimiser.zero_grad()
        total.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        if clip and norm > clip:
            for p in model.parameters():
                p.grad *= clip / norm
        optimiser.step()
        norms.append(norm)
        images += len(one.images)
        for name, value in {"total": total, **terms}.items():
            sums[name] += float(value.detach()) * len(one.images)
    return {name: value / images for name, value in sums.items()} | {"gradient_norm": sum(norms) / len(norms)}


@pytest.mark.parametrize("clip", [None, 0.3])
def test_an_epoch_is_what_it_is_by_hand(clip):
    first = make(norm=True)
    second = copy.deepcopy(first)
    found = run(first, epoch_batches(0), clip=clip)
    wanted = by_hand(second, epoch_batches(0), clip=clip)
    assert list(found) == ["total", "count", "blocks", "lr", "gradient_norm", "images_per_s"]
    assert found["lr"] == 0.1 and found["images_per_s"] > 0
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    for name, value in second.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert wanted["gradient_norm"] > 0.3


def test_total_is_the_weighted_sum():
    found = run(make(), epoch_batches(0))
    assert found["total"] == pytest.approx(0.5 * found["count"] + 0.1 * found["blocks"], rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"count": 1.0}, "loss terms without weight: blocks"),
        ({"count": 1.0, "blocks": 1.0, "mask": 1.0}, "weights without loss term: mask"),
        ({"count": 1.0, "block": 1.0}, "loss terms without weight: blocks; weights without loss term: block"),
        ({"count": 1.0, "blocks": math.nan}, "weights that are no finite number: blocks"),
    ],
)
def test_terms_and_weights_that_do_not_fit(monkeypatch, weights, said):
    monkeypatch.setattr(Standin, "weights", lambda *args: weights)
    with pytest.raises(CrowdmaskError) as error:
        run(make(), epoch_batches(0), epoch=2)
    assert "Standin, epoch 3" in str(error.value) and said in str(error.value)
    assert "terms: count, blocks; weights: count" in str(error.value)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"count": torch.ones(2, requires_grad=True)}, "terms that are no scalar: count"),
        ({"count": torch.ones((), requires_grad=True), "total": torch.ones(())}, "reserved names: total"),
    ],
)
def test_terms_that_cannot_be_used(monkeypatch, terms, said):
    monkeypatch.setattr(Standin, "losses", lambda *args: terms)
    monkeypatch.setattr(Standin, "weights", lambda *args: dict.fromkeys(terms, 1.0))
    with pytest.raises(CrowdmaskError, match=said):
        run(make(), epoch_batches(0))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_not_finite(monkeypatch, value):
    plain = Standin.losses

    def broken(self, found, one, supervision, epoch):
        terms = plain(self, found, one, supervision, epoch)
        return {**terms, "blocks": terms["blocks"] * value} if one.names[0] == "train/202-0" else terms

    monkeypatch.setattr(Standin, "losses", broken)
    model = make()
    with pytest.raises(CrowdmaskError) as error:
        run(model, epoch_batches(2), epoch=2)
    text = str(error.value)
    assert f"loss term blocks is {value} in epoch 3, step 3" in text and "count" not in text
    assert "train/202-0, train/202-1, train/202-2, train/202-3" in text and "train/201" not in text
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_gradient_that_is_not_finite(monkeypatch):
    """The square root of 0 has a finite value and an infinite slope."""
    plain = Standin.losses

    def broken(self, found, one, supervision, epoch):
        terms = plain(self, found, one, supervision, epoch)
        zero = (self.head.bias.sum() - self.head.bias.sum().detach()).sqrt()
        return {**terms, "count": terms["count"] + zero} if one.names[0] == "train/3-0" else terms

    monkeypatch.setattr(Standin, "losses", broken)
    model = make()
    with pytest.raises(CrowdmaskError) as error:
        run(model, epoch_batches(0), accumulate=2)
    text = str(error.value)
    assert "the gradient of loss term count is not finite (weight head.bias) in epoch 1, step 2" in text
    assert "train/3-0" in text and "train/2-0" not in text
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_an_epoch_without_batches():
    with pytest.raises(CrowdmaskError, match="epoch 4 has no batches"):
        run(make(), [], epoch=3)


def test_interrupted_between_two_steps():
    asked = []
    seen = []

    def batches():
        for one in epoch_batches(0):
            seen.append(one)
            yield one

    with pytest.raises(KeyboardInterrupt):
        run(make(), batches(), interrupted=lambda: asked.append(1) or len(asked) == 3)
    assert len(seen) == 3


def joint(batches):
    """Batches as one."""
    return dataclasses.replace(
        batches[0],
        images=torch.cat([one.images for one in batches]),
        points_xy=[points for one in batches for points in one.points_xy],
        valid=torch.cat([one.valid for one in batches]),
        names=tuple(name for one in batches for name in one.names),
    )


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_batches_are_one_large_batch(accumulate):
    first = make()
    second = copy.deepcopy(first)
    batches = list(epoch_batches(0))
    large = [joint(batches[k : k + accumulate]) for k in range(0, 5, accumulate)]
    found, wanted = run(first, batches, accumulate=accumulate), run(second, large)
    for name in ("total", "count", "blocks", "gradient_norm"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-5)
    for name, value in second.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_average_by_hand():
    """Weights and statistics of batch norm over three steps; the count of batches is copied."""
    model = make(norm=True)
    average = Average(model, 0.25)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for step, keep in enumerate((0.1, 2 / 11, 0.25)):
        run(model, [batch(step)])
        average.update(model)
        for name, value in model.state_dict().items():
            wanted[name] = keep * wanted[name] + (1 - keep) * value if value.is_floating_point() else value.clone()
    found = average.module.state_dict()
    assert found.keys() == wanted.keys() and int(found["norm.num_batches_tracked"]) == 3
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert (found["norm.running_mean"] != model.state_dict()["norm.running_mean"]).all()
    assert not average.module.training and not any(p.requires_grad for p in average.module.parameters())


def test_the_average_is_updated_and_the_schedule_advanced_once_a_step():
    model = make()
    average = Average(model, 0.9)
    on = fabric()
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)
    objective, steps = on.setup(Objective(model, "points"), optimiser)
    found = train_epoch(
        on, objective, steps, epoch_batches(0), 0, average=average, schedule=schedule, accumulate=2, progress=False
    )
    assert int(average.updates) == 3 and found["lr"] == 0.25 and schedule.get_last_lr() == [0.125]


def test_bfloat16_rounds_the_network_and_not_the_losses(monkeypatch):
    kinds = set()
    plain, forward = Standin.losses, Standin.forward

    def looking(self, found, one, supervision, epoch):
        kinds.update({found["density"].dtype, one.images.dtype, one.points_xy[0].dtype})
        return plain(self, found, one, supervision, epoch)

    def kind_inside(self, images):
        found = forward(self, images)
        kinds.add(("inside", found["density"].dtype))
        return found

    monkeypatch.setattr(Standin, "losses", looking)
    monkeypatch.setattr(Standin, "forward", kind_inside)
    first = make(norm=True)
    second = copy.deepcopy(first)
    found, exact = run(first, epoch_batches(0), 1e-4, bf16=True), run(second, epoch_batches(0), 1e-4)
    assert kinds == {torch.float32, ("inside", torch.bfloat16), ("inside", torch.float32)}
    assert found["total"] != exact["total"] and found["total"] == pytest.approx(exact["total"], rel=0.02)
    assert all(value.dtype in (torch.float32, torch.int64) for value in first.state_dict().values())


def test_no_warnings_of_fabric():
    """Tests turn warnings into errors; some are shown once a process only."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(make(), epoch_batches(0), on=make_fabric(0))


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CrowdmaskError, match="2 GPUs were asked for, but torch can use 1"):
        make_fabric(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CrowdmaskError, match=r"1 GPUs were asked for, but torch can use 0.*gpu: 0"):
        launch(run, gpus=1)
