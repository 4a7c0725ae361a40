"""Runs summed up, grouped, compared and written up as a page."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from iirc_data.benchmarks import Benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.cli import app as cli
from iirc_train.report.class_tree import class_tree, top_down
from iirc_train.report.classes import classes_of
from iirc_train.report.comparison import Comparison, Row, escape_latex
from iirc_train.report.confusion import added, by_superclass, mean_recalls, refinements
from iirc_train.report.confusion_plots import MOST_CELLS, _cells
from iirc_train.report.costs import flat_record, read_cost
from iirc_train.report.paper import paper_curves, paper_name
from iirc_train.report.plots import Look, curves_figure
from iirc_train.report.recorded import recorded_settings
from iirc_train.report.runs import Group, Run, find_runs
from iirc_train.report.summary import Spread, curve_of, mean_by_task, spread
from iirc_train.report.tables import comparison_tables
from iirc_train.report.wide_tables import Column, print_tables, tables_within, terminal_width
from iirc_train.run.confusion import Confusion, read_confusions
from iirc_train.run.record import is_finished
from iirc_train.run.results import JS, PWJS, read_results
from iirc_train.run.summaries import (
    average_incremental_score,
    backward_transfer,
    final_score,
    forgetting,
    summary_tables,
)
from tests.made_up_runs import (
    ALL_SEEN,
    write_confusion,
    write_record,
    write_run,
    write_waiting,
)

ODD_NAME = '<script>alert("$x_1")</script>'


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    """Four tasks, three levels, and a class name that is markup, a formula and an attack."""
    path = tmp_path_factory.mktemp("benchmark") / "odd.json"
    made = Benchmark(
        name="odd & <b>bold</b>",
        dataset="odd",
        superclasses={"animal": ["cat", "dog"], "vehicle": ["bus", "cat"], "cat": [ODD_NAME]},
        several_superclasses=True,
        schedules=[[["animal", "vehicle"], ["cat"], ["dog", "bus"], [ODD_NAME]]] * 2,
    )
    path.write_text(made.model_dump_json())
    return path


@pytest.fixture
def run(tmp_path, benchmark) -> Path:
    return write_run(tmp_path / "runs" / "run", benchmark)


def command(*arguments):
    runner = CliRunner(env={"COLUMNS": "160"})
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def test_the_summary_of_a_run_is_that_of_a_calculation_by_hand(run):
    results = read_results(run)
    assert average_incremental_score(results) == pytest.approx((0.9 + 0.6 + 0.5 + 0.4) / 4)
    assert final_score(results) == 0.4
    # best before the last task 0.9, 0.8, 0.7; after it 0.4, 0.2, 0.5
    assert forgetting(results) == pytest.approx((0.5 + 0.6 + 0.2) / 3)
    assert backward_transfer(results) == pytest.approx((-0.5 - 0.6 - 0.2) / 3)


def test_forgetting_counts_from_the_best_score_and_backward_transfer_from_the_first(
    tmp_path, benchmark
):
    scores = [[0.5], [0.8, 0.4], [0.6, 0.5, 0.9]]
    results = read_results(write_run(tmp_path / "run", benchmark, scores, [0.5] * 3))
    assert forgetting(results) == pytest.approx(((0.8 - 0.6) + (0.4 - 0.5)) / 2)
    assert backward_transfer(results) == pytest.approx(((0.6 - 0.5) + (0.5 - 0.4)) / 2)


def test_a_single_task_is_not_forgotten(tmp_path, benchmark):
    results = read_results(write_run(tmp_path / "run", benchmark, [[0.9]], [0.9]))
    assert np.isnan(forgetting(results)) and np.isnan(backward_transfer(results))


def test_a_spread_is_that_of_a_sample_and_leaves_out_what_is_missing():
    assert spread([0.1, 0.3, np.nan]).text() == "0.200 ± 0.141"
    assert spread([0.25]).text() == "0.250"
    assert spread([np.nan]).text() == ""


def test_curves_go_on_with_the_runs_that_have_reached_a_task(tmp_path, benchmark):
    long = read_results(write_run(tmp_path / "a", benchmark))
    short = read_results(write_run(tmp_path / "b", benchmark, [[0.7]], [0.7]))
    curve = curve_of([long, short])
    assert [score.n_runs for score in curve] == [2, 1, 1, 1]
    assert [score.mean for score in curve] == pytest.approx([0.8, 0.6, 0.5, 0.4])
    matrix = mean_by_task([short, long])
    assert matrix[0, 0] == pytest.approx(0.8) and matrix[3, 1] == pytest.approx(0.2)
    assert np.isnan(matrix[0, 1])


def test_runs_are_found_below_a_folder_and_each_once(run, benchmark):
    other = write_run(run.parent / "deep" / "other", benchmark, seed=1)
    found = find_runs([run.parent, run])
    assert {one.path for one in found.runs} == {run.resolve(), other.resolve()}
    assert not found.waiting and not found.repeated


def test_a_schedule_and_seed_count_once_and_the_finished_run_of_them(tmp_path, benchmark):
    begun = write_run(tmp_path / "begun", benchmark, [[0.9]], ALL_SEEN[:1], threads=1)
    whole = write_run(tmp_path / "whole", benchmark)
    again = write_run(tmp_path / "whole again", benchmark, data="elsewhere/shards")
    other = write_run(tmp_path / "other", benchmark, seed=1)
    found = find_runs([tmp_path])
    assert {run.path for run in found.runs} == {whole, other}
    assert found.repeated == {begun: whole, again: whole}
    ((group,),) = found.by_benchmark().values()
    assert len(group.runs) == 2
    told = f"left out, same experiment, schedule and seed as {whole}: {again}"
    assert told in page_of(tmp_path, "--output", tmp_path / "report").text
    printed = CliRunner().invoke(cli.app, ["compare", str(tmp_path)])
    assert told in printed.stdout.splitlines()


def test_drafts_of_runs_are_not_found(run, benchmark):
    write_run(run.parent / ".lower_lr.branch.partial", benchmark)
    write_run(run.parent / "deep" / ".lower_lr.branch.partial" / "inside", benchmark)
    assert [one.path for one in find_runs([run.parent]).runs] == [run.resolve()]


def test_runs_below_a_hidden_folder_are_found(tmp_path, benchmark):
    run = write_run(tmp_path / ".cache" / "runs" / "run", benchmark)
    assert [one.path for one in find_runs([run.parent]).runs] == [run.resolve()]


def test_repetitions_are_one_group_and_methods_name_groups(tmp_path, benchmark):
    for number in range(2):
        folder = tmp_path / f"{number}"
        repetition = {"schedule": number, "seed": number, "data": f"/data/{number}", "threads": 1}
        write_run(
            folder / "a", benchmark, method="icarl_cnn", n_memories_per_class=20, **repetition
        )
        write_run(folder / "b", benchmark, method="finetune", **repetition)
    (groups,) = find_runs([tmp_path]).by_benchmark().values()
    assert {group.name: len(group.runs) for group in groups} == {"icarl_cnn": 2, "finetune": 2}


def test_settings_that_tell_groups_of_a_method_apart_are_named(tmp_path, benchmark):
    write_run(tmp_path / "a", benchmark, lr=0.1)
    write_run(tmp_path / "b", benchmark, lr=0.5)
    write_run(tmp_path / "c", benchmark, lr=0.5, incremental_joint=True)
    write_run(tmp_path / "d", benchmark, method="lucir", lr=0.7)
    (groups,) = find_runs([tmp_path]).by_benchmark().values()
    assert [group.name for group in groups] == [
        "finetune, lr 0.1",
        "finetune, lr 0.5",
        "incremental joint",
        "lucir",
    ]


def test_definitions_in_two_files_are_two_groups_though_they_share_a_name(tmp_path, benchmark):
    copy = tmp_path / "copy.json"
    copy.write_text(benchmark.read_text())
    write_run(tmp_path / "a", benchmark)
    write_run(tmp_path / "b", copy)
    (groups,) = find_runs([tmp_path]).by_benchmark().values()
    assert [group.name for group in groups] == [
        f"finetune, benchmark {benchmark}",
        f"finetune, benchmark {copy}",
    ]


def group_sizes(folder: Path) -> dict[str, int]:
    (groups,) = find_runs([folder]).by_benchmark().values()
    return {group.name: len(group.runs) for group in groups}


def write_branch(
    folder, benchmark, parent, task=1, *, of=None, before=None, precision="fp32", **settings
) -> None:
    """Write a run that left another one, which was a branch itself if ``of`` is its origin."""
    changes = {n: {"before": old, "after": settings[n]} for n, old in (before or {}).items()}
    origin = {"run": f"/runs/{parent}", "task": task, "settings": changes}
    origin |= {"precision": [precision]}
    write_record(
        write_run(folder, benchmark, **settings),
        parent=origin if of is None else origin | {"parent": of},
    )


def test_a_branch_is_no_repetition_of_a_run_that_trained_all_tasks(tmp_path, benchmark):
    for name, lr in (("base", 1.0), ("fresh", 0.01)):
        write_record(write_run(tmp_path / name, benchmark, lr=lr))
    write_branch(tmp_path / "seed", benchmark, "base", seed=1, before={"seed": 0})
    write_branch(tmp_path / "lr", benchmark, "base", lr=0.01, before={"lr": 1.0})
    write_branch(tmp_path / "late", benchmark, "base", 2, lr=0.01, before={"lr": 1.0})
    write_branch(tmp_path / "same", benchmark, "base", 2, lr=0.01, before={"lr": 0.5})
    assert group_sizes(tmp_path) == {
        "finetune, lr 1.0": 1,
        "finetune, lr 0.01": 1,
        "finetune, branch after task 1, lr 1.0": 1,
        "finetune, branch after task 1, lr 0.01": 1,
        "finetune, branch after task 2, changed lr from 1.0 to 0.01": 1,
        "finetune, branch after task 2, changed lr from 0.5 to 0.01": 1,
    }


def test_branches_of_repetitions_are_repetitions_but_not_those_of_one_run(tmp_path, benchmark):
    for seed in range(2):
        place = {"data": f"/data/{seed}", "seed": seed}
        before = {"lr": 1.0, "data": "/data"}
        write_branch(tmp_path / f"{seed}", benchmark, seed, lr=0.1, before=before, **place)
    for seed in (7, 8):
        before = {"lr": 1.0, "seed": 0}
        write_branch(tmp_path / f"{seed}", benchmark, 0, lr=0.1, seed=seed, before=before)
    assert group_sizes(tmp_path) == {
        "finetune, branch after task 1, changed lr from 1.0 to 0.1": 2,
        "finetune, branch after task 1, changed lr from 1.0 to 0.1, seed to 7": 1,
        "finetune, branch after task 1, changed lr from 1.0 to 0.1, seed to 8": 1,
    }


def test_branches_of_runs_in_different_precision_are_no_repetitions(tmp_path, benchmark):
    for seed, precision in enumerate(["bf16", "fp32", "fp32"]):
        write_branch(tmp_path / f"{seed}", benchmark, seed, precision=precision, seed=seed)
    assert group_sizes(tmp_path) == {
        "finetune, branch after task 1, precision before bf16": 1,
        "finetune, branch after task 1, precision before fp32": 2,
    }


def test_a_branch_tells_the_precisions_before_it_that_are_known():
    origins = [{"precision": ["fp32", "bf16"]}, {"precision": []}, {}]  # the last by an old release
    record = {"dataset": {}, "sessions": []}
    for task, origin in enumerate(origins):
        above = {"parent": record["parent"]} if "parent" in record else {}
        record["parent"] = {"task": task, "settings": {}} | origin | above
    assert recorded_settings(record)["precision before"] == "fp32, then bf16"


def test_a_branch_of_a_branch_is_no_repetition_of_a_branch(tmp_path, benchmark):
    write_branch(tmp_path / "a", benchmark, "base", 2, lr=0.1, before={"lr": 1.0})
    for name, changes in (("b", {}), ("c", {"seed": {"before": 0, "after": 3}})):
        first = {"run": "/runs/base", "task": 0, "settings": changes}
        write_branch(tmp_path / name, benchmark, name, 2, of=first, lr=0.1, before={"lr": 1.0})
    twice = "finetune, branch after task 0, then after task 2"
    assert group_sizes(tmp_path) == {
        "finetune, branch after task 2": 1,
        f"{twice}, changed nothing, then lr from 1.0 to 0.1": 1,
        f"{twice}, changed seed to 3, then lr from 1.0 to 0.1": 1,
    }


def test_runs_on_different_data_are_not_repetitions_wherever_it_is(tmp_path, benchmark):
    for seed, (digest, place) in enumerate([("a", "x"), ("a", "y"), ("b", "x")]):
        run = write_run(tmp_path / f"{seed}", benchmark, seed=seed, data=f"/{place}")
        write_record(run, dataset={"name": "odd", "digest": digest * 64})
    assert group_sizes(tmp_path) == {
        f"finetune, dataset digest {'a' * 16}": 2,
        f"finetune, dataset digest {'b' * 16}": 1,
    }


def test_precision_and_weights_distinguish_groups_as_they_were_resolved(tmp_path, benchmark):
    trained = {
        "a": ("auto", ["fp32"], "1"),
        "b": ("fp32", ["fp32"], "1"),
        "c": ("auto", ["bf16", "bf16"], "1"),
        "d": ("bf16", ["fp32", "bf16"], "1"),
        "e": ("auto", ["fp32"], "2"),
    }
    for seed, (name, (precision, sessions, weights)) in enumerate(trained.items()):
        run = write_run(
            tmp_path / name, benchmark, seed=seed, precision=precision, weights="default"
        )
        resolved = [{"precision": p, "weights_digest": weights * 64} for p in sessions]
        write_record(run, sessions=[{"versions": {}, "resolved": of_one} for of_one in resolved])
    assert group_sizes(tmp_path) == {
        f"finetune, precision fp32, weights digest {'1' * 16}": 2,
        f"finetune, precision bf16, weights digest {'1' * 16}": 1,
        f"finetune, precision fp32, then bf16, weights digest {'1' * 16}": 1,
        f"finetune, precision fp32, weights digest {'2' * 16}": 1,
    }


def test_runs_whose_records_lack_data_and_precision_are_grouped_by_their_settings(
    tmp_path, benchmark
):
    for seed in range(2):
        run = write_run(tmp_path / f"{seed}", benchmark, seed=seed)
        write_record(run)  # of an earlier release
    assert group_sizes(tmp_path) == {"finetune": 2}


def test_each_group_is_shown_in_the_taxonomy_of_its_own_benchmark(tmp_path):
    for name in ("animal", "pet"):
        own = Benchmark(name="x", dataset="x", superclasses={name: ["cat"]}, schedules=[[["cat"]]])
        (tmp_path / f"{name}.json").write_text(own.model_dump_json())
        run = write_run(tmp_path / name, tmp_path / f"{name}.json", [[0.5]], [0.5])
        write_confusion(run, 0, ["cat"], [[1]], [2])
    (groups,) = find_runs([tmp_path]).by_benchmark().values()
    trees = [classes_of(group).tree for group in groups]
    assert [[node.name for node in tree.nodes] for tree in trees] == [["animal"], ["pet"]]


def test_a_run_on_its_way_does_not_change_the_summary_of_finished_ones(tmp_path, benchmark):
    write_run(tmp_path / "a", benchmark)
    write_run(tmp_path / "b", benchmark, [[0.1]], [0.1], seed=1)
    result = command("compare", tmp_path)
    assert result.exit_code == 0, result.output
    assert "1 of 2 done" in result.output
    row = next(line for line in result.output.splitlines()[::-1] if "finetune" in line)
    assert row.split()[-4:] == ["0.600", "0.400", "0.433", "-0.433"]


LONG_GROUPS = ("simplecil/il", "der_plus_plus, lr 0.1, seed 2", "icarl_cnn")


def long_comparison() -> Comparison:
    """22 tasks and all summaries of class-incremental runs, over two runs each."""
    (summaries,) = summary_tables("top1", ["top1"])
    score = Spread(0.123, 0.045, 2)
    rows = [
        Row(name, 2, 2, [score] * 22, {s.name: score for s in summaries.summaries})
        for name in LONG_GROUPS
    ]
    return Comparison("cil_cifar100_b0_20", rows, "top1", (summaries,))


@pytest.mark.parametrize("width", [50, 60, 80, 240])
def test_tables_that_do_not_fit_the_terminal_are_split_and_no_word_is_broken(width):
    comparison = long_comparison()
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    tables = comparison_tables(comparison, terminal_width(console))
    print_tables(console, tables)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("simplecil/il") == text.count("group") == len(tables)
    assert len(tables) == 2 if width == 240 else len(tables) > 2
    words = set(text.split())
    assert {word for name in LONG_GROUPS for word in name.split()} <= words
    assert {w for s in comparison.tables[0].summaries for w in s.heading.split()} <= words
    assert {str(task) for task in range(22)} <= words


def test_a_group_whose_name_is_one_long_word_is_not_broken_on_any_terminal():
    (table, *_) = tables_within(20, "t", [Column("group", ["g" * 50])], [Column("0", ["0.1"])])
    console = Console(file=io.StringIO(), force_terminal=True, width=20, color_system=None)
    print_tables(console, [table])
    assert "g" * 50 in console.file.getvalue()


def test_without_a_terminal_there_is_one_whole_table(tmp_path, benchmark):
    write_run(tmp_path / "run", benchmark, method="icarl_cnn", n_memories_per_class=1)
    result = CliRunner(env={"COLUMNS": "20"}).invoke(cli.app, ["compare", str(tmp_path)])
    lines = result.output.splitlines()
    heads = [line.split() for line in lines if "group" in line]
    assert heads[0] == ["group", "runs", "0", "1", "2", "3"]
    assert sum("icarl_cnn" in line for line in lines) == 2


def test_compare_writes_csv_and_latex(tmp_path, run, benchmark):
    write_run(run.parent / "again", benchmark, all_seen=[0.7, 0.6, 0.5, 0.2], seed=1)
    write_run(run.parent / "other", benchmark, method="icarl_cnn", n_memories_per_class=1)
    files = ["--csv", tmp_path / "x" / "table.csv", "--latex", tmp_path / "table.tex"]
    result = command("compare", run.parent, *files)
    assert result.exit_code == 0, result.output
    with (tmp_path / "x" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    after_last = next(r for r in rows if r["group"] == "finetune" and r["after_task"] == "3")
    assert float(after_last["mean"]) == pytest.approx(0.3)
    assert float(after_last["sd"]) == pytest.approx(np.std([0.4, 0.2], ddof=1))
    assert after_last["runs"] == "2"
    table = (tmp_path / "table.tex").read_text()
    assert r"finetune & $0.550 \pm 0.071$ & $0.300 \pm 0.141$" in table
    assert r"icarl\_cnn & $\mathbf{0.600}$ & $\mathbf{0.400}$" in table
    assert table.count("\\begin{tabular}") == 1 and "\\bottomrule" in table


def test_latex_has_no_special_character_left():
    text = escape_latex(r"100% of $5_a & {#1} \x ~^")
    assert text == (
        r"100\% of \$5\_a \& \{\#1\} \textbackslash{}x \textasciitilde{}\textasciicircum{}"
    )


class PageParser(HTMLParser):
    """Collects what a browser would run, load or show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.labels: set[str | None] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.labels |= {value for name, value in attrs if name == "aria-label"}
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_data(self, data):
        self.text += data


