"""A loader that adds memories to each batch, drawn from a buffer that changes in each step.

Which sample enters the buffer and which memories a step draws depends on random numbers only, not
on the network. So a plan decides both for an epoch before its first image is read, and the memories
are decoded ahead like all other images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.loader.batch import Batch, Draw, Placement, on_device
from iirc_data.loader.loader import Loader, Part
from iirc_data.order import global_batch_bounds, part_of_rank
from iirc_data.task_view import TaskView


@dataclass(frozen=True)
class PlannedStep:
    """What a plan decides for one step, over all processes.

    Attributes:
        drawn: For each draw the slots of its memories, int64 (M,), and the numbers of these samples
            in :attr:`StepPlan.view`, int64 (M,). Empty if the buffer is.
        placed: int64 (B,), the slot of each sample of the batch, :attr:`StepPlan.n_slots` if it is
            not kept. No slot occurs twice. None if the step does not change the buffer.
    """

    drawn: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    placed: NDArray[np.int64] | None


class StepPlan(Protocol):
    """Decides for each step which memories it draws, and which of its samples become memories."""

    @property
    def view(self) -> TaskView:
        """The samples of the epochs, followed by those that memories refer to."""

    @property
    def n_samples(self) -> int:
        """Number of samples of an epoch; they are the first ones of the view."""

    @property
    def n_slots(self) -> int:
        """Number of places in the buffer."""

    @property
    def draw_sizes(self) -> tuple[int, ...]:
        """The largest number of memories of each draw, over all processes."""

    def steps(
        self, epoch: int, batches: Sequence[tuple[int, NDArray[np.int64]]]
    ) -> list[PlannedStep]:
        """Return the steps of an epoch, from the buffer's present state on.

        Args:
            epoch: Number of the epoch.
            batches: Of each batch of all processes, the position in the epoch where it starts and
                the numbers of its samples.
        """


@dataclass(frozen=True)
class StepPart(Part):
    """One process's part of a batch and of its draws.

    Attributes:
        n_own: Number of samples; the numbers that follow are those of the memories.
        drawn: Of each draw the slots of this process's memories, and the number of all.
        placed: See :attr:`PlannedStep.placed`.
        batch: int64 (B,), the numbers of the samples of all processes.
        sizes: Number of samples of each process.
    """

    n_own: int
    drawn: tuple[tuple[NDArray[np.int64], int], ...]
    placed: NDArray[np.int64] | None
    batch: NDArray[np.int64]
    sizes: tuple[int, ...]


class StepLoader(Loader):
    """Yields batches with draws of memories; made by :func:`~iirc_data.loader.make.make_loader`.

    Positions of the epoch number its samples; the memories of a step are augmented by the random
    numbers of positions after the epoch's last. They do not depend on the number of processes.
    """

    def __init__(
        self,
        *args: Any,
        plan: StepPlan,
        batch_size: int,
        rank: int,
        world_size: int,
        **kwargs: Any,
    ) -> None:
        self._plan = plan
        self._rank, self._world_size = rank, world_size
        self._size_of_all = batch_size * world_size
        super().__init__(*args, batch_size=batch_size, rank=rank, world_size=world_size, **kwargs)
        self._of_all = global_batch_bounds(self.n_samples, batch_size, world_size)

    def _numbers(self, epoch: int) -> NDArray[np.int64]:
        return np.arange(self._plan.n_samples)

    def _parts_of(self, epoch: int, first_batch: int) -> Sequence[StepPart]:
        shown = self._shown(epoch)
        bounds = self._of_all[first_batch:]
        batches = [(start, shown[start:stop]) for start, stop in bounds]
        return [
            self._part(start, numbers, step)
            for (start, numbers), step in zip(
                batches, self._plan.steps(epoch, batches), strict=True
            )
        ]

    def _part(self, start: int, batch: NDArray[np.int64], step: PlannedStep) -> StepPart:
        first, stop = self._own(len(batch))
        numbers, spans, drawn = [batch[first:stop]], [(start + first, start + stop)], []
        sizes = self._plan.draw_sizes
        position = self.n_samples + start // self._size_of_all * sum(sizes)
        for (slots, of_draw), size in zip(step.drawn, sizes, strict=False):
            own = slice(*self._own(len(slots)))
            numbers.append(of_draw[own])
            spans.append((position + own.start, position + own.stop))
            drawn.append((slots[own], len(slots)))
            position += size
        bounds = [part_of_rank(len(batch), k, self._world_size) for k in range(self._world_size)]
        return StepPart(
            np.concatenate(numbers),
            spans,
            (stop - first) / len(batch),
            n_own=stop - first,
            drawn=tuple(drawn),
            placed=step.placed,
            batch=batch,
            sizes=tuple(b - a for a, b in bounds),
        )

    def _own(self, n: int) -> tuple[int, int]:
        return part_of_rank(n, self._rank, self._world_size)

    def _is_replayed(self, chunk: Sequence[Part], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        of_parts = []
        for part in chunk:
            assert isinstance(part, StepPart)
            of_parts.append(np.arange(len(part.numbers)) >= part.n_own)
        return np.concatenate(of_parts)

    def _finished(self, batch: Batch, part: Part) -> Batch:
        assert isinstance(part, StepPart)
        placed = np.empty(0, np.int64) if part.placed is None else part.placed
        slots = np.concatenate([placed, *(slots for slots, _ in part.drawn)])
        slots_on_device = on_device(torch.from_numpy(slots), self._device)
        placement = None
        if part.placed is not None:
            placement = Placement(
                placed,
                slots_on_device[: len(placed)],
                self._samples.view.sample_ids[part.batch],
                self._samples.view.labels[part.batch],
                part.sizes,
            )
        if not part.drawn:
            return replace(batch, placement=placement)
        draws, row, first = [], part.n_own, len(placed)
        for own, n_total in part.drawn:
            n = len(own)
            draws.append(Draw(slice(row, row + n), n_total, slots_on_device[first : first + n]))
            row, first = row + n, first + n
        n = part.n_own
        return Batch(
            batch.images[:n],
            batch.targets[:n],
            batch.in_buffer[:n],
            batch.sample_ids[:n],
            batch.share,
            tuple(draws),
            whole=batch,
            placement=placement,
        )
