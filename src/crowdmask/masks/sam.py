"""Building segment-anything's `Sam` and loading verified weights into it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from crowdmask.config import Sam as SamSettings
from crowdmask.errors import DataError
from crowdmask.masks.checkpoints import expected_sha256, verify
from crowdmask.masks.small import build_small


def build(model: str) -> Sam:
    """`Sam` with random weights, in evaluation mode: small, vit_b, vit_l or vit_h."""
    if model == "small":
        return build_small()
    return sam_model_registry[model]().eval()


def load_weights(sam: Sam, path: Path) -> None:
    """Read a state dict (.safetensors, or .pth without code) into `sam`, in float32.

    Raises:
        DataError: not a checkpoint, or one of another model.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        sam.load_state_dict({key: value.float() for key, value in state.items()})
    except Exception as error:  # torch and safetensors raise many kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(path, f"not a checkpoint of this model ({first})", "Check `sam.model`.") from None


def load(settings: SamSettings, path: Path, device: torch.device) -> Sam:
    """The model that the settings ask for with the weights of `path`, verified, frozen, in evaluation mode."""
    verify(path, expected_sha256(settings))
    sam = build(settings.model)
    load_weights(sam, path)
    return sam.to(device).eval().requires_grad_(False)
