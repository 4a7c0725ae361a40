"""Runs of taxonomies in which levels are hidden or arrive late: trained, resumed, reported."""

import json
from pathlib import Path

import numpy as np
import pytest

from iirc_data.benchmarks import load_benchmark
from iirc_data.datasets_loader import get_lifelong_datasets
from iirc_data.task_sequence import TaskSequence
from iirc_train.config import ExperimentConfig
from iirc_train.report.classes import classes_of
from iirc_train.report.comparison import compare
from iirc_train.report.runs import find_runs
from iirc_train.run.directory import read_metrics
from iirc_train.training.launch import run_experiment
from tests.test_resume import QUIET

pytestmark = pytest.mark.filterwarnings("ignore:.*(rounds to 0|before their superclass)")

# no task introduces "carnivore"; "cat" comes before all that is above it
CONTENT = {
    "name": "late",
    "dataset": "tiny",
    "superclasses": {
        "life": ["animal", "tulip"],
        "animal": ["carnivore", "dog"],
        "carnivore": ["bear", "cat"],
        "pet": ["cat", "dog"],
        "vehicle": ["bus", "truck"],
    },
    "several_superclasses": True,
    "sampling": {"superclass_data_pct": [0.5, 0.4], "subclass_data_pct": 0.8},
    "schedules": [[["cat"], ["bus", "life"], ["vehicle", "bear", "pet"], ["animal", "dog"]]],
}


@pytest.fixture(scope="module")
def run(tiny_settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("late")
    (folder / "late.json").write_text(json.dumps(CONTENT))
    settings = tiny_settings | {"benchmark": str(folder / "late.json"), "method": "icarl_cnn"}
    settings |= {"n_layers": None, "network": "mlp", "lr": 0.01, "hcv": "both"}
    run_experiment(ExperimentConfig.parse(settings), folder / "run", QUIET)
    return folder / "run"


def test_the_published_api_shows_what_runs_train_on(run, tiny_store):
    path = run.parent / "late.json"
    datasets, tasks, order = get_lifelong_datasets(str(path), str(tiny_store.root))
    for split, dataset in datasets.items():
        sequence = TaskSequence.from_store(load_benchmark(path), tiny_store, split)
        for task in range(len(tasks)):
            dataset.choose_task(task)
            shown = sequence.view(task)
            assert len(dataset) == len(shown), split
            rows = [
                [order.get(name, -1) for name in dataset.get_labels(i)] for i in range(len(shown))
            ]
            by_place = shown.labels[np.argsort(shown.places)]
            assert dataset.cur_task_data_ids == sorted(shown.places.tolist())
            assert rows == by_place.tolist()


def test_a_level_has_scores_as_soon_as_one_of_its_classes_was_seen(run):
    levels = {}
    for record in read_metrics(run):
        if record["kind"] == "evaluation" and record["task"] == "all":
            found = {name[6] for name in record if name.startswith("level_")}
            levels.setdefault(record["split"], []).append(sorted(found))
    # among the classes of the schedule, cat and dog are two levels below life
    late = [["2"], ["0", "1", "2"], ["0", "1", "2"], ["0", "1", "2"]]
    assert levels == {"posttask_valid": late, "test": late}
    last = [record for record in read_metrics(run) if record["kind"] == "task"][-1]
    assert {"forgetting", "level_0_forgetting", "level_2_forgetting"} <= last.keys()


def test_the_report_knows_classes_that_came_late_or_never(run):
    ((group,),) = find_runs([run]).by_benchmark().values()
    (comparison,) = compare({"late": [group]})
    summary = comparison.rows[0].summary
    assert summary["level_2_forgetting"].n_runs == summary["final_edge_f1"].n_runs == 1
    classes = classes_of(group)
    levels = {row.name: row.level for row in classes.rows}
    tops = {"life": 0, "pet": 0, "vehicle": 0}
    assert levels == tops | {"animal": 1, "bus": 1, "bear": 2, "cat": 2, "dog": 2}
    life, *_ = classes.tree.nodes
    carnivore = life.children[0].children[0]
    assert (carnivore.name, carnivore.spoken) == ("carnivore", "not introduced")
    assert [node.name for node in carnivore.children] == ["bear", "cat"]
    assert [cell == "" for cell in life.cells] == [True, False, False, False]
