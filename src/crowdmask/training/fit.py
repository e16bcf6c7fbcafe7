"""A whole training: epochs, validation, early stopping, checkpoints, and going on after an interruption."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from crowdmask.errors import CrowdmaskError, DataError
from crowdmask.models.base import Batch, Counter, Supervision
from crowdmask.training import curves
from crowdmask.training.loop import Average, Objective, train_epoch
from crowdmask.training.randomness import random_state, set_random_state
from crowdmask.training.state import Identity, Progress, load_checkpoint, read, save_checkpoint, save_model

LAST, BEST, LOG, BOARD = "last.safetensors", "best.safetensors", "log.csv", "tensorboard"
"""What a training writes into its folder."""

ANEW_BEST = f"Delete {LAST} beside it to train anew."

Validate = Callable[[Counter, int], Mapping[str, float]]
"""Metrics of a model, ready to predict, after so many epochs."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        supervision: What to learn from.
        epochs: How many, at most.
        bf16: Whether the network runs in bfloat16, with weights in float32.
        clip: Largest norm of the gradient; None = any.
        accumulate: Batches a step.
        ema: Decay of the averaged weights, which are then those that are validated and kept; None = none.
        advance: When the schedule moves on: after each step or each epoch.
        evaluate_every: Epochs from one validation to the next; the last epoch is always validated.
        metric: The one that chooses the best epoch.
        larger_is_better: Of the metric.
        patience: Validations without a better one after which the training stops; None = never.
    """

    supervision: Supervision
    epochs: int
    bf16: bool = False
    clip: float | None = None
    accumulate: int = 1
    ema: float | None = None
    advance: Literal["step", "epoch"] = "step"
    evaluate_every: int = 1
    metric: str = "mae"
    larger_is_better: bool = False
    patience: int | None = None


class Signals:
    """Whether SIGINT or SIGTERM has come.

    Attributes:
        seen: So.
    """

    seen = False


@contextmanager
def noting_signals(alone: bool) -> Iterator[Signals]:
    """Note the first SIGINT, or SIGTERM, instead of obeying it, while the block runs; the second acts as ever.

    Args:
        alone: Whether there is one process. Of several, one obeys SIGTERM at once: it may hang in what they do
            together, which is when the parent sends it, because another has failed.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        signals.seen = True
        restore()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        restore()


def fit(
    fabric: Fabric,
    model: Counter,
    optimiser: Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    validate: Validate | None,
    plan: Plan,
    folder: Path,
    identity: Identity,
    schedule: LRScheduler | None = None,
    progress: bool = True,
) -> Progress:
    """Train, or go on where the folder's checkpoint ends; on the CPU with the result of an unbroken run, to the bit.

    Writes `last.safetensors` after every epoch, `best.safetensors` (for `state.load_model`) and `log.csv`, and
    TensorBoard's files where it is installed. The folder belongs to one training at a time.

    Several processes on GPUs share the statistics of batch norm. On the CPU torch cannot do that: each has its own.

    Args:
        fabric: The devices, launched.
        model: With its first weights; trained in place.
        optimiser: Of its parameters.
        batches: Of an epoch, from 0, for this process: the same at every call, whatever was drawn before.
        validate: Called in the first process; never with the images of a test. None = the last epoch is the best.
        plan: How.
        folder: For files.
        identity: Whatever the result depends on beside `plan`: a checkpoint of another is refused.
        schedule: Of the optimiser's learning rates, from `torch.optim.lr_scheduler`.
        progress: Whether to show bars.

    Returns:
        How it ended.

    Raises:
        CrowdmaskError: what `train_epoch` says; a checkpoint that does not fit; a metric that is missing or not
            finite; files that cannot be written. The last checkpoint is unharmed.
        KeyboardInterrupt: by SIGINT or SIGTERM, between two steps; likewise.
    """
    if isinstance(schedule, ReduceLROnPlateau):
        raise ValueError("ReduceLROnPlateau wants a metric: not supported")
    run = _Run(fabric, model, optimiser, schedule, plan, folder, identity)
    done = run.start()
    first = fabric.is_global_zero
    with noting_signals(fabric.world_size == 1) as signals, curves.board(folder / BOARD, done.epoch, first) as board:
        while done.epoch < plan.epochs and not done.stopped:
            epoch = done.epoch
            row = train_epoch(
                fabric,
                run.objective,
                run.optimiser,
                batches(epoch),
                epoch,
                average=run.average,
                schedule=schedule if plan.advance == "step" else None,
                clip=plan.clip,
                accumulate=plan.accumulate,
                progress=progress,
                interrupted=lambda: signals.seen,
            )
            if schedule is not None and plan.advance == "epoch":
                schedule.step()
            done = replace(done, epoch=epoch + 1)
            better = False
            if validate is None:
                if done.epoch == plan.epochs:
                    done, better = replace(done, best_epoch=done.epoch), True
            elif done.epoch % plan.evaluate_every == 0 or done.epoch == plan.epochs:
                metrics = run.validate(validate, done.epoch)
                done, better = judged(done, metrics, plan)
                row |= {f"{curves.VALIDATION}{name}": value for name, value in metrics.items()}
            if first:
                curves.log_epoch(folder / LOG, done.epoch, row)
            run.save(done)
            if first and better:
                save_model(folder / BEST, identity, run.kept, done)
            board(done.epoch, row)
    if signals.seen:
        raise KeyboardInterrupt
    return done


