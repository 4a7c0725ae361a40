"""Clusters of worker processes on this machine, whose lost workers are replaced."""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from tests.processes import CONTEXT

N_WORKERS = 2
_PAUSE = 0.1


class Workers:
    """Worker processes of one thread each, as a batch system starts them, without nannies.

    A nanny loses a worker that dies while it starts. Here a worker that has ended, for whatever
    reason, is replaced by another.

    Args:
        cluster: A cluster without workers.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._n_workers = N_WORKERS
        self._processes: list[BaseProcess] = []
        self._changed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the cluster, such as ``scheduler``."""
        return getattr(self._cluster, name)

    def scale(self, n: int) -> None:
        """Change the number of workers; those that are too many end at once."""
        self._n_workers = n
        self._changed.set()

    def process_id(self, address: str) -> int:
        """Return the process of a worker.

        Raises:
            ProcessLookupError: It has left.
        """
        worker = self._cluster.scheduler.workers.get(address)
        if worker is None:
            raise ProcessLookupError
        return int(worker.name)

    def close(self) -> None:
        """End all workers."""
        self._ended = True
        self.scale(0)
        self._thread.join()

    def _keep(self) -> None:
        while self._processes or not self._ended:
            self._processes = [process for process in self._processes if process.is_alive()]
            for process in self._processes[self._n_workers :]:
                process.kill()
                process.join()
            for _ in range(self._n_workers - len(self._processes)):
                arguments = (self._cluster.scheduler_address,)
                process = CONTEXT.Process(target=_work, args=arguments, daemon=True)
                process.start()
                self._processes.append(process)
            self._changed.wait(_PAUSE)
            self._changed.clear()


@contextmanager
def worker_processes(**scheduler: object) -> Iterator[Workers]:
    """Start a cluster of two workers."""
    import distributed

    with distributed.LocalCluster(
        n_workers=0,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        scheduler_kwargs=scheduler,
    ) as cluster:
        workers = Workers(cluster)
        try:
            yield workers
        finally:
            workers.close()


def _work(scheduler: str) -> None:
    import distributed

    async def until_closed() -> None:
        async with distributed.Worker(scheduler, nthreads=1, name=str(os.getpid())) as worker:
            await worker.finished()

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    asyncio.run(until_closed())
