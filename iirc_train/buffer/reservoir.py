"""Reservoir sampling and draws of memories, as pure functions of seed and position.

No decision depends on an earlier one or on the number of processes, so that a run can resume at any
step, and all processes decide alike.
"""

import numpy as np
from numpy.typing import NDArray

_RESERVOIR_STREAM = 3  # separates these random numbers from other draws of a seed
_DRAW_STREAM = 4
_PHILOX_BLOCK = 4  # numbers per step of the Philox counter


def reservoir_slots(start: int, stop: int, *, n_slots: int, seed: int) -> NDArray[np.int64]:
    """Decide which samples of a stream enter a reservoir, and where.

    Vitter, "Random sampling with a reservoir" (ACM TOMS 1985), algorithm R: the first ``n_slots``
    samples fill the reservoir; sample k, counted from 0, replaces a random one with probability
    ``n_slots`` / (k + 1). At any time, every sample of the stream so far is in the reservoir with
    the same probability.

    Args:
        start: Position in the stream of the first sample.
        stop: Position after the last.
        n_slots: Number of places.
        seed: Seed of the run.

    Returns:
        int64 (stop - start,): the slot of each sample; ``n_slots`` if it does not enter.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, _RESERVOIR_STREAM]))
    bits.advance(start)
    random = np.random.Generator(bits).random((stop - start, _PHILOX_BLOCK))[:, 0]
    positions = np.arange(start, stop)
    drawn = (random * (positions + 1)).astype(np.int64)
    return np.where(positions < n_slots, positions, np.minimum(drawn, n_slots))


def without_replaced(slots: NDArray[np.int64], n_slots: int) -> NDArray[np.int64]:
    """Drop the samples of a step that a later sample of the same step replaces.

    Args:
        slots: int64 (N,), the slot of each sample; ``n_slots`` if it does not enter.
        n_slots: Number of places.

    Returns:
        int64 (N,), in which every slot below ``n_slots`` occurs once.
    """
    _, last = np.unique(slots[::-1], return_index=True)
    kept = np.full_like(slots, n_slots)
    places = len(slots) - 1 - last
    kept[places] = slots[places]
    return kept


def drawn_slots(
    n: int, size: int, *, seed: int, epoch: int, position: int, draw: int
) -> NDArray[np.int64]:
    """Draw memories for a step, uniformly and without replacement.

    Args:
        n: Number of memories; they are in the slots 0 to n - 1.
        size: Number of memories to draw; if there are fewer, all are drawn.
        seed: Seed of the run.
        epoch: Number of the epoch, across all tasks.
        position: Position in the epoch at which the step starts.
        draw: Number of the draw within the step.

    Returns:
        int64 (min(n, size),).
    """
    key = np.random.SeedSequence([seed, epoch, position, draw, _DRAW_STREAM])
    generator = np.random.Generator(np.random.Philox(key))
    return generator.choice(n, min(n, size), replace=False)
