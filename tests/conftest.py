"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real inputs: the environment variable CROWDMASK_SHARED, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("CROWDMASK_SHARED") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real inputs at {folder}: set CROWDMASK_SHARED to their folder")
    return folder


# Examples of one property take their time on a loaded machine.
settings.register_profile("crowdmask", deadline=None)
# The same examples in every run of continuous integration: a change must not fail there for what another one left. The
# search for new ones goes on wherever people run the tests.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "crowdmask")
