"""Memory of batches is used again, but never while somebody holds it."""

import gc
import random

import pytest
import torch

from iirc_data.loader import host_memory
from iirc_data.loader.host_memory import empty

CPU = torch.device("cpu")
SHAPE = (64, 64, 64, 3)


@pytest.fixture(autouse=True)
def no_earlier_batches(monkeypatch):
    monkeypatch.setattr(host_memory, "_blocks", host_memory._Blocks())


def test_memory_that_nobody_holds_is_used_again():
    batch = empty(SHAPE, torch.float32, CPU)
    place = batch.data_ptr()
    del batch
    assert empty(SHAPE, torch.float32, CPU).data_ptr() == place
    smaller = empty((40, *SHAPE[1:]), torch.float32, CPU)  # as an epoch's last batch
    assert smaller.data_ptr() == place


@pytest.mark.parametrize(
    "view",
    [
        lambda batch: batch,
        lambda batch: batch[3:5],
        lambda batch: batch.permute(0, 3, 1, 2),
        lambda batch: batch.numpy(),
        lambda batch: batch[0].numpy()[1:],
        torch.from_dlpack,
        lambda batch: batch.view(torch.int32).view(torch.float32),
    ],
)
def test_memory_is_not_used_again_while_a_view_of_any_kind_is_held(view):
    held = view(empty(SHAPE, torch.float32, CPU).fill_(1))
    gc.collect()
    others = [empty(SHAPE, torch.float32, CPU).fill_(2) for _ in range(10)]
    assert (torch.as_tensor(held) == 1).all()
    del others


def test_many_batches_held_at_random_keep_what_they_were_given():
    chance = random.Random(0)
    held: list[tuple[int, torch.Tensor]] = []
    for number in range(300):
        n = chance.choice([20, 40, 64, 100, 128])
        held.append((number, empty((n, *SHAPE[1:]), torch.int32, CPU).fill_(number)))
        while len(held) > chance.randrange(1, 20):
            held.pop(chance.randrange(len(held)))
        if number % 20 == 0:
            assert all((batch == value).all() for value, batch in held)
    assert all((batch == value).all() for value, batch in held)
