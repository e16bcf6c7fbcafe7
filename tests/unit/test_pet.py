"""PET and OPET as a whole: sizes, gradients, what they learn, who sees whom, padding, mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import batch
from pet_cases import mixed, small

from crowdmask.losses.grid import cell_centres
from crowdmask.models import backbone, pet_transformer
from crowdmask.models.base import Batch, Supervision, normalise
from crowdmask.models.pet import Pet
from crowdmask.models.pet_splitter import DENSE, LEVELS, SPARSE
from crowdmask.models.pet_windows import enlarge


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: two threads that wait for each other on a busy machine take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def total(model: Pet, found: dict, data: Batch, supervision: Supervision, epoch: int) -> torch.Tensor:
    terms, weights = model.losses(found, data, supervision, epoch), model.weights(supervision, epoch)
    assert terms.keys() == weights.keys()
    return sum((weights[name] * value for name, value in terms.items()), torch.zeros(()))


def sure(model: Pet, split: float) -> Pet:
    """Every query is a person; every region has the split value's sign."""
    with torch.no_grad():
        for level in LEVELS:
            model.heads[level.name].person.bias += torch.tensor([-99.0, 99.0])
        model.splitter.unit.bias.fill_(split)
    return model.eval()


def test_golden_parameters() -> None:
    made = Pet(backbone.build("vgg16_bn"))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in made.named_children()}
    assert count == {
        "backbone": 14_723_136,
        "pyramid": 328_448 + 2 * 590_080 + 2 * 65_792,
        "encoder": 4 * (263_168 + 262_912 + 1_024),
        "splitter": 257,
        "decoder": 2 * (2 * 263_168 + 262_912 + 1_536),
        "heads": 2 * (514 + 2 * 65_792 + 514),
    }
    assert sum(count.values()) == 20_318_793
    # The published network has a third smoothing, whose output nothing reads.
    published = sum(count.values()) + 9 * 256 * 256 + 256
    assert published == 20_908_873 and abs(published - 20.9e6) < 0.1e6
    assert [layer.attention.num_heads for layer in made.encoder.layers] == [8] * 4


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="hidden size of 48: not a multiple of 32"):
        Pet(backbone.build("small"), 48)
    with pytest.raises(ValueError, match="256 x 128 pixels: sides must be multiples of 256"):
        small()(torch.ones(1, 3, 128, 256))


@pytest.mark.parametrize("epoch", [5, 0])
@pytest.mark.parametrize("supervision", ["points", "masks"])
def test_every_parameter_receives_a_gradient(supervision: Supervision, epoch: int) -> None:
    model, data = small().train(), mixed()
    total(model, model(data.images), data, supervision, epoch).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert silent == ([] if epoch else ["splitter.unit.weight", "splitter.unit.bias"])


def test_levels_share_the_decoder_but_not_the_heads() -> None:
    model, data = small().train(), mixed()
    for level in LEVELS:
        model.zero_grad()
        terms = model.losses(model(data.images), data, "points", 5)
        (terms[f"class_{level.name}"] + terms[f"points_{level.name}"]).backward()
        other = (DENSE if level is SPARSE else SPARSE).name
        assert all(bool((p.grad != 0).any()) for p in model.decoder.parameters())
        assert all(bool((p.grad != 0).any()) for p in model.heads[level.name].parameters())
        assert all(p.grad is None or not bool(p.grad.any()) for p in model.heads[other].parameters())


@pytest.mark.parametrize("supervision", ["points", "masks"])
def test_learns_one_batch(supervision: Supervision) -> None:
    model, data = small().train(), batch(12, side=256)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    values = []
    for _ in range(60):
        loss = total(model, model(data.images), data, supervision, 5)
        values.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimiser.step()
    assert values[-1] < 0.1 * values[0]
    found = model.eval().predict(data.images[0])
    assert found.count == len(found.points_xy) == len(found.scores) == 12
    away = torch.cdist(torch.from_numpy(found.points_xy), data.points_xy[0])
    assert float(away.amin(0).max()) < 4 and float(away.amin(1).max()) < 4


