"""Training: crops, loss, schedule, and a run that was interrupted."""

import math

import numpy as np
import pytest
import torch

from crowdmask.config import Tiles, TrainSam
from crowdmask.errors import CrowdmaskError
from crowdmask.masks.rle import Window
from crowdmask.masks.sam import load_weights
from crowdmask.masks.small import build_small
from crowdmask.training import train_sam
from crowdmask.training.sam_data import SLOTS, Sample, draw
from crowdmask.training.train_sam import crop_losses, decode_crop, mask_loss, rate, save_weights, stack_images, train

CPU = torch.device("cpu")
FRAME, SIDE = 256, 128


def discs(count=9, size=(160, 220), seed=0):
    """A picture of bright discs on grey, with their points, masks and squares as superpixels."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    height, width = size
    ys, xs = np.mgrid[:height, :width]
    image = rng.integers(60, 90, (height, width, 3), dtype=np.uint8)
    points, truth, parts = [], [], []
    while len(points) < count:
        x, y = rng.uniform(12, [width - 13, height - 13])
        if all(math.hypot(x - px, y - py) > 26 for px, py in points):
            mask = (xs - x) ** 2 + (ys - y) ** 2 <= 9**2
            image[mask] = rng.integers(150, 255, 3)
            points.append((x, y))
            truth.append(Window(0, 0, mask).tight())
            parts.append(Window(0, 0, (abs(xs - x) <= 7) & (abs(ys - y) <= 7)).tight())
    return Sample.make(image, np.array(points), truth, parts, FRAME, Tiles())


def crops(count, heads=4, sample=None):
    sample = sample or discs()
    return [draw(sample, np.random.default_rng([7, k]), FRAME, SIDE, heads, 6.9) for k in range(count)]


def settings(**more):
    return TrainSam(steps=6, every=2, images=1, prompts=2, precision="fp32", threads=1, seed=3, **more)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build_small()


def test_shapes_and_labels_of_crops():
    seen = set()
    for crop in crops(60):
        n = len(crop.target)
        assert 1 <= n <= 4 and crop.image.dtype == np.uint8 and max(crop.image.shape[:2]) == FRAME
        assert crop.points_xy.shape == (n, SLOTS, 2) and crop.point_labels.shape == (n, SLOTS)
        assert crop.target.shape == crop.weight.shape == (n, SIDE, SIDE) and crop.masks.shape == (n, 1, SIDE, SIDE)
        assert set(np.unique(crop.point_labels)) <= {-1, 0, 1}
        assert (crop.point_labels[:, 1:] < 1).all()  # the head is the only positive, in the first slot
        for k in range(n):
            labels = crop.point_labels[k]
            masked, boxed = bool(crop.masks[k].any()), bool(np.isfinite(crop.boxes_xyxy[k]).all())
            seen.add((labels[0] == 1, (labels == 0).any(), masked, boxed))
            assert labels[0] == 1 or (masked and boxed)
            if masked:
                assert set(np.unique(crop.masks[k])) == {np.float32(-6.9), np.float32(6.9)}
            if boxed:
                x0, y0, x1, y1 = crop.boxes_xyxy[k]
                assert 0 <= x0 < x1 <= FRAME and 0 <= y0 < y1 <= FRAME
    assert {(True, False, False, False), (True, False, True, False), (False, False, True, True)} <= seen
    assert {(True, False, False, True), (True, True, False, False), (True, True, True, False)} <= seen


def test_target_weight_and_point_agree_under_every_symmetry():
    step = FRAME / SIDE
    for crop in crops(60):
        h, w = (math.ceil(n / step) for n in crop.image.shape[:2])
        for k in range(len(crop.target)):
            target, weight = crop.target[k], crop.weight[k]
            assert not target[h:].any() and not target[:, w:].any() and not weight[h:].any() and not weight[:, w:].any()
            assert set(np.unique(weight)) <= {0, np.float32(0.03), 1}
            assert target.min() >= 0 and target.max() <= 1 + 1e-6
            if crop.point_labels[k, 0] == 1:
                x, y = np.minimum((crop.points_xy[k, 0] + 0.5) / step, [w - 1, h - 1]).astype(int)
                assert target[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max() > 0.5  # the click lies on its disc
            inside = target > 0.5
            assert (weight[inside] == 1).mean() > 0.95  # the circle to the nearest neighbour holds the disc
            if crop.masks[k].any() and crop.point_labels[k, 0] == 1:
                assert (inside & (crop.masks[k, 0] > 0)).any()
            for x, y in crop.points_xy[k][crop.point_labels[k] == 0]:  # other heads lie off the disc
                column, row = np.clip((np.array([x, y]) + 0.5) / step, 0, SIDE - 1).astype(int)
                assert target[row, column] < 0.5


def test_a_seed_draws_the_same_crop():
    sample = discs()
    a, b = (draw(sample, np.random.default_rng(5), FRAME, SIDE, 4, 6.9) for _ in range(2))
    for name in ("image", "points_xy", "point_labels", "boxes_xyxy", "masks", "target", "weight"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_mask_loss_against_loops():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 2, (3, 5, 6)), rng.random((3, 5, 6))
    weight = rng.choice([0, 0.03, 1], (3, 5, 6))
    expected = []
    for z, t, w in zip(logits, target, weight, strict=True):
        p = 1 / (1 + np.exp(-z))
        entropy = sum(-w[i] * (t[i] * np.log(p[i]) + (1 - t[i]) * np.log(1 - p[i])) for i in np.ndindex(5, 6)) / max(
            (w == 1).sum(), 1
        )
        near = w == 1
        dice = 1 - (2 * (p * t)[near].sum() + 1) / (p[near].sum() + t[near].sum() + 1)
        expected.append(entropy + dice)
    found = mask_loss(*(torch.from_numpy(a.astype(np.float32)) for a in (logits, target, weight)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    perfect = mask_loss(torch.full((1, 4, 4), 30.0), torch.ones(1, 4, 4), torch.ones(1, 4, 4))
    assert perfect.item() == pytest.approx(0, abs=1e-5)
    assert mask_loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)).isfinite()


def test_decode_crop_is_the_official_decoder_with_fillers(small):
    """Equal: a mask or none, and points with boxes. Training always has 5 + 2 tokens; the ones in excess are fillers.

    The official prompt encoder adds one filler where there is no box, so a point-only prompt of training equals the
    official one given the point, four points of label -1, the official filler and one more.
    """
    sample = discs()
    with torch.no_grad():
        for crop in crops(6, sample=sample):
            embedding = small.image_encoder(stack_images(small, [crop], CPU))
            logits, scores = decode_crop(small, embedding, crop, CPU)
            for k in range(len(crop.target)):
                points, labels = torch.from_numpy(crop.points_xy[[k]]), torch.from_numpy(crop.point_labels[[k]])
                boxed = bool(np.isfinite(crop.boxes_xyxy[k]).all())
                if not boxed:
                    points = torch.cat([points, torch.zeros(1, 1, 2)], 1)
                    labels = torch.cat([labels, torch.full((1, 1), -1)], 1)
                sparse, dense = small.prompt_encoder(
                    points=(points, labels),
                    boxes=torch.from_numpy(crop.boxes_xyxy[[k]]) if boxed else None,
                    masks=torch.from_numpy(crop.masks[[k]]) if crop.masks[k].any() else None,
                )
                true, true_scores = small.mask_decoder.predict_masks(
                    embedding, small.prompt_encoder.get_dense_pe(), sparse, dense
                )
                torch.testing.assert_close(logits[[k]], true, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(scores[[k]], true_scores, rtol=1e-4, atol=1e-4)


def total_loss(model, batch):
    embeddings = model.image_encoder(stack_images(model, batch, CPU))
    terms = [crop_losses(*decode_crop(model, embeddings[[k]], crop, CPU), crop, CPU) for k, crop in enumerate(batch)]
    return sum(sum(train_sam.WEIGHTS[name] * term[name] for name in train_sam.WEIGHTS) for term in terms)


def test_every_parameter_gets_a_gradient(small):
    with torch.no_grad():  # residual blocks begin as the identity: their first halves see no gradient until they move
        for module in small.modules():
            if hasattr(module, "conv2"):
                module.conv2.weight.normal_(0, 0.05)
    total_loss(small, crops(10)).backward()
    without = {name for name, p in small.named_parameters() if p.grad is None or not p.grad.any()}
    # Of the masks 1 to 3 only the best of each single-point prompt learns, so one or two may be idle in one batch.
    idle = {name.split(".")[2] for name in without if name.startswith("mask_decoder.output_hypernetworks_mlps.")}
    assert "0" not in idle and len(idle) < 3
    assert {name for name in without if "output_hypernetworks_mlps" not in name} == set(), "parameters that never learn"


def test_one_picture_is_learned(small):
    optimiser = torch.optim.AdamW(small.train().parameters(), lr=1e-3)
    batch = crops(1, heads=3)
    losses = [train_sam.train_step(small, optimiser, batch, settings(), CPU)["loss"] for _ in range(15)]
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
    assert all(math.isfinite(loss) for loss in losses)


def test_a_loss_that_is_not_finite_stops_the_training(small):
    with torch.no_grad():
        small.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(math.nan)
    optimiser = torch.optim.AdamW(small.parameters())
    with pytest.raises(CrowdmaskError, match="not finite"):
        train_sam.train_step(small, optimiser, crops(1), settings(), CPU)


def run(folder, model=None, **more):
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    return train(build_small(), [[discs()], [discs(5, seed=2)]], settings(**more), folder / "s", folder / "c.csv", CPU)


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    step, calls = train_sam.train_step, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 4:  # in step 4, after the state of step 2... and one lost step
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(train_sam, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    resumed = run(tmp_path / "broken")
    assert len(calls) == 4 + 4  # steps 3 to 6 again
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert (tmp_path / "whole" / "c.csv").read_bytes() == (tmp_path / "broken" / "c.csv").read_bytes()
    lines = (tmp_path / "whole" / "c.csv").read_text().splitlines()
    assert lines[0] == "step,lr,loss,mask,multimask,iou,mean_iou"
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "4", "6"]


def test_a_state_of_other_settings_is_not_resumed(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    calls = []

    def counting(*args):
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return {"loss": 1.0, "mean_iou": 0.0}

    monkeypatch.setattr(train_sam, "train_step", counting)
    with pytest.raises(Stop):
        run(tmp_path)
    calls.clear()
    monkeypatch.setattr(train_sam, "train_step", lambda *args: calls.append(1) or {"loss": 1.0, "mean_iou": 0.0})
    run(tmp_path, lr=2e-3)
    assert len(calls) == 6


def test_learning_rate():
    s = TrainSam(steps=1000, lr=1e-3)
    rates = [rate(step, s) for step in range(1000)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < 1e-4 and rates[top] == pytest.approx(1e-3, rel=0.01) and top <= 200
    change = np.diff(rates)
    assert (change[:top] >= 0).all() and (change[top:] <= 0).all()
    assert rates[99] == pytest.approx(1e-3) and rates[550] == pytest.approx(5.05e-4, rel=0.01)
    assert rates[-1] == pytest.approx(1e-5, rel=0.05)
    assert 0 < rate(0, TrainSam(steps=1)) <= 1e-3


def test_weights_come_back_within_half_precision(small, tmp_path):
    state = small.state_dict()
    save_weights(tmp_path / "w.safetensors", state, {"seed": 1})
    assert (tmp_path / "w.json").read_text() == '{\n  "seed": 1\n}\n'
    torch.manual_seed(9)
    other = build_small()
    load_weights(other, tmp_path / "w.safetensors")
    for name, value in other.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[name], rtol=1e-3, atol=1e-4)