def page_of(*arguments) -> PageParser:
    result = command("report", *arguments)
    assert result.exit_code == 0, result.output
    output = Path(arguments[-1])
    page = PageParser()
    text = (output / "report.html").read_text()
    assert "http" not in re.sub(r'xmlns[:a-z]*="[^"]*"|\(https://[^)]*\)', "", text)
    page.feed(text)
    return page


def test_up_to_forty_groups_look_different_even_in_gray(tmp_path, benchmark):
    looks = [Look.of(place) for place in range(40)]
    assert len({(look.marker, look.line) for look in looks}) == 40
    for first in range(0, 40, 10):
        assert len({look.colour for look in looks[first : first + 10]}) == 10
        lines = {look.line for look in looks[first : first + 10]}
        assert len(lines) == 2  # where curves lie on each other, one shows through the other's gaps
    joint = {3, 17}
    of_joint = {"scores": [[0.5]], "all_seen": [0.5], "joint": True}
    runs = [
        write_run(tmp_path / str(n), benchmark, **(of_joint if n in joint else {}))
        for n in range(24)
    ]
    groups = [Group(f"group {n}", [Run.read(run)]) for n, run in enumerate(runs)]
    figure = curves_figure(groups)
    drawn = figure.axes[0].get_lines()
    (legend,) = figure.legends
    shown = dict(zip([t.get_text() for t in legend.texts], legend.get_lines(), strict=True))
    assert list(shown) == [group.name for group in groups] and len(drawn) == 24
    for line in drawn:
        as_shown = shown[line.get_label()]
        assert (line.get_marker(), line.get_color()) == (
            as_shown.get_marker(),
            as_shown.get_color(),
        )
    styles = {(line.get_marker(), str(line._unscaled_dash_pattern)) for line in drawn}
    assert len(styles) == 24
    for n, line in enumerate(drawn):
        heights = set(line.get_ydata())
        assert (len(heights) == 1) == (n in joint)


