"""Child processes that start in milliseconds and inherit no thread's lock.

They are forked from a server that has the imports done.
"""

import multiprocessing
import signal

# One server serves all tests of a session, so its imports stand here: what each test module asked
# for itself, another one would undo.
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
        # what training imports late: the first optimizer imports torch._dynamo, which takes seconds
        "torch._dynamo",
        "iirc_train.cli.app",
        "PIL.JpegImagePlugin",
        "PIL.PngImagePlugin",
    ]
)


def hear_ctrl_c() -> None:
    """Let a child be interrupted as in a terminal, though the tests may run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
