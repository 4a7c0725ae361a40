"""One GPU for each of several runs on a machine."""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    n = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:n] if named else [str(number) for number in range(n)]


class SharedGpus:
    """GPUs that runs share: each new run gets the one with the fewest runs. Threads may share it.

    Args:
        gpus: Their names; with fewer than two there is nothing to choose.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = tuple(gpus)
        self._runs: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Mapping[str, str]]:
        """Yield the environment variables with which a run sees only its GPU."""
        if len(self._gpus) < 2:
            yield {}
            return
        with self._lock:
            gpu = min(self._gpus, key=self._runs.__getitem__)
            self._runs[gpu] += 1
        try:
            yield {VISIBLE: gpu}
        finally:
            with self._lock:
                self._runs[gpu] -= 1
