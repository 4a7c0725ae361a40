"""The acceptance on a GPU: its steps are stand-ins here; `make rehearse` runs the real ones."""

import ast
import fcntl
import io
import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import gpu_acceptance
from benchmarks.acceptance import sequence, steps
from benchmarks.acceptance.process import Outcome, run_process
from benchmarks.acceptance.sequence import run_steps
from benchmarks.acceptance.step import Expectation, Situation, Step, figures_path, read_figures
from benchmarks.acceptance.training import affordable_epochs
from benchmarks.acceptance.verdicts import is_as_expected, row_of_missing, rows_of
from benchmarks.gpu_acceptance import chosen_steps
from benchmarks.gpu_run import n_checkpoints, seconds_of_more_epochs
from benchmarks.replay_epochs import covered
from benchmarks.stopwatch import Stopwatch
from iirc_data.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-S", "-c"]
REPORTS = "import sys; f = open(sys.argv[1], 'a'); f.write('{\"figure\": %s}\\n'); f.flush();"
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"

STAND_INS = {
    "well": REPORTS % 1,
    "crash": REPORTS % 2 + CRASH,
    "error": REPORTS % 3 + "sys.exit('the last line')",
    "hang": "import time; time.sleep(600)",
    "wrong": REPORTS % 40,
    "silent": "",
    "cut-off": "import sys; open(sys.argv[1], 'w').write('{\"figure\": 5}\\n{\"fig')",
}


def stand_in(number: int, name: str, seconds: float = 30) -> Step:
    return Step(number, name, seconds, "", (Expectation("figure", 0, 10),))


@pytest.mark.parametrize("at_once", [1, 3])
def test_whatever_becomes_of_a_step_it_is_a_row_and_the_others_run(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(sequence, "GRACE", 1.0)
    table = [
        stand_in(number, name, 1 if name == "hang" else 30) for number, name in enumerate(STAND_INS)
    ]
    kept = []

    def command_of(step: Step, seconds: float) -> list[str]:
        assert seconds <= 30
        return [*PYTHON, STAND_INS[step.name], str(figures_path(tmp_path, step.name))]

    def after_each(rows):
        kept.append(json.loads((tmp_path / "acceptance.json").read_text())["rows"])

    rows = run_steps(
        reversed(table),
        tmp_path,
        command_of,
        seconds=600,
        rehearse=False,
        about={"started": "now"},
        at_once=at_once,
        on_rows=after_each,
    )
    verdicts = {(row.step, row.figure): (row.seen, row.verdict) for row in rows}
    assert verdicts["well", "figure"] == ("1", "as expected")
    assert verdicts["well", "end"][0].startswith("exit 0, ")
    assert verdicts["crash", "figure"] == ("2", "as expected")  # reported before the crash
    assert verdicts["crash", "end"][0].startswith("SIGSEGV, ")
    assert verdicts["error", "end"][0].endswith(": the last line")
    assert verdicts["hang", "end"][0].startswith("killed after 1 s, ")
    assert verdicts["hang", "figure"] == ("missing", "UNEXPECTED")
    assert verdicts["wrong", "figure"] == ("40", "UNEXPECTED")
    assert verdicts["wrong", "end"][1] == verdicts["silent", "end"][1] == "as expected"
    assert verdicts["silent", "figure"] == ("missing", "UNEXPECTED")
    assert verdicts["cut-off", "figure"] == ("5", "as expected")
    for name in ("crash", "error", "hang"):
        assert verdicts[name, "end"][1] == "UNEXPECTED"
    assert not is_as_expected(rows)

    assert [len({row["step"] for row in so_far}) for so_far in kept] == [*range(1, len(table) + 1)]
    result = json.loads((tmp_path / "acceptance.json").read_text())
    assert result["started"] == "now" and result["as_expected"] is False
    numbers = [row["number"] for row in result["rows"]]
    assert numbers == sorted(numbers)
    lines = (tmp_path / "acceptance.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert "| 4 | wrong | figure | 0 to 10 | 40 | UNEXPECTED |" in lines


def test_a_step_is_killed_with_all_that_it_started(tmp_path):
    lock = tmp_path / "lock"
    holds = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); time.sleep(600)"
    )
    starts = f"import subprocess, sys; subprocess.Popen([*{PYTHON!r}, {holds!r}, sys.argv[1]])"
    waits = (
        f"{starts}; import fcntl, time\n"
        "while True:\n"
        "    f = open(sys.argv[1], 'a')\n"
        "    try: fcntl.flock(f, 6)\n"
        "    except OSError: break\n"
        "    f.close(); time.sleep(0.01)\n"
    )
    outcome = run_process([*PYTHON, waits, str(lock)], tmp_path / "log", 60)
    assert outcome.is_well  # its child holds the lock, and would for minutes
    for _ in range(1000):
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(0.01)
    pytest.fail("a process that the step started still runs")


