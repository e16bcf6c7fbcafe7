"""One set of versions: pyproject.toml allows them, constraints.txt pins them, envs/*.yaml repeats them."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
ENVS = sorted((REPO / "envs").glob("*.yaml"))
SCRIPT = REPO / "envs" / "crowdmask.post-deploy.sh"


def pins(lines: list[str]) -> dict[str, str]:
    """Version by name of `name==version` lines; anything else but comments is refused."""
    result = {}
    for line in lines:
        text = line.split("#")[0].strip()
        if not text:
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", text)
        assert found, f"not an exact version: {line}"
        name = canonicalize_name(found[1])
        assert name not in result, f"{name} is pinned twice"
        result[name] = found[2]
    return result


def constraints() -> dict[str, str]:
    return pins((REPO / "constraints.txt").read_text(encoding="utf-8").splitlines())


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in project()["dependencies"]]


def pip_section(path: Path) -> list[str]:
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    return next(entry["pip"] for entry in dependencies if isinstance(entry, dict))


def test_constraints_pin_every_direct_dependency_within_its_range():
    pinned = constraints()
    extras = [Requirement(text) for group in project()["optional-dependencies"].values() for text in group]
    for requirement in [*requirements(), *extras]:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert version in requirement.specifier, f"{requirement} excludes {version}"


def test_constraints_name_no_second_opencv():
    assert [name for name in constraints() if name.startswith("opencv")] == ["opencv-python-headless"]


@pytest.mark.parametrize("path", ENVS, ids=lambda path: path.stem)
def test_environments_have_the_versions_of_constraints(path):
    pinned = constraints()
    for name, version in pins(pip_section(path)).items():
        assert version == pinned.get(name), f"{path.name}: {name}=={version}, constraints.txt has {pinned.get(name)}"


@pytest.mark.parametrize("path", ENVS, ids=lambda path: path.stem)
def test_environments_have_a_python_that_the_project_supports(path):
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    python = next(entry for entry in dependencies if isinstance(entry, str) and entry.startswith("python "))
    assert python.removeprefix("python =") in Requirement(f"python{project()['requires-python']}").specifier


def test_environment_lists_every_direct_dependency():
    listed = set(pins(pip_section(REPO / "envs" / "crowdmask.yaml")))
    assert listed == {canonicalize_name(requirement.name) for requirement in requirements()}


def post_deploy(tmp_path: Path, cwd: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the script, as a copy somewhere else, with a stand-in for python that writes down how it was called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\necho "$PWD: $*" > "{tmp_path}/called"\n', encoding="utf-8")
    (tools / "python").chmod(0o755)
    copy = shutil.copy(SCRIPT, tmp_path / "0123.post-deploy.sh")
    done = subprocess.run(
        ["bash", copy],
        cwd=cwd,
        env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    called = tmp_path / "called"
    return done, called.read_text(encoding="utf-8").strip() if called.exists() else ""


def test_post_deploy_installs_the_checkout_that_snakemake_runs_in(tmp_path):
    done, called = post_deploy(tmp_path, REPO)
    assert done.returncode == 0, done.stderr
    assert called == f"{REPO}: -m pip install --constraint constraints.txt --editable ."


def test_post_deploy_takes_the_checkout_from_the_environment(tmp_path):
    done, called = post_deploy(tmp_path, tmp_path, CROWDMASK_SOURCE=str(REPO))
    assert done.returncode == 0, done.stderr
    assert called.startswith(f"{REPO}: ")


def test_post_deploy_refuses_another_folder(tmp_path):
    done, called = post_deploy(tmp_path, tmp_path)
    assert done.returncode == 1
    assert called == ""
    assert "CROWDMASK_SOURCE" in done.stderr
