"""WA and BiC: distillation, aligned weights, and a correction fitted on samples held out."""

import pytest
import torch
import torch.nn.functional as F

from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.settings import experiment_config
from iirc_train.models.bias_correction import BiasCorrectedLinear
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import read_metrics
from iirc_train.training.components import Experiment
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.ce_methods import settings_for
from tests.test_class_incremental import N_OLD, N_SEEN, second_task
from tests.test_resume import QUIET, BrokenOffError, assert_equal_runs, break_off_at_save


@pytest.fixture(scope="module")
def settings(tiny_settings):
    small = {"network": "tests.small_network:Small", "n_layers": None, "decoder": "pillow"}
    return tiny_settings | small | {"threads": 1, "n_memories_per_class": 6}


@pytest.mark.parametrize("name", ["wa", "bic"])
def test_the_loss_weighs_distillation_by_the_fraction_of_earlier_classes(name):
    method, images, labels, in_buffer = second_task(name)
    with torch.no_grad():
        logits, _ = method.net(images)
        teacher, _ = method.old_net(images)
        soft = F.softmax(teacher[:, :N_OLD] / 2, dim=1)
        distilled = -(soft * F.log_softmax(logits[:, :N_OLD] / 2, dim=1)).sum(1).mean()
        expected = 0.5 * F.cross_entropy(logits, labels) + 0.5 * distilled  # 2 of 4 classes
    loss = method.observe(images, F.one_hot(labels, N_SEEN).float(), in_buffer)[1]
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["wa", "bic", "podnet"])
def test_a_method_with_cross_entropy_only_refuses_binary_losses_and_two_labels(tiny_settings, name):
    with pytest.raises(ConfigurationError, match=f"{name} has no loss 'bce': choose --loss ce"):
        second_task(name, loss="bce")
    settings = tiny_settings | {"method": name}
    with pytest.raises(ConfigurationError, match="loss ce needs samples with one label") as raised:
        Experiment(ExperimentConfig.parse(settings))
    assert "--loss bce" not in str(raised.value) and "another method" in str(raised.value)


# ---------------------------------------------------------------------- WA


def test_the_weights_of_new_classes_become_as_long_as_those_of_earlier_ones():
    method, *_ = second_task("wa")
    layer = method.net.model.output_layer
    with torch.no_grad():
        layer.weight[N_OLD:] *= 3
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    method.consolidate_task_knowledge()
    norms, new = layer.weight.detach().norm(dim=1), before.norm(dim=1)
    torch.testing.assert_close(norms[N_OLD:].mean(), norms[:N_OLD].mean())
    gamma = new[:N_OLD].mean() / new[N_OLD:].mean()
    torch.testing.assert_close(layer.weight[N_OLD:], gamma * before[N_OLD:])
    assert torch.equal(layer.weight[:N_OLD], before[:N_OLD]) and torch.equal(layer.bias, bias)


def test_the_first_task_of_wa_keeps_its_weights():
    method, *_ = second_task("wa")
    fresh = METHODS["wa"].model([2, 2], method.class_names_to_idx, {}, net=method.net)
    fresh.prepare_model_for_new_task()
    before = method.net.model.output_layer.weight.detach().clone()
    fresh.consolidate_task_knowledge()
    assert torch.equal(method.net.model.output_layer.weight, before)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_weights_are_clipped_at_zero_where_asked(nonnegative):
    method, images, labels, in_buffer = second_task("wa", nonnegative_weights=nonnegative)
    method.observe(images, F.one_hot(labels, N_SEEN).float(), in_buffer)
    assert (method.net.model.output_layer.weight.min() >= 0) == nonnegative


# ---------------------------------------------------------------------- BiC


def test_the_correction_changes_the_classes_of_its_task_only_and_is_kept():
    torch.manual_seed(0)
    plain = torch.nn.Linear(3, 6)
    layer = BiasCorrectedLinear(plain, [2, 3, 1])
    latent = torch.randn(4, 3)
    expected = plain(latent)
    assert torch.equal(layer(latent), expected)
    for task, rows, alpha, beta in ((1, slice(2, 5), 2.0, -1.0), (2, slice(5, 6), 0.5, 3.0)):
        layer.begin(task)
        assert layer.alpha.requires_grad and torch.equal(layer(latent), expected)
        with torch.no_grad():
            layer.alpha.fill_(alpha)
            layer.beta.fill_(beta)
        expected[:, rows] = alpha * expected[:, rows] + beta
        torch.testing.assert_close(layer(latent), expected)
        layer.fix()
        torch.testing.assert_close(layer(latent), expected)
        assert not layer.alpha.requires_grad and layer.alpha == 1 and layer.beta == 0
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias", "alpha", "beta"]


