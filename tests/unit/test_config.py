"""Settings: the three files agree with the models, and every mistake is named with its path and what is allowed."""

import copy
import json
import math
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from pydantic import ValidationError
from snakemake.utils import validate

from crowdmask import config, config_docs
from crowdmask.errors import SettingsError

REPO = Path(__file__).resolve().parents[2]
CONFIG_TEXT = (REPO / "config.yaml").read_text(encoding="utf-8")
SCHEMA_FILE = REPO / "workflow" / "schemas" / "config.schema.json"
SYNTHETIC = {"format": "synthetic"}


def one(name="a", **keys):
    """A configuration with one synthetic data set."""
    return {"datasets": {name: {**SYNTHETIC, **keys}}}


def message(raw):
    with pytest.raises(SettingsError) as caught:
        config.load(raw)
    return str(caught.value).removeprefix("configuration: ")


# --- The files -------------------------------------------------------------------------------------------------------


def test_config_yaml_holds_every_key_at_its_default():
    raw = yaml.safe_load(CONFIG_TEXT)
    defaults = json.loads(config.Config().model_dump_json())
    assert raw.pop("datasets").keys() >= {"demo", "sha"}
    defaults.pop("datasets")
    assert raw == defaults


def test_config_yaml_explains_every_key():
    # Printed by `python -m crowdmask.config_docs config`.
    assert config_docs.config_sections() in CONFIG_TEXT


def test_config_yaml_loads_and_has_the_two_data_sets():
    loaded = config.load(yaml.safe_load(CONFIG_TEXT))
    assert loaded.datasets["demo"].people == (20, 300)
    assert loaded.datasets["sha"].root == "data/ShanghaiTech/part_A"


def test_schema_file_is_the_models_schema():
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == config.schema(), "run `make schema`"


def test_settings_page_is_up_to_date():
    page = (REPO / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == config_docs.settings_page(), "run `make schema`"


def test_schema_is_valid_and_accepts_config_yaml():
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(CONFIG_TEXT), schema)


def test_snakemake_accepts_config_yaml_without_changing_it():
    raw = yaml.safe_load(CONFIG_TEXT)
    before = copy.deepcopy(raw)
    validate(raw, str(SCHEMA_FILE), set_default=False)
    assert raw == before


@pytest.mark.parametrize(
    "raw",
    [
        one(cuont=3),
        one(exclusion={"rmax": 50}),
        one(exclusion={"r_max": -1}),
        {"exlusion": {}},
        {"prompt": {"mode": "points"}},
        {"batches": "5"},
        {"gpu": 5},
        {"ablation": {"variants": {"v": {"exclusion": {"rmax": 50}}}}},
        {"ablation": {"variants": {"v": {"exclusio": {}}}}},
        {"ablation": {"baselines": ["circel"]}},
    ],
)
def test_schema_refuses_what_the_models_refuse(raw):
    message(raw)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, config.schema())


def test_every_setting_has_a_description():
    models = [config.Config, config.Variant, *dict(config_docs.sections()).values(), *config.FORMATS.values()]
    missing = [
        f"{model.__name__}.{name}"
        for model in models
        for name, info in model.model_fields.items()
        if not info.description and name != "format" and name not in dict(config_docs.sections())
    ]
    assert missing == []


def test_docs_command(capsys):
    assert config_docs.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == config.schema()
    assert config_docs.main(["nothing"]) == 2
    assert "settings" in capsys.readouterr().err


# --- Mistakes --------------------------------------------------------------------------------------------------------

EXCLUSION_KEYS = ", ".join(sorted(config.Exclusion.model_fields))
UNKNOWN_RMAX = f"unknown key (did you mean r_max?); allowed here: {EXCLUSION_KEYS}"
SWAPPED = "r_max (10.0) must not be smaller than r_min (20.0)"
MODES = ", ".join(get_args(config.PromptMode))
VARIED = "exclusion, preset, prompt, sam, superpixels, tiles"
FORMATS = "shanghaitech, ucf, jhu, nwpu, fdst, coco, points, labelme, label_map, synthetic"

NAMES = "letters, digits, '_', '.' and '-', a letter or digit first"
WINDOW = "none needs `sam.window: tile`; else masks end at a window around the point"


def variant(**keys):
    """A configuration with one variant of the ablation."""
    return {"ablation": {"variants": {"v": keys}}}


