"""The endless order in which a training sees its pictures, as a pure function of the seed.

Pass 0, pass 1, ... of the data set, each in a random order of its own, stand one after the other;
step k of the training takes places k·batch_size to (k + 1)·batch_size. So a resumed training goes
on exactly where it stopped, without knowing anything but the number of its step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from detdistill.data import transforms
from detdistill.data.dataset import Dataset, Sample, collate
from detdistill.errors import UserError
from detdistill.structures import Batch


class Ticket(NamedTuple):
    """One place in the endless order: which picture, and whether it is mirrored."""

    picture: int
    flip: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The endless order of tickets."""

    length: int
    """Pictures in the data set."""
    seed: int
    flip: float
    """Probability that a picture is mirrored."""

    def ticket(self, place: int) -> Ticket:
        """The ticket at a place of the endless order."""
        number, offset = divmod(place, self.length)
        order, chances = _one_pass(self.seed, number, self.length)
        index = int(order[offset])
        return Ticket(index, bool(chances[index] < self.flip))


@lru_cache(maxsize=4)
def _one_pass(
    seed: int, number: int, length: int
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    """The order of one pass, and a number in [0, 1) for each picture in it."""
    generator = np.random.default_rng((seed, number))
    return generator.permutation(length), generator.random(length)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The part of every batch that one process takes, in equal micro-batches."""

    batch_size: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        parts = self.world * self.accumulate
        if self.batch_size < 1 or self.batch_size % parts:
            raise UserError(
                f"A batch of {self.batch_size} images cannot be divided into {self.world} "
                f"process(es) times {self.accumulate} micro-batch(es). "
                f"Choose a batch size that is a multiple of {parts}."
            )

    def places(self, step: int) -> Iterator[range]:
        """The places of each micro-batch of one step."""
        size = self.batch_size // (self.world * self.accumulate)
        first = step * self.batch_size + self.rank * self.accumulate * size
        for micro in range(self.accumulate):
            yield range(first + micro * size, first + (micro + 1) * size)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes batches of tickets; in a worker process, hands errors over as values."""

    dataset: Dataset

    def batch(self, tickets: Sequence[Ticket]) -> Batch:
        return collate([self._sample(ticket) for ticket in tickets])

    def _sample(self, ticket: Ticket) -> Sample:
        sample = self.dataset[ticket.picture]
        return transforms.flip(sample) if ticket.flip else sample

    def __getitem__(self, tickets: Sequence[Ticket]) -> list[object] | UserError:
        """The tensors of a batch: what the loader knows how to pin."""
        try:
            return pytree.tree_leaves(self.batch(tickets))
        except UserError as error:
            return error


def stream(
    dataset: Dataset,
    *,
    seed: int,
    batch_size: int,
    steps: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    flip: float = 0.5,
    workers: int = 0,
) -> Iterator[Batch]:
    """The micro-batches of steps `start` to `steps - 1`, `accumulate` of them for each step.

    They depend on nothing but the arguments: step k is the same whether the stream began at 0 or
    at k, and with any number of worker processes.

    Raises:
        UserError: the data set is empty, or the batch cannot be divided equally.
    """
    if len(dataset) == 0:
        raise UserError("The training data has no pictures.")
    share = Share(batch_size=batch_size, rank=rank, world=world, accumulate=accumulate)
    order = Order(length=len(dataset), seed=seed, flip=flip)
    plan = _plan(order, share, range(start, steps))
    reader = _Reader(dataset)
    return _load(reader, plan, workers) if workers else map(reader.batch, plan)


def _plan(order: Order, share: Share, steps: range) -> Iterator[list[Ticket]]:
    for step in steps:
        for places in share.places(step):
            yield [order.ticket(place) for place in places]


def _load(reader: _Reader, plan: Iterator[list[Ticket]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        reader,  # type: ignore[arg-type]  # indexed by tickets, not by numbers
        sampler=plan,  # any iterable of what the reader is indexed by
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that the global one is not drawn from
        worker_init_fn=_ignore_interrupts,
    )
    for tensors in loader:
        if isinstance(tensors, UserError):
            raise tensors
        yield pytree.tree_unflatten(tensors, _BATCH)


def _ignore_interrupts(_worker: int) -> None:
    """Leaves Ctrl-C to the main process, which may want to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_BATCH = pytree.tree_structure(
    collate(
        [
            Sample(
                image=torch.zeros(3, 1, 1, dtype=torch.uint8),
                boxes=torch.zeros(0, 4),
                labels=torch.zeros(0, dtype=torch.int64),
                crowd=torch.zeros(0, dtype=torch.bool),
                id=0,
            )
        ]
    )
)
"""How a batch is built of its tensors."""
