"""Entries of data sets, one model a format."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from crowdmask.config.base import NAME, Section


class Overrides(Section):
    """Per-data-set settings; each section may be given in part."""

    preset: Literal["edp-sam", "dpmo"] | None = Field(None, description="settings of a paper; see docs/settings.md")
    superpixels: dict[str, Any] = Field(
        default_factory=dict, description="keys of `superpixels` for this data set only"
    )
    prompt: dict[str, Any] = Field(default_factory=dict, description="keys of `prompt` for this data set only")
    sam: dict[str, Any] = Field(default_factory=dict, description="keys of `sam` for this data set only")
    tiles: dict[str, Any] = Field(default_factory=dict, description="keys of `tiles` for this data set only")
    exclusion: dict[str, Any] = Field(default_factory=dict, description="keys of `exclusion` for this data set only")
    export: dict[str, Any] = Field(default_factory=dict, description="keys of `export` for this data set only")


class FolderDataset(Overrides):
    """What every data set read from a folder has."""

    root: str = Field(min_length=1, description="folder as downloaded; relative to the working directory")
    skip_images: tuple[str, ...] = Field((), strict=False, description="images left out, as split/id")
    skip: int = Field(0, ge=0, description="leave out the first images of each split, by file name")
    limit: int | None = Field(None, ge=1, description="then use at most this many of each split")
    exif: Literal["stored", "apply"] = Field(
        "stored", description="points refer to the pixels as stored (MATLAB), or to the rotated picture"
    )


class ShanghaiTech(FolderDataset):
    """ShanghaiTech part A or B."""

    format: Literal["shanghaitech"]


class Ucf(FolderDataset):
    """UCF-QNRF (Train, Test) or UCF_CC_50 (flat folder)."""

    format: Literal["ucf"]


class LabelMap(FolderDataset):
    """Images with instance-id maps (PNG 8/16 bit, NPY): points and true masks."""

    format: Literal["label_map"]
    images: str = Field("images", min_length=1, description="folder of the images below root (or below each split)")
    labels: str = Field("labels", min_length=1, description="folder of the label maps")


class Synthetic(Overrides):
    """Rendered crowds with true masks."""

    format: Literal["synthetic"]
    count: int = Field(8, ge=1, le=100_000, description="scenes")
    people: tuple[int, int] = Field((20, 300), strict=False, description="fewest and most people a scene")
    height: int = Field(768, ge=64, le=8192, description="pixels")
    width: int = Field(1024, ge=64, le=8192, description="pixels")
    seed: int = Field(0, ge=0, description="scene k has seed `seed + k`")
    split: str = Field("test", pattern=NAME, description="name of the one split")

    @model_validator(mode="after")
    def _ordered(self) -> Synthetic:
        low, high = self.people
        if not 0 <= low <= high <= 1500:
            raise ValueError("people must be two numbers with 0 <= fewest <= most <= 1500")
        return self


FORMATS: dict[str, type[Overrides]] = {
    "shanghaitech": ShanghaiTech,
    "ucf": Ucf,
    "label_map": LabelMap,
    "synthetic": Synthetic,
}

Dataset = Annotated[ShanghaiTech | Ucf | LabelMap | Synthetic, Field(discriminator="format")]
