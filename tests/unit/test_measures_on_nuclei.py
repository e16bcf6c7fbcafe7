"""Real instances: nuclei of the 2018 Data Science Bowl, shifted, cut and grown, by every independent way at once."""

import numpy as np
import torch
from crowds import dense_assignment, windows_of
from scipy import ndimage
from test_average_precision import theirs
from test_metrics_boundary import naive as naive_boundary
from torchmetrics.detection import PanopticQuality

from crowdmask.datasets.label_map import read_label_map
from crowdmask.metrics import boundary, measures
from crowdmask.metrics.average_precision import Detections
from crowdmask.metrics.matching import map_overlaps, overlaps

IMAGES, MOST_PIXELS = 5, 100_000


def changed(rng, labels):
    """Another segmentation of the same image: moved, a tenth lost, every third cut in two, borders gnawed."""
    made = ndimage.shift(labels, rng.integers(-2, 3, 2), order=0)
    values = np.unique(made)[1:]
    made[np.isin(made, rng.permutation(values)[: len(values) // 10])] = 0
    xx = np.arange(labels.shape[1])[None, :]
    for value in values[::3]:
        y, x = np.nonzero(made == value)
        if len(y):
            made[(made == value) & (xx - x.mean() > rng.integers(-3, 4))] = labels.max() + value
    return np.where(rng.random(labels.shape) < 0.97, made, 0)


def test_all_measures_on_real_instances(shared, monkeypatch):
    folder = shared / "dsb2018" / "labels"
    rng = np.random.default_rng(0)
    maps = [read_label_map(path, "") for path in sorted(folder.glob("*.png"))]
    small = [labels for labels in maps if labels.size <= MOST_PIXELS]  # the plain way needs all frames at once
    maps = sorted(small, key=lambda labels: -len(np.unique(labels)))[:IMAGES]
    judge = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    rows, detections = [], Detections()
    sums = dict.fromkeys(("assigned_iou", "tp_50", "tp_75", "boundary_assigned", "boundary_px_assigned"), 0.0)
    for true in maps:
        pred = changed(rng, true)
        found = map_overlaps(pred, true)
        masks = windows_of(pred), windows_of(true)
        rows.append(measures.measure(*masks, None, *true.shape, found=found))
        assert rows[-1] == measures.measure(*masks, None, *true.shape)
        scores = rng.random(len(masks[0]))
        detections.add(found, scores)
        # The plain way: frames, a dense matrix, repeated erosion.
        frames = [np.stack([labels == value for value in np.unique(labels) if value]) for labels in (pred, true)]
        flat = [side.reshape(len(side), -1).astype(np.float64) for side in frames]
        shared_px = flat[0] @ flat[1].T
        iou = shared_px / (flat[0].sum(1)[:, None] + flat[1].sum(1)[None] - shared_px)
        values, pairs = dense_assignment(iou)
        sums["assigned_iou"] += values.sum()
        sums["tp_50"] += (values >= 0.5).sum()
        sums["tp_75"] += (values >= 0.75).sum()
        d = boundary.usual_width(*true.shape)
        for i, j in pairs:
            if iou[i, j]:
                sums["boundary_assigned"] += naive_boundary(frames[0][i], frames[1][j], d)
                sums["boundary_px_assigned"] += naive_boundary(frames[0][i], frames[1][j], 2)
        judge.update(*(torch.from_numpy(np.stack([m > 0, m], axis=-1).astype(np.int64))[None] for m in (pred, true)))
        # One image by the libraries for average precision, whose frames have one size.
        one = Detections()
        one.add(overlaps(*masks), scores)
        monkeypatch.setattr("test_average_precision.H", true.shape[0])
        monkeypatch.setattr("test_average_precision.W", true.shape[1])
        for library in ("pycocotools", "faster-coco-eval"):
            expected = theirs([(*masks, scores)], library)
            assert all(abs(one.result()[name] - expected[name]) < 1e-12 for name in expected), library
    total = measures.total(rows)
    assert total["true"] > 200
    for name, value in sums.items():
        assert abs(total[name] - value) < 1e-6, name
    pooled = measures.pooled(total)
    np.testing.assert_allclose([pooled["pq"], pooled["sq"], pooled["rq"]], judge.compute()[0], atol=1e-6)
    assert 0.3 < pooled["pq"] < 0.9 and 0.1 < detections.result()["ap"] < 0.9
