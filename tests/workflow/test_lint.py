"""The rule files: what Snakemake's own lint says, and what every rule must declare."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flow import CROWD, REPO, environment

FILES = [REPO / "Snakefile", *sorted((REPO / "workflow" / "rules").glob("*.smk"))]
TARGETS = {"demo"}
"""Rules that only name files."""


def rules() -> dict[str, str]:
    """Text of each rule."""
    text = "\n\n\n".join(path.read_text(encoding="utf-8") for path in FILES)
    return {found[1]: found[0] for found in re.finditer(r"^rule (\w+):\n(?:(?:[ \t].*)?\n)+", text, re.MULTILINE)}


def test_every_rule_is_found():
    names = {name for path in FILES for name in re.findall(r"^\s*(?:rule|checkpoint) (\w+)", path.read_text(), re.M)}
    assert rules().keys() == names > TARGETS


@pytest.mark.parametrize("name", sorted(rules().keys() - TARGETS))
def test_every_rule_declares_what_a_cluster_and_a_person_need(name):
    text = rules()[name]
    for directive in ("output", "log", "benchmark", "conda", "threads", "resources", "shell"):
        assert re.search(rf"^    {directive}:", text, re.MULTILINE), f"{name} has no {directive}"
    for resource in ("mem_mb", "runtime"):
        assert re.search(rf"^        {resource}=", text, re.MULTILINE), f"{name} has no {resource}"
    assert "log:q" in text.partition("shell:")[2], f"{name} does not write its log"


@pytest.mark.parametrize("name", ["segment", "train_sam", "candidates"])
def test_rules_that_use_a_gpu_ask_for_one(name):
    assert "gpu=gpus" in rules()[name] and "--gpu {resources.gpu}" in rules()[name]


def test_rules_of_variants_have_outputs_logs_and_benchmarks_of_their_own():
    text = (REPO / "workflow" / "rules" / "ablate.smk").read_text(encoding="utf-8")
    made = re.findall(r"^use rule (\w+) as (\w+) with:\n((?:(?:[ \t].*)?\n)+)", text, re.MULTILINE)
    assert [name for name, _, _ in made] == ["superpixels", "segment", "exclude"]
    for name, own, body in made:
        assert own == f"ablation_{name}"
        for directive in ("output", "log", "benchmark", "params"):
            assert re.search(rf"^    {directive}:\n", body, re.MULTILINE), f"{own} has no {directive}"
        assert body.count(f"ablation/{name}/{{hash}}/") == 3 and "shell:" not in body
        assert f'variant_settings("{name}")' in body
        assert ("gpu=gpus" in body) == (name == "segment")


def test_paths_and_texts_in_shell_commands_are_quoted():
    numbers = {"wildcards.index", "params.batches", "params.model", "resources.gpu"}
    for name, text in rules().items():
        used = set(re.findall(r"\{([\w.]+)\}", text.partition("    shell:")[2]))
        assert used <= numbers, f"{name}: {sorted(used - numbers)} without :q"


def test_snakemake_lint_is_clean(new):
    done = new({"datasets": {"crowd": CROWD}}).run("--lint")
    assert done.code == 0, done.text
    assert "Congratulations" in done.text


def test_snakefmt_has_nothing_to_change():
    program = shutil.which("snakefmt", path=environment()["PATH"])
    if program is None or Path(program).parent != Path(sys.executable).parent:
        pytest.skip("snakefmt is not installed: make lint installs it")
    done = subprocess.run(
        [program, "--check", "Snakefile", "workflow"],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
