"""Columns read like the arrays that they store in fewer bytes."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.shards import SampleTable
from iirc_data.shards.columns import packed

LIMITS = {"<i4": (-(2**31), 2**31 - 1), "<i8": (-(2**63), 2**63 - 1), "|u1": (0, 255)}


@st.composite
def arrays(draw) -> np.ndarray:
    """Integers of a column's dtype: in runs or not, multiples of 512 or not, near every limit."""
    dtype = draw(st.sampled_from(list(LIMITS)))
    low, high = LIMITS[dtype]
    near = [n + d for n in (0, 255, 2**16, 2**31, 2**32, low, high) for d in (-1, 0, 1, 512)]
    value = st.sampled_from([n for n in near if low <= n <= high])
    if draw(st.booleans()):
        value = st.integers(0, min(high // 512, 40)).map(lambda n: 512 * n)
    lengths = st.integers(1, draw(st.sampled_from([1, 60])))
    runs = draw(st.lists(st.tuples(value, lengths), max_size=12))
    return np.array([v for v, n in runs for _ in range(n)], dtype)


def pieces(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[start : start + size] for start in range(0, len(array), size)]


@given(arrays(), st.integers(1, 40), st.booleans(), st.sampled_from([1, 512]), st.data())
@settings(max_examples=60, deadline=None)
def test_a_column_reads_like_its_array(array, size, runs, unit, data):
    column = packed(array.dtype, len(array), pieces(array, size), runs=runs, unit=unit)
    n = len(array)
    assert column.dtype == array.dtype
    assert (len(column), column.shape) == (n, array.shape)
    row = st.integers(-n - 2, n + 2)
    step = st.sampled_from([None, 1, 2, 7, -1, -3])
    rows = slice(data.draw(st.none() | row), data.draw(st.none() | row), data.draw(step))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    some = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=9)) if n else [], np.int64)
    for key in (slice(None), rows, mask, some):
        found = column[key]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array[key])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(column)), array)
    np.testing.assert_array_equal(column == 512, array == 512)
    if n:
        assert (column[n - 1], column[-n]) == (array[-1], array[0])
        assert column[0].dtype == array.dtype
        assert (column.min(), column.max()) == (array.min(), array.max())
        assert column.tolist() == array.tolist()
    for key in (n, -n - 1, np.array([0, n]), np.array([-n - 1])):
        with pytest.raises(IndexError):
            column[key]


def test_a_table_takes_less_memory_than_its_arrays():
    n = 20_000
    numbers = np.random.default_rng(0).integers(1, 2**16, n)
    table = SampleTable.from_columns(
        {
            "shard": np.arange(n) // 500,
            "offset": np.arange(1, n + 1) * 512 * 400,
            "size": 512 * 300 + numbers,
            "class_id": np.arange(n) // 1000,
            "height": numbers,
            "width": numbers,
            "mode": numbers % 3,
        }
    )
    assert table.offset[-1] > 2**31
    assert len(pickle.dumps(table)) < 0.42 * n * (4 + 8 + 8 + 4 + 4 + 4 + 1)