@pytest.mark.parametrize("form", ["paper", "reference"])
def test_the_stage_fits_the_correction_alone_and_the_teacher_is_corrected(form):
    method, images, labels, in_buffer = second_task("bic", bic_form=form, lr=0.5)
    targets = F.one_hot(labels, N_SEEN).float()
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    method.prepare_stage()
    with torch.no_grad():
        logits, _ = method.net(images)
        expected = F.cross_entropy(logits if form == "paper" else logits.softmax(1), labels)
    method.train()
    assert method.net.training == (form == "reference")
    losses = [method.observe(images, targets, in_buffer)[1] for _ in range(20)]
    assert losses[0] == pytest.approx(float(expected)) and losses[-1] < losses[0]
    method.finish_stage()
    after = method.net.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {f"model.output_layer.fixed_{name}" for name in ("alpha", "beta")}
    assert all(p.requires_grad for n, p in method.net.named_parameters() if n[-5:-1] == "weig")
    scores = method.scores(images)
    torch.testing.assert_close(scores[:, :N_OLD], logits[:, :N_OLD])
    assert not torch.allclose(scores[:, N_OLD:], logits[:, N_OLD:])


def test_the_main_epochs_never_show_what_the_stage_shows(settings, tmp_path, monkeypatch):
    seen: dict[tuple, set[int]] = {}
    step = BaseMethod.training_step

    def noting(self, batch):
        part = (self.cur_task_id, self.stage is not None)
        seen.setdefault(part, set()).update(batch.sample_ids.tolist())
        return step(self, batch)

    monkeypatch.setattr(BaseMethod, "training_step", noting)
    config = experiment_config(**settings_for("bic", settings), correction_epochs=2)
    run = run_experiment(config, tmp_path / "run", QUIET)
    assert (0, True) not in seen
    for task, n_memories, n_samples in ((1, 2, 2), (2, 4, 1), (3, 5, 1)):
        main, held = (
            {sample_id for sample_id in seen[task, is_stage] if sample_id >= 0}
            for is_stage in (False, True)
        )
        assert len(held) == n_samples and not main & held
        replayed = [len(seen[task, is_stage]) for is_stage in (False, True)]  # of both parts
        assert replayed[1] - len(held) == n_memories
        assert replayed[0] - len(main) == 5 * n_memories  # of six memories per class
    records = [r for r in read_metrics(run) if r["kind"] == "epoch" and "stage" in r]
    assert [(r["task"], r["stage"]) for r in records if r["split"] == "train"] == [
        (task, "bias_correction") for task in (1, 1, 2, 2, 3, 3)
    ]
    state = load_checkpoint(run / "checkpoints/last.pt")["experiment"]["method"]["modules"]
    alpha = state["net.model.output_layer.fixed_alpha"]
    assert (alpha[:2] == 1).all() and (alpha[2:] != 1).all()


def test_bic_resumes_bit_for_bit_within_the_stage(settings, tmp_path, monkeypatch):
    config = experiment_config(**settings_for("bic", settings), correction_epochs=2)
    expected = run_experiment(config, tmp_path / "unbroken", QUIET)
    with monkeypatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 4)  # after the first of two epochs of the stage
        run_experiment(config, tmp_path / "run", QUIET)
    assert_equal_runs(resume_experiment(tmp_path / "run", QUIET), expected)


@pytest.mark.parametrize(
    ("per_class", "in_total", "message"),
    [
        (0, -1, "bic fits its correction on a part of the memories: set"),
        (1, -1, "bic needs two memories per class, .* set n_memories_per_class to 2 or more"),
        (-1, 2, "before the last task: .* or total_n_mems above"),
    ],
)
def test_bic_refuses_too_few_memories_before_it_trains(
    per_class, in_total, message, settings, tmp_path, monkeypatch
):
    def trained(*_):
        raise AssertionError("a step was trained")

    monkeypatch.setattr(BaseMethod, "training_step", trained)
    few = {"n_memories_per_class": per_class, "total_n_mems": in_total}
    config = ExperimentConfig.parse(settings_for("bic", settings) | few)
    with pytest.raises(ConfigurationError, match=message):
        run_experiment(config, tmp_path / "run", QUIET)