def test_a_step_without_time_is_a_row_and_is_not_started(tmp_path):
    rows = run_steps(
        [stand_in(1, "a"), stand_in(2, "b")],
        tmp_path,
        lambda step, seconds: pytest.fail("started"),
        seconds=1,
        rehearse=False,
        about={},
    )
    assert rows == [
        row_of_missing(step, "no time was left") for step in (stand_in(1, "a"), stand_in(2, "b"))
    ]
    assert not is_as_expected(rows)


@pytest.mark.parametrize(
    ("least", "most", "text", "met", "unmet"),
    [
        (1, None, "at least 1", [1.0, 2.0, math.inf], [0.9, math.nan, "2", "failed"]),
        (None, 6_000, "at most 6,000", [6000.0, -1.0], [6000.1, math.nan, ""]),
        (2.8, 4.9, "2.8 to 4.9", [2.8, 4.9], [2.7, 5.0, math.nan]),
        (0, 0, "0", [0.0], [1.0, -1.0]),
        (None, None, "any", [0.0, "text", math.nan], []),
    ],
)
def test_bounds(least, most, text, met, unmet):
    expectation = Expectation("figure", least, most)
    assert expectation.text == text
    assert all(expectation.is_met(value) for value in met)
    assert not any(expectation.is_met(value) for value in unmet)


def test_speeds_are_judged_on_a_gpu_only_and_estimates_never_but_every_figure_must_be_there():
    expected = (
        Expectation("speed", least=1000, only_on_gpu=True),
        Expectation("estimate", 1, 2, is_estimate=True),
        Expectation("mismatches, *", most=0),
    )
    step = Step(1, "step", 1, "", expected)
    figures = {"speed": 5.0, "estimate": 7.0, "mismatches, a": 0.0, "mismatches, b": 1.0, "x": "y"}
    well = Outcome("exit 0", 1.0, "")

    def verdicts(figures, rehearse):
        return {row.figure: row.verdict for row in rows_of(step, well, figures, rehearse)}

    on_gpu = verdicts(figures, rehearse=False)
    assert on_gpu["speed"] == on_gpu["mismatches, b"] == "UNEXPECTED"
    assert on_gpu["estimate"] == on_gpu["x"] == "not judged"
    assert on_gpu["mismatches, a"] == "as expected"
    rehearsed = verdicts(figures, rehearse=True)
    assert rehearsed == on_gpu | {"speed": "not judged"}
    assert verdicts({"mismatches, a": 0.0}, rehearse=True)["speed"] == "UNEXPECTED"
    assert "estimate" not in verdicts({}, rehearse=False)


def test_the_table_has_the_ten_steps_and_a_function_for_each():
    assert sorted(step.number for step in steps.STEPS) == [*range(1, 11)]
    assert [step.number for step in steps.STEPS][:4] == [1, 2, 4, 6]
    assert len({step.name for step in steps.STEPS}) == 10
    for step in steps.STEPS:
        module, _, function = step.place.partition(":")
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert function in {
            node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
        }
        assert step.expected


