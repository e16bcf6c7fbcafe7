"""Snakemake ignores a misspelt mapping or rule name in a profile without a word; these tests do not."""

import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser
from snakemake.profiles import ProfileConfigFileParser

REPO = Path(__file__).resolve().parents[2]
PROFILES = sorted((REPO / "profiles").glob("*/*.yaml"))
PER_RULE = ("set-resources", "set-threads")


def options() -> set[str]:
    return {name[2:] for action in get_argument_parser()._actions for name in action.option_strings if name[:2] == "--"}


def rules() -> set[str]:
    files = [REPO / "Snakefile", *(REPO / "workflow" / "rules").glob("*.smk")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.exists()]
    declared = r"^\s*(?:(?:rule|checkpoint) (\w+):|use rule \w+ as (\w+) with:)"
    return {name for text in texts for names in re.findall(declared, text, re.MULTILINE) for name in names if name}


def faults(profile: dict, options: set[str], rules: set[str]) -> list[str]:
    """Keys that are no option and, where there are rules at all, names that are no rule."""
    found = [f"{key}: no option of snakemake" for key in profile if key not in options]
    for key in PER_RULE:
        found += [f"{key}.{name}: no such rule" for name in profile.get(key, {}) if rules and name not in rules]
    return found


def test_there_are_the_two_profiles():
    assert {path.parent.name for path in PROFILES} == {"default", "slurm"}
    assert {path.name for path in PROFILES} == {"profile.yaml"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_key_is_an_option_and_every_rule_exists(path):
    known = rules()
    assert faults(yaml.safe_load(path.read_text(encoding="utf-8")), options(), known) == []
    if not known:
        pytest.skip("workflow/rules is empty: the profiles' rule names were not checked")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_snakemake_keeps_every_key(path):
    with path.open(encoding="utf-8") as stream:
        assert set(ProfileConfigFileParser().parse(stream)) == set(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_check_finds_what_snakemake_ignores(tmp_path):
    wrong = {"set-resource": {"segment": {"gpu": 1}}, "set-resources": {"segmnt": {"gpu": 1}}, "jobs": 4}
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    with path.open(encoding="utf-8") as stream:
        assert "set-resource" not in ProfileConfigFileParser().parse(stream)
    assert faults(wrong, options(), {"segment"}) == [
        "set-resource: no option of snakemake",
        "set-resources.segmnt: no such rule",
    ]


def test_slurm_repeats_what_it_replaces():
    default, slurm = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in PROFILES)
    assert default.items() <= slurm.items()