def test_a_run_that_finished_one_task_is_a_point_and_only_joint_training_a_line(
    tmp_path, benchmark
):
    one_task = {"scores": [[0.9]], "all_seen": [0.9]}
    write_run(tmp_path / "a", benchmark, method="icarl_cnn")
    write_run(tmp_path / "b", benchmark, **one_task)
    write_run(tmp_path / "c", benchmark, **one_task, joint=True)
    (groups,) = find_runs([tmp_path]).by_benchmark().values()
    drawn = curves_figure(groups).axes[0].get_lines()
    assert {line.get_label(): line.get_xdata().tolist() for line in drawn} == {
        "icarl_cnn": [0, 1, 2, 3],
        "finetune": [0],
        "joint": [0, 3],
    }


def test_the_page_escapes_names_and_loads_nothing_and_its_figures_are_files(tmp_path, run):
    names = ["animal", "vehicle", "cat", "dog", "bus", ODD_NAME]
    for after_task, n in enumerate([2, 3, 5, 6]):
        counts = np.full((n, n), 2) + 6 * np.eye(n, dtype=int)
        write_confusion(run, after_task, names[:n], counts, [10] * n)
    write_record(run, packages={"<i>torch</i>": "2.11"})
    page = page_of(run, "--output", tmp_path / "report")
    assert not page.tags & {"script", "i", "b", "iframe", "object"}
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert ODD_NAME in page.text and "odd & <b>bold</b>" in page.text
    assert "packages.<i>torch</i>" in page.text
    assert "0.433" in page.text and "80.0" in page.text and "2.00" in page.text
    assert "Not finished" not in page.text
    assert "recall in percent after tasks 2 to 3: 80, 80" in page.labels  # of the tree's cells
    assert "subclasses: see animal" in page.text and "1 class below, mean 80.0" in page.text
    figures = list((tmp_path / "report" / "figures").iterdir())
    assert len({path.stem for path in figures}) == 5  # pw-JS, JS, tasks, confusion, recalls
    for path in figures:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_page_says_which_runs_are_not_finished_have_no_counts_or_waited(tmp_path, benchmark):
    write_run(tmp_path / "runs" / "a", benchmark, [[0.9]], ALL_SEEN[:1])
    waiting = write_run(tmp_path / "runs" / "b", benchmark, [], [], method="lucir")
    write_waiting(tmp_path / "runs" / "a", [0.1, 0.2])
    page = page_of(tmp_path / "runs", "--output", tmp_path / "report")
    assert "1 of 4 tasks" in page.text
    assert f"no evaluation yet: {waiting}" in page.text
    assert "1 run\n" in page.text
    assert "No counts of predicted labels" in page.text
    assert f"{tmp_path}/runs/a: the network waited for images 8 % of the time." in page.text


