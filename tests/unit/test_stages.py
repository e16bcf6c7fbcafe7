"""What makes a stage run again, and what does not."""

import importlib
import json

import pytest

from crowdmask import stages
from crowdmask.config import Config, load

MODULES = {
    "datasets": "datasets.stage",
    "splits": "datasets.protocols",
    "superpixels": "masks.superpixels",
    "segment": "masks.segment",
    "exclude": "masks.exclusion",
    "merge": "corrections.merge",
    "export": "export.coco",
    "formats": "export.files",
    "overlay": "export.overlay",
    "review": "corrections.review",
    "evaluate": "metrics.evaluate",
    "corrections": "corrections.gain_run",
    "train_sam": "training.train_sam",
    "candidates": "ablation.candidates",
    "baseline": "ablation.baselines",
    "measures": "ablation.measure",
    "ablation": "ablation.report",
    "overview": "overview",
}
ALL = [stage for stage in stages.VERSIONS if stage != "train_sam"]
FOLDER = {"format": "shanghaitech", "root": "data/a"}
SYNTHETIC = {"format": "synthetic", "count": 4}


@pytest.mark.parametrize(("stage", "module"), MODULES.items())
def test_versions_are_those_of_the_modules(stage, module):
    assert stages.VERSIONS[stage] == importlib.import_module(f"crowdmask.{module}").VERSION


def texts(entry, **sections):
    config = load({"datasets": {"it": entry}, **sections})
    return {stage: stages.settings(config, "it", stage) for stage in ALL}


def changed(before, after):
    assert before.keys() == after.keys()
    return {stage for stage in before if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"exclusion": {"r_max": 100.0}}, {"exclude", "baseline"}),
        ({"exclusion": {"r_min": 3.0}}, {"exclude", "baseline"}),
        ({"exclusion": {"tie": "last"}}, {"exclude", "baseline"}),
        ({"exclusion": {"constraint": "half"}}, {"exclude", "baseline"}),
        ({"exclusion": {"disjoint": False}}, {"exclude", "merge", "baseline"}),
        ({"superpixels": {"n_segments": 500}}, {"superpixels"}),
        ({"prompt": {"mode": "point"}}, {"segment"}),
        ({"prompt": {"box_share": 0.9}}, {"segment"}),
        ({"tiles": {"mode": "none"}}, {"segment", "candidates"}),
        ({"sam": {"model": "vit_b"}}, {"segment", "candidates"}),
        ({"sam": {"precision": "bf16"}}, {"segment", "candidates"}),
        ({"sam": {"window": "tile"}}, {"segment"}),
        ({"sam": {"model": "vit_b", "checkpoint": "elsewhere/sam.pth"}}, {"segment", "candidates"}),
        ({"candidates": {"pred_iou": 0.5}}, {"candidates"}),
        ({"ablation": {"variants": {"a": {}}}}, set()),
        ({"export": {"category": "person"}}, {"export"}),
        ({"export": {"overlays": 9}}, set()),
        ({"corrections": {"stale": "apply"}}, {"merge"}),
        ({"corrections": {"folder": "edits"}}, set()),
        ({"review": {"cut": 3.0}}, {"review"}),
        ({"batches": 8}, set()),
        ({"gpu": 1}, set()),
        ({"train_sam": {"steps": 3}}, set()),
        ({"preset": "dpmo"}, {"segment", "exclude", "candidates", "baseline"}),
        ({"preset": "edp-sam"}, {"segment", "exclude", "candidates", "baseline"}),
    ],
)
@pytest.mark.parametrize("entry", [FOLDER, SYNTHETIC])
def test_a_setting_changes_the_stages_that_read_it(entry, sections, expected):
    assert changed(texts(entry), texts(entry, **sections)) - {"overview"} == expected
    own = {key: value for key, value in sections.items() if key in stages.SECTIONS or key == "preset"}
    if own:  # the same as an override of the data set alone
        assert changed(texts(entry), texts({**entry, **own})) - {"overview"} == expected


def test_the_first_page_shows_every_setting_of_the_method():
    for section, change in {
        **{"superpixels": {"sigma": 1.0}, "prompt": {"neighbours": 1}, "sam": {"chunk": 3}, "tiles": {"side": 64}},
        **{"exclusion": {"r_max": 9.0}, "export": {"overlays": 1}, "corrections": {"stale": "apply"}, "preset": "dpmo"},
    }.items():
        assert "overview" in changed(texts(FOLDER), texts(FOLDER, **{section: change})), section


