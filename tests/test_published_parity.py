"""Every task view of the published benchmarks, against ``iirc==1.0.1``, at 1/20 of real sizes."""

import importlib
import sys

import iirc.lifelong_dataset.torch_dataset as published
import numpy as np
import pytest

from benchmarks.parity import compare, published_benchmarks
from iirc_data.benchmarks import SamplingSettings, load_benchmark
from iirc_data.console import run_tool
from iirc_data.definitions import IIRC_SETUP, TEST, TRAIN
from iirc_data.task_sequence import TaskSequence

N_SCHEDULES = {
    "iirc_cifar100": 10,
    "incremental_cifar100": 10,
    "iirc_imagenet_full": 5,
    "iirc_imagenet_lite": 5,
    "incremental_imagenet_full": 5,
    "incremental_imagenet_lite": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", published_benchmarks())
def test_every_task_view_equals_the_published_package_sample_for_sample(name):
    comparisons = list(compare(load_benchmark(name), fraction=1 / 20, splits=(TRAIN, TEST)))
    assert len(comparisons) == N_SCHEDULES[name]
    for comparison in comparisons:
        assert comparison.differences == []
        assert min(comparison.n_samples.values()) > 500


@pytest.mark.parametrize("program", ["parity", "task_views"])
def test_without_the_published_package_the_programs_say_in_one_line_what_to_install(
    monkeypatch, capsys, program
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "iirc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "iirc", None)
    monkeypatch.setattr(sys, "argv", [program])
    with pytest.raises(SystemExit) as caught:
        run_tool(importlib.import_module(f"benchmarks.{program}").main)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "needs the package iirc, " in line
    assert line.endswith("pip install -e '.[test]'")


def test_the_comparison_sees_another_share_another_cap_and_another_order_of_classes():
    benchmark = load_benchmark("iirc_cifar100")
    tasks = benchmark.schedules[0]
    swapped = [tasks[0], [*tasks[1][1:], tasks[2][0]], [tasks[1][0], *tasks[2][1:]], *tasks[3:]]
    altered = [
        {"sampling": benchmark.sampling.model_copy(update={"superclass_data_pct": 0.43})},
        {"sampling": benchmark.sampling.model_copy(update={"superclass_sampling_size_cap": 7})},
        {"schedules": [swapped]},
    ]
    for update in altered:
        wrong = benchmark.model_copy(update=update)
        assert next(compare(wrong, fraction=1 / 5, splits=(TRAIN,))).differences


def test_a_share_that_rounds_to_zero_is_none_here_and_everything_in_the_published_package():
    settings = {"superclass_data_pct": 0.5, "subclass_data_pct": 0.3}
    combinations = [("A", "Aa")] * 3 + [("A", "Ab")] * 4
    tasks = [["A"], ["Aa"], ["Ab"]]
    reference = published.Dataset(list(enumerate(combinations)), tasks, **settings)
    with pytest.warns(UserWarning, match="rounds to 0 for Aa;"):
        ours = TaskSequence(
            np.arange(7),
            np.array([[0, 1]] * 3 + [[0, 2]] * 4, np.int32),
            tasks,
            setup=IIRC_SETUP,
            sampling=SamplingSettings(**settings),
            complete_information=False,
        )
    views = {task: ours.view(task).sample_ids.tolist() for task in range(3)}
    assert views == {0: [0, 3, 4], 1: [], 2: [6]}
    assert reference.task_id_to_data_idx == {**views, 1: [0, 1, 2]}


def test_a_superclass_share_that_rounds_to_zero_is_none_in_both():
    settings = {"superclass_data_pct": 0.2, "subclass_data_pct": 0.5}
    combinations = [("A", "Aa")] * 4
    reference = published.Dataset(list(enumerate(combinations)), [["A"], ["Aa"]], **settings)
    with pytest.warns(UserWarning, match="rounds to 0 for A;"):
        ours = TaskSequence(
            np.arange(4),
            np.array([[0, 1]] * 4, np.int32),
            [["A"], ["Aa"]],
            setup=IIRC_SETUP,
            sampling=SamplingSettings(**settings),
            complete_information=False,
        )
    assert reference.task_id_to_data_idx == {0: [], 1: [2, 3]}
    assert len(ours.view(0)) == 0
    assert ours.view(1).sample_ids.tolist() == [2, 3]


def test_the_sampling_cap_of_a_lite_benchmark_counts_subclasses_that_no_task_names():
    benchmark = load_benchmark("iirc_imagenet_lite")
    scheduled = set(benchmark.class_names_to_idx(0))
    dogs = benchmark.superclasses["dog"]
    assert len(dogs) == 118
    assert 0 < len(scheduled.intersection(dogs)) < 118
    leaf_index = {name: len(scheduled) + number for number, name in enumerate(dogs)}
    n = 1000
    labels = np.array([[0, leaf_index[name]] for name in dogs for _ in range(n)], np.int32)
    sequence = TaskSequence(
        np.arange(len(labels)),
        labels,
        [["dog"]],
        setup=IIRC_SETUP,
        sampling=benchmark.sampling,
        complete_information=False,
    )
    assert len(sequence.view(0)) == 118 * int(8 / 118 * 0.4 * n)