def test_the_page_copes_with_a_benchmark_that_is_gone(tmp_path, run):
    config = run / "config.yaml"
    config.write_text(re.sub("benchmark: .*", "benchmark: gone/mine.json", config.read_text()))
    page = page_of(run, "--output", tmp_path / "report")
    assert "mine" in page.text and "0.433" in page.text


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda run: (run / "config.yaml").unlink(), "contains no run"),
        (lambda run: (run / "metrics.jsonl").unlink(), "not a readable run"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "no evaluation yet"),
        (lambda run: (run / "metrics.jsonl").write_text('{"kind": "eva'), "not a readable run"),
        (lambda run: (run / "metrics.jsonl").write_text("[1]\n"), "is damaged"),
        (
            lambda run: (run / "metrics.jsonl").write_text(
                '{"kind": "evaluation", "split": "test", "after_task": 0, "task": 3}\n'
            ),
            "is damaged",
        ),
    ],
)
def test_a_folder_without_readable_run_is_named(run, tmp_path, name, spoil, message):
    spoil(run)
    arguments = [] if name == "compare" else ["--output", tmp_path / "report"]
    result = command(name, run, *arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception) and str(run) in str(result.exception)
    assert not (tmp_path / "report").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_counts_of_runs_are_added_by_class_name(tmp_path):
    write_confusion(tmp_path / "a", 0, ["x", "y"], [[1, 2], [3, 4]], [5, 6])
    write_confusion(tmp_path / "b", 1, ["y", "x"], [[40, 30], [20, 10]], [60, 50])
    both = added([read_confusions(tmp_path / "a")[0], read_confusions(tmp_path / "b")[1]])
    assert both.class_names == ["x", "y"]
    assert both.counts.tolist() == [[11, 22], [33, 44]]
    assert both.n_samples.tolist() == [55, 66]
    assert both.recall == {"x": 11 / 55, "y": 44 / 66}


