"""The program that measures methods on CIFAR-100: its commands, and the table that it writes."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from benchmarks import (
    frozen_on_cifar100,
    hierarchy_on_cifar100,
    iirc_on_cifar100,
    method_runs,
    methods_on_cifar100,
    weak_replay,
)
from benchmarks.method_runs import replace_part, settings_of, start_or_resume
from benchmarks.methods_on_cifar100 import ROWS
from iirc_data import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.cli.app import app
from iirc_train.config.compose import compose
from iirc_train.methods.settings import method_configs
from iirc_train.run.directory import read_metrics
from iirc_train.run.results import PWJS
from iirc_train.sweep import Processes
from tests.made_up_runs import write_record

TABLES = (
    methods_on_cifar100.TABLE,
    hierarchy_on_cifar100.TABLE,
    frozen_on_cifar100.TABLE,
    iirc_on_cifar100.TABLE,
    weak_replay.TABLE,
)


@pytest.mark.parametrize(
    ("table", "row"),
    [pytest.param(table, row, id=row.name) for table in TABLES for row in table.rows],
)
def test_a_row_of_a_table_is_a_command_of_its_own(table, row):
    folders = [each.folder(Path("runs"), 0) for each in table.rows]
    assert folders.count(row.folder(Path("runs"), 0)) == 1
    given = options_of(table.command(row, 1, "shards", "out"))
    of_row = options_of(f"iirc train {row.options} --data shards --output out")
    assert given == {**given, **of_row}  # the table's options undo none of the row's
    preset, _, _ = (given.pop(name, None) for name in ("preset", "output", "data"))
    config = compose(preset=preset, overrides=given | {"data": "s"}, methods=method_configs())
    assert (config.schedule, load_benchmark(config.benchmark).name) == (1, config.benchmark)


def options_of(line):
    """Return the options that a command ``iirc train`` gives, by name."""
    words = shlex.split(line)
    assert words[:2] == ["iirc", "train"]
    group = get_command(app)
    command = group.get_command(typer.Context(group), "train")
    params = command.make_context("train", words[2:]).params
    return {name: value for name, value in params.items() if value not in (None, [], ())}


def test_the_table_of_cifar100_has_the_finished_runs_only(tmp_path, monkeypatch):
    row, other = ROWS[0], ROWS[1]
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    for order, finished in ((0, True), (1, True), (2, False)):
        line = methods_on_cifar100.TABLE.command(row, order, "/home/me/shards", "out")
        write_run(row.folder(runs, order), line, order / 10, finished)
    line = methods_on_cifar100.TABLE.command(other, 0, "/home/me/shards", "out")
    write_run(other.folder(runs, 0), line, 0.5, finished=False)
    table = replace(methods_on_cifar100.TABLE, page=page, kept=tmp_path / "kept")
    monkeypatch.setattr(methods_on_cifar100, "TABLE", table)
    name = "benchmarks.methods_on_cifar100"
    page.write_text(f"before\n<!-- begin: written by {name} -->\nold\n<!-- end -->\nafter\n")
    methods_on_cifar100.main(runs, table=True)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert f"| {row.name} | 2 | 45.0 ± 7.1 | 55.0 ± 7.1 |  |  |" in text  # of 40, 50; of 50, 60
    assert other.name not in text and text.count("iirc train ") == 2
    kept = sorted(path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*.*"))
    names = ("config.yaml", "metrics.jsonl")
    assert kept == [Path("finetune") / f"order_{order}" / n for order in (0, 1) for n in names]
    metrics = read_metrics(tmp_path / "kept/finetune/order_0")
    assert [(r["split"], r["task"], r.get("hierarchical_f1")) for r in metrics] == [
        ("test", "all", 0.333333),
        ("test", 0, None),
    ] * 2
    assert "data: shards\n" in (tmp_path / "kept/finetune/order_0/config.yaml").read_text()


@pytest.mark.parametrize("changed", ["--lr 0.5", "--benchmark cil_cifar100_b50_10"])
def test_a_table_shows_no_command_that_its_runs_were_not_trained_with(
    tmp_path, monkeypatch, capsys, tiny_store, changed
):
    table = weak_replay.TABLE
    (row, *_), runs, page = table.rows, tmp_path / "runs", tmp_path / "page.md"
    page.write_text(f"<!-- begin: written by {table.program} -->\n<!-- end -->\n")
    table = replace(table, page=page, kept=tmp_path / "kept")
    write_scores(row.folder(runs, 0), table.command(row, 0, "shards", "out"), [0.5])
    table.run(runs, None, True, lambda finished: ["lines"])
    before, kept = page.read_bytes(), sorted((tmp_path / "kept").rglob("*"))
    edited = replace(table, rows=(replace(row, options=f"{row.options} {changed}"),))
    for given in (runs, tmp_path / "none"):  # finished runs, and those kept of them
        with pytest.raises(ConfigurationError, match="order_0 holds a run"):
            edited.run(given, None, True, lambda finished: ["lines"])
    monkeypatch.setattr(method_runs, "check_classes", lambda *_: None)  # of the tiny shards
    with pytest.raises(ConfigurationError, match="1 runs failed"):  # nor is it skipped as finished
        edited.run(runs, tiny_store.root, False, lambda finished: [])
    assert "order_0 holds a run" in capsys.readouterr().err
    assert page.read_bytes() == before and sorted((tmp_path / "kept").rglob("*")) == kept


def test_a_run_with_other_options_is_not_resumed(tiny_settings, tmp_path):
    settings = {"benchmark": tiny_settings["benchmark"], "data": tiny_settings["data"]}
    line = "iirc train --method finetune --network resnet8 --epochs-per-task 1 --device cpu"
    line += "".join(f" --{name} {value}" for name, value in settings.items())
    settings_of(line).save(tmp_path / "config.yaml")
    again = f"{line} --lr 0.5 --output {tmp_path}"
    with (
        Processes(tmp_path) as processes,
        pytest.raises(ConfigurationError, match=r"lr was 1.0, is 0.5 now"),
    ):
        start_or_resume(again, tmp_path, processes)


def test_the_tables_of_iirc_show_the_paper_and_the_published_code(tmp_path, monkeypatch):
    runs, page, curves = tmp_path / "runs", tmp_path / "page.md", tmp_path / "curves.md"
    names = ("lucir-20", "lucir-20, lr 0.1", "joint")
    for row in iirc_on_cifar100.ROWS:
        if row.name in names:
            n_tasks = 1 if row.name == "joint" else 22
            line = iirc_on_cifar100.TABLE.command(row, 0, "shards", "out")
            write_scores(row.folder(runs, 0), line, [0.5 - task / 100 for task in range(n_tasks)])
    table = replace(iirc_on_cifar100.TABLE, page=page, kept=tmp_path / "kept")
    monkeypatch.setattr(iirc_on_cifar100, "TABLE", table)
    monkeypatch.setattr(iirc_on_cifar100, "CURVES", curves)
    for file in (page, curves):
        file.write_text("<!-- begin: written by benchmarks.iirc_on_cifar100 -->\n<!-- end -->\n")
    iirc_on_cifar100.main(runs, table=True)
    text = page.read_text()
    of_ours = "0.500 | 0.490 | 0.450 | 0.400 | 0.290"
    assert f"| lucir-20 | 0 | {of_ours} | 0.06 |" in text
    assert f"| lucir-20, lr 0.1 | 0 | {of_ours} |  |" in text
    assert "| joint | 0 |  |  |  |  | 0.500 | 0.61 |" in text
    assert "| lucir-20 | 1 | published | 0.312 | 0.081 | 0.059 | 0.004 | 0.003 | 0.003 |" in text
    assert "| lucir-20 | 1 | this project | 0.500 | 0.490 | 0.480 |" in text
    shown = curves.read_text()
    assert "| `cifar100-lucir-20` | 0.50 | 0.25 | 0.14 | 0.06 | 0.290 |" in shown
    assert (
        "| `cifar100-icarl_cnn-20` | 0.47 | hidden | hidden | hidden | not trained yet |" in shown
    )
    assert "lr 0.1" not in shown


def write_scores(folder, line, scores):
    """Write the files of a finished run of a command, with a pw-JS after each task."""
    folder.mkdir(parents=True)
    settings_of(line).save(folder / "config.yaml")
    line = {"kind": "evaluation", "split": "test", "task": "all"}
    lines = [line | {"after_task": i, PWJS: score} for i, score in enumerate(scores)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_record(folder, finished=True)


def write_run(folder, line, shift, finished):
    """Write the files of a command's run of two tasks: top-1 0.6 and 0.4, and ``shift`` more."""
    folder.mkdir(parents=True)
    settings_of(line).save(folder / "config.yaml")
    with (folder / "metrics.jsonl").open("w") as file:
        for task, top1 in enumerate((0.6, 0.4)):
            line = {"kind": "evaluation", "split": "test", "after_task": task, "task": "all"}
            line |= {"top1": round(top1 + shift, 3), "hierarchical_f1": 1 / 3}
            for changes in ({}, {"task": 0}, {"split": "posttask_valid"}):
                file.write(json.dumps(line | changes) + "\n")
    write_record(folder, finished=finished)


def test_a_failed_run_is_one_line_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with (
        Processes(tmp_path) as processes,
        pytest.raises(ConfigurationError, match=r"run: exit status 1: .*run.log"),
    ):
        start_or_resume("iirc train", tmp_path / "run", processes)


def test_a_page_without_the_comments_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no comments\n")
    with pytest.raises(ConfigurationError, match="has no lines '<!-- begin: written by x -->'"):
        replace_part(page, "x", ["new"])
    assert page.read_text() == "no comments\n"