def test_steps_are_chosen_by_number_and_run_by_importance():
    assert chosen_steps(None) == list(steps.STEPS)
    assert [step.number for step in chosen_steps("3, 2,1,6")] == [1, 2, 6, 3]
    for wrong in ("11", "1,x", ""):
        with pytest.raises(ConfigurationError, match="--steps"):
            chosen_steps(wrong)


def report_two(situation: Situation) -> None:
    situation.report("device", situation.device)
    situation.report("works", True)
    assert read_figures(figures_path(situation.out, "two")) == {"device": "cpu", "works": 1.0}
    raise RuntimeError("later")


def test_a_step_keeps_what_it_reported_before_it_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_acceptance, "STEPS", [Step(1, "two", 1, f"{__name__}:report_two", ())])
    app = typer.Typer()
    app.command()(gpu_acceptance.main)
    arguments = [str(tmp_path), "--step", "two", "--rehearse"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, RuntimeError)
    assert Situation(tmp_path, True, 1, file=io.StringIO()).figures("two")["works"] == 1.0


@pytest.mark.parametrize(("name", "status"), [("well", 0), ("crash", 1)])
def test_the_exit_status_is_0_only_if_all_is_as_expected(tmp_path, monkeypatch, name, status):
    monkeypatch.setattr(gpu_acceptance, "STEPS", [stand_in(7, name)])
    path = figures_path(tmp_path, name)
    monkeypatch.setattr(
        gpu_acceptance,
        "run_steps",
        lambda chosen, out, command_of, **options: run_steps(
            chosen, out, lambda *_: [*PYTHON, STAND_INS[name], str(path)], **options
        ),
    )
    monkeypatch.setattr(gpu_acceptance.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    app = typer.Typer()
    app.command()(gpu_acceptance.main)
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == status
    assert result.stdout.splitlines()[-1].startswith("NOT all" if status else "all as expected")
    assert json.loads((tmp_path / "acceptance.json").read_text())["steps"] == [7]


def test_without_a_gpu_no_step_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=r"torch sees no GPU .*--rehearse"):
        gpu_acceptance.main(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_long_run_takes_the_epochs_that_there_is_time_for():
    # 10 s of start, and 2 s for each epoch per task
    short = {"end to end (s)": 14.0, "with 140 epochs per task (min)": (10 + 2 * 140) / 60}
    assert affordable_epochs(short, 110.1) == 50
    assert affordable_epochs(short, 10_000) == 140
    assert affordable_epochs(short, 1) == affordable_epochs({}, 100) == 3


def test_a_run_is_extrapolated_from_the_epochs_after_the_first_of_each_task():
    epochs = {0: [9.0, 2.0, 2.0, 2.0], 1: [9.0, 3.0]}
    assert seconds_of_more_epochs(epochs, 10, 0.5) == 16 * 2.5 + 8 * 3.5
    assert seconds_of_more_epochs({0: [4.0, 4.0], 1: [5.0]}, 1, 0.0) == 0
    assert seconds_of_more_epochs({0: [4.0, 4.0], 1: [5.0]}, 2, 0.0) == 2 * 4 + 5


@pytest.mark.parametrize("interval", [0, 1, 5, 7])
def test_checkpoints_are_counted_as_the_trainer_writes_them(interval):
    written = 0
    for task in range(3):
        for epoch in range(14 if task else 28):
            written += bool(interval and not (epoch + 1) % interval)
        written += 1
    assert n_checkpoints(3, 14, interval) == written


def test_overlapping_kernels_count_once():
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 4), (1, 3), (6, 6.5)]) == 5.5


def test_a_stopwatch_times_calls_and_leaves_the_function_as_it_was():
    class Owner:
        def work(self, n: int) -> int:
            if n < 0:
                raise ValueError(n)
            return 2 * n

    original, watch = Owner.work, Stopwatch()
    with watch.on(Owner, "work", "work"):
        assert Owner().work(3) == 6
        with pytest.raises(ValueError):
            Owner().work(-1)
    assert Owner.work is original
    assert len(watch.seconds["work"]) == 2
    assert watch.total("work") == sum(watch.seconds["work"]) >= 0
