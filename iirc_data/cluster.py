"""Work on a dask.distributed cluster."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from iirc_data.errors import ClusterError

_CONNECT_SECONDS = 30


@contextmanager
def cluster_executor(scheduler: str | None) -> Iterator[Executor | None]:
    """Connect to a cluster.

    Args:
        scheduler: Address of its scheduler, such as ``tcp://host:8786``; None for no cluster.

    Yields:
        The executor that runs the work; None without a cluster.

    Raises:
        ClusterError: dask.distributed is not installed, or no scheduler answers.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            "--scheduler needs dask.distributed: pip install 'iirc-pipeline[cluster]'"
        ) from error
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no dask scheduler answers at {scheduler}: {error}") from error
    with client:
        # pure=False: dask must not reuse an earlier result, because files may have changed
        yield client.get_executor(pure=False)
