"""Names of runs, classes, benchmarks and folders are printed as they are, whatever they hold."""

import io
import logging
import os
import sys

import pytest
from rich.console import Console

from iirc_data.benchmarks import Benchmark
from iirc_train.cli import app as cli
from iirc_train.cli.sweep import _tables
from iirc_train.config import ExperimentConfig
from iirc_train.report.comparison import compare
from iirc_train.report.runs import find_runs
from iirc_train.report.tables import comparison_tables, task_tables
from iirc_train.report.wide_tables import print_tables
from iirc_train.run.record import is_finished, read_record
from iirc_train.run.results import read_results
from iirc_train.runtime.lines import print_line
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.sweep import Outcome, PlannedRun
from tests.made_up_runs import write_run

NAMES = ["run[red]", "[bold]x[/]", "[/]", ":car:", "[link=x]y", r"a\[b]"]


def printed(show) -> str:
    """Return what is shown on a console of a user's own, which reads markup and emoji."""
    text = io.StringIO()
    show(Console(file=text, width=200, color_system=None))
    return text.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_names_as_they_are(name, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, color_system=None)
    with TrainingProgress(console, name, 2) as progress:
        progress.begin_task(0, [name], n_epochs=1, n_batches=1)
        record = {"task": 0, "epoch": 0, "loss": 1.0, "modified_jaccard_sim": 0.5}
        progress.epoch_done(record, 1.0)
        progress.task_done(0, {"modified_jaccard_sim": 0.5, "jaccard_sim": 0.5})
    assert (
        f"{name}: after task 0 (of tasks 0 to 1): pw-JS 0.500  JS 0.500 over all" in text.getvalue()
    )
    assert terminal or f"{name}: task 0 epoch 0: loss 1.0000" in text.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_lines_and_tables_show_names_as_they_are(tmp_path, name):
    assert printed(lambda console: print_line(console, name)) == f"{name}\n"
    benchmark = Benchmark(name=name, dataset="d", other_classes=["a"], schedules=[[["a"]]])
    (tmp_path / "b.json").write_text(benchmark.model_dump_json())
    run = write_run(tmp_path / "run", tmp_path / "b.json", method=name)
    results = read_results(run, name)
    assert name in printed(lambda console: print_tables(console, task_tables(results)))
    (comparison,) = compare(find_runs([run]).by_benchmark())
    for table in comparison_tables(comparison):
        text = printed(lambda console, table=table: console.print(table))
        assert f"{name}: " in text and f" {name} " in text
    config = ExperimentConfig.parse({"benchmark": "b", "data": "d", "method": name})
    outcome = Outcome(PlannedRun(name, run, config), error=name)
    text = printed(lambda console: print_tables(console, _tables([outcome], width=None)))
    assert text.count(name) == 2


def command(monkeypatch, *arguments: object) -> object:
    monkeypatch.setattr("sys.argv", ["iirc", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_errors_and_ends_of_commands_name_folders_as_they_are(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run[red]"
    assert command(monkeypatch, "train", "--resume", run) == 1
    assert f"{run} holds no run" in capsys.readouterr().err
    assert command(monkeypatch, "train", "--output", run, "--preset", "[/]") == 1
    assert "there is no preset '[/]'" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_folders_whose_names_are_not_utf8_serve(tiny_settings, tmp_path, monkeypatch, capsys):
    # pytest-xdist cannot send such names, neither in warnings nor in logs
    monkeypatch.setattr(logging.getLogger("iirc_train"), "propagate", False)
    folder = tmp_path / os.fsdecode(b"donn\xe9es")
    folder.mkdir()
    (folder / "shards").symlink_to(tiny_settings["data"])
    monkeypatch.chdir(folder)
    settings = {"data": "shards", "method": "finetune", "threads": 1, "decoder": "pillow"}
    values = tiny_settings | settings | {"samples_per_class": 3}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    run = folder / os.fsdecode(b"r\xe9sultat[red]")
    status = command(monkeypatch, "train", *options, "--output", run)
    output = capsys.readouterr()
    assert status == 0, output
    assert "warning: no curves for TensorBoard: the folder's path is not UTF-8\n" in output.err
    assert "r\\udce9sultat[red]" in output.out.splitlines()[-1]
    assert is_finished(run)
    assert "donn\\udce9es" in read_record(run)["sessions"][0]["command"]
    assert command(monkeypatch, "train", "--resume", run) == 0
    assert command(monkeypatch, "compare", run) == 0
    assert command(monkeypatch, "report", run, "--output", folder / "report") == 0
    page = (folder / "report/report.html").read_text(encoding="utf-8")
    assert "donn\\udce9es" in page
