"""Threads that process images, and the division of a batch among them."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Barrier

import torch

_MOST_AT_ONCE = 8  # images per task: few tasks, and all threads finish at about the same time


def image_threads(n: int, name: str) -> ThreadPoolExecutor:
    """Start threads in which torch's operators run on one thread.

    By default torch divides an operator among as many threads as there are processors, in every
    thread that calls it. On images, these threads wait for each other longer than they work.

    Args:
        n: Number of threads.
        name: Prefix of their names.
    """
    pool, n_torch, all_started = ThreadPoolExecutor(n, name), torch.get_num_threads(), Barrier(n)
    for task in [pool.submit(_use_one_thread, all_started) for _ in range(n)]:
        task.result()
    torch.set_num_threads(n_torch)  # a thread's setting becomes the default of later threads
    return pool


def _use_one_thread(all_started: Barrier) -> None:
    all_started.wait()  # every thread of the pool takes one of these tasks
    torch.get_num_threads()  # the first use in a thread overrides what was set before it
    torch.set_num_threads(1)


def submit_parts(
    pool: Executor, n: int, threads: int, work: Callable[[range], None]
) -> list[Future[None]]:
    """Call a function for the numbers from 0 to ``n - 1``, a few in each call.

    Args:
        pool: Calls it.
        n: Count of the numbers.
        threads: Number of threads of the pool.
        work: The function.

    Returns:
        The tasks, in the order of their numbers.
    """
    at_once = max(1, min(_MOST_AT_ONCE, -(-n // threads)))
    parts = [range(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    return [pool.submit(work, part) for part in parts]
