"""Runs steps one after another, whatever becomes of them, within a total time."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.acceptance.process import run_process
from benchmarks.acceptance.step import Step, figures_path, read_figures
from benchmarks.acceptance.verdicts import Row, row_of_missing, rows_of, write_results

LEAST_SECONDS = 5.0  # a step with less time left is not started
GRACE = 2.0  # a step is killed after so many times its seconds
REHEARSAL_GRACE = 4.0  # other work may share the processors

CommandOf = Callable[[Step, float], list[str]]
"""Returns the command that runs a step, given the seconds that it has."""


def run_steps(
    steps: Iterable[Step],
    out: Path,
    command_of: CommandOf,
    *,
    seconds: float,
    rehearse: bool,
    about: dict[str, Any],
    at_once: int = 1,
    on_rows: Callable[[list[Row]], object] = lambda rows: None,
) -> list[Row]:
    """Run steps in the given order; the results are rewritten after each.

    Args:
        steps: The steps, the most important first.
        out: Folder for results and logs.
        command_of: Returns the command that runs a step.
        seconds: Total time.
        rehearse: Whether this is a rehearsal.
        about: What else the results say; see :func:`write_results`.
        at_once: How many steps run at the same time; 1 where times are measured.
        on_rows: Called with the rows of each step.

    Returns:
        All rows.
    """
    end = time.monotonic() + seconds

    def run(step: Step) -> list[Row]:
        figures_path(out, step.name).unlink(missing_ok=True)
        left = end - time.monotonic()
        if left < min(LEAST_SECONDS, step.seconds):
            return [row_of_missing(step, "no time was left")]
        limit = min((REHEARSAL_GRACE if rehearse else GRACE) * step.seconds, left)
        outcome = run_process(command_of(step, limit), out / f"{step.name}.log", limit)
        return rows_of(step, outcome, read_figures(figures_path(out, step.name)), rehearse)

    rows: list[Row] = []
    with ExitStack() as stack:
        in_order: Iterable[list[Row]] = map(run, steps)
        if at_once > 1:
            pool = ThreadPoolExecutor(at_once)
            stack.callback(pool.shutdown, cancel_futures=True)
            in_order = pool.map(run, steps)
        for new in in_order:
            rows += new
            write_results(out, rows, about)
            on_rows(new)
    return rows
