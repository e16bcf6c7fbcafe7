"""Fixtures of the workflow's tests: finished runs, and folders to run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flow import CROWD, Flow, targets


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """A finished run on two rendered scenes, with everything that can be asked for. Not to be changed: copy it."""
    flow = Flow(tmp_path_factory.mktemp("crowd"), {"datasets": {"crowd": CROWD}})
    done = flow.make(*targets("crowd"))
    (flow.folder / "printed.txt").write_text(done.text, encoding="utf-8")
    return flow


@pytest.fixture
def changed(crowd: Flow, tmp_path: Path) -> Flow:
    """A copy of the finished run that a test may change."""
    return crowd.copy(tmp_path / "copy")


@pytest.fixture
def new(tmp_path: Path) -> Callable[[Mapping[str, Any]], Flow]:
    """Maker of an empty working folder with a configuration."""
    return lambda config: Flow(tmp_path / "new", config)
