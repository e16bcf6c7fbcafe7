"""Average precision against pycocotools' own evaluation and faster-coco-eval on whole images."""

import contextlib
import io

import faster_coco_eval
import numpy as np
import pytest
from crowds import EMPTY, box, label_map, overlapping, shaken, windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crowdmask.masks.rle import full_counts
from crowdmask.metrics import average_precision
from crowdmask.metrics.average_precision import Detections
from crowdmask.metrics.matching import overlaps

H, W = 40, 50


def ours(scenes):
    made = Detections()
    for pred, true, scores in scenes:
        made.add(overlaps(pred, true), scores)
    return made.result()


def files(scenes):
    """COCO contents: of the truth, and of the detections."""
    truth, found = [], []
    for number, (pred, true, scores) in enumerate(scenes, 1):
        for masks, rows in ((true, truth), (pred, found)):
            for k, mask in enumerate(masks):
                counts = full_counts(mask, H, W).decode()
                row = {"id": len(rows) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": mask.area}
                row |= {"segmentation": {"size": [H, W], "counts": counts}, "bbox": [0, 0, 1, 1]}
                rows.append(row | ({"score": float(scores[k])} if rows is found else {}))
    base = {
        "images": [{"id": k, "height": H, "width": W} for k in range(1, len(scenes) + 1)],
        "categories": [{"id": 1, "name": "head"}],
        "info": {},
    }
    return base | {"annotations": truth}, base | {"annotations": found}


def theirs(scenes, library):
    truth, found = files(scenes)
    with contextlib.redirect_stdout(io.StringIO()):
        if library == "pycocotools":
            sides = []
            for content in (truth, found):
                coco = COCO()
                coco.dataset = content
                coco.createIndex()
                sides.append(coco)
            judge = COCOeval(*sides, "segm")
        else:
            sides = [faster_coco_eval.COCO(content) for content in (truth, found)]
            judge = faster_coco_eval.COCOeval_faster(*sides, "segm")
        judge.params.maxDets = [10_000]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]
    return {"ap": precision.mean(), "ap_50": precision[0].mean(), "ap_75": precision[5].mean()}


def random_scenes(seed, ties, apart=True):
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(rng.integers(1, 5)):
        if apart:
            labels = label_map(rng, H, W, int(rng.integers(0, 25)))
            pred, true = windows_of(shaken(rng, labels)), windows_of(labels)
        else:
            pred = [m.within(0, 0, W, H) for m in overlapping(rng, H, W, 12)]
            true = [m.within(0, 0, W, H) for m in overlapping(rng, H, W, 6)]
            pred += true[:3] + true[:2]
            pred = [pred[k] for k in rng.permutation(len(pred))]
        scores = rng.integers(0, 4, len(pred)) / 4 if ties else rng.random(len(pred))
        scenes.append((pred, true, scores))
    return scenes


@pytest.mark.parametrize("library", ["pycocotools", "faster-coco-eval"])
@pytest.mark.parametrize("cells", [1, 1 << 16])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans(), apart=st.booleans())
def test_equal_to_the_libraries_on_whole_images(library, cells, seed, ties, apart):
    scenes = random_scenes(seed, ties, apart)
    if not any(true for _, true, _ in scenes) or not any(pred for pred, _, _ in scenes):
        return
    before, average_precision._CELLS = average_precision._CELLS, cells
    try:
        found = ours(scenes)
    finally:
        average_precision._CELLS = before
    assert found == pytest.approx(theirs(scenes, library), abs=1e-12)


def test_more_than_100_heads_an_image():
    """300 heads, all found: the usual limit of 100 detections would give a third."""
    heads = [box(3 * (k % 16), 2 * (k // 16), 2, 1) for k in range(300)]
    assert ours([(heads, heads, np.linspace(0, 1, 300))]) == {"ap": 1.0, "ap_50": 1.0, "ap_75": 1.0}


def test_known_values():
    true = [box(0, 0, 10, 10), box(20, 0, 10, 10)]
    # The surer one is right at every threshold, the other at none: precision 1 up to recall 0.5 (51 of 101 places).
    found = ours([([true[0], box(40, 0, 10, 10)], true, [0.9, 0.1])])
    assert found == pytest.approx({"ap": 51 / 101, "ap_50": 51 / 101, "ap_75": 51 / 101})
    # IoU 0.6 counts at 0.5, 0.55 and 0.6.
    found = ours([([box(0, 0, 6, 10)], true[:1], None)])
    assert found == pytest.approx({"ap": 0.3, "ap_50": 1.0, "ap_75": 0.0})
    # A second detection of the same head is wrong, and comes first.
    found = ours([([box(0, 0, 9, 10), true[0]], true[:1], [0.5, 0.6])])
    assert found == pytest.approx({"ap": 1.0, "ap_50": 1.0, "ap_75": 1.0})


def test_empty_sides():
    head = [box(0, 0, 2, 2)]
    none = {"ap": None, "ap_50": None, "ap_75": None}
    assert Detections().result() == none == ours([([], [], None), (head, [], None)])
    assert ours([([], head, None)]) == {"ap": 0.0, "ap_50": 0.0, "ap_75": 0.0}
    assert ours([([EMPTY], head, None)])["ap"] == 0.0
    assert ours([(head, [], [0.9]), ([], head, None)])["ap"] == 0.0


def test_unknown_scores_count_as_1():
    scenes = random_scenes(7, False)
    some = [(pred, true, np.where(np.arange(len(pred)) % 2, scores, np.nan)) for pred, true, scores in scenes]
    full = [(pred, true, np.where(np.arange(len(pred)) % 2, scores, 1.0)) for pred, true, scores in scenes]
    assert ours(some) == ours(full)
    assert ours([(p, t, None) for p, t, _ in scenes]) == ours([(p, t, np.ones(len(p))) for p, t, _ in scenes])
    with pytest.raises(ValueError, match="scores for 1 predictions"):
        ours([([EMPTY], [], [1, 2])])
