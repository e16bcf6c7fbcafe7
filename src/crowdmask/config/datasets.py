"""Entries of data sets, one model a format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from crowdmask.config.base import NAME, Section
from crowdmask.config.protocols import Protocols


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
    protocols: Protocols = Field(Protocols(), description="validation part, labelled subsets, folds; see below")


class FolderDataset(Overrides):
    """What every data set read from a folder has."""

    format: str
    root: str = Field(min_length=1, description="folder as downloaded; relative to the working directory")
    skip_images: tuple[str, ...] = Field((), strict=False, description="images left out, as split/id")
    skip: int = Field(0, ge=0, description="leave out the first images of each split, by file name")
    limit: int | None = Field(None, ge=1, description="then use at most this many of each split")
    exif: Literal["stored", "apply"] = Field(
        "stored", description="points refer to the pixels as stored (MATLAB), or to the rotated picture"
    )

    @field_validator("root")
    @classmethod
    def _home(cls, value: str) -> str:
        """`~` is the home folder, as in a shell."""
        try:
            return str(Path(value).expanduser()) if value.startswith("~") else value
        except RuntimeError:  # ~name of nobody: said where the folder is missing
            return value


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


class Jhu(FolderDataset):
    """JHU-CROWD++: points with boxes, occlusion and blur; image labels."""

    format: Literal["jhu"]


class Nwpu(FolderDataset):
    """NWPU-Crowd: points with boxes; the test images have no annotation and are only listed."""

    format: Literal["nwpu"]


class Fdst(FolderDataset):
    """FDST: frames of video clips with head boxes."""

    format: Literal["fdst"]


class Coco(FolderDataset):
    """COCO keypoints or boxes."""

    format: Literal["coco"]
    annotations: dict[Annotated[str, Field(pattern=NAME)], str] = Field(
        default_factory=lambda: {"all": "annotations.json"},
        description="annotation file of each split, below root",
    )
    images: str = Field(
        "images",
        min_length=1,
        description="folder below root that file names in it refer to; . = root; {split} = name of the split",
    )
    head: Literal["auto", "keypoint", "box", "box_top"] = Field(
        "auto",
        description="head point: first visible keypoint, centre of the box, or centre of its upper edge; "
        "auto = keypoint where there is one, else box",
    )
    category: str | None = Field(None, description="only annotations of this category; null = all")


class Points(FolderDataset):
    """A CSV or Parquet table with one row a head."""

    format: Literal["points"]
    table: str = Field("points.csv", min_length=1, description="table below root, .csv or .parquet")
    images: str = Field("images", min_length=1, description="folder below root of the images; . = root")
    image: str = Field("image", min_length=1, description="column of the image's file name")
    x: str = Field("x", min_length=1, description="column of x, pixels")
    y: str = Field("y", min_length=1, description="column of y, pixels")
    split: str | None = Field(None, description="column of the split; null = one split, `all`")


class LabelMe(FolderDataset):
    """Images with labelme files beside them: points, or boxes whose centres are the points."""

    format: Literal["labelme"]
    label: str | None = Field(None, description="only shapes with this label; null = all")


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
    "jhu": Jhu,
    "nwpu": Nwpu,
    "fdst": Fdst,
    "coco": Coco,
    "points": Points,
    "labelme": LabelMe,
    "label_map": LabelMap,
    "synthetic": Synthetic,
}

Dataset = Annotated[
    ShanghaiTech | Ucf | Jhu | Nwpu | Fdst | Coco | Points | LabelMe | LabelMap | Synthetic,
    Field(discriminator="format"),
]