@pytest.mark.parametrize(
    ("entry", "more", "expected"),
    [
        (FOLDER, {"limit": 5}, set()),
        (FOLDER, {"skip": 5}, set()),
        (FOLDER, {"skip_images": ["train/IMG_4"]}, set()),
        (
            FOLDER,
            {"exif": "apply"},
            {
                *("datasets", "truth", "superpixels", "segment", "overlay", "evaluate", "corrections", "review"),
                *("candidates", "baseline"),
            },
        ),
        (SYNTHETIC, {"count": 9}, set()),
        (SYNTHETIC, {"seed": 9}, {"render", "datasets", "truth"}),
        (SYNTHETIC, {"people": [1, 5]}, {"render", "datasets", "truth"}),
    ],
)
def test_more_images_change_no_stage_and_other_images_do(entry, more, expected):
    found = changed(texts(entry), texts({**entry, **more}))
    assert found - ({"render"} if entry is FOLDER else set()) == expected  # nothing of a folder is rendered


@pytest.mark.parametrize("model", ["vit_b", "small"])
def test_where_a_checkpoint_lies_changes_nothing(model):
    here, there = ({"model": model, "checkpoint": f"{folder}/sam.pth"} for folder in ("here", "there"))
    assert changed(texts(FOLDER, sam=here), texts(FOLDER, sam=there)) == {"overview"}  # which names the place
    official = changed(texts(FOLDER, sam={"model": model}), texts(FOLDER, sam=here)) - {"overview"}
    assert official == (
        {"segment", "candidates"} if model == "small" else set()
    )  # shipped weights are known by their hash


def test_another_data_set_changes_nothing():
    alone = load({"datasets": {"it": FOLDER}})
    both = load({"datasets": {"it": FOLDER, "other": {**SYNTHETIC, "exclusion": {"r_max": 9.0}}}})
    for stage in ALL:
        assert stages.settings(alone, "it", stage) == stages.settings(both, "it", stage)


@pytest.mark.parametrize("stage", ALL)
def test_the_version_is_part_of_the_settings(stage, monkeypatch):
    config = load({"datasets": {"it": FOLDER}})
    before = stages.settings(config, "it", stage)
    assert json.loads(before)["version"] == stages.VERSIONS[stage]
    monkeypatch.setitem(stages.VERSIONS, stage, 99)
    assert stages.settings(config, "it", stage) == before.replace(
        f'"version":{json.loads(before)["version"]}', '"version":99'
    )


def test_truth_comes_with_label_maps_and_rendered_crowds():
    config = load({"datasets": {"a": FOLDER, "b": {**FOLDER, "format": "label_map"}, "c": SYNTHETIC}})
    assert [stages.has_truth(config, name) for name in "abc"] == [False, True, True]


def test_keys_that_are_younger_than_results_do_not_run_them_again():
    """What the settings of these stages were before `box_share`, `window` and `constraint`."""
    config = load({"datasets": {"it": SYNTHETIC}})
    segment, exclude = (json.loads(stages.settings(config, "it", stage)) for stage in ("segment", "exclude"))
    assert segment["prompt"].keys() == {"mode", "logit", "clip_to_circle", "neighbours", "bias"}
    assert segment["sam"].keys() == {"model", "sha256", "chunk", "precision", "threads"}
    assert "constraint" not in exclude["exclusion"] and "tie" in exclude["exclusion"]
    sections = Config().model_dump()
    for section, keys in stages.NEWER.items():
        assert keys == {key: sections[section][key] for key in keys}  # what is left out is what the job assumes


def test_the_hash_of_a_chain_follows_what_its_stages_read():
    def hashes(**sections):
        config = load({"datasets": {"it": SYNTHETIC}, **sections})
        return [stages.chain_hash(config, "it", stage) for stage in stages.READS]

    own = hashes()
    assert len(set(own)) == 3 and all(len(digest) == 12 for digest in own)

    def same(**sections):
        return [a == b for a, b in zip(own, hashes(**sections), strict=True)]

    assert same(exclusion={"r_max": 9.0}) == [True, True, False]
    assert same(prompt={"mode": "point"}) == [True, False, False]
    assert same(superpixels={"n_segments": 9}) == [False, False, False]
    assert same(exclusion={"r_max": 200}) == same(export={"category": "x"}, batches=3) == [True, True, True]
    # Two checkpoints of one model give two tables.
    assert same(sam={"checkpoint": "a.pth"}) == [True, False, False]
    assert hashes(sam={"checkpoint": "a.pth"}) != hashes(sam={"checkpoint": "b.pth"})
