"""Settings of the method's stages and of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from crowdmask.config.base import Section


class Superpixels(Section):
    """SLIC (methods: n = 1000 as printed by the XMask paper; the rest are our choices)."""

    n_segments: int = Field(1000, ge=1, le=100_000, description="requested number of superpixels an image")
    compactness: float = Field(10.0, gt=0, description="larger = squarer cells")
    sigma: float = Field(0.0, ge=0, description="Gaussian smoothing before SLIC, working pixels")
    max_num_iter: int = Field(10, ge=1, le=1000, description="k-means rounds")
    max_side: int = Field(1024, ge=64, description="SLIC runs on a copy whose longest side is at most this many pixels")


PromptMode = Literal[
    "point",
    "superpixel",
    "point+superpixel",
    "point+superpixel-box",
    "point+superpixel-points",
    "two-pass",
    "box",
]


class Prompt(Section):
    """What SAM is given for each head."""

    mode: PromptMode = Field("point+superpixel", description="which prompts carry the head point and its superpixel")
    logit: float = Field(6.9, gt=0, le=50, description="superpixel as mask prompt: +logit inside, -logit outside")
    clip_to_circle: bool = Field(
        True, description="cut the superpixel to the circle through the nearest neighbour before prompting"
    )
    neighbours: int = Field(0, ge=0, le=16, description="nearest other heads given as negative points")
    bias: float = Field(3.0, gt=0, le=50, description="two-pass mode: logits added inside, subtracted outside")
    box_share: float = Field(
        0.7,
        gt=0,
        le=2,
        description="box mode, no annotated box: half of a square's side, share of the nearest distance",
    )


class Sam(Section):
    """Which SAM, and where it runs."""

    model: Literal["small", "vit_b", "vit_l", "vit_h"] = Field("small", description="small ships with crowdmask")
    checkpoint: str | None = Field(
        None, description="local checkpoint file; null = shipped, or downloaded to checkpoints/"
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="expected hash of `checkpoint`; null = the official one"
    )
    chunk: int = Field(256, ge=1, le=4096, description="most prompts decoded together; fewer where memory is short")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="of the encoder and all that is as large as the image; fp32 is exact, the others are for GPUs",
    )
    threads: int = Field(
        1, ge=1, le=256, description="CPU threads of SAM in one job; more changes the last bits of results"
    )
    window: Literal["circle", "tile"] = Field(
        "circle", description="what is kept of SAM's answer: what a circle can reach, or all of the tile"
    )


class Tiles(Section):
    """Zoomed crops, so that small heads are large enough for SAM."""

    mode: Literal["none", "fixed", "auto"] = Field("auto", description="auto chooses the zoom from point distances")
    side: int = Field(512, ge=32, description="fixed mode: tile side")
    overlap: float = Field(0.25, ge=0, le=0.75, description="share of a tile's side shared with its neighbour")
    target_px: float = Field(40.0, gt=1, description="auto mode: point distance wanted, in pixels of SAM's input frame")
    max_zoom: float = Field(4.0, ge=1, le=16, description="auto mode: largest enlargement of the original")
    across: float = Field(
        4.0, ge=1, le=64, description="auto mode: at least this many tiles along the longest side, unless that enlarges"
    )


class Exclusion(Section):
    """NNEC: the nearest-neighbour exclusion circle and how masks share contested pixels."""

    constraint: Literal["nnec", "half", "none"] = Field(
        "nnec", description="bound of a mask: circle through the nearest neighbour, of half that radius, or none"
    )
    r_min: float = Field(5.0, ge=0, le=30, description="smallest radius, working pixels")
    r_max: float | None = Field(200.0, gt=0, description="largest radius, working pixels; null = no limit")
    max_side: int = Field(2048, ge=64, description="working pixels: longest side of the working image is at most this")
    min_side: int | None = Field(None, ge=1, description="working pixels: shortest side is at least this; null = off")
    lone_share: float = Field(0.5, gt=0, le=1, description="radius of a lone point, share of the shorter side")
    fallback: Literal["circle", "half", "pixel"] = Field(
        "circle", description="mask where SAM gives none: circle, half of it, or the point's own pixel"
    )
    min_area_px: int = Field(4, ge=0, description="a smaller mask counts as empty, pixels")
    min_area_share: float = Field(0.0, ge=0, lt=1, description="... and below this share of the circle's area")
    tie: Literal["nearest", "normalised", "small_first", "last"] = Field(
        "nearest", description="who owns a contested pixel"
    )
    disjoint: bool = Field(True, description="false = keep overlapping masks")

    @model_validator(mode="after")
    def _ordered(self) -> Exclusion:
        if self.r_max is not None and self.r_max < self.r_min:
            raise ValueError(f"r_max ({self.r_max}) must not be smaller than r_min ({self.r_min})")
        if self.r_min > self.max_side / 64:  # SAM's answer is kept within 32 px of the point in an image of 2048
            raise ValueError(f"r_min ({self.r_min}) must not be larger than max_side / 64 ({self.max_side / 64:g})")
        return self


class Export(Section):
    """What `masks.json` and the pictures contain."""

    category: str = Field("head", min_length=1, description="name of the COCO category")
    overlays: int = Field(4, ge=0, description="pictures a split under results/{dataset}/overlays")


class Corrections(Section):
    """People's edits."""

    folder: str = Field("corrections", min_length=1, description="holds {dataset}/{split}/{image}.json")
    stale: Literal["report", "apply"] = Field(
        "report", description="an edit drawn on another mask or image: report only, or apply all the same"
    )


