"""Several processes of one run, forked in milliseconds, as ``torchrun`` would start them."""

import os
import socket
from collections.abc import Callable
from typing import Any

from tests.processes import CONTEXT

SECONDS = 240


def run_ranks(n: int, work: Callable[..., None], *arguments: Any) -> list[int]:
    """Run a function in n processes of a process group; return their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        CONTEXT.Process(target=_as_rank, args=(rank, n, port, work, arguments)) for rank in range(n)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _as_rank(rank: int, n: int, port: int, work: Callable[..., None], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    work(*arguments)
