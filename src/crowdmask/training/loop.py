"""One epoch of any counting model, as a plain function.

Epochs are counted from 0 in code, as models see them, and from 1 in messages, logs and files.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from crowdmask.errors import CrowdmaskError, printable
from crowdmask.models.base import Batch, Counter, Supervision

RESERVED = ("epoch", "total", "lr", "gradient_norm", "images_per_s")
"""Columns beside the loss terms, whose names no term may have."""

_UNHARMED = (
    "The last checkpoint is unharmed. Look at these images, lower the learning rate or clip the gradient; with "
    "`precision: bf16` try fp32."
)


class Average(nn.Module):
    """Exponential moving average of a model's weights: w <- d w + (1 - d) new, d = min(decay, (1 + n) / (10 + n)).

    n is the number of the update, from 0, so that the first weights are soon forgotten (as TensorFlow's average has
    it). The statistics of batch norm are averaged alike; what is not a decimal number (the count of batches) is copied.

    Attributes:
        module: The average, a model of its own.
        decay: Weight of the past.
        updates: How many there were.
    """

    updates: Tensor

    def __init__(self, model: Counter, decay: float) -> None:
        super().__init__()
        self.module: Counter = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of one step."""
        number = int(self.updates)
        keep = min(self.decay, (1 + number) / (10 + number))
        new = model.state_dict()
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[name], 1 - keep)
            else:
                value.copy_(new[name])
        self.updates += 1


