"""The table of metrics: a contract for every row, and a metric of a user's script."""

import re
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.metrics import METRICS, Metric, Outputs, SeenTaxonomy, Tally, rank_of_label
from iirc_train.run.directory import read_metrics
from iirc_train.training.components import Experiment
from iirc_train.training.evaluation import outputs_of
from tests.ce_methods import config_for
from tests.test_docs import DOCS, block_named


@pytest.fixture
def metrics():
    before = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(before)


def outputs(n: int, n_classes: int = 5, seed: int = 0) -> Outputs:
    scores = torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed))
    return Outputs(scores > 0, scores.flip(0) > 0.5, scores)


TASKS = torch.tensor([0, 0, 1, 1, 2])
PARENTS = {2: 0, 3: 0, 4: 2}  # three levels
ANCESTORS = torch.eye(5, dtype=torch.bool)
for child, parent in PARENTS.items():
    ANCESTORS[child] |= ANCESTORS[parent]
TAXONOMY = SeenTaxonomy.of(ANCESTORS)


def no_nan(value: float) -> float:
    return 0.0 if value != value else value


@pytest.mark.parametrize("name", METRICS)
def test_the_result_does_not_depend_on_the_batches(name):
    metric, everything = METRICS[name], outputs(20)[:3]
    tally = Tally(5, torch.device("cpu"), decision="argmax", taxonomy=TAXONOMY)
    for part in (slice(0, 7), slice(7, 7), slice(7, 20)):
        tally.add(Outputs(*(values[part] for values in everything), TASKS))
    kept = tally.kept(lambda rows: rows)
    assert kept.values().get(name, 0.0) == no_nan(metric(*everything, TASKS, ANCESTORS))
    chosen = torch.tensor([3, 11, 4]).numpy()
    some = Outputs(*(values[chosen] for values in everything), TASKS)
    assert kept.of(chosen).values().get(name, 0.0) == no_nan(metric(*some[:4], ANCESTORS))
    assert kept.of(chosen[:0]).values().get(name) == (None if metric.may_be_undefined else 0.0)


def test_samples_of_several_processes_are_concatenated():
    tally = Tally(5, torch.device("cpu"))
    tally.add(outputs(20))
    other = outputs(6, seed=1)
    kept = tally.kept(lambda rows: torch.cat([rows, METRICS["recall"].keep(other)]))
    both = Outputs(*(torch.cat(pair) for pair in zip(outputs(20)[:3], other[:3], strict=True)))
    values = kept.values()
    assert values == {name: METRICS[name](*both) for name in values}


@pytest.mark.parametrize("ties", [False, True])
def test_accuracies_agree_with_sorting_and_with_sklearns_definition(ties):
    n, generator = 200, torch.Generator().manual_seed(1)
    scores = torch.randn(n, 5, generator=generator)
    if ties:
        scores = scores.round()
        scores[:, 3] = -torch.inf  # as the distance to a class without memories
    labels = torch.randint(5, (n,), generator=generator)
    targets = F.one_hot(labels, 5).bool()
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    given = (targets, targets, scores, TASKS, ANCESTORS)
    found = {name: metric(*given) for name, metric in METRICS.items()}
    assert found["top1"] == pytest.approx((scores.argmax(1) == labels).float().mean().item())
    assert found["top1"] == pytest.approx((order[:, 0] == labels).float().mean().item())
    top2 = (order[:, :2] == labels[:, None]).any(1)
    assert torch.equal(rank_of_label(Outputs(targets, targets, scores)) < 2, top2)
    own = [
        (max(torch.where(TASKS[label] == TASKS)[0], key=lambda c: row[c]) == label).float()
        for row, label in zip(scores, labels, strict=True)
    ]
    assert found["task_incremental_accuracy"] == pytest.approx(torch.stack(own).mean().item())
    assert found["top1"] < found["task_incremental_accuracy"] < found["top5"] == 1.0


def test_a_sample_without_a_label_is_never_right():
    targets = torch.tensor([[True, False], [False, False]])
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for name in ("top1", "top5", "task_incremental_accuracy"):
        assert METRICS[name](targets, targets, scores, torch.tensor([0, 0])) == 0.5