MISTAKES = [
    # Unknown keys.
    (one(exclusion={"rmax": 50}), f"datasets.a.exclusion.rmax: {UNKNOWN_RMAX}"),
    ({"exclusion": {"rmax": 50}}, f"exclusion.rmax: {UNKNOWN_RMAX}"),
    (
        {"corrections": {"state": "apply"}},
        "corrections.state: unknown key (did you mean stale?); allowed here: folder, stale",
    ),
    # Values out of range, inside and outside of an override.
    ({"exclusion": {"r_max": -1}}, "exclusion.r_max: must be a number > 0, or null (got -1)"),
    (one(exclusion={"r_max": -1}), "datasets.a.exclusion.r_max: must be a number > 0, or null (got -1)"),
    ({"batches": 0}, "batches: must be a whole number from 1 to 10000 (got 0)"),
    ({"corrections": {"folder": ""}}, "corrections.folder: must be text that is not empty (got '')"),
    ({"sam": {"sha256": "x"}}, "sam.sha256: must be text matching ^[0-9a-f]{64}$, or null (got 'x')"),
    ({"prompt": {"mode": "pont"}}, f"prompt.mode: must be one of {MODES} (got 'pont') (did you mean point?)"),
    ({"sam": {"precision": "fp8"}}, "sam.precision: must be one of fp32, bf16, fp16 (got 'fp8')"),
    ({"exclusion": {"r_min": 20, "r_max": 10}}, f"exclusion: {SWAPPED}"),
    (one(exclusion={"r_min": 20, "r_max": 10}), f"datasets.a.exclusion: {SWAPPED}"),
    (one(people=[5, 1]), "datasets.a: people must be two numbers with 0 <= fewest <= most <= 1500"),
    # Variants of the ablation.
    (variant(promt={}), f"ablation.variants.v.promt: unknown key (did you mean prompt?); allowed here: {VARIED}"),
    (variant(export={}), f"ablation.variants.v.export: unknown key; allowed here: {VARIED}"),
    (variant(exclusion={"rmax": 50}), f"ablation.variants.v.exclusion.rmax: {UNKNOWN_RMAX}"),
    ({**one(), **variant(exclusion={"rmax": 50})}, f"ablation.variants.v.exclusion.rmax: {UNKNOWN_RMAX}"),
    (variant(exclusion={"r_max": -1}), "ablation.variants.v.exclusion.r_max: must be a number > 0, or null (got -1)"),
    (
        variant(preset="sam"),
        "ablation.variants.v.preset: must be one of edp-sam, dpmo, or null (got 'sam') (did you mean edp-sam?)",
    ),
    (variant(prompt=3), "ablation.variants.v.prompt: must be a section of keys and values (got 3)"),
    (
        {**one(exclusion={"r_min": 20}), **variant(exclusion={"r_max": 10})},
        f"ablation.variants.v.exclusion: {SWAPPED} (data set a)",
    ),
    ({"ablation": {"variants": {"a b": {}}}}, f"ablation.variants.a b: not a name: {NAMES}"),
    (
        {"ablation": {"variants": {"oracle": {}}}},
        "ablation.variants.oracle: the name is taken, by default settings or by a baseline",
    ),
    (
        {"ablation": {"baselines": ["circel"]}},
        f"ablation.baselines: must be a list, each one of {', '.join(config.BASELINES)} (got ['circel'])",
    ),
    # Without a circle SAM's answer must be there.
    (one(exclusion={"constraint": "none"}), f"datasets.a.exclusion.constraint: {WINDOW}"),
    (variant(exclusion={"constraint": "none"}), f"ablation.variants.v.exclusion.constraint: {WINDOW}"),
    # Types: nothing is converted but whole numbers to decimal ones.
    ({"batches": True}, "batches: must be a whole number from 1 to 10000 (got True)"),
    ({"batches": 2.0}, "batches: must be a whole number from 1 to 10000 (got 2.0)"),
    ({"exclusion": {"disjoint": 1}}, "exclusion.disjoint: must be true or false (got 1)"),
    ({"exclusion": {"r_max": True}}, "exclusion.r_max: must be a number > 0, or null (got True)"),
    ({"exclusion": {"r_max": math.nan}}, "exclusion.r_max: must be a number > 0, or null (got nan)"),
    ({"exclusion": {"r_max": math.inf}}, "exclusion.r_max: must be a number > 0, or null (got inf)"),
    ({"corrections": {"folder": 5}}, "corrections.folder: must be text that is not empty (got 5)"),
    ({"exclusion": None}, "exclusion: must be a section of keys and values (got None)"),
    (one(exclusion=None), "datasets.a.exclusion: must be a section of keys and values (got None)"),
    (one(people=[1, 2.5]), "datasets.a.people: must be a list of 2 whole numbers (got [1, 2.5])"),
    (one(people=[1]), "datasets.a.people: must be a list of 2 whole numbers (got [1])"),
    (one(people=[1, 2, 3]), "datasets.a.people: must be a list of 2 whole numbers (got [1, 2, 3])"),
    ({"train_sam": {"datasets": "x"}}, "train_sam.datasets: must be a list of text values (got 'x')"),
    ({"gpu": 5}, "gpu: must be auto, or a whole number from 0 to 1 (got 5)"),
    ({"gpu": True}, "gpu: must be auto, or a whole number from 0 to 1 (got True)"),
    # Data sets.
    ({"datasets": None}, "datasets: must be a section of keys and values (got None)"),
    ({"datasets": {"a": 3}}, "datasets.a: must be a section of keys and values (got 3)"),
    ({"datasets": {"a": {}}}, f"datasets.a.format: is missing; must be one of {FORMATS}"),
    (
        {"datasets": {"a": {"format": "shanghai"}}},
        f"datasets.a.format: must be one of {FORMATS} (got 'shanghai') (did you mean shanghaitech?)",
    ),
    ({"datasets": {"ucf": {"format": "ucf"}}}, "datasets.ucf.root: is missing; must be text that is not empty"),
    (
        one("../a"),
        f"datasets.../a: not a name of a data set: {NAMES}",
    ),
    ({1: 2}, "1: a key must be text"),
    (one(exclusion={1: 2}), "datasets.a.exclusion: a key must be text"),
]


