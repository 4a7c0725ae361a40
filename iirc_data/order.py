"""The order of an epoch's samples, a pure function of seed, epoch and rank."""

import numpy as np
from numpy.typing import NDArray

_ORDER_STREAM = 0
_BOUNDED_STREAM = 2
_PLACE = 1 << 24  # steps of a delay per place


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    """Return the order of an epoch.

    Args:
        n: Number of samples.
        seed: Seed of the run.
        epoch: Number of the epoch.
        shuffle: Draw a permutation; otherwise the order is 0 to n - 1.

    Returns:
        int64 (n,): the number of the sample at each position; each sample occurs once.
    """
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, epoch, _ORDER_STREAM]))
    )
    return generator.permutation(n)


def bounded_order(
    blocks: NDArray[np.int64], *, budget: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return an order of an epoch that works through a few blocks of the dataset at a time.

    The blocks are permuted. Each sample is delayed, from its block's place in that permutation, by
    a random number of places below ``budget``; samples follow in the order of the sums. So at each
    position at most ``budget`` blocks have begun and are not finished, and the first batches need
    few blocks. Samples in no block, such as memories, are spread evenly over the epoch.

    Args:
        blocks: int64 (n,), the number of the block that holds each sample, -1 for none.
        budget: Largest number of blocks at a time.
        seed: Seed of the run.
        epoch: Number of the epoch.

    Returns:
        int64 (n,): the number of the sample at each position; each sample occurs once.

    Raises:
        ValueError: ``budget`` is below 1.
    """
    if budget < 1:
        raise ValueError(f"expected a budget of at least 1 block, got {budget}")
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, epoch, _BOUNDED_STREAM]))
    )
    in_blocks = np.flatnonzero(blocks >= 0)
    found, which = np.unique(blocks[in_blocks], return_inverse=True)
    places = generator.permutation(len(found))[which]
    delays = generator.integers(budget * _PLACE, size=len(in_blocks))
    positions = generator.permutation(len(blocks))
    order = np.empty(len(blocks), np.int64)
    by_key = np.argsort(places * _PLACE + delays, kind="stable")
    order[np.sort(positions[: len(in_blocks)])] = in_blocks[by_key]
    order[positions[len(in_blocks) :]] = np.flatnonzero(blocks < 0)
    return order


def endless_order(n: int, *, seed: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return a section of an endless stream of permutations of all samples.

    Args:
        n: Number of samples, at least 1.
        seed: Seed of the run.
        start: First position of the section.
        stop: Position after the last.

    Returns:
        int64 (stop - start,): the number of the sample at each position. The positions k n to
        (k + 1) n - 1 hold each sample once.
    """
    first, last = start // n, -(-stop // n)
    passes = [epoch_order(n, seed=seed, epoch=k, shuffle=True) for k in range(first, last)]
    return np.concatenate([*passes, np.empty(0, np.int64)])[start - first * n : stop - first * n]


def memories_of_epoch(n: int, multiplier: float, seed: int, epoch: int) -> NDArray[np.int64]:
    """Choose the memories of an epoch.

    Each memory occurs ⌊multiplier⌋ times. For the fractional part, memories are drawn without
    replacement in each epoch.

    Args:
        n: Number of memories.
        multiplier: Memories per epoch, in multiples of n.
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
    """Return the positions in the epoch of each batch of one rank.

    Every rank has the same number of batches. The parts of all ranks together are the batches of
    :func:`global_batch_bounds`, divided as evenly as possible.

    Args:
        n: Number of positions in the epoch.
        batch_size: Samples per batch and rank.
        rank: Rank of this process.
        world_size: Number of processes.

    Returns:
        (start, stop) of each batch.

    Raises:
        ValueError: ``batch_size`` or ``world_size`` is below 1, or ``rank`` is out of range.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"expected batch_size >= 1 and 0 <= rank < world_size, "
            f"got batch_size={batch_size}, rank={rank}, world_size={world_size}"
        )
    bounds = []
    for start, stop in global_batch_bounds(n, batch_size, world_size):
        first, last = part_of_rank(stop - start, rank, world_size)
        bounds.append((start + first, start + last))
    return bounds


def part_of_rank(n: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return (start, stop) of one rank's part of n items, divided as evenly as possible."""
    share, rest = divmod(n, world_size)
    first = rank * share + min(rank, rest)
    return first, first + share + (rank < rest)


def global_batch_bounds(n: int, batch_size: int, world_size: int = 1) -> list[tuple[int, int]]:
    """Return the positions in the epoch of each batch of all ranks together.

    A batch is ``batch_size * world_size`` consecutive positions, and the last batch is the
    remainder. A remainder smaller than ``world_size`` would leave a rank without samples, so it is
    merged into the batch before it.

    Args:
        n: Number of positions in the epoch.
        batch_size: Samples per batch and rank.
        world_size: Number of processes.

    Returns:
        (start, stop) of each batch; empty if ``n`` is 0.
    """
    starts = list(range(0, n, batch_size * world_size))
    if len(starts) > 1 and n - starts[-1] < world_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True)) if starts else []