@pytest.mark.parametrize("people", [(0,), (0, 0), (1,), (1, 0, 1)])
@pytest.mark.parametrize("supervision", ["points", "boxes"])
@pytest.mark.parametrize("epoch", [0, 5])
def test_few_or_no_people(people: tuple[int, ...], supervision: Supervision, epoch: int) -> None:
    model, data = small().train(), batch(*people, side=256)
    loss = total(model, model(data.images), data, supervision, epoch)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_only_windows_of_a_level_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At test time windows are chosen and go in chunks, with the values of all at once; losses decode the rest."""
    model, data = small().eval(), mixed()
    monkeypatch.setattr(pet_transformer, "CHUNK", 300)
    sizes: list[int] = []
    model.decoder.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[:2].numel()))
    with torch.no_grad():
        model.splitter.unit.weight *= 50
        model.splitter.unit.bias.fill_(float("nan"))
        memory = model(data.images)["memory"]
        mean = (torch.nn.functional.avg_pool2d(memory, (8, 16)) * model.splitter.unit.weight).sum(1)
        model.splitter.unit.bias.fill_(-float(mean.median()))  # half of the regions are dense
        sizes.clear()
        found = model(data.images)
        assert 0 < max(sizes) <= 300
        dense = found["split"] > 0.5
        assert 4 <= int(dense.sum()) <= dense.numel() - 4
        for level, chosen in ((SPARSE, ~dense), (DENSE, dense)):
            mask = enlarge(chosen, level.region_queries)[:, None].expand(-1, 2, -1, -1)
            whole = model.decode(found, level)
            for key in ("logits", "xy"):
                one, other = found[f"{level.name}_{key}"], whole[f"{level.name}_{key}"]
                torch.testing.assert_close(one[mask], other[mask], rtol=1e-5, atol=1e-4)
            assert not bool(found[f"{level.name}_logits"][~mask].any())
            assert bool(whole[f"{level.name}_logits"][~mask].any())
        assert not bool(found["complete"].any())
        everything = found | model.decode(found, SPARSE) | model.decode(found, DENSE)
        for name, value in model.losses(found, data, "masks", 5).items():
            torch.testing.assert_close(value, model.losses(everything, data, "masks", 5)[name])
        # All are decoded: only those of the region's level are read.
        for i in range(4):
            pair = [
                model.read({key: value[i : i + 1] for key, value in x.items()}, 256, 256) for x in (found, everything)
            ]
            np.testing.assert_allclose(pair[0].points_xy, pair[1].points_xy, atol=1e-4)


def test_images_of_a_batch_do_not_meet() -> None:
    model, data = small().eval(), mixed()
    with torch.no_grad():
        together = model(data.images)
        for i in range(4):
            for key, value in model(data.images[i : i + 1]).items():
                torch.testing.assert_close(value, together[key][i : i + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (31, 64), (65, 300), (256, 256), (257, 130)])
def test_any_size_and_no_point_in_padding(size: tuple[int, int]) -> None:
    """Every query a person: as many points as cells begin in the image, of the level's stride, none outside."""
    image = normalise(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    for split, stride, level in ((-99.0, 8, 0), (99.0, 4, 1)):
        model = sure(small(), split)
        found = model.predict(image)
        assert found.count == -(-size[0] // stride) * -(-size[1] // stride) == len(found.points_xy)
        assert bool((found.points_xy >= 0).all() and (found.points_xy <= [size[1] - 1, size[0] - 1]).all())
        more = model.predict_candidates(image)
        assert bool((more.levels == level).all()) and more.features.shape == (len(found.points_xy), 64)
        np.testing.assert_array_equal(more.points_xy, found.points_xy)
        np.testing.assert_array_equal(more.scores, found.scores)
        assert bool(np.isfinite(more.features).all() and (more.scores > 0.5).all())


def test_each_region_yields_points_of_one_level() -> None:
    model, image = sure(small(), 0.0), mixed().images[0]
    with torch.no_grad():
        found = model(image[None])
        found["split"] = torch.tensor([[[0.2, 0.9], [0.5, 0.1], [0.51, 0.0], [0.4, 1.0]]])
        found |= model.decode(found, SPARSE) | model.decode(found, DENSE)
    found["sparse_xy"], found["dense_xy"] = (
        cell_centres(256 // s, 256 // s, s, torch.zeros(1)).T.reshape(1, 2, 256 // s, 256 // s) for s in (8, 4)
    )
    more = model.candidates(found, 256, 256)
    regions = np.stack([more.points_xy[:, 1] // 64, more.points_xy[:, 0] // 128], 1).astype(int)
    for row in range(4):
        for column in range(2):
            levels = more.levels[(regions == [row, column]).all(1)]
            dense = float(found["split"][0, row, column]) > 0.5
            assert levels.tolist() == ([1] * 512 if dense else [0] * 128)


def test_padded_crops_in_training() -> None:
    model, data = small().train(), batch(3, 0, side=256)
    data = replace(data, points_xy=[points.clamp(max=99) for points in data.points_xy])
    data.valid[:, 100:], data.valid[:, :, 100:] = 0, 0
    data.images.mul_(data.valid[:, None])
    found = model(data.images)
    loss = total(model, found, data, "masks", 5)
    loss.backward()
    assert bool(torch.isfinite(loss))
    # Logits of padding have no part in it.
    changed = dict(found)
    for level in LEVELS:
        padded = data.valid[:, None, :: level.stride, :: level.stride] == 0
        changed[f"{level.name}_logits"] = torch.where(padded, 50.0, found[f"{level.name}_logits"])
    torch.testing.assert_close(total(model, changed, data, "masks", 5), loss)


def test_no_nan_in_bfloat16() -> None:
    model, data = small().train(), mixed()
    data = replace(data, images=data.images.clone())
    data.images[1, :, 90:], data.valid[1, 90:] = 0, 0
    with torch.autocast("cpu", torch.bfloat16):
        found = model(data.images)
        loss = total(model, found, data, "masks", 5)
    assert loss.dtype == torch.float32 and bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert np.isfinite(model.eval().predict_candidates(data.images[1]).features).all()


def test_same_seed_same_losses() -> None:
    data = mixed()
    pair = []
    for _ in range(2):
        model = small(7).train()
        loss = total(model, model(data.images), data, "masks", 5)
        loss.backward()
        pair.append((float(loss.detach()), model.encoder.layers[0].feed[0].weight.grad.clone()))
    assert pair[0][0] == pair[1][0] and torch.equal(pair[0][1], pair[1][1])
