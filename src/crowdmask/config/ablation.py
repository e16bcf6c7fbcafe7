"""Settings of the ablation: which variants of the method and which baselines are measured side by side."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from crowdmask.config.base import NAME, Section

OWN = "default"
"""Name of the data set's own settings, which every variant is compared with."""

BaselineName = Literal[
    "circle",
    "circle_disjoint",
    "superpixel",
    "superpixel_circle",
    "watershed",
    "random_walker",
    "smallest",
    "smallest_circle",
    "oracle",
]

BASELINES: tuple[str, ...] = get_args(BaselineName)
"""Masks from the same points by other means; see `crowdmask.metrics.baselines`."""


class Variant(Section):
    """What differs from the data set's own settings; of a preset, or of sections given in part."""

    preset: Literal["edp-sam", "dpmo"] | None = Field(None, description="settings of a paper, over the data set's own")
    superpixels: dict[str, Any] = Field(default_factory=dict, description="keys of `superpixels`")
    prompt: dict[str, Any] = Field(default_factory=dict, description="keys of `prompt`")
    sam: dict[str, Any] = Field(default_factory=dict, description="keys of `sam`")
    tiles: dict[str, Any] = Field(default_factory=dict, description="keys of `tiles`")
    exclusion: dict[str, Any] = Field(default_factory=dict, description="keys of `exclusion`")


class Candidates(Section):
    """Automatic masks that the baselines `smallest` and `smallest_circle` choose from; defaults of segment-anything."""

    spacing_px: float = Field(32.0, ge=4, description="distance of the prompts, pixels of SAM's input frame")
    pred_iou: float = Field(0.88, description="least IoU that SAM expects")
    stability: float = Field(0.95, ge=0, le=1, description="least stability")
    nms_iou: float = Field(0.7, gt=0, le=1, description="of two masks whose boxes have a larger IoU one is dropped")


class Ablation(Section):
    """Variants of the method, and other methods, measured on true masks: `results/NAME/ablation/table.html`."""

    variants: dict[Annotated[str, Field(pattern=NAME)], Variant] = Field(
        default_factory=dict, description="by name: what differs from the data set's own settings"
    )
    baselines: tuple[BaselineName, ...] = Field((), strict=False, description="other masks from the same points")
    samples: int = Field(1000, ge=1, le=100_000, description="bootstrap samples of images")
    seed: int = Field(1, ge=0, description="of the bootstrap")
