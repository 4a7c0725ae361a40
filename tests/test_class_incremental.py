"""Class-incremental learning: cross-entropy, argmax, accuracies, and what a task records."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from benchmarks.operations import operations_of_steps
from iirc_data.benchmarks import Benchmark, SplitSettings
from iirc_data.definitions import TEST
from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.config.setup import with_setup
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.losses import distillation_loss
from iirc_train.methods.optimizers import get_optimizer
from iirc_train.methods.step import Step
from iirc_train.report.comparison import compare, write_csv, write_latex
from iirc_train.report.page import write_report
from iirc_train.report.runs import find_runs
from iirc_train.run.directory import read_metrics
from iirc_train.run.results import RunResults, read_results
from iirc_train.run.summaries import average_incremental_score, backward_transfer, forgetting
from iirc_train.testing import check_never_waits
from iirc_train.training.components import Experiment
from iirc_train.training.launch import resume_experiment, run_experiment
from iirc_train.training.same_run import changes_to
from tests.test_resume import QUIET

N_OLD, N_SEEN, D = 2, 4, 6


class Toy(nn.Module):
    """Outputs and latents of images, linear in them."""

    stages = ("model.hidden",)

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.hidden = nn.Linear(12, D)
        self.model.output_layer = nn.Linear(D, N_SEEN)

    def forward(self, images):
        latent = self.model.hidden(images.flatten(1))
        return self.model.output_layer(latent), latent


def second_task(name, **settings):
    """Return a method in its second task, with its network changed since; images and labels."""
    torch.manual_seed(0)
    names = {name: index for index, name in enumerate("abcd")}
    method = METHODS[name].model([2, 2], names, {"loss": "ce", "lr": 0.1, **settings}, net=Toy())
    method.prepare_model_for_new_task()
    method.prepare_model_for_new_task()
    with torch.no_grad():
        hidden = [part for name, part in method.net.named_modules() if name.endswith("hidden")]
        hidden[-1].weight += 0.5 * torch.randn(D, 12)
    images = torch.randn(6, 3, 2, 2)
    labels = torch.tensor([2, 3, 2, 3, 0, 1])
    in_buffer = labels < N_OLD
    return method, images, labels, in_buffer


def observed_loss(method, images, labels, in_buffer):
    targets = F.one_hot(labels, N_SEEN).float()
    return method.observe(images, targets, in_buffer, train=False)[1]


def losses_by_sample(logits, labels, weight):
    return (F.cross_entropy(logits, labels, reduction="none") * weight).mean()


WITH_CE = [
    name
    for name, parts in METHODS.items()
    if "ce" in parts.model.losses and not parts.model.learns_by_statistics
]


@pytest.mark.parametrize("strength", [1.0, 3.0])
@pytest.mark.parametrize("name", WITH_CE)
def test_ce_is_the_cross_entropy_of_class_indices(name, strength):
    method, images, labels, in_buffer = second_task(name, memory_strength=strength)
    assert method.config.decision == "argmax"
    weight = torch.where(in_buffer, strength, 1.0)
    with torch.no_grad():
        logits, _ = method.net(images)
        if name in ("agem", "mask_seen_classes"):  # the mean over samples of the task's classes
            new = ~in_buffer
            expected = F.cross_entropy(logits[new][:, N_OLD:], labels[new] - N_OLD)
        elif name == "podnet":
            own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
            rest = logits.scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(1)
            expected = (F.relu(rest - own + 0.6) * weight).mean()  # the scale is 1
        elif name == "lwf":  # over the classes of the task, for its samples
            own = logits - torch.where(in_buffer, 0.0, 1e6).unsqueeze(1) * (torch.arange(4) < N_OLD)
            expected = losses_by_sample(own, labels, weight)
        else:
            expected = losses_by_sample(logits, labels, weight)
        if name.startswith("icarl"):
            old, _ = method.old_net(images)
            soft = F.softmax(old[:, :N_OLD] / 2, dim=1)
            log = F.log_softmax(logits[:, :N_OLD] / 2, dim=1)
            expected = expected - ((soft * log).sum(1) * weight).mean()
    assert observed_loss(method, images, labels, in_buffer) == pytest.approx(float(expected))
    predictions = method.observe(images, F.one_hot(labels, N_SEEN), in_buffer)[0]
    assert torch.equal(predictions.float().argmax(1), logits.argmax(1))
    assert predictions.sum(1).tolist() == [1] * len(images)


def test_the_masked_loss_does_not_depend_on_how_processes_share_a_batch(monkeypatch):
    method, images, labels, in_buffer = second_task("mask_seen_classes", memory_strength=2.0)
    targets = F.one_hot(labels, N_SEEN).float()
    output, latent = method.net(images)

    def loss(rows, share):
        return method._loss(
            Step(*(t[rows] for t in (output, latent, images, targets, in_buffer)), share)
        )

    whole = loss(slice(None), 1.0)
    n_labelled = (~in_buffer).sum()
    monkeypatch.setattr("iirc_train.methods.step.total", lambda count: n_labelled)
    parts = 1 / 6 * loss(slice(0, 1), 1 / 6) + 5 / 6 * loss(slice(1, None), 5 / 6)
    torch.testing.assert_close(parts, whole)


def test_distillation_is_the_divergence_up_to_the_teachers_entropy():
    logits, teacher = torch.randn(2, 5, 3)
    soft = F.softmax(teacher / 2, dim=1)
    entropy = -(soft * soft.log()).sum(1)
    divergence = F.kl_div(F.log_softmax(logits / 2, 1), soft, reduction="none").sum(1)
    torch.testing.assert_close(distillation_loss(logits, teacher, 2.0), divergence + entropy)


def test_lucir_with_ce_adds_the_losses_of_its_paper():
    method, images, labels, in_buffer = second_task("lucir", lucir_lambda=5.0)
    assert in_buffer.sum() == 2
    targets = F.one_hot(labels, N_SEEN).float()
    loss = method.observe(images, targets, in_buffer, train=True)[1]
    method, *_ = second_task("lucir", lucir_lambda=5.0)
    method.net.requires_grad_(False)
    logits, latent = method.net(images)
    _, old = method.old_net(images)
    expected = F.cross_entropy(logits, labels)
    expected = expected + 5.0 * F.cosine_embedding_loss(latent, old, torch.ones(len(images)))
    cosine = logits / method.net.model.output_layer.sigma
    own = cosine[in_buffer].gather(1, labels[in_buffer].unsqueeze(1)).expand(-1, 2).flatten()
    new = cosine[in_buffer, N_OLD:].flatten()
    ranking = nn.MarginRankingLoss(margin=0.5)(own, new, torch.ones(len(own)))
    assert loss == pytest.approx(float(expected + ranking), rel=1e-5)


class OnlyBce(BaseMethod):
    def _loss(self, step):
        return self._bce(step.output, step.targets, step.in_buffer)


CHOICES = [
    ({}, "IIRC", ("bce", "threshold", 10)),
    ({}, "CIL", ("ce", "argmax", 5)),
    ({"loss": "bce"}, "CIL", ("bce", "argmax", 5)),
    ({"decision": "threshold"}, "CIL", ("bce", "threshold", 5)),
    ({"loss": "ce"}, "IIRC", ("ce", "argmax", 10)),
    ({"decision": "argmax", "first_task_epochs": 7}, "IIRC", ("bce", "argmax", 7)),
]


@pytest.mark.parametrize(("given", "setup", "expected"), CHOICES)
def test_the_setup_chooses_what_is_left_open(given, setup, expected):
    config = ExperimentConfig.parse(
        {"benchmark": "b", "data": "d", "method": "m", "epochs_per_task": 5} | given
    )
    found = with_setup(config, setup, ("bce", "ce"), "m")
    assert (found.loss, found.decision, found.first_task_epochs) == expected
    assert with_setup(found, "CIL", ("bce", "ce"), "m") == found
    for losses in (("bce",), ("ce",)):
        if given.get("loss", losses[0]) == losses[0] and "decision" not in given:
            assert with_setup(config, setup, losses, "m").loss == losses[0]


def test_a_choice_that_cannot_be_served_is_named():
    names = {"a": 0, "b": 1}
    with pytest.raises(ConfigurationError, match="has no loss 'ce': choose --loss bce"):
        OnlyBce([2], names, {"loss": "ce", "n_layers": 8})
    assert OnlyBce([2], names, {"n_layers": 8}).config.loss == "bce"
    with pytest.raises(ConfigurationError, match="threshold' needs loss 'bce', got 'ce'"):
        second_task("finetune", decision="threshold")


@pytest.mark.parametrize("name", ["agem", "icarl", "lucir"])  # every loss, and a nearest mean
def test_no_step_and_no_prediction_waits_with_ce(name):
    check_never_waits(METHODS[name].model, loss="ce")


@pytest.mark.parametrize("name", ["finetune", "icarl_cnn"])
def test_a_step_with_ce_issues_few_more_operations_than_with_bce(name):
    with_ce = sum(operations_of_steps(name, 8, loss="ce")["fp32"].by_stage().values())
    with_bce = sum(operations_of_steps(name, 8)["fp32"].by_stage().values())
    assert with_ce <= with_bce + 24


def rates(epochs, **settings):
    optimizer, scheduler = get_optimizer([nn.Parameter(torch.zeros(1))], lr=0.5, **settings)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_cosine_schedule_and_the_warm_up_agree_with_those_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert rates(8, lr_cosine=True, n_epochs=8) == pytest.approx(expected)
    warm = rates(11, lr_cosine=True, n_epochs=11, lr_warmup=3)
    assert warm == pytest.approx([0.125, 0.25, 0.375, *expected])
    steps = {"lr_schedule": [2, 4], "lr_gamma": 0.1}
    assert rates(6, lr_warmup=1, **steps) == pytest.approx([0.25, *rates(6, **steps)[1:]])


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        ({"optimizer_type": "sgd", "nesterov": True}, (torch.optim.SGD, 0.9, True)),
        ({"optimizer_type": "sgd", "momentum": 0.0}, (torch.optim.SGD, 0.0, False)),
        ({"optimizer_type": "adamw"}, (torch.optim.AdamW, None, None)),
    ],
)
def test_an_optimizer_has_the_settings_asked_for(optimizer, reference):
    found, _ = get_optimizer([nn.Parameter(torch.zeros(1))], weight_decay=0.01, **optimizer)
    kind, momentum, nesterov = reference
    group = found.param_groups[0]
    assert type(found) is kind and group["weight_decay"] == 0.01
    assert (group.get("momentum"), group.get("nesterov")) == (momentum, nesterov)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nesterov": True}, "nesterov needs optimizer sgd"),
        ({"nesterov": True, "optimizer": "sgd", "momentum": 0}, "momentum above 0"),
        ({"lr_cosine": True, "lr_schedule": [3]}, "lr_cosine excludes"),
        ({"lr_warmup": 2, "reduce_lr_on_plateau": True}, "lr_warmup excludes"),
        ({"lr_warmup": 5, "epochs_per_task": 5}, "leaves no epoch"),
        ({"lr_warmup": 5, "first_task_epochs": 5}, "leaves no epoch"),
        ({"loss": "mse"}, "loss"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ExperimentConfig.parse({"benchmark": "b", "data": "d", "method": "m"} | settings)


# ------------------------------------------------------------------ summaries


def results_of(matrix, all_seen=()):
    return RunResults("r", np.array(matrix, dtype=float), np.array(all_seen, dtype=float), "top1")


def test_summaries_of_a_matrix_by_hand():
    nan = np.nan
    matrix = [[0.9, nan, nan], [0.5, 0.8, nan], [0.6, 0.3, 0.7]]
    results = results_of(matrix, [0.9, 0.65, 0.5])
    assert average_incremental_score(results) == pytest.approx((0.9 + 0.65 + 0.5) / 3)
    assert forgetting(results) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.3)) / 2)
    assert backward_transfer(results) == pytest.approx(((0.6 - 0.9) + (0.3 - 0.8)) / 2)


def test_forgetting_and_transfer_agree_with_their_definitions_written_as_loops():
    generator = np.random.default_rng(0)
    for n in (2, 3, 7):
        scores = np.where(np.tri(n, dtype=bool), generator.random((n, n)), np.nan)
        forgotten = changed = 0.0
        for j in range(n - 1):
            forgotten += max(scores[task, j] - scores[n - 1, j] for task in range(j, n - 1))
            changed += scores[n - 1, j] - scores[j, j]
        assert forgetting(results_of(scores)) == pytest.approx(forgotten / (n - 1))
        assert backward_transfer(results_of(scores)) == pytest.approx(changed / (n - 1))


# ------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def settings(tiny_settings, tmp_path_factory):
    """A class-incremental benchmark of the tiny dataset: three tasks of two classes."""
    benchmark = Benchmark(
        name="tiny_cil",
        dataset="tiny",
        setup="CIL",
        other_classes=["bear", "bus", "cat", "dog", "truck", "tulip"],
        splits=SplitSettings(intask_valid_ratio=0.1, posttask_valid_ratio=0.0),
        schedules=[[["bear", "bus"], ["cat", "dog"], ["truck", "tulip"]]],
    )
    path = tmp_path_factory.mktemp("cil") / "tiny_cil.json"
    path.write_text(benchmark.model_dump_json())
    schedule = {"optimizer": "adam", "lr": 0.01, "lr_cosine": True, "lr_warmup": 1}
    run = {"method": "finetune", "epochs_per_task": 6, "threads": 1, "checkpoint_interval": 0}
    return tiny_settings | {"benchmark": str(path)} | schedule | run


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return run_experiment(ExperimentConfig.parse(settings), folder, QUIET)


def test_a_run_learns_and_records_accuracies(run):
    records = read_metrics(run)
    epochs = [r for r in records if r["kind"] == "epoch" and r["split"] == "train"]
    assert [r["epoch"] for r in epochs if r["task"] == 0] == list(range(6))  # not twice as many
    first = [r["loss"] for r in epochs if r["task"] == 0]
    assert first[-1] < 0.8 * first[0]
    assert first[0] < 1.5  # near log 2, not a mean over classes of binary losses
    assert epochs[5]["modified_jaccard_sim"] > 0.6  # of two classes
    tests = [r for r in records if r["kind"] == "evaluation" and r["split"] == TEST]
    for record in tests:
        assert record["top1"] == pytest.approx(record["modified_jaccard_sim"])
        assert record["top1"] <= record["task_incremental_accuracy"] <= 1
        assert record["top1"] <= record["top5"]
    results = read_results(run)
    assert results.metric == "top1" and results.all_seen.shape == (3,)


def test_each_task_records_summaries_and_sizes(run, settings):
    records = [r for r in read_metrics(run) if r["kind"] == "task"]
    assert [r["after_task"] for r in records] == [0, 1, 2]
    results = read_results(run)
    assert "forgetting" not in records[0]
    last = records[-1]
    assert last["last_accuracy"] == results.all_seen[-1]
    assert last["average_incremental_accuracy"] == pytest.approx(results.all_seen.mean())
    assert last["forgetting"] == forgetting(results)
    assert records[1]["backward_transfer"] == pytest.approx(
        results.by_task[1, 0] - results.by_task[0, 0]
    )
    assert [r["exemplars"] for r in records] == [6, 12, 18]
    with Experiment(ExperimentConfig.parse(settings), run / "buffer.zarr") as experiment:
        net, buffer = experiment.method.net, experiment.buffer
        assert last["parameters"] == sum(p.numel() for p in net.parameters())
        generation = {"generation": 3, "counts": {}}
        counts = dict.fromkeys(experiment.class_names_to_idx, 3)
        buffer.load_buffer_state_dict(generation | {"counts": counts})
        source = buffer.replay_source(experiment.class_names_to_idx)
        assert last["exemplar_bytes"] == sum(len(source.read(slot)) for slot in range(18))


def test_a_comparison_is_by_accuracy(run, tmp_path, capsys):
    found = find_runs([run])
    (comparison,) = compare(found.by_benchmark())
    results = read_results(run)
    numbers = {
        summary.heading: comparison.rows[0].summary[summary.name].mean
        for summary in comparison.tables[0].summaries
    }
    assert numbers["average incremental accuracy"] == pytest.approx(results.all_seen.mean())
    assert numbers["last accuracy"] == results.all_seen[-1]
    assert numbers["forgetting"] == forgetting(results)
    tests = [r for r in read_metrics(run) if r.get("split") == TEST and r.get("task") == "all"]
    assert numbers["last top-5"] == tests[-1]["top5"]
    assert numbers["last task-incremental accuracy"] == tests[-1]["task_incremental_accuracy"]
    write_csv([comparison], tmp_path / "t.csv")
    write_latex([comparison], tmp_path / "t.tex")
    assert (
        f"tiny_cil,finetune,top-1,2,{float(results.all_seen[-1])!r},"
        in (tmp_path / "t.csv").read_text()
    )
    assert "average incremental accuracy & last accuracy" in (tmp_path / "t.tex").read_text()
    page = write_report(found, tmp_path / "report").read_text()
    assert "<dt>Last accuracy</dt>" in page and "Final pw-JS" not in page
    events = EventAccumulator(str(run / "tensorboard/tasks"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"summary/last accuracy", "summary/exemplar bytes", "test top-5/task 2"} <= {*scalars}


def test_an_earlier_run_without_these_settings_resumes_as_it_was(settings, tmp_path):
    """A run of an earlier release: binary losses, and the first task twice as long."""
    former = {"loss": "bce", "decision": "threshold", "first_task_epochs": 2}
    short = settings | {"epochs_per_task": 1, "lr_cosine": False, "lr_warmup": 0}
    config = ExperimentConfig.parse(short | former)
    run = run_experiment(config, tmp_path / "run", QUIET)
    metrics = (run / "metrics.jsonl").read_bytes()
    kept = (run / "config.yaml").read_text().splitlines(keepends=True)
    new = ("loss:", "decision:", "first_task_epochs:", "lr_cosine:", "lr_warmup:", "nesterov:")
    (run / "config.yaml").write_text("".join(k for k in kept if not k.startswith(new)))
    resume_experiment(run, QUIET)
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert "top1" not in json.loads(metrics.splitlines()[-2])
    assert changes_to(run, config) == {}
    with pytest.raises(ConfigurationError, match="loss was bce, is ce now"):
        changes_to(run, ExperimentConfig.parse(short))


def test_ce_is_refused_where_a_view_shows_two_labels(tiny_settings):
    with pytest.raises(ConfigurationError, match=r"valid shows .* with animal and .*--loss bce"):
        Experiment(ExperimentConfig.parse(tiny_settings | {"method": "finetune", "loss": "ce"}))
