"""Peak memory, as runs note it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iirc_train.peak_memory import peak_memory

MEASURE = """
import torch
from iirc_train.peak_memory import peak_memory
before = peak_memory(torch.device("cpu"))["peak_memory_bytes"]
block = torch.ones(200 << 20, dtype=torch.uint8)
with_block = peak_memory(torch.device("cpu"))["peak_memory_bytes"]
del block
print(before, with_block, peak_memory(torch.device("cpu"))["peak_memory_bytes"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_is_in_bytes_and_outlasts_what_caused_it():
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    before, with_block, after = map(int, measured.stdout.split())
    assert 0.5 * (200 << 20) < with_block - before < 1.5 * (200 << 20)  # imports peaked too
    assert after >= with_block


@pytest.mark.skipif(sys.platform != "win32", reason="other systems tell")
def test_windows_tells_nothing():
    assert peak_memory(torch.device("cpu")) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_a_peak_of_its_own():
    block = torch.ones(1 << 20, dtype=torch.uint8, device="cuda")
    assert peak_memory(block.device)["peak_gpu_memory_bytes"] >= 1 << 20