def test_bounds_of_predicting_both_labels_hold_for_any_predictions(tmp_path, tiny_benchmark):
    random = np.random.default_rng(0)
    for _ in range(20):
        n = int(random.integers(1, 9))
        dog, animal = random.random((2, n)) < random.random((2, 1))
        counts = [[0, 0], [int(animal.sum()), int(dog.sum())]]
        write_confusion(tmp_path, 0, ["animal", "dog"], counts, [0, n])
        (found,) = refinements(read_confusions(tmp_path)[0], tiny_benchmark.taxonomy)
        assert (found.subclass_recall, found.superclass_recall) == (dog.mean(), animal.mean())
        if dog.any():
            together = (dog & animal).sum() / dog.sum()
            assert found.least_together <= together <= found.most_together
        else:
            assert np.isnan(found.least_together) and np.isnan(found.most_together)


DEEP = Benchmark(
    name="deep",
    dataset="deep",
    superclasses={
        "animal": ["dog", "cat"],
        "dog": ["pug", "husky"],
        "pet": ["pug", "dog", "rat"],
    },
    several_superclasses=True,
    other_classes=["tulip"],
    readable_names={"pug": "little <pug>"},
    schedules=[[["animal", "pet"], ["dog", "cat"], ["pug", "tulip", "husky", "rat"]]],
)


