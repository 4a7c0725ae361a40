"""A piece of work on the worker that does it, which may be taken away from the worker.

A worker that is cut off from its scheduler still runs, while the scheduler gives its work to
another. Work that writes files therefore holds a lock while it writes, waits up to
:func:`patience` for the lock of an earlier attempt, and calls :func:`stop_if_abandoned` often.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from iirc_data.cluster.environment import differences, environment
from iirc_data.errors import ClusterError

_PATIENCE = 1800.0  # seconds; file servers release the locks of a dead machine after minutes


class AbandonedError(ClusterError):
    """The cluster has taken this work away from this worker, or its command has ended."""


class UnfitWorkerError(ClusterError):
    """A worker has other versions than the command.

    Args:
        worker: Address of the worker.
        reason: What differs.
    """

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker = worker

    def __str__(self) -> str:
        worker, reason = self.args
        return (
            f"the worker {worker} has {reason}: install the same versions on every machine, then "
            "start the worker again"
        )


def attempt(
    expected: Mapping[str, str],
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Any:
    """Do a piece of work on a worker.

    Args:
        expected: Versions of the command's packages.
        work: The function to call.
        arguments: Its positional arguments.
        options: Its keyword arguments.

    Raises:
        UnfitWorkerError: The worker has other versions.
    """
    if reason := differences(expected, environment()):
        raise UnfitWorkerError(_worker().address, reason)
    return work(*arguments, **options)


def is_abandoned() -> bool:
    """Return whether the cluster no longer waits for the work of this thread.

    Always False outside a cluster.
    """
    worker = _worker()
    if worker is None:
        return False
    try:
        task = worker.state.tasks.get(worker.get_current_task())
    except (AttributeError, KeyError):
        return True
    is_connected = worker.status.name in ("running", "paused")
    return not is_connected or task is None or task.state not in ("executing", "long-running")


def stop_if_abandoned() -> None:
    """Do nothing, unless the cluster no longer waits for the work of this thread.

    Raises:
        AbandonedError: It does not.
    """
    if is_abandoned():
        raise AbandonedError("the cluster has given this work to another worker, or cancelled it")


def patience() -> float:
    """Return for how many seconds to wait for the lock of an earlier attempt; 0 off clusters."""
    return 0.0 if _worker() is None else _PATIENCE


def _worker() -> Any:
    """Return the dask worker that runs this thread, or None."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        return module.get_worker()
    except ValueError:
        return None
