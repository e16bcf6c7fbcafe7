"""Training a SAM on true masks: from random weights, or from a checkpoint."""

from __future__ import annotations

import csv
import json
import math
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from crowdmask.config import Prompt, Tiles, TrainSam, canonical
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.files import replacing, sha256, write_json
from crowdmask.masks.rle import Window
from crowdmask.masks.sam import build, load_weights
from crowdmask.tables import by_image, points_of, read
from crowdmask.training.sam_data import Crop, Sample, draw

VERSION = 1


def decode_crop(sam: Sam, embedding: Tensor, crop: Crop, device: torch.device) -> tuple[Tensor, Tensor]:
    """All four mask logits (n, 4, L, L) and IoU estimates (n, 4) for the prompts of one crop.

    Args:
        sam: The model.
        embedding: (1, C, E, E) image embedding of the crop.
        crop: Its prompts; heads without mask or box prompt get SAM's learned filler for it.
        device: Where the model is.
    """
    encoder = sam.prompt_encoder
    points = torch.from_numpy(crop.points_xy).to(device)
    labels = torch.from_numpy(crop.point_labels).to(device)
    sparse = encoder._embed_points(points, labels, pad=False)
    boxed = torch.from_numpy(~np.isnan(crop.boxes_xyxy).any(1)).to(device)
    corners = encoder._embed_boxes(torch.nan_to_num(torch.from_numpy(crop.boxes_xyxy).to(device)))
    filler = encoder.not_a_point_embed.weight.expand_as(corners)
    sparse = torch.cat([sparse, torch.where(boxed[:, None, None], corners, filler)], dim=1)
    masks = torch.from_numpy(crop.masks).to(device)
    masked = masks.flatten(1).any(1)
    without = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = torch.where(masked[:, None, None, None], encoder._embed_masks(masks), without)
    return sam.mask_decoder.predict_masks(embedding, encoder.get_dense_pe(), sparse, dense)


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy plus Dice inside of the weighted region, for each mask.

    Args:
        logits: (..., L, L).
        target: (..., L, L) in [0, 1].
        weight: (..., L, L); cells of weight 1 carry the Dice term.

    Returns:
        (...) losses. The cross-entropy is divided by the sum of the weights of the cells in the circle, so that a
        small head counts as much as a large one (our choice; SAM itself uses focal + Dice on the whole image).
    """
    near = (weight >= 1).float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (entropy * weight).sum((-2, -1)) / near.sum((-2, -1)).clamp(min=1)
    probability = logits.sigmoid() * near
    overlap = (probability * target).sum((-2, -1))
    total = probability.sum((-2, -1)) + (target * near).sum((-2, -1))
    return entropy + 1 - (2 * overlap + 1) / (total + 1)


def crop_losses(logits: Tensor, estimates: Tensor, crop: Crop, device: torch.device) -> dict[str, Tensor]:
    """Loss terms and the mean IoU of one crop, means over its heads.

    Token 0 answers every prompt; of tokens 1 to 3 the best one learns where the prompt is a single point (SAM's
    rule for ambiguous prompts); the IoU head learns the IoU of each token inside of the circle.
    """
    target = torch.from_numpy(crop.target).to(device)[:, None].expand_as(logits)
    weight = torch.from_numpy(crop.weight).to(device)[:, None].expand_as(logits)
    losses = mask_loss(logits, target, weight)
    single = torch.from_numpy(
        ((crop.point_labels >= 0).sum(1) == 1) & ~crop.masks.any((1, 2, 3)) & np.isnan(crop.boxes_xyxy).any(1)
    ).to(device)
    with torch.no_grad():
        near = weight >= 1
        found, true = (logits > 0) & near, (target > 0.5) & near
        union = (found | true).sum((-2, -1)).clamp(min=1)
        iou = (found & true).sum((-2, -1)) / union
    best = losses[:, 1:].min(dim=1).values
    return {
        "mask": losses[:, 0].mean(),
        "multimask": (best * single).sum() / single.sum().clamp(min=1),
        "iou": F.mse_loss(estimates, iou),
        "mean_iou": iou[:, 0].mean(),
    }


WEIGHTS = {"mask": 1.0, "multimask": 0.25, "iou": 0.5}


def rate(step: int, settings: TrainSam) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to 1 %."""
    warm = min(200, max(1, settings.steps // 10))
    if step < warm:
        return settings.lr * (step + 1) / warm
    progress = (step - warm) / max(1, settings.steps - warm)
    return settings.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def prefetch(
    groups: Sequence[Sequence[Sample]], settings: TrainSam, first: int, frame: int, side: int, logit: float
) -> Iterator[list[Crop]]:
    """Crops of step `first` and the following ones, drawn in a thread ahead of their use.

    Each crop has its own seed (run seed, step, slot), so a resumed run draws what the unbroken run would have.
    Data sets take turns at random with equal share, their images in proportion to the root of their heads.
    """
    odds = []
    for group in groups:
        p = np.sqrt([len(s.points_xy) for s in group])
        odds.append(p / p.sum())
    ready: queue.Queue[list[Crop] | BaseException] = queue.Queue(maxsize=4)
    stop = threading.Event()

    def produce() -> None:
        try:
            for step in range(first, settings.steps):
                crops = []
                for slot in range(settings.images):
                    rng = np.random.default_rng([settings.seed, step, slot])
                    which = int(rng.integers(len(groups)))
                    sample = groups[which][int(rng.choice(len(groups[which]), p=odds[which]))]
                    crops.append(draw(sample, rng, frame, side, settings.prompts, logit))
                while not stop.is_set():
                    try:
                        ready.put(crops, timeout=1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        for _ in range(first, settings.steps):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def stack_images(sam: Sam, crops: Sequence[Crop], device: torch.device) -> Tensor:
    """Normalised, padded images (B, 3, S, S) of the crops."""
    return torch.stack([sam.preprocess(torch.from_numpy(c.image).to(device).permute(2, 0, 1).float()) for c in crops])


def train(
    sam: Sam,
    groups: Sequence[Sequence[Sample]],
    settings: TrainSam,
    state_path: Path,
    curve_path: Path,
    device: torch.device,
    logit: float = 6.9,
    identity: str = "",
) -> dict[str, Tensor]:
    """Train `sam` in place; resumes from `state_path` where that is a state of the same settings.

    Args:
        sam: Model with its starting weights.
        groups: Samples of each data set.
        settings: Steps, batch, rates and seed.
        state_path: Checkpoint of the unfinished run, rewritten every `settings.every` steps.
        curve_path: CSV of the means of every `settings.every` steps.
        device: Where to train.
        logit: Strength of the superpixel mask prompt.
        identity: Everything else that the run depends on (data, starting weights); a state of another is not resumed.

    Returns:
        Averaged (EMA) weights.

    Raises:
        CrowdmaskError: a loss is not finite.
    """
    sam.to(device).train()
    frame = sam.image_encoder.img_size
    side = sam.prompt_encoder.mask_input_size[0]
    decay = [p for p in sam.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in sam.parameters() if p.requires_grad and p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=settings.lr,
    )
    average = {k: v.detach().clone() for k, v in sam.state_dict().items()}
    key = identity + settings.model_dump_json()
    first, curve = 0, []
    if state_path.exists():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        if state["settings"] == key:
            sam.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            average = {name: value.to(device) for name, value in state["average"].items()}
            first, curve = state["step"], state["curve"]
    sums: dict[str, float] = {}
    progress = tqdm(total=settings.steps, initial=first, unit="step", mininterval=5, dynamic_ncols=True)
    batches = prefetch(groups, settings, first, frame, side, logit)
    for step, crops in enumerate(batches, start=first):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, settings)
        terms = train_step(sam, optimiser, crops, settings, device)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        with torch.no_grad():
            blend = min(settings.ema, (step + 1) / (step + 10))
            for name, value in sam.state_dict().items():
                average[name].lerp_(value, 1 - blend) if value.is_floating_point() else average[name].copy_(value)
        progress.update()
        if (step + 1) % settings.every == 0 or step + 1 == settings.steps:
            span = settings.every if (step + 1) % settings.every == 0 else (step + 1) % settings.every
            curve.append({"step": step + 1, "lr": rate(step, settings), **{k: v / span for k, v in sums.items()}})
            progress.set_postfix(loss=f"{curve[-1]['loss']:.3f}", iou=f"{curve[-1]['mean_iou']:.3f}")
            sums = {}
            _save_state(state_path, sam, optimiser, average, step + 1, curve, key)
            _write_curve(curve_path, curve)
    progress.close()
    return average


def train_step(
    sam: Sam, optimiser: torch.optim.Optimizer, crops: Sequence[Crop], settings: TrainSam, device: torch.device
) -> dict[str, float]:
    """One optimiser step on a batch of crops; returns the mean of every loss term, their sum and the mean IoU."""
    optimiser.zero_grad(set_to_none=True)
    reduced = settings.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        embeddings = sam.image_encoder(stack_images(sam, crops, device))
    terms: dict[str, list[Tensor]] = {}
    for index, crop in enumerate(crops):
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            logits, estimates = decode_crop(sam, embeddings[index : index + 1], crop, device)
        for name, value in crop_losses(logits.float(), estimates.float(), crop, device).items():
            terms.setdefault(name, []).append(value)
    means = {name: torch.stack(values).mean() for name, values in terms.items()}
    loss = sum((weight * means[name] for name, weight in WEIGHTS.items()), torch.zeros((), device=device))
    if not torch.isfinite(loss):
        raise CrowdmaskError(f"training stopped: the loss is not finite ({ {k: v.item() for k, v in means.items()} })")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
    optimiser.step()
    return {"loss": loss.item(), **{k: v.item() for k, v in means.items()}}


def _save_state(
    path: Path,
    sam: Sam,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    curve: list[dict[str, float]],
    key: str,
) -> None:
    with replacing(path) as temporary:
        torch.save(
            {
                "model": sam.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": step,
                "curve": curve,
                "settings": key,
            },
            temporary,
        )


def _write_curve(path: Path, curve: list[dict[str, float]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(curve[0]))
        writer.writeheader()
        for row in curve:
            writer.writerow({k: v if k == "step" else f"{v:.6g}" for k, v in row.items()})


def save_weights(path: Path, state: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Write a state dict in half precision as safetensors, and what it was made from beside it as JSON."""
    half = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in state.items()}
    with replacing(path) as temporary:
        save_file(half, str(temporary), metadata={"crowdmask": json.dumps(card, sort_keys=True)})
    write_json(path.with_suffix(".json"), card)


def read_samples(
    root: str, exif: Exif, images: str, truth: str, superpixels: str, frame: int, tiles: Tiles
) -> list[Sample]:
    """Samples of one batch of a data set from its tables; images without heads are left out.

    Raises:
        DataError: the tables do not have the same points.
    """
    true_rows, part_rows = by_image(read(truth, "truth")), by_image(read(superpixels, "superpixels"))
    samples = []
    for row in read(images, "images"):
        key = row["split"], row["image_id"]
        points = points_of(row)
        masks = [Window.from_columns(r) for r in true_rows.get(key, [])]
        parts = [Window.from_columns(r) for r in part_rows.get(key, [])]
        if not len(points) == len(masks) == len(parts):
            raise DataError(truth, f"image {'/'.join(key)}: not one true mask and superpixel a point", "Run again.")
        if len(points):
            samples.append(Sample.make(read_row(root, row, exif), points, masks, parts, frame, tiles))
    return samples


def run(
    roots: Sequence[dict[str, str]],
    batches: Sequence[tuple[str, str, str]],
    settings: TrainSam,
    tiles: Tiles,
    prompt: Prompt,
    init: Path | None,
    output: Path,
    state: Path,
    curve: Path,
    device: str,
) -> None:
    """Train on tables and write the averaged weights.

    Args:
        roots: For each batch: `dataset`, `root` and `exif`.
        batches: Paths of the images, truth and superpixels tables.
        settings: Of the training.
        tiles: Zooms that the segment stage will use.
        prompt: Prompt strength that it will use.
        init: Weights to start from; None for random ones.
        output: Weights to write (.safetensors), with a .json beside it that says what they were made from.
        state: Checkpoint of the unfinished run.
        curve: CSV of the losses.
        device: 'cpu' or 'cuda'.
    """
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(settings.seed)
    sam = build(settings.model)
    if init is not None:
        load_weights(sam, init)
    frame = sam.image_encoder.img_size
    groups: dict[str, list[Sample]] = {}
    for place, paths in zip(tqdm(roots, unit="batch"), batches, strict=True):
        group = groups.setdefault(place["dataset"], [])
        group += read_samples(place["root"], place["exif"], *paths, frame, tiles)  # type: ignore[arg-type]
    for name, group in groups.items():
        if not group:
            raise CrowdmaskError(f"train_sam.datasets: {name} has no heads to learn from")
    started_from = sha256(init) if init else None
    identity = canonical(
        {
            "version": VERSION,
            "tiles": tiles.model_dump(mode="json"),
            "logit": prompt.logit,
            "init": started_from,
            "tables": [[sha256(path) for path in paths] for paths in batches],
        }
    )
    weights = train(sam, list(groups.values()), settings, state, curve, torch.device(device), prompt.logit, identity)
    card = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            name: {"images": len(group), "heads": sum(len(s.points_xy) for s in group)}
            for name, group in groups.items()
        },
        "init": started_from,
        "tiles": tiles.model_dump(mode="json"),
        "version": VERSION,
    }
    save_weights(output, weights, card)
    state.unlink(missing_ok=True)
