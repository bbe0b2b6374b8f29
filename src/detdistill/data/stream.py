"""The endless order in which a training sees its pictures, as a pure function of the seed.

Pass 0, pass 1, ... of the data set, each in a random order of its own, stand one after the other;
step k of the training takes places k·batch_size to (k + 1)·batch_size. So a resumed training goes
on exactly where it stopped, without knowing anything but the number of its step.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from detdistill.data import transforms
from detdistill.data.augment import Change
from detdistill.data.damage import Damage
from detdistill.data.dataset import Dataset, Sample, collate
from detdistill.data.pictures import UnreadableError
from detdistill.errors import UserError
from detdistill.structures import Batch

CHANGE, STAND_IN = 0, 1
"""What random numbers of a place are for; each purpose has its own."""

STAND_INS = 20
"""Pictures that are tried in place of an unreadable one."""


class Ticket(NamedTuple):
    """One place in the endless order: which picture, and what happens to it."""

    picture: int
    flip: bool
    """Whether it is mirrored."""
    key: tuple[int, int, int]
    """Seed, pass and picture: what every other random number of this place follows from."""


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
        return Ticket(index, bool(chances[index] < self.flip), (self.seed, number, index))


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """Makes batches of tickets; in a worker process, hands errors over as values."""

    dataset: Dataset
    change: Change | None
    forgiving: bool
    """Whether other pictures stand in for those that cannot be read."""

    def batch(self, tickets: Sequence[Ticket]) -> tuple[Batch, list[Damage]]:
        damages: list[Damage] = []
        batch = collate([self._sample(ticket, damages) for ticket in tickets])
        return batch, damages

    def _sample(self, ticket: Ticket, damages: list[Damage]) -> Sample:
        sample = self._read(ticket, damages)
        if self.change:
            sample = self.change(sample, np.random.default_rng((*ticket.key, CHANGE)))
        return transforms.flip(sample) if ticket.flip else sample

    def _read(self, ticket: Ticket, damages: list[Damage]) -> Sample:
        """The picture of a ticket, or the first that can be read of those that may stand in."""
        for picture in self._candidates(ticket):
            try:
                return self.dataset[picture]
            except UnreadableError as error:
                if not self.forgiving:
                    raise
                damages.append(Damage(picture, str(error)))
        raise UserError(
            f"{damages[-1].reason} Nor can {STAND_INS} others that were tried in its place. "
            "'detdistill data check' lists all that are damaged."
        )

    def _candidates(self, ticket: Ticket) -> Iterator[int]:
        yield ticket.picture
        rng, length = np.random.default_rng((*ticket.key, STAND_IN)), len(self.dataset)
        for distance in rng.integers(1, max(2, length), size=STAND_INS).tolist():
            yield (ticket.picture + distance) % length

    def __getitem__(
        self, tickets: Sequence[Ticket]
    ) -> tuple[list[object], list[Damage]] | UserError:
        """The tensors of a batch: what the loader knows how to pin."""
        try:
            batch, damages = self.batch(tickets)
            return pytree.tree_leaves(batch), damages
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
    change: Change | None = None,
    on_damage: Callable[[Damage], object] | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """The micro-batches of steps `start` to `steps - 1`, `accumulate` of them for each step.

    They depend on nothing but the arguments: step k is the same whether the stream began at 0 or
    at k, and with any number of worker processes.

    Args:
        dataset: where the pictures come from.
        seed: of every random number.
        batch_size: pictures of a step, over all ranks and micro-batches.
        steps: of the whole training.
        start: the first step.
        rank: this process.
        world: all processes.
        accumulate: micro-batches of a step.
        flip: probability that a picture is mirrored.
        change: is made of every picture before that.
        on_damage: is told of each picture that turns out to be unreadable, whenever it is its
            turn; another one, which depends on the seed and its place alone, stands in for it.
            Without this, such a picture is an error.
        workers: processes that load pictures; 0 loads them here.

    Raises:
        UserError: the data set is empty, the batch cannot be divided equally, or a picture cannot
            be read.
    """
    if len(dataset) == 0:
        raise UserError("The training data has no pictures.")
    share = Share(batch_size=batch_size, rank=rank, world=world, accumulate=accumulate)
    order = Order(length=len(dataset), seed=seed, flip=flip)
    plan = _plan(order, share, range(start, steps))
    reader = _Reader(dataset=dataset, change=change, forgiving=on_damage is not None)
    made = _load(reader, plan, workers) if workers else map(reader.batch, plan)
    return _told(made, on_damage)


def _told(
    made: Iterator[tuple[Batch, list[Damage]]], on_damage: Callable[[Damage], object] | None
) -> Iterator[Batch]:
    for batch, damages in made:
        if on_damage:
            for damage in damages:
                on_damage(damage)
        yield batch


def _plan(order: Order, share: Share, steps: range) -> Iterator[list[Ticket]]:
    for step in steps:
        for places in share.places(step):
            yield [order.ticket(place) for place in places]


def _load(
    reader: _Reader, plan: Iterator[list[Ticket]], workers: int
) -> Iterator[tuple[Batch, list[Damage]]]:
    loader: DataLoader[Any] = DataLoader(
        reader,  # type: ignore[arg-type]  # indexed by tickets, not by numbers
        sampler=plan,  # any iterable of what the reader is indexed by
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that the global one is not drawn from
        worker_init_fn=_ignore_interrupts,
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        tensors, damages = made
        yield pytree.tree_unflatten(tensors, _BATCH), damages


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
