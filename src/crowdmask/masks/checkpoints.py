"""Checkpoint files of SAM: where they are, whether they are the right ones, and how to get them."""

from __future__ import annotations

import http.client
import urllib.request
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from crowdmask.config import Sam
from crowdmask.errors import DataError
from crowdmask.files import replacing, sha256

OFFICIAL = {
    "vit_b": ("sam_vit_b_01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l": ("sam_vit_l_0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h": ("sam_vit_h_4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
}
"""Name (without .pth) and SHA-256 of the official checkpoints."""

FOLDER = Path("checkpoints")
BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


def shipped() -> Path:
    """The small SAM's weights inside of the package."""
    return Path(str(files("crowdmask").joinpath("weights", "small.safetensors")))


def path_of(settings: Sam) -> Path:
    """The checkpoint file that the settings ask for.

    `sam.checkpoint` where given, the shipped file for `small`, else the official name in `checkpoints/`, which may
    not be there yet.

    Raises:
        DataError: `sam.checkpoint` names no file.
    """
    if settings.checkpoint:
        path = Path(settings.checkpoint)
        if not path.is_file():
            raise DataError(path, "checkpoint not found", "Put it there, or set `sam.checkpoint` to where it is.")
        return path
    return shipped() if settings.model == "small" else FOLDER / f"{OFFICIAL[settings.model][0]}.pth"


def expected_sha256(settings: Sam) -> str | None:
    """Hash that the checkpoint must have: `sam.sha256`, else the official one; None for a small model."""
    if settings.sha256 or settings.model == "small":
        return settings.sha256
    return OFFICIAL[settings.model][1]


def verify(path: Path, expected: str | None) -> None:
    """Check that a checkpoint is there and has the hash that it must have.

    Raises:
        DataError: the file is missing or is not the expected one.
    """
    if not path.is_file():
        raise DataError(path, "checkpoint not found", "Put it there, or set `sam.checkpoint` to where it is.")
    if expected is not None and (actual := sha256(path)) != expected:
        raise DataError(
            path,
            f"wrong SHA-256: {actual}, expected {expected}",
            "The file is damaged or another one: download it again, or set `sam.sha256` if you trust it.",
        )


def download(model: str, path: Path) -> None:
    """Fetch an official checkpoint to `path`, verified before it takes that name.

    Raises:
        DataError: no connection, or the file is not the official one.
    """
    name, expected = OFFICIAL[model]
    url = f"{BASE_URL}{name}.pth"
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=60) as source, open(temporary, "wb") as target:
                size = int(source.headers.get("Content-Length") or 0)
                with tqdm(total=size or None, unit="B", unit_scale=True) as progress:
                    while block := source.read(1 << 20):
                        target.write(block)
                        progress.update(len(block))
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                path,
                f"cannot be downloaded ({getattr(error, 'reason', error)})",
                f"Fetch {url} on a machine with a connection and put the file here under this name (SHA-256 "
                f"{expected}), or set `sam.checkpoint` to where it is, or use `sam.model: small`, which ships.",
            ) from None
        verify(temporary, expected)
