"""Networks: sizes, gradients, what they can learn, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import batch, scene
from safetensors.torch import save_file

from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.models import backbone, density, p2r
from crowdmask.models.base import Counter, Supervision, normalise

CENTRES = {8: (0.0, 1, 2, 3, 4.3), 16: (*map(float, range(11)), 11.5, 13.4, 17.0)}


def small(kind: str) -> Counter:
    torch.manual_seed(5)
    body = backbone.build("small", width=8)
    if kind == "p2r":
        return p2r.P2R(body, 16)
    head, _, stride = kind.partition("-")
    side = int(stride or 8)
    return density.DensityCounter(body, head, CENTRES[side], 16, side)  # type: ignore[arg-type]


KINDS = ("p2r", "ebc", "zip", "density", "ebc-16", "zip-16")


def total(model: Counter, found: dict, data, supervision: Supervision) -> torch.Tensor:
    terms, weights = model.losses(found, data, supervision, 0), model.weights(supervision, 0)
    assert terms.keys() == weights.keys()
    return sum((weights[name] * value for name, value in terms.items()), torch.zeros(()))


def test_golden_parameters() -> None:
    made = p2r.P2R(backbone.build("vgg16_bn"))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in made.named_children()}
    assert count == {"backbone": 14_723_136, "neck": 852_736, "head": 1_198_600}
    assert round(sum(count.values()) / 1e6, 3) == 16.774
    assert round((count["backbone"] + count["neck"]) / 1e6, 2) == 15.58
    assert round((count["neck"] + count["head"]) / 1e6, 2) == 2.05


@pytest.mark.parametrize("name", ["vgg16_bn", "small", "timm/resnet18", "timm/mobilenetv3_small_050"])
def test_backbones_have_their_strides(name: str) -> None:
    body = backbone.build(name).eval()
    with torch.no_grad():
        found = body(torch.zeros(1, 3, 64, 96))
    assert {s: tuple(v.shape) for s, v in found.items()} == {
        s: (1, body.channels[s], 64 // s, 96 // s) for s in (4, 8, 16)
    }


@pytest.mark.parametrize("supervision", ["points", "masks"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_receives_a_gradient(kind: str, supervision: Supervision) -> None:
    model, data = small(kind).train(), batch(7, 0, 1)
    total(model, model(data.images), data, supervision).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert silent == []


@pytest.mark.parametrize("supervision", ["points", "masks"])
@pytest.mark.parametrize("kind", ["p2r", "ebc", "zip", "density"])
def test_learns_one_batch(kind: str, supervision: Supervision) -> None:
    model, data = small(kind).train(), batch(7, 2, side=96)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    first, said = None, []
    for step in range(1, 401):
        found = model(data.images)
        loss = total(model, found, data, supervision)
        first = float(loss.detach()) if first is None else first
        if step % 20 == 0:
            # In training mode: with the batch's own statistics, as it has learnt.
            parts = [{k: v[i : i + 1].detach() for k, v in found.items()} for i in range(2)]
            said.append([model.read(part, 96, 96).count for part in parts])
            if said[-1] == pytest.approx([7, 2], abs=0.5) and float(loss.detach()) < 0.3 * first:
                return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail(f"counts of 7 and 2 heads, every 20 steps: {said}; loss {first} to {float(loss.detach())}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (31, 64), (65, 33)])
def test_any_size_and_nobody(kind: str, size: tuple[int, int]) -> None:
    model = small(kind).eval()
    found = model.predict(normalise(np.zeros((*size, 3), np.uint8)))
    assert np.isfinite(found.count) and found.count >= 0
    if found.points_xy is not None:
        assert found.count == len(found.points_xy) == len(found.scores)
        assert bool((found.points_xy <= [size[1] - 1, size[0] - 1]).all())
    else:
        assert found.density_hw.shape == tuple(-(-side // found.stride) for side in size)
    data = batch(0, 0, side=64)
    assert bool(torch.isfinite(total(model, model(data.images), data, "masks")))


def test_padding_does_not_count() -> None:
    model = small("p2r").eval()
    torch.nn.init.constant_(model.head[4].bias, 0.0)
    with torch.no_grad():
        model.head[4].bias[4:] += 9  # every cell is positive
    assert model.predict(normalise(np.zeros((30, 41, 3), np.uint8))).count == 8 * 11


def test_mask_targets_lie_in_the_masks() -> None:
    _, points, labels = scene(9)
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(2))
    cells = p2r.mask_targets(noise, torch.from_numpy(points), torch.from_numpy(labels))
    centre = torch.stack([cells % 32, cells // 32], 1) * 4 + 1.5
    pixel = torch.floor(centre + 0.5).long()
    assert torch.from_numpy(labels)[pixel[:, 1], pixel[:, 0]].tolist() == list(range(1, 10))


def test_golden_bin_centres() -> None:
    counts = [np.array([[0, 0, 1], [2, 5, 7]]), np.array([4.0, 0])]
    assert density.bin_centres(counts, (0, 1, 2, 3, 4)) == (0, 1, 2, 3, pytest.approx(16 / 3))
    assert density.bin_centres([], (0, 1, 2)) == (0, 1, 2)


@pytest.mark.parametrize("kind", ["dmcount", "mse"])
def test_other_count_losses(kind: str) -> None:
    model = density.DensityCounter(
        backbone.build("small", width=8), "ebc", CENTRES[8], 16, terms=density.Terms(count_loss=kind)
    )
    data = batch(7, 0)
    loss = total(model, model(data.images), data, "points")
    loss.backward()
    assert bool(torch.isfinite(loss)) and bool((model.head[3].weight.grad != 0).any())


def test_weights_of_a_file(tmp_path: Path) -> None:
    body = backbone.build("vgg16_bn")
    start = (0, 23, 33)
    classifier = {"classifier.0.weight": torch.zeros(1)}
    for key, value in body.state_dict().items():
        part, layer, leaf = key.removeprefix("parts.").split(".")
        classifier[f"features.{start[int(part)] + int(layer)}.{leaf}"] = value + 1
    torch.save(classifier, tmp_path / "vgg.pth")
    save_file(body.state_dict(), tmp_path / "own.safetensors")
    found = backbone.build("vgg16_bn", str(tmp_path / "vgg.pth")).state_dict()
    assert all(torch.equal(found[key], value + 1) for key, value in body.state_dict().items())
    found = backbone.build("vgg16_bn", str(tmp_path / "own.safetensors")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in body.state_dict().items())


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CrowdmaskError, match="no backbone 'vgg'"):
        backbone.build("vgg")
    with pytest.raises(CrowdmaskError, match="no ImageNet weights"):
        backbone.build("small", "imagenet")
    with pytest.raises(DataError, match="file not found"):
        backbone.build("small", str(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="no checkpoint of tensors"):
        backbone.build("small", str(tmp_path / "bad.pth"))
    save_file(backbone.build("small", width=4).state_dict(), tmp_path / "narrow.safetensors")
    with pytest.raises(DataError, match=r"parts.0.0.0.weight is \(4, 3, 3, 3\) instead of \(8, 3, 3, 3\)"):
        backbone.build("small", str(tmp_path / "narrow.safetensors"), 8)
    with pytest.raises(DataError, match="no tensor"):
        backbone.build("vgg16_bn", str(tmp_path / "narrow.safetensors"))
    with pytest.raises(CrowdmaskError, match="no features at strides"):
        backbone.build("timm/no_such_model")


def test_imagenet_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(CrowdmaskError, match=r"cannot be had .*weights: none"):
        backbone.build("vgg16_bn", "imagenet")
