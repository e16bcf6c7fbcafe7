"""Rendered crowds as a data set: which files there are, how one is made, and how they are read.

In `{results}/{dataset}/render`: `{split}/{id}.png`, `{split}/{id}.labels.png` (16 bits: 0 = background, i + 1 = visible
head of point i) and `{split}/{id}.points.json` (`{"points": [[x, y], ...], "seed": ..., "people": ...}`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import Annotation, ImageRef
from crowdmask.datasets.label_map import check_same_size, read_label_map
from crowdmask.datasets.ucf import as_points
from crowdmask.errors import DataError, SettingsError
from crowdmask.files import replacing

_WAY_OUT = "Delete the scene's files and run again: they are rendered anew."
_PREFIX = "scene-"


class RenderedReader:
    """Reader of rendered scenes; the list follows from the settings, so the files need not exist yet.

    Attributes:
        name: Name of the data set in the configuration.
        root: Folder of the scenes.
        has_truth: True.
    """

    has_truth = True

    def __init__(self, name: str, entry: config.Synthetic, results: str) -> None:
        """Take the name and settings of the data set, and the results folder; opens nothing."""
        self.name = name
        self.root = str(Path(results, name, "render"))
        self._entry = entry

    def list_images(self) -> list[ImageRef]:
        """All scenes by id, as plain strings."""
        split = self._entry.split
        ids = sorted(scene_id(index) for index in range(self._entry.count))
        return [ImageRef(split, name, f"{split}/{name}.png", f"{split}/{name}.points.json") for name in ids]

    def way_out(self, ref: ImageRef) -> str:
        """What to do about an unusable file of a scene."""
        return _WAY_OUT

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Head points float64 (N, 2), (x, y) in pixels; see `base.Reader`."""
        path = Path(self.root, ref.annotation)
        try:
            value = np.array(json.loads(path.read_text(encoding="utf-8"))["points"], dtype=np.float64)
        except FileNotFoundError:
            raise DataError(path, "file not found", "Ask Snakemake for it, which renders it.") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise DataError(path, f"not a file of points ({type(error).__name__}: {error})", _WAY_OUT) from None
        return as_points(path, value.reshape(0, 2) if value.shape == (0,) else value, _WAY_OUT)

    def read_annotation(self, ref: ImageRef) -> Annotation:
        """The points; see `base.Reader`."""
        return Annotation(self.read_points(ref))

    def unlabelled(self) -> list[ImageRef]:
        """None: all scenes come with their points."""
        return []

    def read_truth(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray]:
        """Label map int32 (H, W) and ids 1 to N int32 (N,); see `base.Reader`.

        Raises:
            DataError: unreadable file, or one that does not fit the scene's image and points.
        """
        path = Path(self.root, ref.split, f"{ref.image_id}.labels.png")
        labels = read_label_map(path, _WAY_OUT)
        check_same_size(path, labels, Path(self.root, ref.image), "stored", _WAY_OUT)
        count = len(self.read_points(ref))
        if int(labels.max(initial=0)) > count:
            raise DataError(path, f"has the id {int(labels.max())}, but the scene has {count} points", _WAY_OUT)
        return labels, np.arange(1, count + 1, dtype=np.int32)


def scene_id(index: int) -> str:
    """Id of a scene: `scene-0000` for the first."""
    return f"{_PREFIX}{index:04d}"


def scene_index(image_id: str) -> int:
    """Inverse of `scene_id`."""
    return int(image_id.removeprefix(_PREFIX))


def scene_people(entry: config.Synthetic, index: int) -> int:
    """Number of people in a scene: log-uniform (of people + 1) between the two of the settings, both included."""
    low, high = entry.people
    rng = np.random.default_rng([entry.seed + index, 1])
    drawn = np.exp(rng.uniform(np.log(low + 1), np.log(high + 2)))
    return min(max(int(drawn) - 1, low), high)


def render(
    entry: config.Synthetic, index: int, image_path: str | Path, labels_path: str | Path, points_path: str | Path
) -> None:
    """Render one scene and write its three files.

    Args:
        entry: Settings of the data set.
        index: Which scene, from 0; its seed is `entry.seed + index`.
        image_path: PNG to write, 8-bit RGB.
        labels_path: PNG to write, 16-bit ids.
        points_path: JSON to write.

    Raises:
        SettingsError: the frame cannot hold so many people.
    """
    from PIL import Image

    from crowdmask.datasets.synthetic import render_scene

    seed, people = entry.seed + index, scene_people(entry, index)
    try:
        scene = render_scene(seed, height=entry.height, width=entry.width, people=people)
    except ValueError as error:
        raise SettingsError(
            f"synthetic data set, scene {index}: {error}. Set fewer people or a larger height and width."
        ) from None
    with replacing(image_path) as temporary:
        Image.fromarray(scene.image).save(temporary, format="PNG")
    with replacing(labels_path) as temporary:
        Image.fromarray(scene.labels.astype(np.uint16)).save(temporary, format="PNG")
    value = {"points": scene.points_xy.tolist(), "seed": seed, "people": people}
    with replacing(points_path) as temporary:
        temporary.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")
