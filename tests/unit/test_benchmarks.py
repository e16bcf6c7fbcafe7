"""The benchmarks' own arithmetic and machinery; their figures are not judged here."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks import crowd_tables, decode, floors, host, inputs, measures, report, run
from benchmarks.cases import CASES, Case, choose
from torch.utils.flop_counter import FlopCounterMode

from crowdmask.export import source
from crowdmask.masks.many_prompts import ManyPrompts
from crowdmask.masks.sampling import Sampler

TINY = Case("tiny", "decode", "four prompts", "small", 4, height=96, width=128, repeats=1, baseline=4)
TIGHT = Case(
    "tight", "memory", "a bound that nothing keeps", "small", 4, 96, 128, "auto", repeats=1, host=True, bound_mb=0.001
)

MADE_UP = [
    Case(
        f"few_{kind}", kind, "a few masks", "none", 300, repeats=1, baseline=120 if kind == "export" else 300,
        threads=1, host=True, bound_mb=2000, least_per_s=1e9, images=7,
    )
    for kind in ("export", "read")
]  # fmt: skip


def inplace_flop(out, a, b, *rest, out_shape=None, **kwargs):
    """torch counts `baddbmm` but not `baddbmm_`; shapes in, FLOP out."""
    return 2 * a[0] * a[1] * a[2] * b[2]


@pytest.fixture(scope="module")
def sides():
    """Ours and the baseline, on the small SAM."""
    torch.set_num_threads(1)
    sam = inputs.model("small", torch.device("cpu"))
    return [side(replace(TINY, height=768, width=1024), sam, "fp32", Path()) for side in (decode.Ours, decode.Baseline)]


def test_floors_are_what_torch_counts(sides):
    ours, plain = sides
    counts = []
    for work in (ours.run, plain.run):
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: inplace_flop}) as counter:
            work()
        counts.append(counter.get_total_flops())
    shape = ours.shape()
    assert counts[1] == pytest.approx(4 * floors.plain(shape), rel=0.02)
    # The windows of a call are as large as its largest, which the floor does not count.
    tile = ours.decoder.tile(ours.embedding, ours.job.frame)
    patch = next(tile.decode(ours.job.groups[0].prompts, ours.windows))
    padded = replace(shape, window=patch.logits.size / 16)
    assert counts[0] == pytest.approx(floors.ours_once(padded) + 4 * floors.ours(padded), rel=0.1)
    assert floors.ours(shape) < floors.ours(padded)


def test_floors_of_the_official_models():
    shape = floors.Shape(4096, 256, 8, 128, 2048, 2, tokens=7, asked=2, own=4, window=36)
    assert floors.plain(shape) == pytest.approx(3.6e9, rel=0.05)
    assert floors.ours(shape) < floors.plain(shape) / 5
    assert floors.ours_bytes(shape) == 7 * 56 * 4096 * 4


def test_both_sides_make_the_same_masks(sides, tmp_path):
    paths = []
    for k, side in enumerate(sides):
        side.run()
        paths.append(tmp_path / f"{k}.npz")
        host.save_masks(paths[-1], side.masks())
    found = report.agreement(*paths)
    assert found["masks"] == 4
    assert found["pixels_differ"] < 1e-4 and found["mean_iou"] > 0.999


def test_the_measures_of_both_sides_assign_the_same_pairs():
    case = next(case for case in CASES if case.name == "measures_500")
    sam = SimpleNamespace(device=torch.device("cpu"))
    small = replace(case, prompts=60, baseline=60, height=120, width=150)
    sides = [side(small, sam, "fp32", Path()) for side in (measures.Ours, measures.Baseline)]
    for side in sides:
        assert set(side.run()) == {"whole_s"}
    (ours,), (dense,) = (side.masks() for side in sides)
    assert ours.sum() > 50 and np.array_equal(ours, dense)
    assert measures.Ours(replace(small, baseline=0), sam, "fp32", Path()).masks() == []


def test_too_slow_a_case_is_missed():
    record = {"name": "m", "within": None, "least_ratio": None, "ratio": None, "ours_s": 1.2}
    assert report.missed({**record, "most_s": 1.0}) == ["m: 1.2 s, wanted 1 s"]
    assert report.missed({**record, "most_s": 2.0}) == report.missed(record) == []


def test_agreement(tmp_path):
    one = [np.ones((2, 2), bool), np.zeros((1, 3), bool), np.array([[True, False, True]])]
    other = [np.ones((2, 2), bool), np.zeros((1, 3), bool), np.array([[True, True, False]])]
    for name, masks in (("one", one), ("other", other), ("fewer", other[:2]), ("odd", [np.ones((3, 3), bool)])):
        host.save_masks(tmp_path / f"{name}.npz", masks)
    found = report.agreement(tmp_path / "one.npz", tmp_path / "other.npz")
    assert found == {"pixels_differ": 0.2, "mean_iou": pytest.approx((1 + 1 + 1 / 3) / 3), "masks": 3}
    assert report.agreement(tmp_path / "one.npz", tmp_path / "fewer.npz")["pixels_differ"] == 0
    with pytest.raises(ValueError, match="same windows"):
        report.agreement(tmp_path / "one.npz", tmp_path / "odd.npz")


def test_names():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    long = [case.name for case in CASES if case.long]
    assert [case.name for case in choose(CASES, [], True)] == names
    assert not {case.name for case in choose(CASES, [], False)} & set(long)
    assert [case.name for case in choose(CASES, ["decode_vit_b_64"], False)] == ["decode_vit_b_64"]
    assert {case.kind for case in choose(CASES, ["memory", "where_*"], False)} == {"memory", "where"}
    assert run.main(["no-such"]) == 2


def test_the_wrapped_functions_are_put_back():
    from benchmarks import where

    from crowdmask.masks import rle, segment

    sam = inputs.model("small", torch.device("cpu"))
    owners = [vars(o) for o in (segment, rle, ManyPrompts, Sampler, sam.prompt_encoder)]
    before = [dict(owner) for owner in owners]
    clocks = where.Clocks(torch.device("cpu"))
    with where.clocked(clocks, sam), clocks.part(where.OTHER):
        assert segment.Window(0, 0, np.ones((2, 2), bool)).tight().columns()["w"] == 2
    assert clocks.seconds[where.RLE] > 0
    assert [dict(owner) for owner in owners] == before


def test_a_run_writes_its_results_and_says_when_a_bound_is_missed(tmp_path, capfd):
    code = run.main(["--threads", "1", "--device", "cpu", "--output", str(tmp_path)], [TINY, TIGHT])
    printed = capfd.readouterr()
    assert code == 1, printed.err
    assert "missed: tight" in printed.err
    tiny, tight = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("tiny", "tight"))
    assert set(tiny) >= {
        "name", "ours_s", "baseline_s", "ratio", "peak_mb", "baseline_peak_mb", "device_peak_mb", "prompts", "unit",
        "floor_s", "floor_share", "plain_floor_s", "machine", "torch", "threads", "precision", "date",
    }  # fmt: skip
    assert tiny["prompts"] == 4 and tiny["threads"] == 1 and tiny["device_peak_mb"] is None and not tiny["missed"]
    assert tiny["ratio"] == pytest.approx(tiny["baseline_s"] / tiny["ours_s"], rel=0.01)
    assert 0 < tiny["floor_share"] < 1
    assert tiny["others_share"] is None or 0 <= tiny["others_share"] < 1
    assert tiny["against_baseline"]["pixels_differ"] < 1e-3
    assert tight["within"] is False and tight["peak_mb"] > tight["bound_mb"] and tight["missed"]
    # The table can be made again from the files, and put between the marks.
    text = report.markdown(report.read(tmp_path))
    assert "| `tiny` |" in text and "| `tight` |" in text and "(missed)" in text
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_readme(readme, text)
    assert readme.read_text() == f"before\n{report.BEGIN}\n\n{text}\n\n{report.END}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="tables: begin"):
        report.write_readme(readme, text)
    # A ratio that is missed counts like a bound.
    assert report.missed({**tiny, "least_ratio": 1e6})
    assert not report.missed({**tiny, "least_ratio": 1e-6})


def test_exports_are_measured_without_torch(tmp_path, capfd):
    code = run.main(["--threads", "1", "--device", "cpu", "--output", str(tmp_path)], MADE_UP)
    printed = capfd.readouterr()
    assert code == 1, printed.err  # nobody writes a billion masks a second
    export, read = (json.loads((tmp_path / f"few_{kind}.json").read_text()) for kind in ("export", "read"))
    for record in (export, read):
        assert f"missed: {record['name']}: " in printed.err
        assert record["within"] and record["peak_mb"] > 20 and record["model_mb"] == 0 and record["torch"] is None
        assert record["against_baseline"] == {
            "pixels_differ": 0,
            "mean_iou": 1,
            "masks": 120 if record is export else 200,
        }
        assert record["unit"] == "seconds for 300 masks" and record["facts"]["images"] == 7
        assert record["per_s"] == pytest.approx(300 / record["ours_parts_s"]["cpu_s"], rel=0.01)
        assert record["ours_parts_s"]["whole_s"] == record["ours_s"]
    assert "first 120 masks, seconds multiplied by 2.5" in export["baseline_note"] and "pycocotools" in read["baseline"]
    text = report.markdown(report.read(tmp_path))
    assert "**Export**" in text and "| `few_export` | 300 | 7 |" in text


def test_the_made_up_data_set(tmp_path):
    counts = crowd_tables.sizes(2_133_375, 5_109)
    assert counts.sum() == 2_133_375 and counts.size == 5_109 and (counts == crowd_tables.MOST).sum() >= 3
    assert (counts == 0).sum() > 100 and counts.max() == crowd_tables.MOST
    made = crowd_tables.make(tmp_path, 500, 9)
    shapes, _ = crowd_tables.shapes()
    sides = [max(shape.mask.shape) for shape in shapes]
    assert 4 <= min(sides) <= 5 and 55 <= max(sides) <= 60
    assert sum(item.rows.num_rows for item in source.by_image(made)) == 500  # every check of the export holds


def test_a_process_that_fails_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "machine_speed", lambda options: None)
    broken = replace(TINY, name="broken", model="no-such-model")
    assert run.main(["--output", str(tmp_path)], [broken]) == 2
    assert "broken, ours, fp32" in capfd.readouterr().err