class Objective(nn.Module):
    """A model and its losses as one forward pass, so that all processes agree on what the total depends on.

    The network may run in bfloat16; losses are computed in float32.

    Args:
        model: The network.
        supervision: What it learns from.
        bf16: Whether matrix products and convolutions are rounded to bfloat16.
    """

    def __init__(self, model: Counter, supervision: Supervision, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.supervision, self.bf16 = model, supervision, bf16

    def terms(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Loss terms and their weights.

        Raises:
            CrowdmaskError: a term without weight or a weight without term, a term that is no scalar, or a name that
                is reserved.
        """
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
            found = self.model(batch.images)
        terms = self.model.losses(_full_precision(found), batch, self.supervision, epoch)
        weights = self.model.weights(self.supervision, epoch)
        check_terms(terms, weights, type(self.model).__name__, epoch)
        return terms, weights

    def forward(self, batch: Batch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the terms without gradient."""
        terms, weights = self.terms(batch, epoch)
        total = sum((weights[name] * value for name, value in terms.items()), batch.images.new_zeros(()))
        return total, {name: value.detach() for name, value in terms.items()}


def check_terms(terms: Mapping[str, Tensor], weights: Mapping[str, float], model: str, epoch: int) -> None:
    """Refuse loss terms that do not fit their weights, which would else be left out unseen.

    Raises:
        CrowdmaskError: naming both.
    """
    faults = []
    for problem, names in (
        ("loss terms without weight", terms.keys() - weights.keys()),
        ("weights without loss term", weights.keys() - terms.keys()),
        ("reserved names", terms.keys() & set(RESERVED)),
        ("terms that are no scalar", {name for name, value in terms.items() if value.ndim}),
        ("weights that are no finite number", {name for name, value in weights.items() if not math.isfinite(value)}),
    ):
        if names:
            faults.append(f"{problem}: {', '.join(sorted(names))}")
    if faults:
        known = f"terms: {', '.join(terms) or 'none'}; weights: {', '.join(weights) or 'none'}"
        raise CrowdmaskError(f"{model}, epoch {epoch + 1}: {'; '.join(faults)} ({known}). Each term needs its weight.")


def train_epoch(
    fabric: Fabric,
    objective: _FabricModule,
    optimiser: Optimizer,
    batches: Iterable[Batch],
    epoch: int,
    *,
    average: Average | None = None,
    schedule: LRScheduler | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    progress: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train for one epoch.

    The loss of a step is the mean over the images of all its batches, of all processes: two processes with half of a
    joint batch each, or two accumulated batches, have the loss and the gradient of the joint batch, to rounding, where
    the model's terms are means over images and nothing in it looks at the batch as a whole (batch norm does).

    Args:
        fabric: The devices.
        objective: `Objective`, set up by `fabric`.
        optimiser: Set up likewise.
        batches: What this process learns from; as many batches in every process.
        epoch: From 0.
        average: Updated after each step.
        schedule: Of the learning rates, advanced after each step; None = not here.
        clip: Largest norm of the gradient; None = any.
        accumulate: Batches of each process in a step; the last step of the epoch may have fewer.
        progress: Whether to show a bar.
        interrupted: Asked before each step; True in any process ends the epoch.

    Returns:
        `total` and every loss term, means over the images; `lr` of the last step, the largest of the optimiser's
        groups; `gradient_norm`, mean over the steps, before clipping; `images_per_s`, of all processes together.

    Raises:
        CrowdmaskError: no batches, or not as many in each process; terms and weights that do not fit; a term or a
            gradient that is not finite.
        KeyboardInterrupt: `interrupted` said so.
    """
    inner = cast(Objective, objective.module)
    parameters = [weight for weight in inner.parameters() if weight.requires_grad]
    sums: dict[str, float] = {}
    images = steps = 0
    norms = lr = 0.0
    objective.train()
    iterator, began = iter(batches), time.perf_counter()
    length = math.ceil(len(batches) / accumulate) if isinstance(batches, Sized) else None
    with tqdm(
        total=length, desc=f"epoch {epoch + 1}", unit="step", disable=not (progress and fabric.is_global_zero)
    ) as bar:
        while True:
            group = [batch.to(fabric.device) for batch in islice(iterator, accumulate)]
            number = len(group)
            own = [number, number**2, sum(len(batch.images) for batch in group), interrupted()]
            groups, squares, members, stop = _sum(fabric, own)
            if stop:
                raise KeyboardInterrupt
            if groups**2 != squares * fabric.world_size:
                raise CrowdmaskError(
                    f"epoch {epoch + 1}, step {steps + 1}: processes have different numbers of batches ({number} "
                    "here). Give each as many."
                )
            if not groups:
                break
            optimiser.zero_grad(set_to_none=True)
            for index, batch in enumerate(group):
                with fabric.no_backward_sync(objective, enabled=index + 1 < number):
                    total, terms = objective(batch, epoch)
                    _check_finite(terms, batch, epoch, steps)
                    for name, value in {"total": total.detach(), **terms}.items():
                        sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
                    # Fabric averages gradients over the processes.
                    fabric.backward(total * (len(batch.images) * fabric.world_size / members))
            norm = float(nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip))
            if not math.isfinite(norm):
                raise _gradient_error(inner, group, epoch, steps)
            lr = max(float(rates["lr"]) for rates in optimiser.param_groups)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            if average is not None:
                average.update(inner.model)
            steps, images, norms = steps + 1, images + round(members), norms + norm
            speed = images / (time.perf_counter() - began)
            bar.set_postfix_str(
                f"total {sums['total'] * fabric.world_size / images:.4g}, {speed:.3g} images/s", refresh=False
            )
            bar.update()
    if not steps:
        raise CrowdmaskError(f"epoch {epoch + 1} has no batches: nothing to learn from")
    speed = images / (time.perf_counter() - began)
    means = [value / images for value in _sum(fabric, list(sums.values()))]
    return {**dict(zip(sums, means, strict=True)), "lr": lr, "gradient_norm": norms / steps, "images_per_s": speed}


def _sum(fabric: Fabric, values: Sequence[float]) -> list[float]:
    """Sums over the processes."""
    if fabric.world_size == 1:
        return list(values)
    sums = fabric.all_reduce(torch.tensor(values, dtype=torch.float64, device=fabric.device), reduce_op="sum")
    return cast(Tensor, sums).tolist()


def _full_precision(found: Any) -> Any:
    """float32 instead of bfloat16 in what a network gave, dicts and lists of tensors included."""
    if isinstance(found, Tensor):
        return found.float() if found.dtype == torch.bfloat16 else found
    if isinstance(found, dict):
        return {key: _full_precision(value) for key, value in found.items()}
    if type(found) in (list, tuple):
        return type(found)(_full_precision(value) for value in found)
    return found


def _where(epoch: int, step: int, batches: Sequence[Batch]) -> str:
    names = [name for batch in batches for name in batch.names]
    return f"epoch {epoch + 1}, step {step + 1}, images {printable(', '.join(names) or 'without names', 1000)}"


def _check_finite(terms: Mapping[str, Tensor], batch: Batch, epoch: int, step: int) -> None:
    values = torch.stack([value.float() for value in terms.values()]).tolist()
    bad = [f"{name} is {value}" for name, value in zip(terms, values, strict=True) if not math.isfinite(value)]
    if bad:
        raise CrowdmaskError(
            f"training stopped: loss term {', '.join(bad)} in {_where(epoch, step, [batch])}. {_UNHARMED}"
        )


def _gradient_error(objective: Objective, group: Sequence[Batch], epoch: int, step: int) -> CrowdmaskError:
    """What is known of a gradient that is not finite: found by taking the terms' gradients one by one."""
    parameters = {name: weight for name, weight in objective.model.named_parameters() if weight.requires_grad}
    bad_terms: dict[str, None] = {}
    bad_weights: dict[str, None] = {}
    bad_batches = []
    for batch in group:
        terms, weights = objective.terms(batch, epoch)
        bad = False
        for name, value in terms.items():
            if value.requires_grad:
                gradients = torch.autograd.grad(
                    weights[name] * value, list(parameters.values()), retain_graph=True, allow_unused=True
                )
                for weight, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None and not gradient.isfinite().all():
                        bad_terms[name] = bad_weights[weight] = None
                        bad = True
        if bad:
            bad_batches.append(batch)
    if not bad_terms:
        what = "the gradient is not finite, by the sum of the terms or by another process"
    else:
        more = f" and {len(bad_weights) - 1} more" if len(bad_weights) > 1 else ""
        what = (
            f"the gradient of loss term {', '.join(bad_terms)} is not finite (weight {next(iter(bad_weights))}{more})"
        )
    return CrowdmaskError(f"training stopped: {what} in {_where(epoch, step, bad_batches or group)}. {_UNHARMED}")
