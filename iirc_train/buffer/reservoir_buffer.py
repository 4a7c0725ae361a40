"""A buffer that changes in each step: a reservoir of the stream of training samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_data.label_combinations import joined_labels
from iirc_data.loader import Batch
from iirc_data.loader.step_loader import PlannedStep
from iirc_data.task_view import TaskView
from iirc_train.buffer.reference_buffer import ReferenceBuffer
from iirc_train.buffer.reservoir import drawn_slots, reservoir_slots, without_replaced
from iirc_train.runtime.distributed import world_size

Stream = Literal["presentations", "first_epoch"]
"""What a reservoir samples from: every presentation of a sample, or those of the first epoch."""


class ReservoirBuffer(ReferenceBuffer):
    """Keeps a random sample of the stream of training samples; see :func:`reservoir_slots`.

    It changes after each step, so a step may draw memories of the current task.
    """

    def plan(
        self, view: TaskView, draw_sizes: Sequence[int], kept_epochs: range | None = None
    ) -> "ReservoirPlan | None":
        """Return the plan for the epochs of a task, for :func:`~iirc_data.loader.make_loader`.

        Args:
            view: The task's samples.
            draw_sizes: Number of memories of each draw of a step, over all processes.
            kept_epochs: The epochs whose samples may become memories; None for all.

        Returns:
            The plan; None for a buffer without places.

        Raises:
            ConfigurationError: The memories cannot be split among the processes.
        """
        if not self.n_slots:
            return None
        for what, n in [
            ("memories", self.n_slots),
            *(("memories per step", n) for n in draw_sizes),
        ]:
            if n < world_size():
                raise ConfigurationError(
                    f"{n} {what} cannot be split among {world_size()} processes: keep and draw "
                    "more memories, or use fewer processes"
                )
        return ReservoirPlan(self, view, tuple(draw_sizes), kept_epochs)

    def remember(self, batch: Batch, columns: Mapping[str, torch.Tensor], task_id: int) -> None:
        """Let the samples of a step enter the reservoir, without waiting for the device.

        Args:
            batch: The batch, from the loader.
            columns: The declared columns of its samples, each (N, values).
            task_id: Number of the task.
        """
        placement = batch.placement
        if placement is None:
            return
        self.n_seen += len(placement.slots)
        kept = placement.slots < self.n_slots
        if kept.any():
            slots, ids = placement.slots[kept], placement.sample_ids[kept]
            self._put(slots, ids, placement.labels[kept], task_id)
        if self.columns:
            self.columns.put(placement.slots_on_device, columns, placement.sizes)

    def with_columns(self, batch: Batch) -> Batch:
        """Return a batch whose draws have their columns, as they are now."""
        if not self.columns or not batch.draws:
            return batch
        draws = tuple(replace(d, columns=self.columns.at(d.slots)) for d in batch.draws)
        return replace(batch, draws=draws)


class ReservoirPlan:
    """The steps of a task: what each draws, and what it puts where.

    It implements :class:`~iirc_data.loader.step_loader.StepPlan`. See :meth:`ReservoirBuffer.plan`.
    """

    def __init__(
        self,
        buffer: ReservoirBuffer,
        view: TaskView,
        draw_sizes: tuple[int, ...],
        kept_epochs: range | None,
    ) -> None:
        references, n = buffer.references, len(buffer.references)
        self.n_samples = len(view)
        self.n_slots = buffer.n_slots
        self.draw_sizes = draw_sizes
        self._buffer, self._kept_epochs = buffer, kept_epochs
        self._task_id = view.seen_up_to
        self._order = np.argsort(view.sample_ids, kind="stable")
        earlier = np.flatnonzero(references.tasks[:n] != self._task_id)
        self._number_of_earlier = np.full(self.n_slots, -1, np.int64)
        self._number_of_earlier[earlier] = len(view) + np.arange(len(earlier))
        self.view = replace(
            view,
            sample_ids=np.concatenate([view.sample_ids, references.sample_ids[earlier]]),
            labels=joined_labels([view.labels, references.labels[earlier]]),
            places=None,
        )

    def steps(
        self, epoch: int, batches: Sequence[tuple[int, NDArray[np.int64]]]
    ) -> list[PlannedStep]:
        """Return the steps of an epoch, from the buffer's present state on."""
        seed, n_slots = self._buffer.seed, self.n_slots
        keeps = self._kept_epochs is None or epoch in self._kept_epochs
        n_seen, numbers = self._buffer.n_seen, self._numbers()
        planned = []
        for position, batch in batches:
            filled = min(n_seen, n_slots)
            drawn = [
                drawn_slots(filled, size, seed=seed, epoch=epoch, position=position, draw=draw)
                for draw, size in enumerate(self.draw_sizes if filled else ())
            ]
            placed = None
            if keeps:
                stop = n_seen + len(batch)
                placed = reservoir_slots(n_seen, stop, n_slots=n_slots, seed=seed)
                placed, n_seen = without_replaced(placed, n_slots), stop
            planned.append(PlannedStep(tuple((slots, numbers[slots]) for slots in drawn), placed))
            if placed is not None:
                numbers[placed[placed < n_slots]] = batch[placed < n_slots]
        return planned

    def _numbers(self) -> NDArray[np.int64]:
        """Return the number in the view of the sample in each slot, int64 (slots,)."""
        references, numbers = self._buffer.references, self._number_of_earlier.copy()
        own = np.flatnonzero(references.tasks == self._task_id)
        ids = self.view.sample_ids[: self.n_samples]
        places = np.searchsorted(ids, references.sample_ids[own], sorter=self._order)
        numbers[own] = self._order[places]
        return numbers
