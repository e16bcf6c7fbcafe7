"""Settings of counting models: what they are, what they learn from, how they are trained."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from crowdmask.config.base import Section
from crowdmask.config.crops import CropGeometry, Look, WorkingCopy
from crowdmask.config.faults import faults_of

CountingModel = Literal["p2r", "pet", "ebc", "zip", "density"]
T = TypeVar("T", bound=Section)

MODELS: tuple[CountingModel, ...] = ("p2r", "pet", "ebc", "zip", "density")


class Network(Section):
    """What a counting model is made of, and what it is taught beside its own loss."""

    backbone: str = Field(
        "small",
        pattern=r"^(vgg16_bn|small|timm/[A-Za-z0-9_.-]+)$",
        description="feature extractor: vgg16_bn, small, or timm/ and a name of timm",
    )
    weights: str | None = Field(
        None, min_length=1, description="of the backbone: null = random, imagenet, or a checkpoint file"
    )
    backbone_width: int = Field(16, ge=2, le=256, description="channels of the first layer of `small`")
    width: int = Field(64, ge=32, le=1024, multiple_of=32, description="channels of neck and heads")
    stride: Literal[8, 16] = Field(8, description="block size of the density models, pixels")
    count_loss: Literal["mae", "mse", "dmcount"] | None = Field(
        None, description="of ebc and density; null = mae for ebc, mse for density"
    )
    multiscale: float = Field(1.0, ge=0, description="weight of the multi-scale error of zip")
    mask: float = Field(0.1, ge=0, description="weight of (density of a mask - 1)^2")
    background: float = Field(0.1, ge=0, description="weight of (density of the background / people)^2")
    mask_mode: Literal["block", "pixel", "bilinear"] = Field("block", description="how blocks and masks meet")


class Schedule(Section):
    """How long and how fast a counting model learns."""

    crops: int = Field(1, ge=1, le=64, description="crops of each image an epoch")
    epochs: int = Field(40, ge=1, description="passes over the training images")
    batch: int = Field(8, ge=1, le=1024, description="crops a step")
    optimiser: Literal["adam", "adamw"] = Field("adamw", description="optimiser")
    lr: float = Field(1e-3, gt=0, description="learning rate of neck and heads")
    backbone_lr: float = Field(1e-3, gt=0, description="learning rate of the backbone")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="of the learning rates, step by step")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    clip: float | None = Field(5.0, gt=0, description="largest norm of the gradient; null = any")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of averaged weights, which are kept; null = none")
    evaluate_every: int = Field(4, ge=1, description="epochs between two validations")
    patience: int | None = Field(
        None, ge=1, description="validations without a better one before it stops; null = never"
    )


class CountingRun(Schedule, Look, CropGeometry, WorkingCopy, Network):
    """One training: network, working copies, crops, schedule."""

    def part(self, kind: type[T]) -> T:
        """The settings of one of the models that this one is made of."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


_SMALL: dict[str, Any] = {"crop": 192, "scale": (0.8, 1.25), "jitter": 0.3}
_PAPER: dict[str, Any] = {"backbone": "vgg16_bn", "weights": "imagenet", "width": 256}
_P2R: dict[str, Any] = {
    **_PAPER, "batch": 16, "optimiser": "adam", "lr": 5e-5, "backbone_lr": 1e-5, "schedule": "constant",
    "epochs": 1500, "scale": (0.7, 1.3), "clip": None, "evaluate_every": 1,
}  # fmt: skip
_BLOCKS: dict[str, Any] = {
    **_PAPER, "crop": 448, "min_side": 448, "optimiser": "adam", "lr": 1e-4, "backbone_lr": 1e-4,
    "epochs": 2600, "scale": (0.5, 1.0), "jitter": 0.2, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1,
    "hue": 0.0, "blur": 0.2, "clip": None, "evaluate_every": 1,
}  # fmt: skip

RUN_PRESETS: dict[str, dict[CountingModel, dict[str, Any]]] = {
    # Minutes on two cores.
    "small": {
        "p2r": _SMALL,
        "pet": {**_SMALL, "crop": 256, "width": 32, "lr": 5e-4, "backbone_lr": 5e-4, "clip": 0.1},
        "ebc": _SMALL,
        "zip": _SMALL,
        "density": _SMALL,
    },
    # methods d.1, e.1, e.2, f.3
    "paper": {
        "p2r": _P2R,
        "pet": {
            **_PAPER, "lr": 1e-4, "backbone_lr": 1e-5, "schedule": "constant", "epochs": 1500, "scale": (0.8, 1.2),
            "keep_side": True, "clip": 0.1, "evaluate_every": 5,
        },
        "ebc": {**_BLOCKS, "count_loss": "dmcount"},
        "zip": {**_BLOCKS, "stride": 16},
        "density": _P2R,
    },
}  # fmt: skip
"""Stronger than `run`, weaker than `models`. `paper` has the published schedules as far as they are known; a cosine
stands in for the cosine with restarts of EBC and ZIP."""


class Counting(Section):
    """Counting models trained on points, masks or boxes; docs/counting.md."""

    preset: Literal["small", "paper"] = Field("small", description="minutes on two cores, or the papers' schedules")
    run: CountingRun = Field(CountingRun(), description="settings of all models; see below")
    models: dict[CountingModel, dict[str, Any]] = Field(
        default_factory=dict, description="keys of `run` for one model, stronger than the preset"
    )
    masks: Literal["merged", "truth"] = Field(
        "merged", description="masks to learn from: the workflow's, or the true ones"
    )
    validation: float = Field(0.1, gt=0, lt=1, description="share of the training images that chooses the best epoch")
    seed: int = Field(0, ge=0, description="of weights, views and order; of one training")
    gpus: int | Literal["auto"] = Field(
        "auto", description="GPUs of one training; auto = 1 where this machine has one, else 0"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the forward pass")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of one training")
    workers: int = Field(0, ge=0, le=64, description="processes that prepare batches")
    compare: tuple[CountingModel, ...] = Field(MODELS, strict=False, description="models of the comparison")
    supervision: tuple[Literal["points", "masks", "boxes"], ...] = Field(
        ("points", "masks"),
        strict=False,
        description="what they learn from in the comparison; the first is the baseline",
    )
    seeds: int = Field(3, ge=1, le=100, description="trainings of each in the comparison")

    @model_validator(mode="after")
    def _runs_are_valid(self) -> Counting:
        faults: list[str] = []
        for name, own in self.models.items():
            try:
                self.of(name)
            except ValidationError as error:
                faults += faults_of(error, CountingRun, own, prefix=f"counting.models.{name}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def of(self, model: CountingModel) -> CountingRun:
        """Settings of a model's training: `run`, then the preset, then the model's own."""
        values = self.run.model_dump() | RUN_PRESETS[self.preset][model] | self.models.get(model, {})
        return CountingRun.model_validate(values)
