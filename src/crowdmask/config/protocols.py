"""Which images of a data set are used for what: validation, labelled subsets, folds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from crowdmask.config.base import NAME, Section


class Part(Section):
    """Some images of a split, from a list file or by share and seed."""

    of: str = Field("train", pattern=NAME, description="split that the images are taken from")
    list: str | None = Field(
        None, min_length=1, description="text file, one image name a line; relative to the working directory"
    )
    share: float | None = Field(None, gt=0, lt=1, description="or draw this share of the images")
    seed: int | None = Field(None, ge=0, description="of the draw; null = 0")

    @model_validator(mode="after")
    def _one_source(self) -> Part:
        if (self.list is None) == (self.share is None):
            raise ValueError("give either `list` or `share`")
        if self.list is not None and self.seed is not None:
            raise ValueError("`seed` goes with `share`: a list draws nothing")
        return self


class Folds(Section):
    """K-fold cross-validation: each fold tests on one group of images and trains on the others."""

    of: str = Field("all", pattern=NAME, description="split that is divided")
    k: int = Field(5, ge=2, le=1000, description="folds")
    seed: int | None = Field(
        None, ge=0, description="null = groups of images that follow each other by name, numbers by value"
    )


class Protocols(Section):
    """What the images are used for; docs/protocols.md."""

    validation: Part | None = Field(None, description="images that become the split `val`")
    labelled: dict[Annotated[str, Field(pattern=NAME)], Part] = Field(
        default_factory=dict, description="subsets whose points a semi-supervised training may see, by name"
    )
    folds: Folds | None = Field(None, description="k-fold cross-validation")