def test_metrics_of_one_label_or_of_the_hierarchy_are_computed_where_they_make_sense():
    def computed(**kwargs):
        return Tally(5, torch.device("cpu"), **kwargs).kept(lambda rows: rows).metrics.keys()

    levels = {f"level_{k}_{m}" for k in range(3) for m in ("modified_jaccard_sim", "recall")}
    levels |= {f"level_{k}_accuracy" for k in range(3)}
    assert computed(decision="argmax", taxonomy=TAXONOMY) == METRICS.keys() | levels
    accuracies = {"top1", "top5", "task_incremental_accuracy"}
    assert computed(taxonomy=TAXONOMY) == (METRICS.keys() | levels) - accuracies
    of_hierarchy = {name for name, metric in METRICS.items() if metric.needs_hierarchy}
    assert len(of_hierarchy) == 9
    assert computed() == METRICS.keys() - accuracies - of_hierarchy


def upward(label: int) -> set[int]:
    """Return a label and its ancestors, by walking up the tree."""
    return {label} | (upward(PARENTS[label]) if label in PARENTS else set())


@pytest.mark.parametrize("n_seen", [5, 3])
def test_metrics_of_the_hierarchy_agree_with_sets_of_labels(n_seen):
    generator = torch.Generator().manual_seed(2)
    predictions, targets = (torch.rand(60, n_seen, generator=generator) < 0.4 for _ in range(2))
    found = {
        name: metric(predictions, targets, ancestors=ANCESTORS)
        for name, metric in METRICS.items()
        if metric.needs_hierarchy and not metric.needs_scores
    }
    both = asked_up = all_above = asked_down = one_below = 0
    sizes = [0, 0]
    for row in range(60):
        predicted, true = (
            {label for label in range(n_seen) if labels[row, label]}
            for labels in (predictions, targets)
        )
        extended, of_truth = (set().union(*map(upward, labels)) for labels in (predicted, true))
        sizes[0] += len(extended)
        sizes[1] += len(of_truth)
        both += len(extended & of_truth)
        for label in predicted:
            below = {child for child in range(n_seen) if label in upward(child)} - {label}
            asked_up += label in PARENTS
            all_above += label in PARENTS and upward(label) <= predicted
            asked_down += bool(below)
            one_below += bool(below & predicted)
    assert found["hierarchical_precision"] == pytest.approx(both / sizes[0])
    assert found["hierarchical_recall"] == pytest.approx(both / sizes[1])
    assert found["hierarchical_f1"] == pytest.approx(2 * both / sum(sizes))
    assert found["superclass_consistency"] == pytest.approx(all_above / asked_up)
    assert found["subclass_consistency"] == pytest.approx(one_below / asked_down)


def test_a_model_that_predicts_nothing_is_consistent_and_knows_nothing():
    nothing, targets = torch.zeros(3, 5, dtype=torch.bool), torch.eye(5, dtype=torch.bool)[2:]
    found = {
        name: metric(nothing, targets, ancestors=ANCESTORS)
        for name, metric in METRICS.items()
        if metric.needs_hierarchy and not metric.needs_scores
    }
    assert {found.pop(name) for name in ("superclass_consistency", "subclass_consistency")} == {1.0}
    assert set(found.values()) == {0.0}


