"""Settings of the crops that counting models are trained on."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from crowdmask.config.base import Section


class WorkingCopy(Section):
    """The copies of the images that crops are cut from."""

    max_side: int | None = Field(2048, ge=1, description="longest side is at most this many pixels; null = any")
    min_side: int | None = Field(
        None, ge=1, description="shortest side is at least this many, as far as max_side allows; null = any"
    )
    cache_gb: float = Field(
        64.0, ge=0, le=1e6, description="most that copies may take on disk; those that do not fit are made each time"
    )


class CropGeometry(Section):
    """Where crops lie and how they are turned."""

    crop: int = Field(256, ge=1, le=8192, description="side of a crop, pixels")
    scale: tuple[float, float] = Field(
        (0.7, 1.3), strict=False, description="smallest and largest enlargement of the working copy before the crop"
    )
    keep_side: bool = Field(
        False, description="leave the scale at 1 where the shorter side would become smaller than the crop"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")

    @field_validator("scale")
    @classmethod
    def _scale_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.01 <= value[0] <= value[1] <= 100:
            raise ValueError("scale must be two numbers with 0.01 <= smallest <= largest <= 100")
        return value


class Look(Section):
    """What happens to the colours of a crop, and what is cut out of it; nothing by default."""

    jitter: float = Field(0.0, ge=0, le=1, description="probability of other brightness, contrast, saturation and hue")
    brightness: float = Field(0.4, ge=0, le=1, description="factor from 1 - this to 1 + this")
    contrast: float = Field(0.4, ge=0, le=1, description="factor from 1 - this to 1 + this")
    saturation: float = Field(0.4, ge=0, le=1, description="factor from 1 - this to 1 + this")
    hue: float = Field(0.1, ge=0, le=0.5, description="shift from -this to this, in turns")
    grey: float = Field(0.0, ge=0, le=1, description="probability of grey")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), strict=False, description="its range of sigma, pixels")
    cutout: float = Field(0.0, ge=0, le=1, description="probability that a rectangle is cut out")
    cutout_side: tuple[float, float] = Field(
        (0.125, 0.25), strict=False, description="range of its sides, share of the crop's"
    )

    @model_validator(mode="after")
    def _ranges_rise(self) -> Look:
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1] <= 100:
            raise ValueError("blur_sigma must be two numbers with 0 < smallest <= largest <= 100")
        if not 0 < self.cutout_side[0] <= self.cutout_side[1] <= 1:
            raise ValueError("cutout_side must be two numbers with 0 < smallest <= largest <= 1")
        return self


STRONG = Look(jitter=0.8, grey=0.25, blur=0.8, cutout=1.0)
"""The strong view of P2R's semi-supervised training (methods f.3)."""
