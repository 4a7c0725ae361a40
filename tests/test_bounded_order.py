"""The bounded order: every sample once, few blocks at a time, a pure function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.loader import make_loader
from iirc_data.order import batch_bounds, bounded_order, epoch_order
from tests.test_streaming import local, surroundings, view_of  # noqa: F401

block_lists = st.lists(st.integers(-1, 12), max_size=120)


def begun_and_unfinished(blocks: np.ndarray) -> int:
    """Return the largest number of blocks that are begun and not finished at any position."""
    in_blocks = blocks[blocks >= 0]
    first = {b: i for i, b in reversed(list(enumerate(in_blocks.tolist())))}
    last = {b: i for i, b in enumerate(in_blocks.tolist())}
    return max(
        (sum(first[b] <= i <= last[b] for b in first) for i in range(len(in_blocks))), default=0
    )


@given(block_lists, st.integers(1, 6), st.integers(0, 2**40), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_each_sample_once_and_never_more_blocks_than_the_budget(blocks, budget, seed, epoch):
    blocks = np.array(blocks, np.int64)
    order = bounded_order(blocks, budget=budget, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(len(blocks)))
    assert begun_and_unfinished(blocks[order]) <= budget
    again = bounded_order(blocks.copy(), budget=budget, seed=seed, epoch=epoch)
    assert (order == again).all()


def test_orders_differ_between_epochs_seeds_and_from_the_exact_one():
    blocks = np.repeat(np.arange(30), 20)
    orders = [
        bounded_order(blocks, budget=8, seed=seed, epoch=epoch)
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ] + [epoch_order(len(blocks), seed=0, epoch=0, shuffle=True)]
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_samples_of_a_block_are_mixed_with_those_of_other_blocks():
    blocks = np.repeat(np.arange(200), 40)
    shown = blocks[bounded_order(blocks, budget=64, seed=0, epoch=0)]
    batches = shown[2000:-2000].reshape(-1, 50)
    assert np.mean([len(set(batch.tolist())) for batch in batches]) > 30


def test_memories_are_spread_evenly_over_the_epoch():
    blocks = np.r_[np.repeat(np.arange(100), 20), np.full(1000, -1)]
    shown = blocks[bounded_order(blocks, budget=4, seed=3, epoch=0)]
    per_third = (shown == -1).reshape(3, -1).sum(axis=1)
    assert (abs(per_third - 1000 / 3) < 75).all()


def test_the_first_batches_need_few_blocks():
    blocks = np.repeat(np.arange(100), 40)
    shown = blocks[bounded_order(blocks, budget=16, seed=0, epoch=0)]
    assert len(set(shown[:32].tolist())) < 12


def test_a_budget_below_one_block_is_refused():
    with pytest.raises(ValueError, match="at least 1 block"):
        bounded_order(np.zeros(3, np.int64), budget=0, seed=0, epoch=0)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loader_shows_the_bounded_order_shared_among_processes(
    local,  # noqa: F811
    tiny_benchmark,
    world_size,
):
    view = view_of(local)
    blocks = local.blocks.of_samples(view.sample_ids)
    expected = view.sample_ids[bounded_order(blocks, budget=2, seed=5, epoch=1)]
    n = len(view)
    for rank in range(world_size):
        loader = make_loader(
            view,
            local,
            transforms=tiny_benchmark.image_preset,
            train=True,
            batch_size=8,
            order="bounded",
            order_blocks=2,
            seed=5,
            rank=rank,
            world_size=world_size,
            decoder="pillow",
        )
        loader.set_epoch(1)
        bounds = batch_bounds(n, 8, rank, world_size)
        for batch, (start, stop) in zip(loader, bounds, strict=True):
            assert batch.sample_ids.tolist() == expected[start:stop].tolist()


@pytest.mark.parametrize("wrong", [{"order": "random"}, {"order_blocks": 0}])
def test_a_wrong_order_is_refused(local, tiny_benchmark, wrong):  # noqa: F811
    with pytest.raises(ValueError, match="expected order 'exact' or 'bounded'"):
        make_loader(
            view_of(local), local, transforms=tiny_benchmark.image_preset, train=True, **wrong
        )
