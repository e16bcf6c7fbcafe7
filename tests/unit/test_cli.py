"""The command line: help with examples, errors without tracebacks, and verbs on tables of a few pixels."""

import contextlib
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from crowdmask import cli, cli_people, tables
from crowdmask.config import Config
from crowdmask.stages import settings

VERBS = (
    [],
    ["datasets"],
    ["corrections"],
    ["corrections", "check"],
    ["corrections", "export"],
    ["corrections", "import"],
    ["corrections", "log"],
    ["corrections", "template"],
    ["evaluate"],
    ["stage"],
)


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "crowdmask.cli", "--help"], capture_output=True, text=True, check=True)
    assert "VERB" in done.stdout


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_of_each_verb_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*verb, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert " ".join(["crowdmask", *verb]) in text.partition("example")[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a configuration and the tables of a rendered scene up to merge, as the stages make them."""
    tmp_path = tmp_path_factory.mktemp("made")
    with contextlib.chdir(tmp_path):
        make(tmp_path)
    return tmp_path


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    copy = shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


def make(tmp_path):
    crowd = {"format": "synthetic", "count": 1, "people": [4, 4], "height": 96, "width": 128, "seed": 3}
    raw = {"datasets": {"crowd": crowd, "gone": {"format": "ucf", "root": "nowhere"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    config = Config.model_validate(raw)

    def text(stage):
        return settings(config, "crowd", stage)

    def table(stage):
        return f"results/crowd/{stage}/test/scene-0000.parquet"

    scene = "results/crowd/render/test/scene-0000"
    listed = ["--name", "crowd", "--selection", json.dumps(crowd), "--split", "test", "--batches", "64"]
    root = ["--root", "results/crowd/render"]
    run("render", "--index", "0", "--settings", text("render"), "--image", f"{scene}.png",
        "--labels", f"{scene}.labels.png", "--points", f"{scene}.points.json")  # fmt: skip
    run("datasets", *listed, "--batch", "scene-0000", "--settings", text("datasets"), "--output", table("datasets"))
    run("superpixels", "--images", table("datasets"), *root, "--settings", text("superpixels"),
        "--output", table("superpixels"))  # fmt: skip
    rows = [
        {key: value for key, value in row.items() if key not in ("superpixel", "sharing")}
        | {"score": 0.5, "stability": 0.5, "tile": 0, "zoom": 1.0}
        for row in tables.read(table("superpixels"), "superpixels")
    ]
    tables.write(table("segment"), "segment", rows, version=1, settings="{}")
    run("exclude", "--images", table("datasets"), "--segment", table("segment"), "--settings", text("exclude"),
        "--output", table("exclude"))  # fmt: skip
    run("merge", "--images", table("datasets"), "--masks", table("exclude"), "--settings", text("merge"),
        "--output", table("merge"), "--edits-output", table("edits"))  # fmt: skip


def run(*arguments):
    assert cli.main(["stage", *arguments]) == 0


def fails(capsys, *arguments):
    """Error text of a command that must fail."""
    capsys.readouterr()
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err + said.out


def test_datasets_lists_what_there_is_and_says_what_cannot_be_used(project, capsys):
    assert cli.main(["datasets"]) == 0
    crowd, gone = capsys.readouterr().out.splitlines()
    assert crowd == "crowd\tsynthetic\ttest: 1 images"
    assert gone.startswith("gone\tucf\tnot usable: nowhere: the folder of the data set 'gone'")
    assert cli.main(["datasets", "crowd"]) == 0
    assert capsys.readouterr().out == "test\tscene-0000\ttest/scene-0000.png\ttest/scene-0000.points.json\n"


def test_datasets_reads_files_given_with_configfile(project, capsys):
    (project / "more.yaml").write_text("datasets: {crowd: {count: 2}}", encoding="utf-8")
    assert cli.main(["datasets", "crowd", "--configfile", "more.yaml"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["datasets", "nope"], "no data set 'nope' in the configuration; known: crowd, gone"),
        (["datasets", "gone"], "nowhere: the folder of the data set 'gone'"),
        (["datasets", "--configfile", "no.yaml"], "no.yaml: file not found"),
        (["datasets", "--configfile", "."], ".: cannot be read (Is a directory)"),
        (["evaluate", "crowd"], "results/crowd/evaluation.json: not made yet. Run: snakemake"),
        (["corrections", "check", "no.json"], "no.json: cannot be read"),
        (["corrections", "check", "results/crowd/merge"], "no edit files in this folder"),
        (["corrections", "template", "crowd", "scene-0000", "--points", "1"], "write split/image_id"),
        (["corrections", "template", "crowd", "test/scene-0000", "--points", "a"], "write point ids with commas"),
        (["corrections", "template", "crowd", "test/scene-0000", "--points", "99"], "there is no mask of point 99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_exit_code_1(project, capsys, arguments, words):
    assert words in fails(capsys, *arguments)


@pytest.mark.parametrize("text", ["a: [", "- 1", "batchs: 3"])
def test_a_configuration_that_cannot_be_read_is_an_error(project, capsys, text):
    (project / "config.yaml").write_text(text, encoding="utf-8")
    assert "crowdmask: error: " in fails(capsys, "datasets")


def test_outside_of_the_project_it_says_where_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "Run in the project's folder" in fails(capsys, "datasets")


def test_a_template_needs_no_author_and_passes_the_check(project, capsys):
    assert cli.main(["corrections", "template", "crowd", "test/scene-0000", "--points", "0,2"]) == 0
    text = capsys.readouterr().out
    made = json.loads(text)
    assert [edit["point_id"] for edit in made["edits"]] == [0, 2]
    assert made["edits"][0]["author"]
    path = project / "corrections" / "crowd" / "test" / "scene-0000.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert cli.main(["corrections", "check", str(path)]) == 0
    assert cli.main(["corrections", "check", "corrections/crowd"]) == 0  # a folder, as the documentation says
    path.write_text(text.replace('"version": 1', '"version": 2'), encoding="utf-8")
    assert "scene-0000.json" in fails(capsys, "corrections", "check", "corrections")


def test_evaluate_prints_numbers_or_the_file(project, capsys):
    path = project / "results" / "crowd" / "evaluation.json"
    path.write_text('{"mean_iou": 0.5, "points": 3, "settings": {}}', encoding="utf-8")
    assert cli.main(["evaluate", "crowd"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["mean_iou", "0.5000"], ["points", "3"]]
    assert cli.main(["evaluate", "crowd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {}
    path.write_text("{", encoding="utf-8")
    assert "no valid JSON" in fails(capsys, "evaluate", "crowd")


def test_a_path_in_a_table_cannot_leave_the_root(project, capsys):
    name = "results/crowd/datasets/test/scene-0000.parquet"
    (project / "secret.png").write_bytes((project / "results/crowd/render/test/scene-0000.png").read_bytes())
    for path in ("../../../secret.png", str(project / "secret.png")):
        rows = [{**row, "path": path} for row in tables.read(name, "images")]
        tables.write("bad.parquet", "images", rows, version=1, settings="{}")
        text = settings(Config.model_validate({"datasets": {"it": {"format": "synthetic"}}}), "it", "superpixels")
        arguments = ["--root", "results/crowd/render", "--settings", text, "--output", "out.parquet"]
        assert "outside" in fails(capsys, "stage", "superpixels", "--images", "bad.parquet", *arguments)
        assert not (project / "out.parquet").exists()


def test_a_batch_that_is_gone_is_an_error(project, capsys):
    crowd = {"format": "synthetic", "count": 1}
    arguments = ["--name", "crowd", "--selection", json.dumps(crowd), "--split", "test", "--batch", "scene-7"]
    more = ["--batches", "64", "--settings", '{"entry":{"format":"synthetic"},"version":1}', "--output", "x.parquet"]
    assert "has no batch test/scene-7" in fails(capsys, "stage", "datasets", *arguments, *more)


def test_no_connection_says_which_file_to_put_where(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    text = fails(capsys, "stage", "checkpoint", "--model", "vit_b", "--output", "checkpoints/sam_vit_b_01ec64.pth")
    assert "checkpoints/sam_vit_b_01ec64.pth: cannot be downloaded" in text
    assert "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912" in text
    assert not list((tmp_path / "checkpoints").iterdir())


def test_an_interrupt_exits_with_130(project, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_people, "read_config", interrupted)
    assert cli.main(["datasets"]) == 130
    assert "run the same command again" in capsys.readouterr().err
