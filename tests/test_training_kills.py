"""Runs that are killed repeatedly end equal to uninterrupted ones."""

import os
import signal
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from iirc_train.config import ExperimentConfig
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.ce_methods import config_for
from tests.processes import CONTEXT
from tests.test_resume import assert_equal_runs

pytestmark = pytest.mark.slow

N_WRITES_TO_KILL_AT = 3
N_MOMENTS_TO_KILL_AT = 2  # together 45 kills over all methods, 27 of them at a write
KINDS = (  # a method per kind of state
    "agem",  # a stream of memories
    "bic",  # samples held out, a stage
    "der_expandable",  # a network that grows
    "der_plus_plus",  # a reservoir with columns
    "ewc_online",  # statistics
    "finetune",
    "gdumb",  # memories chosen first
    "icarl",  # class means
    "lucir",  # a head of two parts
)
WRITING_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def writes_to(folder: Path, event: str, arguments: tuple) -> bool:
    """Whether an audit event is about to change a file or folder of a run."""
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")
    else:
        path, writes = arguments[0] if arguments else None, event in WRITING_EVENTS
    return bool(writes) and not isinstance(path, int) and str(path).startswith(str(folder))


def train(config: ExperimentConfig, output: Path, kill_at_write: int | None) -> None:
    """Start or resume a run; die right before a certain write to its folder."""
    writes = count()

    def watch(event: str, arguments: tuple) -> None:
        if writes_to(output, event, arguments) and next(writes) == kill_at_write:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    console = Console(quiet=True)
    if (output / "config.yaml").exists():
        resume_experiment(output, console)
    else:
        run_experiment(config, output, console)
    (output / "writes").write_text(str(next(writes)))


@pytest.fixture(scope="module")
def start():
    def start(*arguments):
        process = CONTEXT.Process(target=train, args=arguments)
        process.start()
        return process

    return start


@pytest.mark.parametrize("method", KINDS)
def test_a_run_killed_over_and_over_ends_like_an_unbroken_one(
    tiny_settings, tmp_path, start, method
):
    config = config_for(method, tiny_settings, threads=1, decoder="pillow")
    begin = partial(start, config)
    expected, run = tmp_path / "unbroken", tmp_path / "run"
    process = begin(expected, None)
    process.join()
    assert process.exitcode == 0
    n_writes = int((expected / "writes").read_text())
    n_lines = lines(expected)

    n_kills = N_WRITES_TO_KILL_AT + N_MOMENTS_TO_KILL_AT
    shift = KINDS.index(method)
    for kill in range(n_kills):
        at_write = kill % 2 == 0
        # the writes of a part of the run, each method at other ones
        part = n_writes // (n_kills + 1)
        write = part * 2 // 3 + (5 * shift + kill) % max(part // 3, 1)
        process = begin(run, write if at_write else None)
        if not at_write:
            wait_until(partial(has_lines, run, n_lines * (kill + 1) // (n_kills + 2)), process)
            time.sleep(0.003 * shift)
            process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (run / "writes").exists()
    process = begin(run, None)
    process.join()
    assert process.exitcode == 0
    assert_equal_runs(run, expected)


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def has_lines(run: Path, n: int) -> bool:
    return lines(run) >= n


def wait_until(condition, process) -> None:
    while not condition():
        assert process.is_alive(), "the run ended before it could be killed"
        time.sleep(0.0005)
