"""Ranks of ``torchrun`` that run ``iirc train``; in the first attempt, one dies in mid-epoch.

torchrun --nproc-per-node 3 --max-restarts 1 -m tests.killed_rank FOLDER OPTION…

The next attempt also trains an unbroken run, in the same folder.
"""

import os
import signal
import sys

from iirc_train.cli.app import main
from iirc_train.methods.base_method import BaseMethod

KILLED_IN_TASK = 2
KILLED_AT_STEP = 4  # the second of the task's second epoch


def die_in_mid_epoch() -> None:
    training_step = BaseMethod.training_step
    steps = []

    def step_or_die(self, batch):
        if self.cur_task_id == KILLED_IN_TASK:
            steps.append(batch)
            if len(steps) == KILLED_AT_STEP:
                os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch)

    BaseMethod.training_step = step_or_die


if __name__ == "__main__":
    if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        die_in_mid_epoch()
    _, folder, *options = sys.argv
    for name in ("run", "unbroken"):
        sys.argv = ["iirc", "train", f"--output={folder}/{name}", *options]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
