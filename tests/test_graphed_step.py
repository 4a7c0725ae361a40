"""The captured training step, with a tape of CPU kernels in place of a CUDA graph."""

import json
import signal
from itertools import count

import pytest
import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, get_method
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.models import NETWORKS
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.directory import read_metrics
from iirc_train.run.record import read_record
from iirc_train.run.resolved import resolved_graph
from iirc_train.training import components
from iirc_train.training.graphed_step import WARM_UP_STEPS, GraphedStep
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.tape import TapeCapture
from tests.test_resume import QUIET, BrokenOffError, break_off_at_save

CAPTURABLE = [name for name, parts in METHODS.items() if parts.model.is_capturable()]
CLASSES_PER_TASK = [2, 1]
FULL = 6


class Small(nn.Module):
    """A network with everything that a step changes: running statistics and random numbers."""

    stages = ("features.0",)

    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.3)
        self.model = nn.Module()
        self.model.output_layer = nn.Linear(36, num_classes)

    def forward(self, images):
        latent = self.dropout(self.features(images))
        return self.model.output_layer(latent), latent


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "small", Small)


def make_method(name: str, **settings):
    torch.manual_seed(0)
    config = {"network": "small", "lr": 0.2, "lr_gamma": 0.5, "lr_schedule": [2], **settings}
    names = {f"class {i}": i for i in range(sum(CLASSES_PER_TASK))}
    return get_method(name).model(CLASSES_PER_TASK, names, config)


def batches(n_classes: int, sizes: list[int], seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.rand(n, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last),
            (torch.rand(n, n_classes, generator=generator) > 0.5).float(),
            torch.rand(n, generator=generator) > 0.5,
            torch.arange(n),
        )
        for n in sizes
    ]


def learn(method, step, n_epochs: int = 3):
    """Learn all tasks; return predictions and losses of all steps, and the final random number."""
    torch.manual_seed(1)
    shown = []
    for task_id in range(len(CLASSES_PER_TASK)):
        method.prepare_model_for_new_task()
        for epoch in range(n_epochs):
            method.train()
            for batch in batches(method.n_seen_classes, [FULL] * 4 + [2], 10 * task_id + epoch):
                shown += step(batch)
            with method.inference():
                shown.append(method(batch.images).clone())
            method.consolidate_epoch_knowledge()
        for _ in method.stages_of_task(task_id):
            method.prepare_stage()
            method.train()
            for batch in batches(method.n_seen_classes, [FULL] * 4 + [2], 10 * task_id + 9):
                shown += step(batch)
            method.finish_stage()
    return [*shown, torch.rand(1)]


@pytest.mark.parametrize(
    "settings", [{}, {"memory_strength": 2.0, "temperature": 1.5}, {"loss": "ce"}, {"frozen": True}]
)
@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_captured_step_learns_bit_for_bit_what_an_eager_one_does(name, settings):
    if settings.get("loss", "auto") not in ("auto", *METHODS[name].model.losses):
        pytest.skip(f"{name} has no such loss")
    if settings.get("frozen") and METHODS[name].model.trains_trunk:
        pytest.skip(f"{name} trains its trunk")
    eager, graphed = make_method(name, **settings), make_method(name, **settings)
    capture = TapeCapture()
    expected = learn(eager, eager.training_step)
    found = learn(graphed, GraphedStep(graphed, FULL, capture))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    state = graphed.state_dict()
    assert all(torch.equal(state[key], value) for key, value in eager.state_dict().items())
    n_stages = sum(run[0] for run in eager.stages_run)
    n_captures = len(CLASSES_PER_TASK) * 2 + n_stages  # the rate decays once in each task
    n_full = (len(CLASSES_PER_TASK) * 3 + n_stages) * 4
    assert capture.n_recordings == n_captures
    assert capture.n_warm_ups == n_captures * WARM_UP_STEPS
    assert capture.n_replays == n_full - capture.n_warm_ups