def counts_of(names: list[str], seed: int = 0) -> Confusion:
    generator = np.random.default_rng(seed)
    n_samples = generator.integers(1, 30, len(names))
    counts = generator.integers(0, n_samples[:, None] + 1, (len(names), len(names)))
    return Confusion(names, counts, n_samples)


def test_classes_of_any_depth_follow_their_first_superclass_and_none_is_lost():
    order = ["animal", "dog", "pug", "husky", "cat", "pet", "rat", "tulip"]
    assert list(top_down(DEEP.taxonomy)) == order
    counts = counts_of(["gone", "rat", "tulip", "husky", "dog", "animal"])
    sorted_counts = by_superclass(counts, DEEP.taxonomy)
    assert sorted_counts.class_names == ["animal", "dog", "husky", "rat", "tulip", "gone"]
    assert sorted_counts.recall == counts.recall


def test_recalls_are_averaged_over_the_classes_of_a_level():
    # pug and husky are at level 2, although pug is also directly below pet
    recalls = {"animal": 0.5, "tulip": 1.0, "dog": 0.4, "cat": np.nan, "pug": 0.1, "husky": 0.3}
    assert mean_recalls(recalls, DEEP.taxonomy) == pytest.approx([0.75, 0.4, 0.2])
    assert np.isnan(mean_recalls({"dog": 0.1}, DEEP.taxonomy)[[0, 2]]).all()