@pytest.mark.parametrize(("raw", "expected"), MISTAKES, ids=[expected.split(": ")[0] for _, expected in MISTAKES])
def test_mistakes_are_named(raw, expected):
    assert message(raw) == expected


@pytest.mark.parametrize("value", ["50", "1e-3", "5", "-2.5"])
def test_text_for_a_number_is_refused_with_the_way_out(value):
    assert message({"exclusion": {"r_max": value}}) == (
        f"exclusion.r_max: must be a number > 0, or null (got {value!r}); "
        "it is text: no quotes, and 1.0e-3 instead of 1e-3 in YAML"
    )


def test_an_unknown_key_of_a_data_set_lists_what_its_format_allows():
    text = message(one("ucf", cuont=3))  # a data set named like a format
    assert text.startswith("datasets.ucf.cuont: unknown key (did you mean count?); allowed here: count, ")
    assert "root" not in text


def test_an_override_of_a_section_that_has_none():
    assert message(one(train_sam={"steps": 5})).startswith("datasets.a.train_sam: unknown key; allowed here: count, ")


def test_all_faults_are_reported_at_once():
    raw = {"datasets": {"a": {**SYNTHETIC, "sam": {"x": 1}}, "b": {**SYNTHETIC, "sam": {"y": 1}, "tiles": {"side": 1}}}}
    paths = [clause.split(": ")[0] for clause in message(raw).split("; ") if clause.startswith("datasets")]
    assert paths == ["datasets.a.sam.x", "datasets.b.sam.y", "datasets.b.tiles.side"]


def test_whole_numbers_are_good_decimal_ones_and_the_settings_are_the_same():
    whole, decimal = config.load({"exclusion": {"r_max": 50}}), config.load({"exclusion": {"r_max": 50.0}})
    assert config.canonical(whole.exclusion) == config.canonical(decimal.exclusion)
    overridden = config.load(one(exclusion={"r_max": 50}))
    assert config.canonical(config.section_for(overridden, "a", "exclusion")) == config.canonical(whole.exclusion)


def test_settings_are_frozen():
    loaded = config.load({})
    with pytest.raises(ValidationError, match="frozen"):
        loaded.exclusion.r_max = 3.0
    with pytest.raises(ValidationError, match="frozen"):
        loaded.batches = 3


# --- Which value holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "own", "expected"),
    [
        ({}, {}, 200.0),
        ({"exclusion": {"r_max": 90.0}}, {}, 90.0),
        ({"exclusion": {"r_max": 90.0}, "preset": "edp-sam"}, {}, None),
        ({"exclusion": {"r_max": 90.0}, "preset": "edp-sam"}, {"preset": "dpmo"}, 200.0),
        ({"exclusion": {"r_max": 90.0}}, {"preset": "edp-sam"}, None),
        ({"preset": "edp-sam"}, {"preset": None}, None),
        ({"exclusion": {"r_max": 90.0}, "preset": "dpmo"}, {"exclusion": {"r_max": 70.0}}, 70.0),
        ({}, {"preset": "dpmo", "exclusion": {"r_max": None}}, None),
    ],
)
def test_precedence(top, own, expected):
    loaded = config.load({**top, **one(**own)})
    assert config.section_for(loaded, "a", "exclusion").r_max == expected


