"""Working on many files in parallel, with one byte count and a prompt stop when one fails."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BytesDone = Callable[[int], None]
"""Called with the number of bytes done since the last call."""
TotalProgress = Callable[[int, int], None]
"""Called with the number of bytes done so far and the total number of bytes."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


def for_each(
    work: Callable[[Item, BytesDone], Result],
    items: Sequence[Item],
    *,
    workers: int | None,
    total: int,
    progress: TotalProgress,
) -> list[Result]:
    """Run a function on every item, in threads.

    If one call raises, the others stop when they next report bytes.

    Args:
        work: Function of an item and of a function that reports bytes.
        items: The items.
        workers: Number of threads; None for the executor's default.
        total: Total number of bytes of all items.
        progress: Called with the bytes done, by one thread at a time.

    Returns:
        The results, in the order of the items.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    stopped = threading.Event()
    lock = threading.Lock()
    all_done = 0

    def advance(size: int) -> None:
        nonlocal all_done
        if stopped.is_set() and size > 0:
            raise CancelledError
        with lock:
            all_done += size
            progress(all_done, total)

    with ThreadPoolExecutor(workers) as executor:
        futures: list[Future[Result]] = [executor.submit(work, item, advance) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stopped.set()
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
