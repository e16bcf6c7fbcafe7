"""From prompts to mask logits: SAM's encoder and decoder on one tile, prompts in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

from crowdmask.masks.prompts import Frame, Prompts

PIXELS_AT_ONCE = 1 << 25
"""Bound on prompts x tile pixels in flight, so that memory does not follow the size of the tile."""


@dataclass(frozen=True)
class Decoded:
    """SAM's answer to one prompt.

    Attributes:
        logits: float32 (h, w) on the tile, original pixels; the mask is where they are above 0.
        score: SAM's estimate of the IoU.
    """

    logits: np.ndarray
    score: float


@torch.inference_mode()
def embed(sam: Sam, tile: np.ndarray) -> Tensor:
    """Image embedding (1, C, E, E) of a tile, uint8 (h, w, 3) RGB, resized as segment-anything does."""
    # As ResizeLongestSide.apply_image, but a side never becomes 0 (a tile of one row).
    frame = Frame(tile.shape[0], tile.shape[1], sam.image_encoder.img_size)
    resized = resize(to_pil_image(np.ascontiguousarray(tile)), list(frame.input_hw))
    tensor = torch.from_numpy(np.array(resized)).to(sam.device).permute(2, 0, 1).float()[None]
    return sam.image_encoder(sam.preprocess(tensor))


@torch.inference_mode()
def decode(
    sam: Sam, embedding: Tensor, prompts: Prompts, frame: Frame, chunk: int, bias: float | None = None
) -> Iterator[Decoded]:
    """Answers to all prompts of a tile, in order.

    Args:
        sam: The model.
        embedding: From `embed`.
        prompts: From `prompts.assemble`.
        frame: Geometry of the tile.
        chunk: Most prompts at once.
        bias: Two-pass mode: logits added inside of the superpixel and subtracted outside for the second pass; None
            for a single pass.

    Source: methods a.4 (contract of `predict_torch`), a.6 step 6 (two passes).
    """
    count = _count(prompts)
    chunk = max(1, min(chunk, PIXELS_AT_ONCE // (frame.height * frame.width)))
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        points = _points(prompts, part, sam.device)
        boxes = _tensor(prompts.boxes_xyxy, part, sam.device)
        masks = _tensor(prompts.masks, part, sam.device)
        if bias is not None and masks is not None:
            first, _ = _best(*_predict(sam, embedding, points, None, None, multimask=True))
            masks = first[:, None] + torch.where(masks > 0, bias, -bias)
        low, scores = _best(*_predict(sam, embedding, points, boxes, masks, prompts.multimask))
        full = sam.postprocess_masks(low[:, None], frame.input_hw, (frame.height, frame.width))[:, 0]
        for logits, score in zip(full.float().cpu().numpy(), scores.tolist(), strict=True):
            yield Decoded(logits, score)


def _predict(
    sam: Sam,
    embedding: Tensor,
    points: tuple[Tensor, Tensor] | None,
    boxes: Tensor | None,
    masks: Tensor | None,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
    return sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )


def _best(low: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The mask with the highest estimate of each prompt: (B, L, L) and (B,)."""
    best = scores.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    return low[rows, best], scores[rows, best]


def _count(prompts: Prompts) -> int:
    for array in (prompts.points_xy, prompts.boxes_xyxy, prompts.masks):
        if array is not None:
            return len(array)
    return 0


def _tensor(array: np.ndarray | None, part: slice, device: torch.device) -> Tensor | None:
    return None if array is None else torch.from_numpy(array[part]).to(device)


def _points(prompts: Prompts, part: slice, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if prompts.points_xy is None or prompts.point_labels is None:
        return None
    return (
        torch.from_numpy(prompts.points_xy[part]).to(device),
        torch.from_numpy(prompts.point_labels[part]).to(device),
    )
