"""The order in which an epoch shows its samples: a pure function of seed, epoch and rank."""

import numpy as np
from numpy.typing import NDArray

_ORDER_STREAM = 0


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    """Return the order of an epoch.

    Args:
        n: Number of samples.
        seed: Seed of the run.
        epoch: Number of the epoch.
        shuffle: Draw a permutation; otherwise the order is 0 to n - 1.

    Returns:
        int64 (n,): at each place of the epoch, the number of a sample; each occurs once.
    """
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, epoch, _ORDER_STREAM]))
    )
    return generator.permutation(n)


def endless_order(n: int, *, seed: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return part of an endless stream that shows everything pass after pass.

    Args:
        n: Number of samples, at least 1.
        seed: Seed of the run.
        start: First place of the stream that is wanted.
        stop: Place after the last.

    Returns:
        int64 (stop - start,): at each place the number of a sample. Of the places k n to
        (k + 1) n - 1 each has another sample.
    """
    first, last = start // n, -(-stop // n)
    passes = [epoch_order(n, seed=seed, epoch=k, shuffle=True) for k in range(first, last)]
    return np.concatenate([*passes, np.empty(0, np.int64)])[start - first * n : stop - first * n]


def memories_of_epoch(n: int, multiplier: float, seed: int, epoch: int) -> NDArray[np.int64]:
    """Choose which memories an epoch shows.

    Each memory is shown ⌊multiplier⌋ times; what the fraction adds is drawn without replacement,
    anew each epoch.

    Args:
        n: Number of memories.
        multiplier: Memories shown per epoch, in multiples of n.
        seed: Seed of the draw.
        epoch: Number of the epoch.

    Returns:
        int64 (round(n * multiplier),), numbers of memories.
    """
    whole, rest = divmod(round(n * multiplier), max(n, 1))
    drawn = epoch_order(n, seed=seed, epoch=epoch, shuffle=True)[:rest]
    return np.concatenate([np.tile(np.arange(n), whole), drawn])


def batch_bounds(
    n: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[tuple[int, int]]:
    """Return the places of the epoch order that make up each batch of one rank.

    Every rank has the same number of batches. Batch by batch, the ranks' parts together are
    one of :func:`global_batch_bounds`, shared as evenly as can be.

    Args:
        n: Number of places in the epoch.
        batch_size: Samples per batch and rank.
        rank: This process's number.
        world_size: Number of processes.

    Returns:
        (start, stop) for each batch.

    Raises:
        ValueError: ``batch_size`` or ``world_size`` is below 1, or there is no such rank.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"expected batch_size >= 1 and 0 <= rank < world_size, "
            f"got batch_size={batch_size}, rank={rank}, world_size={world_size}"
        )
    bounds = []
    for start, stop in global_batch_bounds(n, batch_size, world_size):
        share, rest = divmod(stop - start, world_size)
        first = start + rank * share + min(rank, rest)
        bounds.append((first, first + share + (rank < rest)))
    return bounds


def global_batch_bounds(n: int, batch_size: int, world_size: int = 1) -> list[tuple[int, int]]:
    """Return the places of the epoch order that make up each batch of all ranks together.

    A batch is ``batch_size * world_size`` consecutive places; the last one is what remains.
    Fewer places than ranks would leave a rank without a batch: they are added to the batch before.

    Args:
        n: Number of places in the epoch.
        batch_size: Samples per batch and rank.
        world_size: Number of processes.

    Returns:
        (start, stop) for each batch; none where there are no places.
    """
    starts = list(range(0, n, batch_size * world_size))
    if len(starts) > 1 and n - starts[-1] < world_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True)) if starts else []
