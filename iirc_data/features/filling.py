"""Filling an array of features: processes that need the same features share the work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import InUseError
from iirc_data.features.array import FeatureArray

Rows = NDArray[np.int64]

Compute = Callable[[Rows], Iterator[NDArray[np.float32]]]
"""Yields the features of rows, (n, D) each time, in the order of the rows."""

_SHARE = 4  # one process takes at most this fraction of what is missing at a time


def load(array: FeatureArray, rows: Rows) -> Rows:
    """Load rows that are in the cache; return those that are not.

    Args:
        array: The features.
        rows: int64 (N,), ascending.

    Raises:
        ShardError: The cache cannot be read.
    """
    for chunk in array.chunks_of(rows).tolist():
        array.load(chunk)
    return rows[~array.present[rows]]


def fill(
    array: FeatureArray,
    rows: Rows,
    compute: Compute,
    progress: Callable[[int, int, int], None] = lambda computed, left, total: None,
) -> int:
    """Load rows, and compute those that are not in the cache.

    Each chunk is computed by one process, which writes it as soon as its rows are there. Other
    processes meanwhile compute other chunks, and wait only when none is left. If a process dies,
    another one computes what it held. On an interrupt, a chunk that is computed in part is
    written, so that no row reported to ``progress`` is lost.

    Args:
        array: The features.
        rows: int64 (N,), ascending.
        compute: Computes features.
        progress: Called with the number of rows that this process has computed, the number of
            those that are left to all processes, and the number of all rows. Not called if no row
            is missing.

    Returns:
        The number of rows that this process has computed.

    Raises:
        ShardError: The cache cannot be read or written.
    """
    n_computed = 0
    load(array, rows)
    while len(missing := rows[~array.present[rows]]):
        progress(n_computed, len(missing), len(rows))
        with ExitStack() as held:
            claimed = _claimed(array, missing, held)
            any_claimed = bool(claimed)
            todo = missing[np.isin(missing // array.rows_per_chunk, list(claimed))]
            todo = load(array, todo)  # another process may have written some meanwhile
            n_left = int((~array.present[rows]).sum())
            try:
                for n_new in _computed(array, todo, compute, claimed):
                    n_computed += n_new
                    n_left -= n_new
                    progress(n_computed, n_left, len(rows))
            except KeyboardInterrupt:
                for chunk in array.chunks_of(todo[array.present[todo]]).tolist():
                    if chunk in claimed:  # not written yet
                        array.save(chunk)
                raise
        if not any_claimed:
            first = int(array.chunks_of(missing)[0])
            with array.held(first):  # the process that computes it has ended or finished it
                array.load(first)
    return n_computed


def _claimed(array: FeatureArray, missing: Rows, held: ExitStack) -> dict[int, ExitStack]:
    """Hold some of the chunks that no other process holds; each can be released by itself."""
    chunks = array.chunks_of(missing).tolist()
    claimed: dict[int, ExitStack] = {}
    for chunk in chunks:
        if len(claimed) >= max(1, len(chunks) // _SHARE):
            break
        own = held.enter_context(ExitStack())
        try:
            own.enter_context(array.held(chunk, patience=0))
        except InUseError:
            continue
        claimed[chunk] = own
    return claimed


def _computed(
    array: FeatureArray, rows: Rows, compute: Compute, claimed: dict[int, ExitStack]
) -> Iterator[int]:
    """Compute rows, write and release each chunk when it is complete; yield numbers of rows."""
    if not len(rows):
        return
    chunks = rows // array.rows_per_chunk
    n_done = 0
    for features in compute(rows):
        before, n_done = n_done, n_done + len(features)
        array.values[rows[before:n_done]] = features
        array.present[rows[before:n_done]] = True
        open_chunk = chunks[n_done] if n_done < len(rows) else -1
        for chunk in np.unique(chunks[before:n_done]).tolist():
            if chunk != open_chunk:
                array.save(chunk)
                claimed.pop(chunk).close()
        yield n_done - before
