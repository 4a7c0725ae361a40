"""Peak memory, as runs note it."""

import sys

import pytest
import torch

from iirc_train.runtime.peak_memory import peak_memory

CPU = torch.device("cpu")
BLOCK = 300 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_is_in_bytes_and_outlasts_what_caused_it():
    block = torch.ones(BLOCK, dtype=torch.uint8)
    with_block = peak_memory(CPU)["peak_memory_bytes"]
    assert BLOCK < with_block < 500 * BLOCK  # neither kibibytes nor 1,024 times too much
    del block
    assert peak_memory(CPU)["peak_memory_bytes"] >= with_block


@pytest.mark.skipif(sys.platform != "win32", reason="other systems tell")
def test_windows_tells_nothing():
    assert peak_memory(CPU) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_a_peak_of_its_own():
    block = torch.ones(1 << 20, dtype=torch.uint8, device="cuda")
    assert peak_memory(block.device)["peak_gpu_memory_bytes"] >= 1 << 20