def test_metrics_share_the_rows_that_they_keep(metrics):
    calls = []

    def best(outputs: Outputs) -> torch.Tensor:
        calls.append(len(outputs.targets))
        return outputs.scores.argmax(dim=1)

    metrics["first"] = Metric("1", lambda rows: (rows == 0).float().mean(), best, needs_scores=True)
    metrics["last"] = Metric("5", lambda rows: (rows == 4).float().mean(), best, needs_scores=True)
    tally = Tally(5, torch.device("cpu"))
    tally.add(outputs(20))
    values = tally.kept(lambda rows: rows).values()
    assert calls == [0, 20]  # one call for both metrics, after the call for the empty batch
    assert values["first"] == (outputs(20).scores.argmax(dim=1) == 0).float().mean()

    everything = values.keys()
    without = Tally(5, torch.device("cpu"), with_scores=False)
    without.add(outputs(20)._replace(scores=None))
    assert without.kept(lambda rows: rows).values().keys() == everything - {"first", "last"}


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_predictions_follow_from_its_scores(name, tiny_settings):
    experiment = Experiment(config_for(name, tiny_settings, engine="torch", threads=1))
    method, data = experiment.method, experiment.task_data(0)
    method.prepare_model_for_new_task(data)
    loader = experiment.evaluation_loader(data.view)

    def check():
        with method.inference():
            for batch, found in zip(loader, outputs_of(method, loader), strict=True):
                assert found.scores.shape == (len(batch), 2) and found.scores.is_floating_point()
                assert torch.equal(found.predictions, method(batch.images))
                assert torch.equal(found.predictions, method.decide(found.scores))

    check()
    experiment.buffer.update_buffer_new_task(data, method=method)
    method.consolidate_task_knowledge(buffer=experiment.memory_data(0))
    check()


def test_a_method_that_overrides_forward_keeps_its_predictions(tiny_settings):
    class Published(BaseMethod):
        def _loss(self, step):
            return self._bce(step.output, step.targets, step.in_buffer)

        def forward(self, x):
            return torch.ones(len(x), self.n_seen_classes, dtype=torch.bool)

    method = Published([2], {"a": 0, "b": 1}, {"n_layers": 8})
    method.prepare_model_for_new_task()
    scores, predictions = method.scores_and_predictions(torch.randn(3, 3, 32, 32))
    assert scores.shape == (3, 2) and predictions.all()


@pytest.mark.filterwarnings("ignore:.*rounds to 0")
def test_a_metric_takes_as_many_lines_as_said_and_is_shown_everywhere(
    metrics, tiny_settings, tmp_path, monkeypatch, capsys
):
    block = block_named("own_metric.md", "my_metrics.py")
    function, row = re.search(r"\n(def .*?)\n\n\n(METRICS.*?)\n\n", block.text, re.DOTALL).groups()
    said = [len(code.splitlines()) for code in (function, row)]
    assert (
        "A function of {} lines and a row of {} line.".format(*said)
        in (DOCS / "own_metric.md").read_text()
    )

    script, settings = tmp_path / "my_iirc.py", tmp_path / "settings.yaml"
    script.write_text(block.text)
    values = {"threads": 1, "engine": "torch", "method": "icarl"}
    settings.write_text(yaml.safe_dump(tiny_settings | values))
    for command in (
        ["train", "--config", settings, "--output", tmp_path / "run"],
        ["report", tmp_path / "run", "--output", tmp_path / "report"],
    ):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert not ended.value.code

    records = read_metrics(tmp_path / "run")
    for record in records:
        is_of_training = (record["kind"], record["split"]) == ("epoch", "train")
        assert ("mrr" in record) != (is_of_training or record["kind"] == "task")
    tests = [r for r in records if r["kind"] == "evaluation" and r["split"] == "test"]
    # icarl predicts only the label with the highest score
    assert all(r["mrr"] >= r["jaccard_sim"] for r in tests) and any(r["mrr"] for r in tests)
    assert f"MRR {tests[-1]['mrr']:.3f}" in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path / "run/tensorboard/tasks"))
    events.Reload()
    assert "test MRR/all seen classes" in events.Tags()["scalars"]
    assert "MRR on the test split" in (tmp_path / "report/report.html").read_text()


def test_samples_tallied_together_have_the_rows_of_samples_tallied_batch_by_batch():
    given = [outputs(n) for n in (5, 1, 7, 0, 4)]
    found = []
    for at_once in (1, 6, 1000):
        tally = Tally(5, torch.device("cpu"), with_scores=False, samples_at_once=at_once)
        for batch in given:
            tally.add(Outputs(batch.predictions, batch.targets.float()))
        found.append(tally.kept(lambda rows: rows))
    for kept in found[1:]:
        assert kept.values() == found[0].values()
        assert all(torch.equal(kept.rows[keep], rows) for keep, rows in found[0].rows.items())