def test_each_direct_superclass_of_a_class_has_a_refinement():
    found = refinements(counts_of(["pug", "pet", "dog", "animal", "rat"]), DEEP.taxonomy)
    pairs = {(one.subclass, one.superclass) for one in found}
    expected = {("pug", "dog"), ("pug", "pet"), ("dog", "animal"), ("dog", "pet"), ("rat", "pet")}
    assert pairs == expected and len(found) == len(expected)


def test_the_tree_says_what_is_known_and_what_was_forgotten():
    first = {
        0: {"animal": 0.9, "pet": 0.5},
        1: {"animal": 0.6, "pet": 0.7, "dog": 0.8, "cat": 0.3},
        2: {"animal": 0.7, "pet": 0.1, "dog": 0.8, "cat": np.nan, "pug": 1.0, "husky": 0.0},
    }
    second = {0: {"animal": 0.7, "pet": 0.5}, 1: {"animal": 0.3, "pet": 0.5, "dog": 0.0}}
    tree = class_tree([first, second], DEEP)
    assert tree.n_tasks == 3 and tree.n_rows == 8 and tree.has_levels and tree.is_open
    animal, pet = tree.nodes
    assert (animal.name, animal.now, animal.forgotten) == ("animal", "50.0", "30.0")
    assert animal.cells == ["8", "4", "7"]  # of 0.8, 0.45, and of the first run alone
    assert animal.spoken == "recall in percent after tasks 0 to 2: 80, 45, 70"
    assert animal.below == "3 classes below, mean 50.0"  # pug, husky; cat is not known
    dog, cat = animal.children
    assert dog.cells == ["", "4", "8"] and [child.name for child in dog.children] == [
        "little <pug>",
        "husky",
    ]
    assert dog.spoken == "recall in percent after tasks 1 to 2: 40, 80"
    assert (cat.now, cat.forgotten, cat.cells) == ("", "", ["", "3", ""])
    pug, dog_again = pet.children  # rat was not introduced
    assert (pug.name, pug.see, pug.spoken) == (
        "little <pug>",
        "",
        "recall in percent after task 2: 100",
    )
    assert (dog_again.see, dog_again.children, dog_again.now) == ("animal", [], dog.now)


def test_a_class_below_superclasses_that_were_not_introduced_is_in_the_tree():
    (animal, pet) = class_tree([{0: {"dog": 0.5}}], DEEP).nodes
    assert (animal.name, animal.now, animal.spoken) == ("animal", "", "not introduced")
    assert [(dog.name, dog.now) for dog in animal.children] == [("dog", "50.0")]
    assert [(dog.name, dog.see) for dog in pet.children] == [("dog", "animal")]


def test_a_tree_of_many_classes_is_closed_and_names_of_other_definitions_are_kept():
    tree = class_tree([{0: {f"class {n}": 0.5 for n in range(41)}}], DEEP)
    assert not tree.is_open and not tree.has_levels
    assert [node.name for node in tree.nodes] == [f"class {n}" for n in range(41)]


