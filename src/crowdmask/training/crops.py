"""Epochs of crops: which images come when, in which batches, made by how many processes: the batches are the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from crowdmask.config.crops import CropGeometry, Look
from crowdmask.errors import CrowdmaskError
from crowdmask.models.base import Batch
from crowdmask.training.source import Source
from crowdmask.training.views import View, draw, generator, normalised, one_thread


class Item(NamedTuple):
    """One crop: everything that it depends on, so that no worker has to know the epoch.

    Attributes:
        epoch: From 0.
        image: Place of the image in the source.
        repeat: Which crop of that image in that epoch, from 0.
    """

    epoch: int
    image: int
    repeat: int


@dataclass(frozen=True)
class Plan:
    """Which crops are in which batch.

    Attributes:
        images: Number of images.
        batch: Crops of a joint batch, over all ranks.
        repeats: Crops of each image in an epoch.
        drop_last: Whether a batch that is not full is left out.
        seed: Of the run.
        rank: Of this process.
        ranks: How many processes train together.

    Raises:
        ValueError: a number is out of range; an epoch would have no batch; or batches cannot be shared evenly, so that
            the processes would wait for each other or weigh crops differently.
    """

    images: int
    batch: int
    repeats: int = 1
    drop_last: bool = False
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        """Check what would otherwise show up as a training that hangs or learns nothing."""
        if min(self.images, self.batch, self.repeats, self.ranks) < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"there must be an image, a batch size, a crop and a process at least: {self}")
        crops = self.images * self.repeats
        if self.drop_last and crops < self.batch:
            raise ValueError(
                f"{crops} crops an epoch do not fill a batch of {self.batch}: take a smaller batch, more crops of each "
                "image, or do not drop the last batch"
            )
        last = 0 if self.drop_last else crops % self.batch
        if self.batch % self.ranks or last % self.ranks:
            raise ValueError(
                f"batches of {self.batch}{f', the last of {last},' if last else ''} cannot be shared evenly by "
                f"{self.ranks} processes: take a multiple, or drop the last batch"
            )

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        crops = self.images * self.repeats
        return crops // self.batch if self.drop_last else -(-crops // self.batch)

    def epoch(self, number: int) -> list[list[Item]]:
        """This process's share of each batch of an epoch.

        Every crop comes once, in an order drawn from seed and epoch. Rank r has every `ranks`-th crop of the joint
        batch from its r-th on: the processes see together what one would see.
        """
        crops = generator(self.seed, number, "").permutation(self.images * self.repeats).tolist()
        items = [Item(number, *divmod(crop, self.repeats)) for crop in crops]
        joint = [items[k * self.batch : (k + 1) * self.batch] for k in range(self.batches)]
        return [items[self.rank :: self.ranks] for items in joint]


class _Packed(NamedTuple):
    """A batch in few tensors: each that passes between processes takes a file handle."""

    images: Tensor
    points: Tensor
    lengths: Tensor
    labels: Tensor | None
    valid: Tensor
    names: tuple[str, ...]

    def batch(self) -> Batch:
        labels = None if self.labels is None else list(self.labels)
        points = list(self.points.split(self.lengths.tolist()))
        return Batch(self.images, points, labels, self.valid, tuple(self.names))  # pinning makes a list of names


def _pack(views: Sequence[View]) -> _Packed:
    labels = [view.labels for view in views if view.labels is not None]
    with one_thread():
        images = torch.stack([normalised(view) for view in views])
    return _Packed(
        images,
        torch.from_numpy(np.concatenate([view.points_xy for view in views])),
        torch.tensor([len(view.points_xy) for view in views]),
        torch.from_numpy(np.stack(labels)) if labels else None,
        torch.stack([torch.from_numpy(view.valid) for view in views]).float(),
        tuple(view.name for view in views),
    )


def collate(views: Sequence[View]) -> Batch:
    """Views of equal size, with or without labels alike, as a batch in their order."""
    return _pack(views).batch()


class _Views(Dataset):
    def __init__(self, source: Source, geometry: CropGeometry, looks: Sequence[Look], seed: int) -> None:
        self.source, self.geometry, self.looks, self.seed = source, geometry, tuple(looks), seed

    def __getitem__(self, item: Item) -> list[View] | CrowdmaskError:
        try:
            sample = self.source[item.image]
        except CrowdmaskError as error:  # handed on: raised here, torch would make a long text of it
            return error
        rng = generator(self.seed, item.epoch, sample.name, item.repeat)
        return draw(sample, self.geometry, self.looks, rng)


class _Epoch(Sampler):
    """Hands out the items of the epoch that is set; read when the loader begins, not when its workers do."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _collate_looks(found: list[list[View] | CrowdmaskError]) -> list[_Packed] | CrowdmaskError:
    views = []
    for one in found:
        if isinstance(one, CrowdmaskError):
            return one
        views.append(one)
    return [_pack(look) for look in zip(*views, strict=True)]


def _unpack(found: list[_Packed] | CrowdmaskError) -> tuple[Batch, ...]:
    if isinstance(found, CrowdmaskError):
        raise found
    return tuple(packed.batch() for packed in found)


class Loader:
    """Batches of crops, epoch by epoch; the same for any number of workers.

    Args:
        source: The images.
        plan: Which crops are in which batch; for `len(source)` images.
        geometry: Where crops lie.
        looks: Looks of each crop; each gives a batch of its own.
        workers: Processes that make crops ahead; 0 = this one makes them when they are asked for. They live as long
            as the loader.
        pin: Whether batches lie in memory that a GPU reads by itself; None = where there is a GPU.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        geometry: CropGeometry,
        looks: Sequence[Look] = (Look(),),
        workers: int = 0,
        pin: bool | None = None,
    ) -> None:
        if plan.images != len(source) or not looks:
            raise ValueError(f"a plan for {plan.images} of {len(source)} images, in {len(looks)} looks")
        self.plan = plan
        self._epoch = _Epoch()
        options: dict[str, Any] = {}
        if workers:
            options = {"persistent_workers": True, "multiprocessing_context": _context()}
        self._loader: DataLoader = DataLoader(
            _Views(source, geometry, looks, plan.seed),
            batch_sampler=self._epoch,
            collate_fn=_collate_looks,
            num_workers=workers,
            # Of its own, though nothing here draws from it: else every epoch would move torch's global one.
            generator=torch.Generator().manual_seed(plan.seed),
            pin_memory=torch.cuda.is_available() if pin is None else pin,
            **options,
        )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.plan.batches

    def looks(self, epoch: int, first: int = 0) -> Iterator[tuple[Batch, ...]]:
        """The batches of an epoch, of the same crops one for each look.

        One epoch at a time: a new one ends the one before, wherever it is.

        Args:
            epoch: From 0.
            first: Batch to begin with, to go on in the middle of an epoch; those before are not made.

        Raises:
            DataError: an image cannot be used; see `Source`.
        """
        self._epoch.batches = self.plan.epoch(epoch)[first:]
        return map(_unpack, iter(self._loader))

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch in the first look; see `looks`."""
        return (batches[0] for batches in self.looks(number, first))


def _context() -> Any:
    """How workers begin: not as copies of this process, whose threads (torch, progress bars) copies break."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, for all workers of this process
    return context
