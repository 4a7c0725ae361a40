"""The first ten minutes with a GPU: what works, what is right, and how fast it is.

    python -m benchmarks.gpu_acceptance OUT

Ten steps, each in its own process with a time limit. They need no network, and draw the images that
they are not given. After each step, ``OUT/acceptance.json`` and ``OUT/acceptance.md`` hold what was
expected and what was seen so far, and ``OUT/STEP.log`` what the step printed. The exit status is 0
only if everything is as expected. The most important steps run first. ``--rehearse`` runs all of
them at small size on the CPU: speeds are then not judged.
"""

import datetime
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.acceptance.sequence import run_steps
from benchmarks.acceptance.step import Run, Situation, Step, figures_path
from benchmarks.acceptance.steps import STEPS
from benchmarks.acceptance.verdicts import TABLE_NAME, Row, is_as_expected
from iirc_data.console import one_line, run_tool
from iirc_data.errors import ConfigurationError
from iirc_data.files import make_folder


def main(
    out: Annotated[Path, typer.Argument(help="Folder for results and logs.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Total time.")] = 10.0,
    steps: Annotated[
        str | None, typer.Option(help="Numbers of the steps to run, as 1,2,4,6. [default: all]")
    ] = None,
    photographs: Annotated[
        Path | None,
        typer.Option(help="Shard folder, image folder split/class/*, or tar. [default: drawn]"),
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Run at small size on the CPU.")
    ] = False,
    step: Annotated[str | None, typer.Option(hidden=True)] = None,
    seconds: Annotated[float, typer.Option(hidden=True)] = 600.0,
) -> None:
    """Run the steps, print expected against seen, and write both files."""
    out = out.absolute()
    if step is not None:
        _carry_out(step, Situation(out, rehearse, seconds, photographs))
        return
    chosen = chosen_steps(steps)
    if not (rehearse or torch.cuda.is_available()):
        raise ConfigurationError(
            "torch sees no GPU (iirc doctor says why), so no step can pass: give --rehearse to run "
            "the steps at small size on the CPU"
        )
    make_folder(out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a running step ends too
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if rehearse:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = ["--rehearse"] if rehearse else []
    options += [] if photographs is None else ["--photographs", str(photographs)]

    def command_of(step: Step, seconds: float) -> list[str]:
        program = [sys.executable, "-m", "benchmarks.gpu_acceptance", str(out)]
        return [*program, "--step", step.name, "--seconds", f"{seconds:g}", *options]

    about = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "minutes": minutes,
        "steps": [step.number for step in chosen],
        "rehearsal": rehearse,
    }
    rows = run_steps(
        chosen,
        out,
        command_of,
        seconds=60 * minutes,
        rehearse=rehearse,
        about=about,
        at_once=2 if rehearse else 1,
        on_rows=_print_rehearsed if rehearse else _print_all,
    )
    verdict = "all as expected" if is_as_expected(rows) else "NOT all as expected"
    print(f"{verdict}: {out / TABLE_NAME}")
    raise SystemExit(0 if is_as_expected(rows) else 1)


def chosen_steps(numbers: str | None) -> list[Step]:
    """Return the steps with the given numbers, in the order in which they run.

    Raises:
        ConfigurationError: A number is none of a step.
    """
    if numbers is None:
        return list(STEPS)
    wanted: set[int] = set()
    for word in numbers.split(","):
        with suppress(ValueError):
            wanted.add(int(word))
            continue
        raise ConfigurationError(f"--steps {numbers}: {word!r} is no number: give them as 1,2,4,6")
    known = {step.number for step in STEPS}
    if unknown := sorted(wanted - known):
        raise ConfigurationError(f"--steps {numbers}: there are steps 1 to 10, not {unknown}")
    return [step for step in STEPS if step.number in wanted]


def _carry_out(name: str, situation: Situation) -> None:
    (place,) = (step.place for step in STEPS if step.name == name)
    module, _, function = place.partition(":")
    with figures_path(situation.out, name).open("w", encoding="utf-8") as file:
        run: Run = getattr(import_module(module), function)
        run(replace(situation, file=file))


def _print_all(rows: list[Row]) -> None:
    for row in rows:
        expected = f" (expected {row.expected})" if row.expected else ""
        mark = "!" if row.verdict == "UNEXPECTED" else " "
        line = f"{mark} {row.number} {row.step}, {row.figure}: {row.seen}{expected}"
        print(one_line(line), flush=True)


def _print_rehearsed(rows: list[Row]) -> None:
    if is_as_expected(rows):
        print(f"{rows[0].number} {rows[0].step}: {rows[0].seen}", flush=True)
    else:
        _print_all([row for row in rows if row.verdict == "UNEXPECTED"])


if __name__ == "__main__":
    run_tool(main)
