"""Fetching ahead of the readers: what running epochs need next, several blocks at a time."""

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ShardError
from iirc_data.shards.cache_folder import Evict, NoRoomError
from iirc_data.shards.pace import Course, Pace
from iirc_data.shards.reading_plan import Plan

CONNECTIONS = 8
"""Largest number of blocks that a process fetches ahead at the same time."""

AHEAD_BYTES = 1 << 28
"""Bytes of blocks that a running epoch needs next, which are fetched ahead and pinned."""

_IDLE_SECONDS = 5.0

exiting = threading.Event()
"""Set when the interpreter exits: transfers end, and remove their temporary files."""

_running: "WeakSet[threading.Thread]" = WeakSet()

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A block to fetch ahead, what may be evicted for it, and its transfer."""

    block: int
    evict: Evict
    course: Course


class Lookahead:
    """Threads that fetch the blocks of plans, in the order in which readers need them.

    Args:
        bring: Fetches a block into the cache unless it is there, making room as far as allowed.
        is_at_hand: Returns whether a block can be read without waiting for a transfer.
        pace: Decides when the next transfer begins.
        sizes: int64 (B,), bytes of each block.
        most: Bytes that each plan looks ahead.
        least: Number of blocks that each plan looks ahead, whatever their size.
        changed: Called when the blocks that plans need next have changed; True if there are any.
    """

    def __init__(
        self,
        bring: Callable[[int, Evict, Course], None],
        is_at_hand: Callable[[int], bool],
        pace: Pace,
        sizes: NDArray[np.int64],
        *,
        most: int,
        least: int,
        changed: Callable[[bool], None],
    ) -> None:
        self._bring = bring
        self._is_at_hand = is_at_hand
        self._pace = pace
        pace.changed = self._wake
        self._sizes = sizes
        self._most = most
        self._least = least
        self._tell = changed
        self._changed = threading.Condition()
        self._plans: dict[Plan, deque[int]] = {}
        self._later: deque[int] = deque()
        self._threads: set[threading.Thread] = set()
        self._n_idle = 0

    def plan(self, blocks: NDArray[np.int64]) -> "RunningPlan":
        """Fetch ahead for a reader.

        Args:
            blocks: int64 (N,), the block of each sample, in the order of reading.
        """
        plan = Plan(blocks, self._sizes, self._most, self._least)
        with self._changed:
            self._plans[plan] = deque(plan.advance(0))
            self._start_threads()
        return RunningPlan(self, plan, self._is_at_hand)

    def expect(self, blocks: Iterable[int]) -> None:
        """Fetch blocks when no plan needs any, as far as there is free room in the cache.

        They replace those of an earlier call.
        """
        with self._changed:
            self._later = deque(blocks)
            self._start_threads()

    def pins(self, block: int) -> bool:
        """Return whether a plan needs a block next."""
        return any(block in plan for plan in list(self._plans))

    def pinned(self) -> set[int]:
        """Return the blocks that plans need next."""
        with self._changed:
            return {block for plan in self._plans for block in plan}

    def advance(self, plan: Plan, n: int) -> None:
        """Record that a plan's reader has read ``n`` more samples."""
        with self._changed:
            if plan in self._plans:
                self._plans[plan].extend(plan.advance(n))
                self._start_threads()
        self._tell(True)

    def end(self, plan: Plan) -> None:
        """Forget a plan."""
        with self._changed:
            self._plans.pop(plan, None)
            is_needed = bool(self._plans)
        self._tell(is_needed)

    def close(self) -> None:
        """Forget all plans; the threads end after the blocks that they are fetching."""
        with self._changed:
            self._plans.clear()
            self._later.clear()
            self._changed.notify_all()

    def _start_threads(self) -> None:
        """Start a thread for the next job; it starts the one after, so that no reader waits."""
        waiting = sum(map(len, self._plans.values())) + len(self._later)
        if self._n_idle < waiting and len(self._threads) < CONNECTIONS:
            thread = threading.Thread(target=self._work, name="iirc-fetch", daemon=True)
            self._threads.add(thread)
            _running.add(thread)
            thread.start()
        self._changed.notify_all()

    def _next(self) -> Job | None:
        if not self._pace.may_begin():
            return None
        for plan, todo in self._plans.items():
            while todo:
                if (block := todo.popleft()) in plan:
                    return self._job(block, Evict.UNPINNED)
        return self._job(self._later.popleft(), Evict.NOTHING) if self._later else None

    def _job(self, block: int, evict: Evict) -> Job:
        return Job(block, evict, self._pace.begin(int(self._sizes[block])))

    def _work(self) -> None:
        while (job := self._wait_for_job()) is not None:
            try:
                with job.course:
                    self._bring(*job)
            except NoRoomError:
                self._put_back(job)
            except ShardError as error:  # the reader tries again, and raises
                logger.debug("cannot fetch ahead: %s", error)
            except BaseException:
                with self._changed:
                    self._threads.discard(threading.current_thread())
                raise

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_for_job(self) -> Job | None:
        """Return the next job; None ends the thread."""
        with self._changed:
            is_idle = False
            while (job := self._next()) is None or exiting.is_set():
                if is_idle or exiting.is_set():
                    self._threads.discard(threading.current_thread())
                    return None
                self._n_idle += 1
                is_idle = not self._changed.wait(_IDLE_SECONDS)
                self._n_idle -= 1
            self._start_threads()
            return job

    def _put_back(self, job: Job) -> None:
        """Try again when a reader has moved on."""
        with self._changed:
            if job.evict is Evict.NOTHING:
                self._later.clear()
                return
            self._changed.wait(_IDLE_SECONDS)
            for plan, todo in self._plans.items():
                if job.block in plan:
                    todo.appendleft(job.block)
                    return


@atexit.register
def _end_threads() -> None:
    exiting.set()
    for thread in list(_running):
        thread.join(1.0)


class RunningPlan:
    """A reader's handle of its plan.

    Args:
        lookahead: What fetches its blocks.
        plan: The plan.
        is_at_hand: Returns whether a block can be read without waiting for a transfer.
    """

    def __init__(self, lookahead: Lookahead, plan: Plan, is_at_hand: Callable[[int], bool]) -> None:
        self._lookahead = lookahead
        self._plan = plan
        self._is_at_hand = is_at_hand

    def is_ready(self, n: int) -> bool:
        """Return whether the next ``n`` samples can be read without waiting for a transfer."""
        return all(map(self._is_at_hand, self._plan.following(n)))

    def advance(self, n: int) -> None:
        """Record that the reader has read ``n`` more samples."""
        self._lookahead.advance(self._plan, n)

    def close(self) -> None:
        """Stop fetching for this reader."""
        self._lookahead.end(self._plan)
