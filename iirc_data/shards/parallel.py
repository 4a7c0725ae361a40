"""Working on many files at once, with one count of bytes and a prompt end when one fails."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BytesDone = Callable[[int], None]
"""Called with the number of bytes that were handled since the last call."""
TotalProgress = Callable[[int, int], None]
"""Called with the bytes done so far and the bytes that there are to do."""


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
    """Run a function on every item, on threads.

    Where one raises, the others are stopped when they next report bytes.

    Args:
        work: Takes an item and a function to report bytes to.
        items: What to work on.
        workers: Number of threads; None for the executor's default.
        total: Bytes of all items.
        progress: Told of the bytes done, by one thread at a time.

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
