"""Worker processes that never outlive the one that started them."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread

from iirc_data.errors import ShardError


@contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Start worker processes; they end at once where the block is left by an exception.

    Args:
        workers: Number of processes.

    Raises:
        ShardError: A worker was killed from outside.
    """
    context = get_context("spawn")  # a forked child may inherit another thread's held lock
    # what the lifeline's end says, it says to workers of a killed parent too
    lifeline, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _end_with_lifeline, (lifeline,))
    try:
        yield executor
    except BrokenProcessPool as error:
        raise ShardError(
            "a worker process was killed, perhaps for want of memory: run the same command again "
            "with fewer workers; finished classes are kept"
        ) from error
    except BaseException:
        held.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        lifeline.close()


def _end_with_lifeline(lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the first decides
    Thread(target=_watch, args=(lifeline,), daemon=True).start()


def _watch(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