def test_a_step_with_other_branches_within_a_task_is_captured_again():
    settings = {"lwf_warmup": 1, "epochs_per_task": 3, "frozen": True, "lr_schedule": None}
    eager, graphed = make_method("lwf", **settings), make_method("lwf", **settings)
    expected = learn(eager, eager.training_step)
    found = learn(graphed, GraphedStep(graphed, FULL, TapeCapture()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def other_learning_rate(method):
    method.opt.param_groups[0]["lr"] *= 0.5


def other_weight_decay(method):
    method.opt.param_groups[0]["weight_decay"] = 0.1


def frozen_parameter(method):
    next(method.net.parameters()).requires_grad_(False)


def moved_parameter(method):
    parameter = next(method.net.parameters())
    parameter.data = parameter.data.clone()


def new_teacher(method):
    method.old_net = copy_freeze(method.net)


def bfloat16(method):
    method.autocast_dtype = torch.bfloat16


def wrapper(method):
    method.train_through(nn.Sequential(method.net))


def next_task(method):
    method.prepare_model_for_new_task()


@pytest.mark.parametrize(
    "change",
    [
        other_learning_rate,
        other_weight_decay,
        frozen_parameter,
        moved_parameter,
        new_teacher,
        bfloat16,
        wrapper,
        next_task,
    ],
)
def test_a_step_is_captured_again_when_something_changes_that_it_contains(change):
    methods = [make_method("icarl_cnn", lr_schedule=None) for _ in range(2)]
    capture = TapeCapture()
    graphed = GraphedStep(methods[1], FULL, capture)
    losses = []
    for method, step in zip(methods, (methods[0].training_step, graphed), strict=True):
        torch.manual_seed(1)
        method.prepare_model_for_new_task()
        for round_number in range(2):
            method.train()
            given = batches(method.n_seen_classes, [FULL] * 6, round_number)
            losses.append([step(batch)[1] for batch in given])
            if round_number == 0:
                change(method)
    assert torch.equal(torch.tensor(losses[2:]), torch.tensor(losses[:2]))
    assert capture.n_recordings == 2 and capture.n_warm_ups == 2 * WARM_UP_STEPS


def test_evaluation_checkpoints_and_odd_batches_do_not_capture_again():
    method = make_method("finetune")
    capture = TapeCapture()
    step = GraphedStep(method, FULL, capture)
    method.prepare_model_for_new_task()
    for size in [FULL] * 5 + [1, FULL, 2, FULL]:
        method.train()
        (batch,) = batches(2, [size], size)
        step(batch)
        with method.inference():
            method(batch.images)
        method.net.load_state_dict(method.net.state_dict())
    assert (capture.n_recordings, capture.n_warm_ups, capture.n_replays) == (1, 3, 4)


def test_a_step_that_waits_for_a_value_is_an_error_that_says_what_to_give(monkeypatch):
    method = make_method("finetune")
    loss_of = type(method)._loss
    monkeypatch.setattr(
        type(method), "_loss", lambda self, step: loss_of(self, step) * float(step.latent.sum() > 0)
    )
    method.prepare_model_for_new_task()
    step = GraphedStep(method, FULL, TapeCapture())
    with pytest.raises(
        ConfigurationError, match=r"finetune cannot be .* graph .*: give --graph off"
    ):
        for batch in batches(2, [FULL] * 5, 0):
            step(batch)


def test_methods_declare_for_themselves_that_their_step_can_be_captured():
    plain = {"finetune", "icarl_cnn", "ewc_online", "lwf", "lwf_mc", "si"}
    assert plain | {"der_expandable", "foster"} <= set(CAPTURABLE)
    assert not {"agem", "icarl", "lucir"} & set(CAPTURABLE)

    class Mine(METHODS["icarl_cnn"].model):
        """Its step may do more."""

    assert not Mine.is_capturable()


@pytest.mark.parametrize(
    ("settings", "surroundings", "expected"),
    [
        ({}, {}, "on"),
        ({"graph": "on"}, {}, "on"),
        ({"graph": "off"}, {}, "off"),
        ({"compile": True}, {}, "off"),
        ({"compile": True, "graph": "on"}, {}, "on"),
        ({}, {"device": torch.device("cpu")}, "a GPU, got device cpu"),
        ({}, {"processes": 2}, "a single process, got 2 processes"),
        ({}, {"is_capturable": False}, "step can be captured, got method finetune"),
        ({"optimizer": "adam"}, {}, "optimizer momentum or sgd, got optimizer adam"),
        ({"resident": False}, {}, "resident images, got resident: false"),
    ],
)
def test_auto_captures_where_possible_and_on_says_why_it_is_not(settings, surroundings, expected):
    def resolve(**more):
        config = ExperimentConfig.parse(
            {"benchmark": "demo", "data": "shards", "method": "finetune", **settings, **more}
        )
        given = {"is_capturable": True, "device": torch.device("cuda"), "processes": 1}
        return resolved_graph(config, **(given | surroundings))

    if expected in ("on", "off"):
        assert resolve() == expected
        return
    assert resolve() == "off" and resolve(graph="off") == "off"
    with pytest.raises(ConfigurationError, match=f"graph: on needs .*{expected}: give --graph"):
        resolve(graph="on")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Make experiments capture on the CPU; return their captures."""
    captures = []

    def capture(device):
        captures.append(TapeCapture())
        return captures[-1]

    monkeypatch.setattr("iirc_train.training.steps.CudaCapture", capture)
    monkeypatch.setattr(components, "resolved_graph", lambda config, **_: config.graph)
    return captures


@pytest.mark.parametrize("method", ["icarl_cnn"])
def test_a_run_with_graphs_equals_an_eager_one_also_when_resumed(
    tiny_settings, tmp_path, as_on_a_gpu, method
):
    settings = tiny_settings | {
        "method": method,
        "threads": 1,
        "decoder": "pillow",
        "batch_size": 8,
        "epochs_per_task": 2,
        "network": "small32",
        "n_layers": None,
    }
    NETWORKS["small32"] = Small32
    try:
        eager, graphed = (
            ExperimentConfig.parse(settings | {"graph": graph}) for graph in ("off", "on")
        )
        expected = read_metrics(run_experiment(eager, tmp_path / "eager", QUIET))
        assert not as_on_a_gpu
        with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
            break_off_at_save(patched, 6)  # within the second task
            run_experiment(graphed, tmp_path / "graphed", QUIET)
        with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(GraphedStep, "__call__", interrupted_at(6))
            resume_experiment(tmp_path / "graphed", QUIET)
        position = load_checkpoint(tmp_path / "graphed/checkpoints/last.pt")["position"]
        assert len(position) == 3  # within an epoch
        resume_experiment(tmp_path / "graphed", QUIET)
    finally:
        del NETWORKS["small32"]
    assert json.dumps(read_metrics(tmp_path / "graphed")) == json.dumps(expected)
    assert [capture.n_replays > 0 for capture in as_on_a_gpu] == [True, True, True]
    assert read_record(tmp_path / "graphed")["sessions"][-1]["resolved"]["graph"] == "on"


def interrupted_at(number: int):
    """Return a captured step that gets Ctrl-C in the call of a number."""
    calls, step = count(1), GraphedStep.__call__

    def interrupted_step(self, batch):
        if next(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch)

    return interrupted_step


class Small32(Small):
    """The same for images of 32 x 32 pixels."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.features.insert(0, nn.AvgPool2d(4))


def test_streamed_images_are_trained_eagerly_or_refused(tiny_settings, as_on_a_gpu):
    settings = tiny_settings | {"method": "finetune", "resident": False, "decoder": "pillow"}
    for graph in ("auto", "on"):
        config = ExperimentConfig.parse(settings | {"graph": graph})
        with components.Experiment(config) as experiment:
            loader = experiment.training_loader(experiment.view("train", 0))
            if graph == "auto":
                assert experiment.training_step(loader) == experiment.method.training_step
                continue
            with pytest.raises(ConfigurationError, match="give --resident or --graph auto"):
                experiment.training_step(loader)
