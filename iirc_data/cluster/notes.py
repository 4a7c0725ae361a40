"""Reports of what the work on a cluster waits for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_FIRST_NOTE_SECONDS = 30.0
_LONGEST_SILENCE = 3600.0
_TICK = 1.0


async def told_of_problems(
    client: Any, n_waiting: Callable[[], int], note: Callable[[str], None]
) -> None:
    """Report, for as long as it lasts, that work waits for a scheduler or for workers.

    Args:
        client: Client of the cluster.
        n_waiting: Returns the number of unfinished tasks.
        note: Called with a line of text, less and less often.
    """
    lasting, next_note = 0.0, _FIRST_NOTE_SECONDS
    while True:
        await asyncio.sleep(_TICK)
        problem = await _problem(client, n_waiting())
        if problem:
            lasting += _TICK
            if lasting >= next_note:
                note(problem)
                next_note += min(next_note, _LONGEST_SILENCE)
        else:
            if lasting >= _FIRST_NOTE_SECONDS:
                note("the cluster works again")
            lasting, next_note = 0.0, _FIRST_NOTE_SECONDS


async def _problem(client: Any, n_waiting: int) -> str:
    if not n_waiting:
        return ""
    address = client.scheduler.address if client.scheduler else "the scheduler"
    with suppress(Exception):  # whatever dask raises while it reconnects
        if client.status == "running" and await client.nthreads():
            return ""
    if client.status != "running":
        return f"{address} does not answer: start the scheduler and its workers again"
    return (
        f"no worker is connected to {address}, and {n_waiting} tasks wait: start workers with "
        f"`dask worker {address}`, or stop with Ctrl-C; finished work is kept"
    )
