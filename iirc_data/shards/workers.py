"""Worker processes, which never outlive the process that started them."""

import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from iirc_data.errors import ShardError
from iirc_data.lifeline import exit_after

Result = TypeVar("Result")

_REMEDY = "define it in a module of its own and import it from there, or use workers=1"


@contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Start worker processes; if the block raises, they end at once.

    Args:
        workers: Number of processes.

    Raises:
        ShardError: A worker was killed from outside, or none could start.
    """
    context = get_context("spawn")  # a forked child could inherit a lock that another thread holds
    # if the parent is killed, the lifeline closes too and its workers end
    lifeline, held = context.Pipe(duplex=False)
    started = context.Event()
    executor = ProcessPoolExecutor(workers, context, _begin_work, (lifeline, started))
    try:
        yield executor
    except BrokenProcessPool as error:
        if not started.is_set():
            raise ShardError(
                "worker processes ended during their start and printed the reason; in a script, "
                "call write_shards under if __name__ == '__main__':, because each worker imports "
                "the script"
            ) from error
        raise ShardError(
            "a worker process was killed, perhaps for lack of memory: run the same command again "
            "with fewer workers; finished classes are kept"
        ) from error
    except BaseException:
        held.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        lifeline.close()


def for_worker_processes(work: Callable[..., Result]) -> Callable[..., Result]:
    """Return a version of a function that can be sent to worker processes.

    Args:
        work: The function, with the objects that it needs, such as a source.

    Raises:
        ShardError: The function cannot be pickled, or other processes cannot import its classes,
            for example those of a notebook. In a worker: it cannot be unpickled.
    """
    try:
        data = pickle.dumps(work)
    except Exception as error:  # each type raises its own
        raise ShardError(
            f"the source cannot be sent to worker processes ({error}): {_REMEDY}"
        ) from error
    main = sys.modules["__main__"]
    file = None if main.__spec__ else getattr(main, "__file__", None)
    if b"__main__" in data and not (main.__spec__ or file):
        raise ShardError(
            "the source's class is defined in a notebook or an interactive session, from which "
            f"worker processes cannot import it: {_REMEDY}"
        )
    if file and not Path(file).exists():  # "<stdin>"
        raise ShardError(
            f"worker processes cannot start from {file}, which is not a file: save the program "
            "as a file, or use workers=1"
        )
    return partial(_call_pickled, data)


def _call_pickled(data: bytes, *arguments: Any) -> Any:
    return _unpickle(data)(*arguments)


@lru_cache(maxsize=1)  # all jobs of a worker have the same
def _unpickle(data: bytes) -> Callable[..., Any]:
    # the bytes come from this worker's parent process, never from a file or the network
    try:
        work: Callable[..., Any] = pickle.loads(data)
    except Exception as error:  # each type raises its own
        raise ShardError(
            "worker processes cannot import the source's class "
            f"({type(error).__name__}: {error}): {_REMEDY}"
        ) from error
    return work


def _begin_work(lifeline: Connection, started: Any) -> None:
    started.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    exit_after(lifeline.recv)
