"""Confusion counts, and the files in which a run keeps them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from iirc_train.config import ExperimentConfig
from iirc_train.metrics import add_confusion_counts, confusion_counts
from iirc_train.run.confusion import Confusion
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.run.results import read_results
from iirc_train.run.summaries import forgetting
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import Position, Training

CLASSES = ["animal", "vehicle", "dog", "bus", "tulip", "cat", "bear", "truck"]
N_SEEN = [2, 4, 6, 8]


@pytest.fixture(scope="module")
def config(tiny_settings) -> ExperimentConfig:
    return ExperimentConfig.parse(tiny_settings | {"method": "icarl_cnn", "n_layers": 8})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    return run_experiment(config, tmp_path_factory.mktemp("run") / "run", Console(quiet=True))


def read(run: Path, task: int) -> dict[str, np.ndarray]:
    with np.load(run / f"confusion/after_task_{task:03d}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_sample_counts_once_for_each_pair_of_a_true_and_a_predicted_label():
    generator = torch.Generator().manual_seed(0)
    predictions, target = torch.rand(2, 50, 6, generator=generator) < 0.4
    expected = torch.zeros(6, 6, dtype=torch.int64)
    for predicted, true in zip(predictions, target, strict=True):
        for i in true.nonzero().flatten():
            for j in predicted.nonzero().flatten():
                expected[i, j] += 1
    counts = confusion_counts(predictions, target)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, expected)
    most = int(target.sum(dim=1).max())
    for most_labels in (most, most + 20):
        for part in (slice(0, 20), slice(20, 20), slice(20, 50)):
            add_confusion_counts(counts, predictions[part], target[part], most_labels)
    assert torch.equal(counts, 3 * expected)


def test_no_samples_count_nothing():
    empty = torch.zeros(0, 3, dtype=torch.bool)
    assert torch.equal(confusion_counts(empty, empty), torch.zeros(3, 3, dtype=torch.int64))


def test_a_run_keeps_the_counts_over_all_seen_classes_after_each_task(run):
    assert len(list((run / "confusion").iterdir())) == 4
    for task, n in enumerate(N_SEEN):
        found = read(run, task)
        assert found["class_names"].tolist() == CLASSES[:n]
        assert found["counts"].shape == (n, n)
        assert found["n_samples"].shape == (n,)
        assert found["counts"].dtype == found["n_samples"].dtype == np.int64
        assert (found["counts"] <= found["n_samples"][:, None]).all()


def test_the_counts_agree_with_the_metrics(run):
    tests = [r for r in read_metrics(run) if (r.get("split"), r.get("task")) == ("test", "all")]
    assert len(tests) == 4
    for record in tests:
        found = read(run, record["after_task"])
        recall = np.trace(found["counts"]) / found["n_samples"].sum()
        assert recall == pytest.approx(record["recall"])


def test_metrics_of_levels_and_edges_agree_with_the_counts(run, tiny_benchmark):
    taxonomy = tiny_benchmark.taxonomy
    records = read_metrics(run)
    for record in records:
        if (record.get("split"), record.get("task")) != ("test", "all"):
            assert "edge_f1" not in record or record["task"] == "all"
            continue
        found = read(run, record["after_task"])
        names, n_samples = found["class_names"].tolist(), found["n_samples"]
        right, n_levels = np.diag(found["counts"]), taxonomy.n_levels
        for level in range(n_levels):
            at = np.array([taxonomy.levels[name] == level for name in names]) & (n_samples > 0)
            name = f"level_{level}_recall"
            if at.any():
                assert record[name] == pytest.approx(right[at].sum() / n_samples[at].sum())
            else:
                assert name not in record
        pairs = {(name, above) for name in names for above in taxonomy.superclasses_of(name)}
        pairs = {(name, above) for name, above in pairs if above in names}
        rates = dict(zip(names, found["counts"] / np.maximum(n_samples, 1)[:, None], strict=True))
        share = {(i, j): rates[i][names.index(j)] for i in names for j in names}
        shown = {(i, j) for i, j in share if share[i, j] > 0.5 and share[i, j] > share[j, i]}
        shown -= {(i, j) for i, j in shown if any({(i, k), (k, j)} <= shown for k in names)}
        assert record.get("edge_recall") == (len(shown & pairs) / len(pairs) if pairs else None)
        assert record.get("edge_precision") == (len(shown & pairs) / len(shown) if shown else None)
    last = [record for record in records if record["kind"] == "task"][-1]
    for level in range(taxonomy.n_levels):
        results = read_results(run, metric=f"level_{level}_modified_jaccard_sim")
        assert last[f"level_{level}_forgetting"] == forgetting(results)
    assert np.isnan(read_results(run, metric="level_1_recall").all_seen[0])


def test_every_label_of_a_test_image_counts_though_two_tasks_show_it(run, config):
    sequence = Experiment(config).splits["test"]
    labels = sequence.view(range(4)).labels
    expected = np.bincount(labels[labels >= 0], minlength=8)
    assert read(run, 3)["n_samples"].tolist() == expected.tolist()


def test_counts_from_after_the_checkpoint_are_removed(config, tmp_path):
    folder = RunDirectory.create(tmp_path / "run", config)
    for task in range(3):
        folder.write_confusion(
            task, Confusion(["bear"], np.eye(1, dtype=int), np.ones(1, dtype=int))
        )
    (folder.path / "confusion/.after_task_003.npz.host-1.partial").touch()
    folder.forget_confusions(1)
    assert [path.name for path in (folder.path / "confusion").iterdir()] == ["after_task_000.npz"]
    training = Training(Experiment(config), folder)
    assert list((folder.path / "confusion").iterdir())
    training.restore()
    assert training.position == Position()
    assert not list((folder.path / "confusion").iterdir())
