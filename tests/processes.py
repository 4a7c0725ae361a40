"""Child processes that start in milliseconds and inherit no locks from threads.

They are forked from a server that has already imported the packages.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable

# One server serves all tests of a session. Its imports are listed here because each call of
# set_forkserver_preload replaces the list of the previous one.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "iirc_train.cli.data",
        "iirc_train.cli.sweep",
        "iirc_train.cli.train",
        "tools.shard_cifar",
        "tools.shard_folder",
        "tools.shard_imagenet",
        "tests.faults.saboteur",
        # the first optimizer imports torch._dynamo, which takes seconds
        "torch._dynamo",
        "iirc_train.cli.app",
        "PIL.JpegImagePlugin",
        "PIL.PngImagePlugin",
    ]
)


def hear_ctrl_c() -> None:
    """Let Ctrl-C interrupt a child process, even if the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