def test_cells_of_a_large_confusion_are_means_over_neighbours():
    n = MOST_CELLS + 300
    counts = counts_of([f"class {place}" for place in range(n)])
    counts.n_samples[:2] = 0
    edges, cells = _cells(counts)
    assert cells.shape == (MOST_CELLS, MOST_CELLS) and (edges[0], edges[-1]) == (0, n)
    assert np.isnan(cells[0]).all()  # classes without images
    for row, column in ((3, 3), (500, 17), (999, 999)):
        block = counts.rates[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        assert cells[row, column] == pytest.approx(block.mean())


def test_compare_has_tables_of_the_hierarchy_and_of_each_level(tmp_path):
    (tmp_path / "deep.json").write_text(DEEP.model_dump_json())
    scores = [[0.9], [0.5, 0.8], [0.6, 0.3, 0.7]]
    run = write_run(tmp_path / "run", tmp_path / "deep.json", scores, [0.9, 0.6, 0.5])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in filter(lambda line: line.get("split") == "test", lines):
        after, task = line["after_task"], line["task"]
        level_1 = 0.2 * after + 0.1 * (0 if task == "all" else task)
        line |= {"hierarchical_f1": 0.5, "level_0_modified_jaccard_sim": 0.9 - 0.1 * after}
        line |= {"level_1_modified_jaccard_sim": level_1} if after else {}
        line |= {"edge_precision": 0.25, "mistake_severity": 1.75} if task == "all" else {}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = command("compare", run, "--csv", tmp_path / "t.csv", "--latex", tmp_path / "t.tex")
    assert result.exit_code == 0, result.output
    with (tmp_path / "t.csv").open() as file:
        found = {row["quantity"]: float(row["mean"]) for row in csv.DictReader(file)}
    assert (found["hierarchical F1"], found["mistake severity"]) == (0.5, 1.75)
    assert found["pw-JS at level 1"] == pytest.approx(0.4) and found["edge precision"] == 0.25
    # level 0: best before the last task 0.9 and 0.8, then 0.7; level 1: 0.2 and 0.3, then 0.4, 0.5
    assert found["forgetting at level 0"] == pytest.approx(0.15)
    assert found["forgetting at level 1"] == pytest.approx(-0.2)
    latex = (tmp_path / "t.tex").read_text()
    assert latex.count("\\begin{tabular}") == 6 and "forgetting at level 1" in latex


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, counts=np.zeros((2, 2)), class_names=np.array(["a", "b"])),
        lambda path: np.savez(
            path, counts=np.zeros((2, 3)), n_samples=np.zeros(2), class_names=np.array(["a", "b"])
        ),
        lambda path: np.savez(
            path,
            counts=np.zeros((1, 1)),
            n_samples=np.zeros(1),
            class_names=np.array([{"a": "pickle"}]),
        ),
    ],
)
def test_damaged_counts_are_named(tmp_path, spoil):
    write_confusion(tmp_path, 0, ["a"], [[1]], [1])
    path = tmp_path / "confusion" / "after_task_000.npz"
    spoil(path)
    with pytest.raises(ConfigurationError, match=r"after_task_000.npz is damaged"):
        read_confusions(tmp_path)


def test_costs_are_read_and_may_be_missing(run):
    cost = read_cost(run)
    assert cost is not None
    assert cost.images_per_second == pytest.approx((50 + 25) / 2)
    assert cost.hours == pytest.approx(6 / 3600) and cost.peak_memory == 2**31
    assert cost.waiting_share is None and cost.waiting_text == ""  # an earlier release's run
    (run / "timings.jsonl").write_text("not json\n")
    with pytest.raises(ConfigurationError, match=r"timings.jsonl is damaged"):
        read_cost(run)
    (run / "timings.jsonl").unlink()
    assert read_cost(run) is None


@pytest.mark.parametrize(
    ("waited", "share", "is_notable"),
    [([0.0, 0.2], 0.05, False), ([1.0, 1.0], 0.5, True), ([None, 1.0], 0.5, True)],
)
def test_costs_say_how_long_the_network_waited_for_images(run, waited, share, is_notable):
    write_waiting(run, waited)
    cost = read_cost(run)
    assert cost.waiting_share == pytest.approx(share)
    sentence, *advice = cost.waiting_text.split("; ", 1)
    assert sentence == f"the network waited for images {100 * share:.0f} % of the time"
    assert bool(advice) == is_notable


def test_a_record_is_read_flat_and_may_be_missing(run):
    assert flat_record(run) is None
    write_record(run, a={"b": {"c": 1}}, d=["iirc", "train"])
    assert {"a.b.c": "1", "d": "iirc train"}.items() <= flat_record(run).items()
    (run / "record.json").write_text("[]")
    with pytest.raises(ConfigurationError, match=r"record.json is not readable"):
        flat_record(run)


@pytest.mark.parametrize("finished", [True, False])
def test_the_record_decides_whether_a_run_is_finished(run, finished):
    assert Run.read(run).finished  # only results were kept: all tasks are evaluated
    write_record(run, finished=finished)
    assert Run.read(run).finished == is_finished(run) == finished


def test_the_papers_curves_are_of_its_benchmarks_and_methods(tmp_path, benchmark):
    precise = {curve.name: curve.scores for curve in paper_curves("iirc_cifar100", PWJS)}
    jaccard = {curve.name: curve.scores for curve in paper_curves("iirc_cifar100", JS)}
    for name, scores in precise.items():
        assert len(scores) in (1, 22)
        known = ~np.isnan(scores) & ~np.isnan(jaccard[name])
        assert (scores <= jaccard[name] + 0.002)[known].all()  # precision only takes away
    assert paper_curves("iirc_cifar10", PWJS) == []
    runs = [
        ("ER", {"n_memories_per_class": 20}),
        ("finetune", {}),
        ("joint", {"joint": True}),
        ("iCaRL-norm", {"method": "icarl_norm"}),
        (None, {"method": "icarl"}),
    ]
    for number, (name, settings) in enumerate(runs):
        write_run(tmp_path / str(number), benchmark, **settings)
        (found,) = find_runs([tmp_path / str(number)]).runs
        assert paper_name(found.config) == name
        assert name is None or name in precise