@pytest.mark.parametrize(
    ("own", "changed", "expected"),
    [
        ({}, {}, 200.0),
        ({"exclusion": {"r_max": 70.0}}, {}, 70.0),
        ({"exclusion": {"r_max": 70.0}}, {"exclusion": {"r_max": 9.0}}, 9.0),
        ({"exclusion": {"r_max": 70.0}}, {"preset": "edp-sam"}, None),
        ({"preset": "edp-sam"}, {"exclusion": {"r_max": 9.0}}, 9.0),
        ({"preset": "edp-sam"}, {"preset": "dpmo"}, 200.0),
        ({}, {"preset": "dpmo", "exclusion": {"r_max": 9.0}}, 9.0),
    ],
)
def test_a_variant_is_stronger_than_the_data_set(own, changed, expected):
    loaded = config.load({**one(**own), **variant(**changed)})
    assert config.section_for(loaded, "a", "exclusion", "v").r_max == expected
    assert config.section_for(loaded, "a", "exclusion") == config.section_for(config.load(one(**own)), "a", "exclusion")


def test_without_constraint_is_allowed_where_all_of_sams_answer_is_kept():
    given = {"exclusion": {"constraint": "none"}, "sam": {"window": "tile"}}
    config.load(one(**given))
    config.load({**one(), **variant(**given)})
    config.load({**one(sam={"window": "tile"}), "sam": {"window": "tile"}, **variant(exclusion={"constraint": "none"})})


def test_an_override_leaves_other_keys_and_other_data_sets_alone():
    raw = {"datasets": {"a": {**SYNTHETIC, "exclusion": {"r_max": 70.0}}, "b": SYNTHETIC}, "exclusion": {"r_min": 3.0}}
    loaded = config.load(raw)
    assert config.section_for(loaded, "a", "exclusion").r_min == 3.0
    assert config.section_for(loaded, "b", "exclusion") == loaded.exclusion


@pytest.mark.parametrize("preset", sorted(config.PRESETS))
def test_presets_are_valid_and_take_effect(preset):
    loaded = config.load(one(preset=preset))
    for section, values in config.PRESETS[preset].items():
        resolved = config.section_for(loaded, "a", section).model_dump()
        assert {key: resolved[key] for key in values} == values


def test_an_override_that_only_fails_together_with_the_global_section():
    raw = {**one(exclusion={"r_max": 8.0}), "exclusion": {"r_min": 10.0}}
    assert message(raw) == "datasets.a.exclusion: r_max (8.0) must not be smaller than r_min (10.0)"


# --- --config --------------------------------------------------------------------------------------------------------


def test_typed_restores_what_snakemake_leaves_as_text():
    given = {
        "exclusion": {"r_max": "50", "disjoint": "false", "min_side": "null", "min_area_share": "1e-2", "tie": "last"},
        "datasets": {"a": {"format": "synthetic", "people": ["3", "4"]}},
        "batches": 8,
    }
    merged = {"exclusion": {"r_min": 3.0, **given["exclusion"]}, "datasets": given["datasets"], "batches": 8}
    with pytest.raises(SettingsError):
        config.load(merged)
    loaded = config.load(config.typed(merged, given))
    assert loaded.exclusion == config.Exclusion(
        r_min=3.0, r_max=50.0, disjoint=False, min_side=None, min_area_share=0.01, tie="last"
    )
    assert loaded.datasets["a"].people == (3, 4)
    assert loaded.batches == 8


def test_typed_touches_only_what_the_command_line_gave():
    merged = {"exclusion": {"r_min": "3"}, "batches": "5"}
    assert config.typed(merged, {}) == merged
    assert config.typed(merged, {"exclusion": {"r_max": "9"}}) == {**merged, "exclusion": {"r_min": "3", "r_max": 9}}


def test_canonical_ignores_order_and_nothing_else():
    assert config.canonical({"b": 1, "a": [1, None]}) == '{"a":[1,null],"b":1}'
    assert config.canonical(config.Exclusion()) != config.canonical(config.Exclusion(r_max=199.0))


def test_a_root_may_begin_at_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    roots = {"~/sha": f"{tmp_path}/sha", "a/~": "a/~", "~nobody-of-that-name/x": "~nobody-of-that-name/x"}
    for written, meant in roots.items():
        loaded = config.load({"datasets": {"mine": {"format": "ucf", "root": written}}})
        assert loaded.datasets["mine"].root == meant