def judged(done: Progress, metrics: Mapping[str, float], plan: Plan) -> tuple[Progress, bool]:
    """The progress after a validation, and whether it is the best so far; of equal ones the first is.

    Raises:
        CrowdmaskError: a metric is not finite, or the one that counts is missing.
    """
    if plan.metric not in metrics:
        raise CrowdmaskError(
            f"epoch {done.epoch}: the validation gave no metric '{plan.metric}' to choose the best epoch by, but "
            f"{', '.join(metrics) or 'nothing'}."
        )
    value = metrics[plan.metric]
    if not math.isfinite(value):
        raise CrowdmaskError(
            f"epoch {done.epoch}: the validation's {plan.metric} is {value}. The last checkpoint is unharmed; look at "
            "the predictions, or at whether the validation has images."
        )
    sign = -1 if plan.larger_is_better else 1
    if not done.best_epoch or sign * value < sign * done.best[plan.metric]:
        return replace(done, best_epoch=done.epoch, best=dict(metrics), waited=0), True
    waited = done.waited + 1
    return replace(done, waited=waited, stopped=plan.patience is not None and waited >= plan.patience), False


class _Run:
    """What a training holds on its device, and its files."""

    def __init__(
        self,
        fabric: Fabric,
        model: Counter,
        optimiser: Optimizer,
        schedule: LRScheduler | None,
        plan: Plan,
        folder: Path,
        identity: Identity,
    ) -> None:
        self.fabric, self.model, self.schedule, self.folder, self.raw = fabric, model, schedule, folder, optimiser
        self.average = None if plan.ema is None else Average(model, plan.ema).to(fabric.device)
        objective = Objective(model, plan.supervision, plan.bf16)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
        self.objective, self.optimiser = fabric.setup(objective, optimiser)
        self.own, self.identity = identity, replace(identity, settings={**identity.settings, "plan": asdict(plan)})

    @property
    def kept(self) -> Counter:
        """The model whose weights are validated and kept."""
        return self.model if self.average is None else self.average.module

    def start(self) -> Progress:
        """Go on from the checkpoint, if there is one."""
        last, best = self.folder / LAST, self.folder / BEST
        if self.fabric.is_global_zero:
            for name in (LAST, BEST, LOG):  # what a killed process was writing
                for left in self.folder.glob(f".{name}.*"):
                    left.unlink(missing_ok=True)
        if not last.exists():
            return Progress()
        done, noise = load_checkpoint(
            last, self.identity, self.fabric.world_size, self.model, self.average, self.raw, self.schedule
        )
        set_random_state({name: value[self.fabric.global_rank] for name, value in noise.items()}, self.fabric.device)
        if self.fabric.is_global_zero and done.best_epoch:
            self._check_best(best, done)
        self.fabric.barrier()
        return done

    def _check_best(self, best: Path, done: Progress) -> None:
        """The kept weights are written after the checkpoint: make up for it where that did not happen."""
        if done.best_epoch == done.epoch:
            save_model(best, self.own, self.kept, done)
            return
        found = read(best, "model", ANEW_BEST)
        if found.header.get("epoch") != done.best_epoch:
            problem = f"is of epoch {found.header.get('epoch')}, the best of {LAST} is {done.best_epoch}"
            raise DataError(best, problem, ANEW_BEST)

    def validate(self, validate: Validate, epoch: int) -> dict[str, float]:
        """Metrics, found by the first process."""
        metrics: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.kept.eval()
            with torch.no_grad():
                metrics = {name: float(value) for name, value in validate(self.kept, epoch).items()}
        return self.fabric.broadcast(metrics)

    def save(self, done: Progress) -> None:
        """Write the checkpoint, with the random generators of all processes."""
        noise = {name: self._stack(value) for name, value in random_state(self.fabric.device).items()}
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.folder / LAST, self.identity, done, self.model, self.average, self.raw, self.schedule, noise
            )

    def _stack(self, value: Tensor) -> Tensor:
        """The tensors of all processes, each a row."""
        fabric = self.fabric
        if fabric.world_size == 1:
            return value[None]
        rows = torch.zeros(fabric.world_size, *value.shape, dtype=value.dtype, device=fabric.device)
        rows[fabric.global_rank] = value
        return cast(Tensor, fabric.all_reduce(rows, reduce_op="sum"))