class Review(Section):
    """Worst first: the score of `review.parquet`, 1 / (1 + exp(-(bias + sum of weight x reason))); docs/review.md."""

    crops: int = Field(120, ge=0, le=5000, description="masks shown on the page, worst first")
    neighbours: int = Field(16, ge=6, le=200, description="nearest masks that say how large one is expected to be")
    bias: float = Field(-5.1, ge=-50, le=50, description="of the score; lower = lower scores, in the same order")
    fallback: float = Field(3.0, ge=0, le=50, description="weight: circle or single pixel instead of SAM's mask")
    low_iou: float = Field(2.7, ge=0, le=50, description="weight: SAM expects a low IoU")
    unstable: float = Field(3.2, ge=0, le=50, description="weight: the mask changes with the threshold")
    cut: float = Field(0.9, ge=0, le=50, description="weight: cut by the exclusion circle")
    lost: float = Field(0.9, ge=0, le=50, description="weight: gave pixels to neighbours")
    small: float = Field(0.8, ge=0, le=50, description="weight: smaller than its neighbours let expect")
    large: float = Field(0.2, ge=0, le=50, description="weight: larger than its neighbours let expect")
    edge: float = Field(1.2, ge=0, le=50, description="weight: the point is near the edge of its mask")
    superpixel: float = Field(0.2, ge=0, le=50, description="weight: the superpixel holds other heads or other things")
    ragged: float = Field(0.2, ge=0, le=50, description="weight: dents or holes")
    long: float = Field(0.2, ge=0, le=50, description="weight: much longer than wide")


class TrainSam(Section):
    """Training of the small SAM."""

    model: Literal["small", "vit_b", "vit_l", "vit_h"] = Field("small", description="architecture")
    datasets: tuple[str, ...] = Field((), strict=False, description="data sets with true masks to learn from")
    init: str | None = Field(None, description="checkpoint to start from; null = random weights")
    steps: int = Field(8000, ge=1, description="optimiser steps")
    images: int = Field(4, ge=1, description="crops a step")
    prompts: int = Field(16, ge=1, description="heads a crop")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.02, ge=0, description="weight decay of AdamW")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="of the forward pass; weights stay fp32")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights that are kept")
    seed: int = Field(1, ge=0, description="seed of weights, crops and prompts")
    threads: int = Field(2, ge=1, le=256, description="CPU threads")
    every: int = Field(250, ge=1, description="steps between checkpoints")
