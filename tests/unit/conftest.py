"""Models that tests of SAM's decoder share; a data set whose masks are handed out."""

import contextlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from segment_anything.modeling import Sam

from crowdmask.config import Sam as SamSettings
from crowdmask.corrections.exchange import tools
from crowdmask.masks import checkpoints, sam
from layouts import handout


@cache
def build(name: str) -> Sam:
    """The small SAM, `shipped` or with `random` weights, or `vit_b` with random weights; frozen."""
    torch.set_num_threads(1)
    if name == "shipped":
        return sam.load(SamSettings(), checkpoints.shipped(), torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = sam.build("small" if name == "random" else name).requires_grad_(False)
        decoder = made.mask_decoder
        for parameter in decoder.parameters():  # biases of 0 and norms of 1 would hide mistakes
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        for layer in decoder.output_hypernetworks_mlps:  # random weights give nearly flat logits of one sign
            layer.layers[-1].weight.mul_(8)
    return made


@pytest.fixture(scope="session")
def models() -> Callable[[str], Sam]:
    """Builds each model once, by its name: random, shipped, vit_b."""
    return build


@pytest.fixture(params=["random", "shipped", "vit_b"], scope="session")
def any_sam(request: pytest.FixtureRequest) -> Sam:
    """Each model in turn."""
    return build(request.param)


@pytest.fixture(scope="session")
def shipped() -> Sam:
    """The small SAM as it ships."""
    return build("shipped")


@pytest.fixture(scope="session")
def handout_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `layouts.handout` with its tables up to merge."""
    root = tmp_path_factory.mktemp("made")
    with contextlib.chdir(root):
        handout.make(root)
        handout.make_tables()
        handout.run_merge()
    return root


@pytest.fixture
def handout_project(handout_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data set and its tables, as the working directory, and a tool that writes one file."""
    copy = shutil.copytree(handout_made, tmp_path / "copy")
    monkeypatch.chdir(copy)

    monkeypatch.setattr(tools, "module", lambda tool: SimpleNamespace(TOOL=tool, write=handout.write))
    return copy
