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
from iirc_data.shards.reading_plan import Plan

CONNECTIONS = 8
"""Largest number of blocks that a process fetches ahead at the same time.

The fewer there are, the sooner the block that is needed first has arrived. So a process begins with
two, and adds more as long as transfers wait for the server rather than for the link.
"""

_FEWEST_CONNECTIONS = 2
_MUCH_WAITING = 0.3  # of a transfer's time
_LITTLE_WAITING = 0.05

AHEAD_BYTES = 1 << 28
"""Bytes of blocks that a running epoch needs next, which are fetched ahead and pinned."""

_IDLE_SECONDS = 5.0

exiting = threading.Event()
"""Set when the interpreter exits: transfers end, and remove their temporary files."""

_running: "WeakSet[threading.Thread]" = WeakSet()

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A block to fetch ahead, and what may be evicted for it."""

    block: int
    evict: Evict


class Lookahead:
    """Threads that fetch the blocks of plans, in the order in which readers need them.

    Args:
        bring: Fetches a block into the cache unless it is there, making room as far as allowed.
            Returns the part of the time that passed before the first byte, or None.
        sizes: int64 (B,), bytes of each block.
        most: Bytes that each plan looks ahead.
        least: Number of blocks that each plan looks ahead, whatever their size.
        changed: Called when the blocks that plans need next have changed; True if there are any.
    """

    def __init__(
        self,
        bring: Callable[[int, Evict], float | None],
        sizes: NDArray[np.int64],
        *,
        most: int,
        least: int,
        changed: Callable[[bool], None],
    ) -> None:
        self._bring = bring
        self._sizes = sizes
        self._most = most
        self._least = least
        self._tell = changed
        self._changed = threading.Condition()
        self._plans: dict[Plan, deque[int]] = {}
        self._later: deque[int] = deque()
        self._threads: set[threading.Thread] = set()
        self._most_active = _FEWEST_CONNECTIONS
        self._n_active = 0

    def plan(self, blocks: NDArray[np.int64]) -> "RunningPlan":
        """Fetch ahead for a reader.

        Args:
            blocks: int64 (N,), the block of each sample, in the order of reading.
        """
        plan = Plan(blocks, self._sizes, self._most, self._least)
        with self._changed:
            self._plans[plan] = deque(plan.advance(0))
            self._start_threads()
        return RunningPlan(self, plan)

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
        waiting = sum(map(len, self._plans.values())) + len(self._later)
        while len(self._threads) < min(CONNECTIONS, waiting):
            thread = threading.Thread(target=self._work, name="iirc-fetch", daemon=True)
            self._threads.add(thread)
            _running.add(thread)
            thread.start()
        self._changed.notify_all()

    def _next(self) -> Job | None:
        if self._n_active >= self._most_active:
            return None
        for plan, todo in self._plans.items():
            while todo:
                if (block := todo.popleft()) in plan:
                    return Job(block, Evict.UNPINNED)
        return Job(self._later.popleft(), Evict.NOTHING) if self._later else None

    def _work(self) -> None:
        while (job := self._wait_for_job()) is not None:
            waited = None
            try:
                waited = self._bring(*job)
            except NoRoomError:
                self._put_back(job)
            except ShardError as error:  # the reader tries again, and raises
                logger.debug("cannot fetch ahead: %s", error)
            except BaseException:
                with self._changed:
                    self._threads.discard(threading.current_thread())
                raise
            finally:
                self._adapt(waited)

    def _adapt(self, waited: float | None) -> None:
        """Change the number of connections by the part of a transfer that was waiting."""
        with self._changed:
            self._n_active -= 1
            if waited is not None and waited > _MUCH_WAITING:
                self._most_active = min(self._most_active + 1, CONNECTIONS)
            elif waited is not None and waited < _LITTLE_WAITING:
                self._most_active = max(self._most_active - 1, _FEWEST_CONNECTIONS)
            self._changed.notify_all()

    def _wait_for_job(self) -> Job | None:
        """Return the next job; None ends the thread."""
        with self._changed:
            is_idle = False
            while (job := self._next()) is None or exiting.is_set():
                if is_idle or exiting.is_set():
                    self._threads.discard(threading.current_thread())
                    return None
                is_idle = not self._changed.wait(_IDLE_SECONDS)
            self._n_active += 1
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
    """A reader's handle of its plan."""

    def __init__(self, lookahead: Lookahead, plan: Plan) -> None:
        self._lookahead = lookahead
        self._plan = plan

    def advance(self, n: int) -> None:
        """Record that the reader has read ``n`` more samples."""
        self._lookahead.advance(self._plan, n)

    def close(self) -> None:
        """Stop fetching for this reader."""
        self._lookahead.end(self._plan)
