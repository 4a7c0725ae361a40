"""Clusters of worker processes on this machine, whose lost workers are replaced."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

N_WORKERS = 2
_PATIENCE = 3.0


@contextmanager
def worker_processes(**scheduler: object) -> Iterator[Any]:
    """Start a cluster of two workers with one thread each.

    Its nannies start killed workers again. A worker that dies before its nanny knows that it has
    started, or that is cut off, is lost for good: another one is added, as by a batch system.
    """
    import distributed

    with distributed.LocalCluster(
        n_workers=N_WORKERS,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs="CRITICAL",
        scheduler_kwargs=scheduler,
    ) as cluster:
        ended = threading.Event()
        thread = threading.Thread(target=_replace, args=(cluster, ended), daemon=True)
        thread.start()
        try:
            yield cluster
        finally:
            ended.set()
            thread.join()


def _replace(cluster: Any, ended: threading.Event) -> None:
    while not ended.wait(_PATIENCE):
        if cluster.worker_spec and not cluster.scheduler.workers:
            cluster.scale(len(cluster.worker_spec) + 1)
