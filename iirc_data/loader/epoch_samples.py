"""The samples of an epoch: those of a task view, followed by memories, numbered from 0."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment import Augmentation
from iirc_data.errors import LoaderError
from iirc_data.features.store import FeatureStore
from iirc_data.label_combinations import joined_labels
from iirc_data.loader.batch import KnowsDatasets, ReplaySource
from iirc_data.loader.decoder import DecodeRequest, Requests, checked_look
from iirc_data.shards.reading_plan import ReadingPlan
from iirc_data.shards.sample_store import SampleStore
from iirc_data.task_view import TaskView


@dataclass(frozen=True)
class EpochSamples:
    """The samples of a view followed by memories; their position is their number.

    Attributes:
        view: The view; its samples have the numbers 0 to ``len(view) - 1``.
        store: The shards that hold them.
        replay: The memories; the one in a slot has the number ``len(view) + slot``.
    """

    view: TaskView
    store: SampleStore
    replay: ReplaySource | None

    def __len__(self) -> int:
        return len(self.view) + (0 if self.replay is None else len(self.replay))

    @property
    def are_features(self) -> bool:
        """Whether the samples are features instead of images."""
        return isinstance(self.store, FeatureStore)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 (N, L): indices of the visible labels, -1 for none."""
        replayed = [] if self.replay is None else [self.replay.labels]
        return joined_labels([self.view.labels, *replayed])

    @cached_property
    def sizes(self) -> NDArray[np.int32]:
        """int32 (N, 2): height and width in pixels."""
        sizes = [self.store.sizes(self.view.sample_ids)]
        if self.replay is not None:
            sizes.append(np.stack([self.replay.heights, self.replay.widths], axis=1))
        return np.concatenate(sizes)

    def datasets(self, numbers: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the number of each sample's dataset, int64 (N,); None if there is only one.

        Raises:
            LoaderError: There are several, and the memories do not know theirs.
        """
        if len(self.store.datasets) == 1:
            return None
        replayed = self.is_replayed(numbers)
        found = np.empty(len(numbers), np.int64)
        found[~replayed] = self.store.dataset_numbers(self.view.sample_ids[numbers[~replayed]])
        if replayed.any():
            if not isinstance(self.replay, KnowsDatasets):
                raise LoaderError(
                    f"the data has the datasets {', '.join(self.store.datasets)}, and "
                    f"{type(self.replay).__name__} does not say which of them a memory is from: "
                    "give it the attribute datasets, see iirc_data.loader.KnowsDatasets"
                )
            found[replayed] = self.replay.datasets[numbers[replayed] - len(self.view)]
        return found

    @cached_property
    def present(self) -> list[int]:
        """Numbers of the datasets that the samples are from.

        Raises:
            LoaderError: Memories are from another dataset than those of the store.
        """
        found = self.datasets(np.arange(len(self)))
        numbers = [0] if found is None else np.unique(found).tolist()
        if wrong := [number for number in numbers if not 0 <= number < len(self.store.datasets)]:
            raise LoaderError(
                f"memories are from dataset number {wrong[0]}, the data has only "
                f"{', '.join(self.store.datasets)}: they belong to other data"
            )
        return numbers

    @cached_property
    def most_pixels(self) -> int:
        """Number of pixels of the largest image."""
        return int(self.sizes.astype(np.int64).prod(axis=1).max(initial=0))

    @cached_property
    def sample_ids(self) -> NDArray[np.int64]:
        """int64 (N,): row of the sample table, or ``-1 - slot`` for a memory."""
        slots = np.arange(len(self) - len(self.view))
        return np.concatenate([self.view.sample_ids, -1 - slots])

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """int64 (N,): number of the block of shards that holds the sample, -1 for a memory."""
        of_view = self.store.block_numbers(self.view.sample_ids)
        return np.concatenate([of_view, np.full(len(self) - len(self.view), -1)])

    def is_replayed(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each number, bool (N,), whether it is that of a memory."""
        return numbers >= len(self.view)

    def requests(
        self,
        order: NDArray[np.int64],
        work: Iterable[tuple[NDArray[np.int64], Augmentation]],
        following: Callable[[], NDArray[np.int64]] | None = None,
    ) -> Requests:
        """Return the decode requests of the batches.

        While one batch is read, the operating system prefetches the next one, and blocks of remote
        shards are fetched further ahead.

        Args:
            order: int64 (N,), the numbers of all batches one after the other.
            work: For each batch the numbers of its samples, int64 (N,), and their augmentation.
            following: Returns the numbers that the next call reads, int64 (M,); their first blocks
                are fetched while the last batches are read. None if no call follows.
        """
        ids = self.ids_in_view(order)
        if following is not None and self.store.is_remote:
            ids = np.concatenate([ids, self.ids_in_view(following())])
        plan = self.store.plan(ids)
        next_one: list[NDArray[np.int64]] = []

        def is_ready() -> bool:
            return not next_one or plan.is_ready(len(next_one[0]))

        return Requests(self._requests(plan, work, next_one), is_ready)

    def _requests(
        self,
        plan: ReadingPlan,
        work: Iterable[tuple[NDArray[np.int64], Augmentation]],
        next_one: list[NDArray[np.int64]],
    ) -> Iterator[DecodeRequest]:
        """Yield the requests; keep the samples of the one that is made next in ``next_one``."""
        try:
            announced: tuple[NDArray[np.int64], Augmentation] | None = None
            for batch in chain(work, [None]):
                read_now, next_one[:] = next_one[:], []
                if batch is not None:
                    next_one.append(self.ids_in_view(batch[0]))
                    self.store.will_read(next_one[0])
                if announced is not None:
                    request = self._request(*announced)
                    plan.advance(len(read_now[0]))
                    yield request
                announced = batch
        finally:
            plan.close()

    def ids_in_view(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample ids of those numbers that are of the view."""
        return self.view.sample_ids[numbers[~self.is_replayed(numbers)]]

    def _request(self, numbers: NDArray[np.int64], augmentation: Augmentation) -> DecodeRequest:
        encoded = self._read(numbers)
        looks = self._looks(numbers, encoded)
        return DecodeRequest(
            encoded=encoded,
            augmentation=augmentation,
            names=lambda position: self._name(int(numbers[position])),
            odd=frozenset(np.flatnonzero(looks < 0).tolist()),
            irregular=frozenset(np.flatnonzero(looks == -2).tolist()),
            most_pixels=self.most_pixels,
        )

    def _read(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        if self.replay is None:
            return self.store.read_many(self.view.sample_ids[numbers])
        replayed = self.is_replayed(numbers)
        of_view = iter(self.store.read_many(self.view.sample_ids[numbers[~replayed]]))
        slots = (numbers - len(self.view)).tolist()
        return [
            self.replay.read(slot) if is_memory else next(of_view)
            for slot, is_memory in zip(slots, replayed.tolist(), strict=True)
        ]

    @cached_property
    def _looks_of_memories(self) -> NDArray[np.int8]:
        """int8 (memories,), as :attr:`SampleStore.looks` for samples."""
        return np.full(len(self) - len(self.view), int(self.are_features), np.int8)

    def _looks(
        self, numbers: NDArray[np.int64], encoded: list[NDArray[np.uint8]]
    ) -> NDArray[np.int8]:
        """Return the looks of images; inspect those that were not inspected before.

        See :attr:`SampleStore.looks`.
        """
        found = np.zeros(len(numbers), np.int8)
        replayed = self.is_replayed(numbers)
        for known, places in [
            (self.store.looks, np.flatnonzero(~replayed)),
            (self._looks_of_memories, np.flatnonzero(replayed)),
        ]:
            own = numbers[places]
            ids = self.view.sample_ids[own] if known is self.store.looks else own - len(self.view)
            for new in np.flatnonzero(known[ids] == 0).tolist():
                place = int(places[new])
                known[ids[new]] = self._look(int(numbers[place]), encoded[place])
            found[places] = known[ids]
        return found

    def _look(self, number: int, encoded: NDArray[np.uint8]) -> int:
        height, width = self.sizes[number].tolist()
        look = checked_look(encoded, (height, width), lambda: self._name(number))
        return 1 if look.is_plain else -1 if look.is_regular else -2

    def _name(self, number: int) -> str:
        if self.replay is not None and number >= len(self.view):
            return self.replay.name(number - len(self.view))
        return self.store.name(int(self.view.sample_ids[number]))
