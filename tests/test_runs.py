"""Runs of consecutive numbers, against the same computed number by number."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.runs import Runs, joined, ranges, rows_by_value


@st.composite
def numbers_in_groups(draw) -> tuple[np.ndarray, np.ndarray]:
    """Distinct numbers in an order with longer and shorter runs, and the group of each."""
    lengths = draw(st.lists(st.integers(0, 9), max_size=12))
    gaps = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    starts = np.cumsum(np.add(gaps, [0, *lengths][: len(lengths)]), dtype=np.int64)
    order = draw(st.permutations(range(len(lengths))))
    parts = [np.arange(starts[i], starts[i] + lengths[i]) for i in order]
    numbers = np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)
    classes = st.lists(st.integers(0, 4), min_size=len(lengths), max_size=len(lengths))
    if draw(st.booleans()):
        groups = np.repeat(draw(classes), [lengths[i] for i in order])
    else:
        groups = draw(st.lists(st.integers(0, 4), min_size=len(numbers), max_size=len(numbers)))
    return numbers, np.asarray(groups, np.int32)


def of_each(runs: Runs) -> list[int]:
    """Return the group of each number."""
    return np.repeat(runs.groups, runs.lengths).tolist()


@given(numbers_in_groups())
@settings(max_examples=100, deadline=None)
def test_runs_are_the_same_numbers_in_few_pieces(found):
    numbers, groups = found
    runs = Runs.of(numbers, groups)
    assert runs.numbers().tolist() == numbers.tolist()
    assert of_each(runs) == groups.tolist()
    steps = zip(numbers, numbers[1:], groups, groups[1:], strict=False)
    breaks = sum(b != a + 1 or g != h for a, b, g, h in steps)
    assert len(runs.starts) == breaks + (len(numbers) > 0)
    assert runs.group_sizes().tolist() == [(groups == group).sum() for group in runs.groups]
    rows = Runs.of_rows(groups)
    assert rows.numbers().tolist() == list(range(len(groups)))
    assert of_each(rows) == groups.tolist()
    both = joined([runs, runs.shifted(1000)])
    assert both.numbers().tolist() == [*numbers, *(numbers + 1000)]


@given(numbers_in_groups(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_part_of_each_group_is_that_of_its_numbers(found, data):
    numbers, groups = found
    position = st.lists(st.integers(-1, 12), min_size=5, max_size=5)
    first, end = np.array(data.draw(position)), np.array(data.draw(position))
    runs = Runs.of(numbers, groups)
    part = runs.between(first[runs.groups], end[runs.groups])
    places = [int((groups[:i] == group).sum()) for i, group in enumerate(groups)]
    kept = [first[g] <= place < end[g] for place, g in zip(places, groups, strict=True)]
    assert part.numbers().tolist() == numbers[np.array(kept, bool)].tolist()
    assert of_each(part) == groups[np.array(kept, bool)].tolist()
    assert (part.lengths > 0).all()


@given(numbers_in_groups(), numbers_in_groups())
@settings(max_examples=100, deadline=None)
def test_numbers_of_several_groups_are_joined_in_ascending_order(one, other):
    runs = joined([Runs.of(*one), Runs.of(*other)])
    expected = np.unique(np.concatenate([one[0], other[0]]))
    assert runs.ascending().numbers().tolist() == expected.tolist()


@given(st.lists(st.integers(-3, 3), max_size=30))
@settings(max_examples=60, deadline=None)
def test_rows_are_grouped_by_value(values):
    array = np.array(values, np.int64)
    groups = rows_by_value(array)
    assert list(groups) == sorted(set(values))
    for value, rows in groups.items():
        np.testing.assert_array_equal(rows, np.flatnonzero(array == value))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_ranges_follow_each_other(steps):
    starts, lengths = np.array(steps, np.int64).reshape(-1, 2).T
    expected = [n for start, length in steps for n in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected
