"""Which tables variants share, and that the shipped grid is what it says."""

from pathlib import Path

import pytest
import yaml

from crowdmask.ablation import plan
from crowdmask.config import load
from crowdmask.stages import chain_hash

REPO = Path(__file__).resolve().parents[2]
CROWD = {"format": "synthetic", "count": 2}


def config_with(variants, baselines=(), **sections):
    ablation = {"variants": variants, "baselines": list(baselines)}
    return load({"datasets": {"it": CROWD}, "sam": {"window": "tile"}, "ablation": ablation, **sections})


@pytest.mark.parametrize(
    ("variant", "own"),
    [
        ({"exclusion": {"r_max": 9.0}}, ["superpixels", "segment"]),
        ({"exclusion": {"constraint": "none", "disjoint": False}}, ["superpixels", "segment"]),
        ({"prompt": {"mode": "point"}}, ["superpixels"]),
        ({"tiles": {"mode": "none"}}, ["superpixels"]),
        ({"superpixels": {"n_segments": 50}}, []),
        ({"exclusion": {"r_max": 200.0}}, ["superpixels", "segment", "exclude"]),  # the same in other words
        ({}, ["superpixels", "segment", "exclude"]),
    ],
)
def test_what_a_variant_does_not_change_is_the_data_sets_own_table(variant, own):
    config = config_with({"v": variant})
    for stage in plan.STAGES:
        folder = plan.folder(config, "it", stage, "v")
        if stage in own:
            assert folder == f"results/it/{stage}"
        else:
            digest = chain_hash(config, "it", stage, "v")
            assert folder == f"results/it/ablation/{stage}/{digest}"
            assert plan.variant_with(config, "it", stage, digest) == "v"


def test_variants_share_what_they_have_in_common():
    config = config_with(
        {
            "point": {"prompt": {"mode": "point"}},
            "point-half": {"prompt": {"mode": "point"}, "exclusion": {"constraint": "half"}},
            "point-9": {"prompt": {"mode": "point"}, "exclusion": {"r_max": 9.0}},
            "again": {"prompt": {"mode": "point"}, "exclusion": {"r_max": 9.0, "tie": "nearest"}},
        }
    )
    folders = {stage: [plan.folder(config, "it", stage, v) for v in config.ablation.variants] for stage in plan.STAGES}
    assert len(set(folders["segment"])) == 1 and len(set(folders["exclude"])) == 3
    assert folders["exclude"][2] == folders["exclude"][3]


def test_rows_come_in_order_with_what_they_change():
    variants = {"p": {"preset": "dpmo"}, "r": {"exclusion": {"r_max": None}}}
    config = config_with(variants, ["oracle", "circle"])
    rows = plan.rows(config, "it")
    assert [(row.name, row.kind) for row in rows] == [
        ("default", "own"),
        ("p", "variant"),
        ("r", "variant"),
        ("oracle", "baseline"),
        ("circle", "baseline"),
    ]
    assert rows[1].changes == {"prompt.mode": "point", "tiles.mode": "none", "exclusion.min_side": 512}
    assert rows[2].changes == {"exclusion.r_max": None}
    assert plan.masks_folder(config, "it", rows[0].masks) == "results/it/exclude"
    assert plan.masks_folder(config, "it", rows[1].masks) == f"results/it/ablation/exclude/{rows[1].masks}"
    assert plan.masks_folder(config, "it", "oracle") == "results/it/ablation/baseline/oracle"
    assert plan.masks_folder(config, "it", "0" * 12) is None
    assert plan.variant_with(config, "it", "segment", "0" * 12) is None


def test_another_data_sets_own_settings_give_other_tables():
    datasets = {"a": CROWD, "b": {**CROWD, "exclusion": {"r_max": 9.0}}}
    config = load({"datasets": datasets, "ablation": {"variants": {"v": {"exclusion": {"r_max": 9.0}}}}})
    assert plan.folder(config, "b", "exclude", "v") == "results/b/exclude"
    assert plan.folder(config, "a", "exclude", "v").startswith("results/a/ablation/exclude/")


def test_the_shipped_grid_asks_sam_no_more_than_it_must():
    raw = yaml.safe_load((REPO / "workflow" / "configs" / "ablation.yaml").read_text(encoding="utf-8"))
    config = load(raw)
    variants = config.ablation.variants
    for dataset in config.datasets:
        own = chain_hash(config, dataset, "exclude")
        masks = [chain_hash(config, dataset, "exclude", name) for name in variants]
        assert own not in masks and len(set(masks)) == len(masks)  # no variant is another one, or the default
        asked = {
            name: chain_hash(config, dataset, "segment", name)
            for name, variant in variants.items()
            if chain_hash(config, dataset, "segment", name) != chain_hash(config, dataset, "segment")
        }
        # Variants of circle, fallback and tie cost no SAM of their own.
        only_masks = [name for name, v in variants.items() if not (v.superpixels or v.prompt or v.tiles or v.preset)]
        assert only_masks and not set(only_masks) & asked.keys()
        assert asked["point-none"] == asked["point"] == asked["point-half"]
        assert asked["edp-sam"] == asked["edp-sam-none"] == asked["whole"]
        assert asked["dpmo"] == asked["dpmo-none"] == asked["whole-point"]
