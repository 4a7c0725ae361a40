"""Work on a dask.distributed cluster that survives the loss of workers.

:mod:`~iirc_data.cluster.executor` hands out the work, for a command. On the worker that does it,
:mod:`~iirc_data.cluster.attempt` shows whether it is still wanted.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from iirc_data.errors import ClusterError

_log = logging.getLogger("iirc_data").warning


@contextmanager
def cluster_executor(
    scheduler: str | None,
    note: Callable[[str], None] = _log,
    progress: Callable[..., object] = lambda *arguments: None,
) -> Iterator[Executor | None]:
    """Connect to a cluster; at the end of the block, cancel what it has not finished.

    Args:
        scheduler: Address of its scheduler, such as ``tcp://host:8786``; None for no cluster.
        note: See :class:`~iirc_data.cluster.executor.ClusterExecutor`.
        progress: See :class:`~iirc_data.cluster.executor.ClusterExecutor`.

    Yields:
        The executor that runs the work; None without a cluster.

    Raises:
        ClusterError: dask.distributed is not installed, no scheduler answers, or a worker has
            other versions than this process.
    """
    if scheduler is None:
        yield None
        return
    try:
        import distributed  # noqa: F401

        from iirc_data.cluster.executor import ClusterExecutor
    except ImportError as error:
        raise ClusterError(
            "--scheduler needs dask.distributed: pip install 'iirc-pipeline[cluster]'"
        ) from error
    with ClusterExecutor(scheduler, note, progress) as executor:
        yield executor
