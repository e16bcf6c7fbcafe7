"""The ablation as people run it: what variants share, what runs again, and the files that come out."""

import csv

import pytest
from flow import SETTINGS, Flow, counts

from crowdmask import tables
from crowdmask.config import load
from crowdmask.stages import chain_hash

SCENES = {"format": "synthetic", "count": 2, "people": [6, 9], "height": 96, "width": 128, "seed": 5, "split": "test"}
VARIANTS = {
    "half": {"exclusion": {"constraint": "half"}},
    "none": {"exclusion": {"constraint": "none", "disjoint": False}},
    "point": {"prompt": {"mode": "point"}},
}
CONFIG = {
    "datasets": {"scenes": SCENES},
    "sam": {"window": "tile"},
    "batches": 1,
    "ablation": {"variants": VARIANTS, "baselines": ["circle", "smallest_circle"], "samples": 50},
    # A coarse grid, and limits that the small SAM reaches.
    "candidates": {"spacing_px": 64.0, "pred_iou": 0.3, "stability": 0.3},
}
TABLE = "results/scenes/ablation/table.html"
FILES = ("table.csv", "table.md", "table.html", "sweeps.svg", "sweeps.png", "prompts.svg", "prompts.png")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """A finished ablation. Not to be changed: copy it."""
    flow = Flow(tmp_path_factory.mktemp("ablation"), CONFIG)
    flow.make(TABLE)
    return flow


def with_variants(**more):
    return {**CONFIG, "ablation": {**CONFIG["ablation"], "variants": {**VARIANTS, **more}}}


def test_a_variant_of_the_circle_plans_no_sam_and_one_of_the_prompt_plans_one(new):
    plan = new(CONFIG).plan(TABLE)
    # One batch: the own settings, two variants of the circle on their segment table, one prompt, two baselines.
    assert counts(plan) == {
        **dict.fromkeys(("datasets", "truth", "superpixels", "segment", "exclude"), 1),
        **{"render": 2, "ablation_segment": 1, "ablation_exclude": 3},
        **{"candidates": 1, "baseline": 2, "measures": 6, "ablation": 1},
    }


def test_the_table_has_all_rows_and_every_mask_its_measure(done):
    assert all(done.path("scenes", "ablation", name).stat().st_size > 100 for name in FILES)
    with done.path("scenes", "ablation", "table.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["default", "half", "none", "point", "circle", "smallest_circle"]
    assert [row["kind"] for row in rows.values()] == ["own", *["variant"] * 3, *["baseline"] * 2]
    values = {name: float(row["mean_iou"]) for name, row in rows.items()}
    assert all(0 < value <= 1 for value in values.values())
    assert values["default"] > values["circle"]
    for row in rows.values():
        assert float(row["mean_iou_low"]) <= float(row["mean_iou"]) <= float(row["mean_iou_high"])
        if row["kind"] != "own":
            difference = float(row["mean_iou"]) - values["default"]
            assert float(row["mean_iou_difference"]) == pytest.approx(difference, abs=1e-5)
    points = sum(len(row["points"]) for row in tables.read(batch(done, "datasets"), "images"))
    for name in ("circle", "smallest_circle"):
        assert len(tables.read(batch(done, f"ablation/baseline/{name}"), "masks")) == points
    assert float(rows["circle"]["fallback"]) == 1


def batch(flow, stage):
    return flow.path("scenes", *stage.split("/"), "test", "batch-0000.parquet")


def test_within_the_circle_all_of_a_tiles_answer_gives_the_ordinary_masks(done, new):
    ordinary = new({**CONFIG, "sam": {}, "ablation": {}})
    ordinary.make(str(batch(ordinary, "exclude").relative_to(ordinary.folder)))
    assert tables.read(batch(ordinary, "exclude"), "masks") == tables.read(batch(done, "exclude"), "masks")


def test_nothing_is_left_to_do_and_a_new_variant_runs_only_what_it_changes(done, tmp_path):
    flow = done.copy(tmp_path / "copy")
    assert flow.plan(TABLE) == {}
    flow.configure(with_variants(small={"exclusion": {"r_max": 9.0}}))
    assert counts(flow.plan(TABLE)) == {"ablation_exclude": 1, "measures": 1, "ablation": 1}
    flow.configure(with_variants(again={"exclusion": {"constraint": "half", "r_max": 200.0}}))
    assert counts(flow.plan(TABLE)) == {"ablation": 1}  # the same masks under another name
    flow.configure(with_variants(cells={"superpixels": {"n_segments": 30}}))
    plan = counts(flow.plan(TABLE))
    assert plan == {f"ablation_{stage}": 1 for stage in ("superpixels", "segment", "exclude")} | {
        "measures": 1,
        "ablation": 1,
    }


def test_masks_of_the_data_set_need_nothing_of_the_ablation(done):
    plan = done.plan("results/scenes/masks.json")
    assert counts(plan) == {"merge": 1, "export": 1}


def test_a_table_that_no_variant_has_is_an_error_that_says_what_to_ask_for(done):
    name = "results/scenes/ablation/exclude/0123456789ab/test/batch-0000.parquet"
    told = done.run("--dry-run", name)
    assert told.code == 1 and "no variant of the ablation has the exclude table 0123456789ab" in told.tail
    known = chain_hash(load({**SETTINGS, **CONFIG}), "scenes", "exclude", "half")
    assert done.run("--dry-run", name.replace("0123456789ab", known)).code == 0


def test_a_data_set_without_true_masks_is_refused(new):
    told = new({**CONFIG, "datasets": {"scenes": {"format": "ucf", "root": "in"}}}).run("--dry-run", TABLE)
    assert told.code == 1 and "data set scenes has no true masks" in told.tail


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"exclusion": {"rmax": 5}}, "ablation.variants.v.exclusion.rmax: unknown key (did you mean r_max?)"),
        ({"promt": {}}, "ablation.variants.v.promt: unknown key (did you mean prompt?)"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(new, variant, message):
    told = new(with_variants(v=variant)).run("--dry-run", TABLE)
    assert told.code == 1 and message in told.tail
