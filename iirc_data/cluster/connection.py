"""Connecting to a dask.distributed cluster."""

import asyncio
from contextlib import suppress
from typing import Any

from iirc_data.cluster.attempt import UnfitWorkerError
from iirc_data.cluster.environment import differences, environment
from iirc_data.errors import ClusterError

_CONNECT_SECONDS = 30.0
_RECONNECT_SECONDS = 300.0


async def connect(address: str) -> Any:
    """Return a client of a scheduler that reconnects if the scheduler is lost for some minutes.

    Raises:
        ClusterError: No scheduler answers.
    """
    from distributed import Client

    client = None
    try:
        client = Client(
            address, asynchronous=True, set_as_default=False, timeout=_RECONNECT_SECONDS
        )
        await asyncio.wait_for(client, _CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        if client is not None:
            with suppress(OSError, TimeoutError):
                await client.close(timeout=1)
        cause = str(error) or f"no connection within {_CONNECT_SECONDS:g} s"
        raise ClusterError(
            f"no dask scheduler answers at {address}: {cause}; start one with: dask scheduler"
        ) from error
    return client


async def check_workers(client: Any) -> None:
    """Check that all workers have the versions of this process.

    Raises:
        ClusterError: One has others, or lacks this package.
    """
    found = await client.run(environment, on_error="return")
    for worker, versions in found.items():
        if isinstance(versions, OSError):
            continue  # the worker has just been lost; workers are checked again when they take work
        if isinstance(versions, BaseException):
            raise UnfitWorkerError(worker, f"an error: {versions!r}")
        if reason := differences(environment(), versions):
            raise UnfitWorkerError(worker, reason)
