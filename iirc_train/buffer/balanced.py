"""The greedy balanced sampler: which samples of a stream to keep, as a pure function."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def balanced_slots(
    classes: NDArray[np.int64],
    kept: Sequence[int] | NDArray[np.int64],
    *,
    n_slots: int,
    generator: np.random.Generator,
) -> dict[int, int]:
    """Choose samples greedily, so that all classes seen so far have equally many.

    Prabhu et al., "GDumb: a simple approach that questions our progress in continual learning"
    (ECCV 2020), algorithm 1: a sample is kept if its class is new or has fewer than
    ``n_slots`` / (classes seen) samples. If there is no room, it replaces a random sample of the
    largest class; of several, a random one.

    Args:
        classes: int64 (N,), the class of each sample of the stream.
        kept: The class of the sample in each filled slot, from slot 0 on.
        n_slots: Number of places, at least 1.
        generator: Draws the samples that are replaced.

    Returns:
        Slot to the number of the sample, in the stream, that ends up there; other slots are as
        before.
    """
    slots_of: dict[int, list[int]] = {}
    for slot, name in enumerate(np.asarray(kept).tolist()):
        slots_of.setdefault(name, []).append(slot)
    n_kept, chosen = len(kept), {}
    for number, name in enumerate(classes.tolist()):
        is_new = name not in slots_of
        own = slots_of.setdefault(name, [])
        if not is_new and len(own) * len(slots_of) >= n_slots:
            continue
        if n_kept < n_slots:
            slot, n_kept = n_kept, n_kept + 1
        else:
            most = max(map(len, slots_of.values()))
            largest = [slots for slots in slots_of.values() if len(slots) == most]
            slots = largest[int(generator.integers(len(largest)))]
            slot = slots.pop(int(generator.integers(len(slots))))
        own.append(slot)
        chosen[slot] = number
    return chosen
