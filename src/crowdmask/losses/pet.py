"""Losses of PET: classes and points of the queries of one level, and the splitter. Sources: methods d.1 and d.2.

Queries of one level are numbered row by row: n of them, in B images. From the fifth epoch on, a loss is the sum of the
means over three groups of queries: active ones of sparse images, active ones of dense images, and those not active.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from crowdmask.losses.assignment import by_masks, hungarian

NOBODY_WEIGHT = 0.5
"""Weight of a query that is nobody, beside 1 for a person."""
DENSE_PX = 16.0
"""An image whose heads are nearer to each other than this, on average, is dense for the splitter."""
LONELY_PX = 999.0
"""Distance between the heads of an image with one at most."""


def nearest_distance(points_xy: Tensor) -> float:
    """Mean distance from each head to the nearest other one, pixels; `LONELY_PX` for one head or none.

    Args:
        points_xy: (m, 2), pixels.
    """
    if len(points_xy) < 2:
        return LONELY_PX
    points = points_xy.detach().cpu().numpy().astype(np.float64)
    return float(cKDTree(points).query(points, k=2)[0][:, 1].mean())


@torch.no_grad()
def match(
    queries_xy: Tensor,
    chance: Tensor,
    valid: Tensor,
    points_xy: Sequence[Tensor],
    labels: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Which queries are to be a person, and where: bool (B, n), and (B, n, 2) pixels, 0 for nobody.

    PET's Hungarian matching; with label maps that of OPET by masks. Queries in padding are never chosen (our choice).

    Args:
        queries_xy: (B, n, 2) predicted points, pixels.
        chance: (B, n) probability of a person.
        valid: bool (B, n), False in padding.
        points_xy: B times (m, 2), pixels.
        labels: B times int64 (H, W) label maps, see `by_masks`.
    """
    wanted, goals = torch.zeros_like(valid), torch.zeros_like(queries_xy)
    for i, points in enumerate(points_xy):
        free = torch.nonzero(valid[i])[:, 0]
        here, likely, heads = (x.cpu().double().numpy() for x in (queries_xy[i, free], chance[i, free], points))
        if labels is None:
            place = hungarian(here, likely, heads)
        else:
            place = by_masks(here, likely, heads, labels[i].cpu().numpy())
        found = torch.from_numpy(place).to(free.device)
        chosen = free[found[found >= 0]]
        wanted[i, chosen] = True
        goals[i, chosen] = points.to(goals)[found >= 0]
    return wanted, goals


def groups(valid: Tensor, active: Tensor | None, distance_px: Sequence[float]) -> Tensor:
    """Queries over which a loss takes its means, bool (groups, B, n).

    Without `active` all valid queries are one group. With it: active ones in sparse images, in dense images, and those
    that are not active. Dense is the half of the batch whose heads are nearest to each other; the image in the middle
    of an odd batch is sparse (our choice).

    Args:
        valid: bool (B, n), False in padding, which is in no group (our choice).
        active: bool (B, n), or None.
        distance_px: Mean distance between heads of each image.
    """
    if active is None:
        return valid[None]
    order = np.argsort(np.asarray(distance_px), kind="stable")
    dense = torch.zeros(len(valid), 1, dtype=torch.bool)
    dense[order[: len(order) // 2]] = True
    dense = dense.to(valid.device)
    return torch.stack([valid & active & ~dense, valid & active & dense, valid & ~active])


def class_loss(logits: Tensor, wanted: Tensor, members: Tensor) -> Tensor:
    """Cross-entropy, its mean over each group weighted by class, summed over the groups; an empty group counts nothing.

    Args:
        logits: (B, n, 2), nobody and person.
        wanted: bool (B, n).
        members: bool (groups, B, n).
    """
    entropy = F.cross_entropy(logits.flatten(0, 1), wanted.flatten().long(), reduction="none").reshape(wanted.shape)
    weight = members * torch.where(wanted, 1.0, NOBODY_WEIGHT).to(logits)
    return ((weight * entropy).sum((1, 2)) / weight.sum((1, 2)).clamp(min=NOBODY_WEIGHT)).sum()


def point_loss(queries_xy: Tensor, goals_xy: Tensor, wanted: Tensor, members: Tensor, size: tuple[int, int]) -> Tensor:
    """SmoothL1 of x / width and y / height: mean over the heads of each group, summed over the groups.

    Where all queries are one group this is the published sum divided by the number of heads. A head that found no
    query, because there are more heads than queries, is not counted (our choice).

    Args:
        queries_xy: (B, n, 2) predicted points, pixels.
        goals_xy: (B, n, 2) heads that they are to be, pixels.
        wanted: bool (B, n).
        members: bool (groups, B, n).
        size: Height and width of the input, pixels.
    """
    scale = queries_xy.new_tensor([size[1], size[0]])
    error = F.smooth_l1_loss(queries_xy / scale, goals_xy / scale, reduction="none").sum(2)
    counted = (members & wanted).to(error)
    return ((counted * error).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)).sum()


def splitter_loss(split: Tensor, valid: Tensor, distance_px: Sequence[float]) -> Tensor:
    """Some region of every image is to be sparse, and some region of every dense image dense.

    `(1 - mean over images of max(1 - split)) + (1 - mean over dense images of max(split))`; the second part is left out
    where no image is dense. Source: methods d.1.

    Args:
        split: (B, rows, columns), from 0 to 1.
        valid: bool, likewise; regions that are all padding are not asked (our choice), nor images without others.
        distance_px: Mean distance between heads of each image.
    """
    some = valid.flatten(1).any(1)
    dense = some & torch.tensor([distance < DENSE_PX for distance in distance_px], device=split.device)
    lowest = torch.where(valid, 1 - split, 0).flatten(1).amax(1)
    highest = torch.where(valid, split, 0).flatten(1).amax(1)
    total = split.sum() * 0
    for value, chosen in ((lowest, some), (highest, dense)):
        if bool(chosen.any()):
            total = total + 1 - value[chosen].mean()
    return total
