"""What the buffer of a run holds, as plain arrays that tests compare."""

import json
from pathlib import Path

import numpy as np

from iirc_train.buffer.reference_store import ReferenceStore
from iirc_train.buffer.store import BufferStore


def stored_memories(path: Path) -> tuple[dict[str, int], dict[str, object]]:
    """Return the counts of the last generation, and its memories."""
    version = json.loads((path / "zarr.json").read_text())["attributes"]["version"]
    if version in ReferenceStore.readable_versions:
        return _references(ReferenceStore(path))
    store = BufferStore(path)
    counts = store.counts(max(store.generations()))
    found = {}
    for number, name in enumerate(counts):
        for key, value in vars(store.read_class(number, name)).items():
            found[f"{name}/{key}"] = value
    return counts, found


def _references(store: ReferenceStore) -> tuple[dict[str, int], dict[str, object]]:
    generation = store.generation(max(store.generations()))
    found: dict[str, object] = {"n_seen": generation.n_seen}
    for number in generation.segments:
        segment = store.read_segment(number)
        names = [*segment.label_names, None]
        for row, slot in enumerate(segment.slots.tolist()):
            labels = [names[code] for code in segment.labels[row]]
            found[f"{slot}/reference"] = [segment.sample_ids[row], segment.tasks[row], *labels]
            for column, values in segment.columns.items():
                kept = values[row]
                found[f"{slot}/{column}"] = kept[~np.isnan(kept)]
    return dict(generation.counts), found


def assert_equal_memories(path: Path, expected: Path, tolerance: float = 0) -> None:
    (counts, ours), (expected_counts, theirs) = map(stored_memories, (path, expected))
    assert counts == expected_counts
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if getattr(value, "dtype", np.dtype(int)).kind == "f":
            np.testing.assert_allclose(ours[name], value, atol=tolerance, rtol=tolerance)
        else:
            assert np.array_equal(ours[name], value), name
