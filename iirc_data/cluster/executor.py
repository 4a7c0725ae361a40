"""An executor on a dask.distributed cluster that survives lost workers and a lost scheduler."""

import asyncio
import itertools
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from distributed import Client
from distributed.scheduler import KilledWorker

from iirc_data.cluster.attempt import AbandonedError, UnfitWorkerError, attempt
from iirc_data.cluster.connection import check_workers, connect
from iirc_data.cluster.environment import environment
from iirc_data.cluster.notes import told_of_problems
from iirc_data.cluster.turns import Turns
from iirc_data.errors import ClusterError, LostWorkersError

Result = TypeVar("Result")

_PAUSE = 0.2
_CLOSE_SECONDS = 10.0


class _Work(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


class ClusterExecutor(Executor):
    """Runs functions on the workers of a cluster, each until one attempt returns or raises.

    Work whose worker is lost starts again on another worker, and so does all unfinished work when
    the scheduler starts again. dask gives up on work that was on four workers when they were lost,
    even if it only ran or waited there beside the work that caused the loss. Such work gets another
    chance at the end, alone; if it loses its workers again, it fails, and only it.

    A function may therefore start again while an earlier attempt has not ended yet; see
    :mod:`iirc_data.cluster.attempt` for what it must do about that.

    Args:
        address: Address of the scheduler.
        note: Called with a line of text when the work waits for something.
        progress: Maps the arguments of a function to a value that changes as its work advances,
            such as the time of its last checkpoint. Work that advances is never given up.

    Raises:
        ClusterError: No scheduler answers, or a worker has other versions than this process.
    """

    def __init__(
        self,
        address: str,
        note: Callable[[str], None],
        progress: Callable[..., object] = lambda *arguments: None,
    ) -> None:
        self._note = note
        self._progress = progress
        # dask holds back work of one group; of single tasks, it gives each worker its share at
        # once, and blames all of them when the worker is lost
        self._group, self._numbers = f"iirc-{uuid.uuid4().hex}", itertools.count()
        self._running: set[asyncio.Task[Any]] = set()
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._wait_for(self._begin(address))
        except BaseException:
            self.shutdown()
            raise

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Run a function on a worker; see :class:`concurrent.futures.Executor`.

        The future raises :class:`~iirc_data.errors.LostWorkersError` if every worker that takes
        the work is lost, and :class:`~iirc_data.errors.ClusterError` if the scheduler is lost.
        """
        return asyncio.run_coroutine_threadsafe(self._run(_Work(fn, args, kwargs)), self._loop)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Cancel all work that has not ended, and disconnect.

        The workers notice by :func:`~iirc_data.cluster.attempt.is_abandoned`.
        """
        if self._thread.is_alive():
            with suppress(Exception):  # the scheduler may be gone
                self._wait_for(self._end())
            self._end_loop()

    async def _begin(self, address: str) -> None:
        self._turns = Turns()
        self._client = await connect(address)
        await check_workers(self._client)
        watch = told_of_problems(self._client, lambda: len(self._running) - 1, self._note)
        self._running.add(asyncio.ensure_future(watch))

    async def _run(self, work: _Work) -> Any:
        this = asyncio.current_task()
        assert this is not None
        self._running.add(this)
        this.add_done_callback(self._running.discard)
        alone = False
        while True:
            before = await self._position(work)
            try:
                async with self._turns.take(alone=alone):
                    return await self._attempt(work)
            except KilledWorker as error:
                if await self._position(work) != before:
                    alone = False
                elif alone:
                    raise LostWorkersError(_reason(error)) from None
                else:
                    alone = True

    async def _position(self, work: _Work) -> object:
        return await asyncio.to_thread(self._progress, *work.arguments)

    async def _attempt(self, work: _Work) -> Any:
        while True:
            client = await self._connected()
            key = self._group, next(self._numbers)
            future = client.submit(attempt, environment(), *work, key=key, pure=False)
            try:
                return await future
            except CancelledError:  # dask's: the scheduler is lost, or has started again
                await asyncio.sleep(_PAUSE)
            except AbandonedError:  # its worker leaves the cluster
                await asyncio.sleep(_PAUSE)
            except UnfitWorkerError as error:  # it joined later
                self._note(f"no work for a worker: {error}")
                await client.retire_workers([error.worker], close_workers=True)
            except (ImportError, RuntimeError) as error:
                if isinstance(error, ImportError) or "deserialization" in str(error):
                    raise ClusterError(
                        f"a worker or the scheduler cannot load the work ({error}): install the "
                        "same packages on every machine, then start them again"
                    ) from error
                raise
            finally:
                future.release()

    async def _connected(self) -> Client:
        assert self._client is not None
        while self._client.status == "connecting":
            await asyncio.sleep(_PAUSE)
        if self._client.status != "running":
            raise ClusterError(
                "the scheduler is lost and has not answered for minutes: start it and its workers, "
                "then run the same command again to resume"
            )
        return self._client

    async def _end(self) -> None:
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close(timeout=_CLOSE_SECONDS)

    def _wait_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)


def _reason(error: KilledWorker) -> str:
    return (
        f"{error.allowed_failures + 1} workers in turn were lost while they did nothing else, the "
        f"last one {error.last_worker.address}: perhaps it needs more memory than they have"
    )
