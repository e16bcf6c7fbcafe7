"""The baseline: what users of segment-anything do today, `predict_torch` for some prompts at a time."""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as coco
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from crowdmask.masks.prompts import Frame, Prompts


def predictor(sam: Sam, embedding: torch.Tensor, frame: Frame) -> SamPredictor:
    """A predictor that has this embedding of a picture."""
    made = SamPredictor(sam)
    made.features = embedding
    made.original_size = (frame.height, frame.width)
    made.input_size = frame.input_hw
    made.is_image_set = True
    return made


def inputs(prompts: Prompts, part: slice, device: torch.device) -> dict[str, torch.Tensor | bool | None]:
    """Some of the prompts as arguments of `predict_torch`."""

    def send(array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array[part]).to(device)

    masks = None if prompts.masks is None else torch.from_numpy(prompts.masks.take(part).dense()).to(device)
    return {
        "point_coords": send(prompts.points_xy),
        "point_labels": send(prompts.point_labels),
        "boxes": send(prompts.boxes_xyxy),
        "mask_input": masks,
        "multimask_output": False,
    }


def run_lengths(mask: np.ndarray) -> bytes:
    """COCO run lengths of a mask, bool (H, W)."""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
