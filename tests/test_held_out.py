"""The validation part of a task's samples and memories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iirc_train.buffer.held_out import hold_out


class Data:
    """Samples of new classes, shuffled by a seed; with the attributes of a task's data."""

    def __init__(self, counts, seed=0):
        self.cur_task, self.seed = list(counts), seed
        self.labels = np.repeat(list(counts), list(counts.values()))

    def __len__(self):
        return len(self.labels)

    def get_image_indices_by_cla(self, cla, num_samples=-1, shuffle=True):
        indices = np.flatnonzero(self.labels == cla)
        return np.random.default_rng(self.seed).permutation(indices) if shuffle else indices


class Memories:
    """Slots of memories, class after class."""

    def __init__(self, counts):
        self.n_memories_per_class = counts
        self.first = dict(zip(counts, np.cumsum([0, *counts.values()]), strict=False))

    def __len__(self):
        return sum(self.n_memories_per_class.values())

    def get_image_indices_by_class(self, name):
        return self.first[name] + np.arange(self.n_memories_per_class[name])


counts = st.lists(st.integers(0, 40), min_size=0, max_size=4)


@given(counts, st.lists(st.integers(1, 60), min_size=1, max_size=3), st.floats(0.01, 0.99))
def test_the_parts_are_disjoint_complete_and_balanced(earlier, new, fraction):
    buffer = Memories({f"old {i}": n for i, n in enumerate(earlier)})
    data = Data({f"new {i}": n for i, n in enumerate(new)})
    shown, held = hold_out(data, buffer, fraction)
    for ours, theirs, n in zip(shown, held, (len(data), len(buffer)), strict=True):
        assert ours.dtype == theirs.dtype == np.int64
        assert sorted([*ours, *theirs]) == list(range(n))
    expected = []
    for name, n in buffer.n_memories_per_class.items():
        found = np.isin(held.memories, buffer.get_image_indices_by_class(name)).sum()
        assert found <= max(1, fraction * n + 1e-6) and found > fraction * n - 1 - 1e-6
        assert (found > 0) == (n > 1) and found < max(n, 1)
        expected.append(found)
    n_held = max(expected, default=0)
    for name, n in zip(data.cur_task, new, strict=True):
        found = (data.labels[held.samples] == name).sum()
        assert found == min(n_held, n - 1)


def test_the_split_follows_from_seed_and_arguments_and_spreads_over_importance():
    data, buffer = Data({"a": 50, "b": 50}), Memories({"c": 20, "d": 21})
    first, again = (hold_out(data, buffer, 0.1) for _ in range(2))
    for ours, theirs in zip(first, again, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))
    _, held = first
    assert held.memories.tolist() == [5, 15, 20 + 5, 20 + 15]
    other = hold_out(Data({"a": 50, "b": 50}, seed=1), buffer, 0.1)[1]
    assert not np.array_equal(other.samples, held.samples) and len(other.samples) == 4


@pytest.mark.parametrize("buffer", [{}, {"c": 1, "d": 0}])
def test_nothing_is_held_out_without_memories_to_spare(buffer):
    shown, held = hold_out(Data({"a": 5}), Memories(buffer), 0.5)
    assert len(held.samples) == len(held.memories) == 0
    assert len(shown.samples) == 5 and len(shown.memories) == sum(buffer.values())
