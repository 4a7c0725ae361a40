"""``iirc`` in one process or in two, by turns, with a method that counts the samples it is shown.

The entry point of a command of the fault campaign. Both processes are in the group of the command,
so that a signal reaches both.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import torch

from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.cli.app import main as iirc
from iirc_train.methods import METHODS, MethodParts
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.finetune import Model
from iirc_train.run.record import read_record
from iirc_train.runtime.distributed import total
from iirc_train.training import epoch
from tests.two_ranks import NetworkWithoutBatchStatistics

METHOD = "counting"
MOST_SAMPLES = 1024


class Counting(Model):
    """Counts in a buffer how often each sample and, from the end, each memory was shown."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("shown", torch.zeros(MOST_SAMPLES, dtype=torch.int64))

    def training_step(self, batch):
        places = batch.sample_ids % MOST_SAMPLES
        self.shown += total(torch.bincount(places, minlength=MOST_SAMPLES))
        return super().training_step(batch)


def main(words: list[str]) -> None:
    """Run ``iirc`` with the given words in one process, or in two if that is due."""
    BaseMethod._make_network = lambda self: NetworkWithoutBatchStatistics(sum(self.n_cla_per_tsk))
    METHODS[METHOD] = MethodParts(Counting, RandomBuffer)
    epoch.SECTION = 1
    sys.argv = ["iirc", *words]
    n = 1 + n_sessions(Path(words[-1])) % 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if n == 1:
        iirc()
        return
    other = os.fork()
    rank = "0" if other else "1"
    os.environ |= {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "faults",
    }
    try:
        iirc()
    except BaseException as end:
        if other and not (isinstance(end, SystemExit) and not end.code):
            os.kill(other, signal.SIGKILL)  # as torchrun does
        raise
    finally:
        if other:
            os.waitpid(other, 0)


def n_sessions(run: Path) -> int:
    """Return the number of sessions that a run has had."""
    try:
        return len(read_record(run)["sessions"])
    except Exception:
        return 0
