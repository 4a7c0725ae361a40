"""What only a GPU can show."""

from contextlib import contextmanager

import pytest
import torch
from rich.console import Console

from benchmarks.gpu_checks import images_of_all_kinds, ordering_mismatches, pixel_differences
from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.definitions import TRAIN
from iirc_data.loader import make_decoder, make_loader
from iirc_data.loader.window_probe import WindowDecoding, window_decoding
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.metrics import label_counts
from iirc_train.models.inference import within_memory
from iirc_train.run.directory import read_metrics
from iirc_train.runtime.waiting import Waiting
from iirc_train.testing import MadeUpRun
from iirc_train.training.components import Experiment
from iirc_train.training.graphed_step import WARM_UP_STEPS
from iirc_train.training.launch import run_experiment
from tests.ce_methods import config_for
from tests.test_loader import everything

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_within_an_epoch_waits_for_the_gpu(tiny_settings, method):
    settings = {"device": "cuda", "batch_size": 4, "decoder": "pillow"}
    config = config_for(method, tiny_settings, **settings)
    experiment = Experiment(config)
    learner = experiment.method
    learner.prepare_model_for_new_task(experiment.task_data(0))
    experiment.buffer.update_buffer_new_task(experiment.task_data(0), method=learner, batch_size=16)
    view = experiment.view(TRAIN, 1)
    learner.prepare_model_for_new_task(
        experiment.task_data(1), batch_size=16, memory_batches=experiment.memory_batches(view)
    )
    learner.train()
    loader = experiment.training_loader(view)
    assert loader.is_resident
    for epoch in range(2):
        loader.set_epoch(epoch)
        waiting = Waiting.on(experiment.device)
        torch.cuda.set_sync_debug_mode("error" if epoch else "default")  # the first one decodes
        try:
            losses, counts = [], []
            for batch in waiting.each(loader):
                predicted, loss = learner.training_step(batch)
                losses.append(loss * len(batch))
                counts.append(label_counts(predicted, batch.targets.bool()))
            mean_loss = torch.stack(losses).sum()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(mean_loss)
        assert 0 < waiting.seconds() < 3600


@pytest.fixture
def repeatable_convolutions():
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.allow_tf32
    cudnn.deterministic, cudnn.allow_tf32 = True, False
    yield
    cudnn.deterministic, cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize(
    "method", [name for name in METHODS if METHODS[name].model.is_capturable()]
)
def test_a_step_in_a_cuda_graph_learns_what_an_eager_one_does(
    tiny_settings, repeatable_convolutions, method, precision, tolerance
):
    """Two tasks; the learning rate decays within each, and epochs end with a smaller batch."""
    losses, weights, counts = [], [], []
    for graph in ("off", "on"):
        settings = {
            "device": "cuda",
            "batch_size": 4,
            "lr": 0.01,
            "lr_schedule": [2],
            "decoder": "pillow",
            "precision": precision,
            "graph": graph,
        }
        config = config_for(method, tiny_settings, **settings)
        with Experiment(config) as experiment:
            assert experiment.resolved["graph"] == graph
            learner, shown = experiment.method, []
            for task_id in range(2):
                data = experiment.task_data(task_id)
                learner.prepare_model_for_new_task(data, batch_size=16)
                experiment.connect_network()
                loader = experiment.training_loader(experiment.view(TRAIN, task_id))
                for epoch in range(4):
                    loader.set_epoch(epoch)
                    learner.train()
                    step = experiment.training_step(loader)
                    for batch in loader:
                        predicted, loss = step(batch)
                        shown.append(loss)
                        counts.append(predicted.sum())
                    learner.consolidate_epoch_knowledge()
                experiment.buffer.update_buffer_new_task(data, method=learner, batch_size=16)
            losses.append(torch.stack(shown))
            weights.append(torch.cat([p.detach().flatten() for p in learner.net.parameters()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(weights[1], weights[0], rtol=tolerance, atol=tolerance)


def test_a_replayed_step_does_not_wait_for_the_gpu(tiny_settings):
    settings = {"method": "finetune", "device": "cuda", "batch_size": 4, "graph": "on"}
    settings["decoder"] = "pillow"
    with Experiment(ExperimentConfig.parse(tiny_settings | settings)) as experiment:
        experiment.method.prepare_model_for_new_task(experiment.task_data(0), batch_size=16)
        experiment.method.train()
        loader = experiment.training_loader(experiment.view(TRAIN, 0))
        step = experiment.training_step(loader)
        given = [batch for batch in loader if len(batch) == 4]
        assert len(given) > WARM_UP_STEPS + 1
        for number, batch in enumerate(given):
            is_replay = number > WARM_UP_STEPS
            torch.cuda.set_sync_debug_mode("error" if is_replay else "default")
            try:
                _, loss = step(batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(loss)


def test_inference_halves_batches_that_do_not_fit_into_the_memory():
    def forward(images):
        if len(images) > 3:
            torch.empty(1 << 50, device="cuda")
        return images + 1, images.mean(dim=1)

    images = torch.rand(10, 5, device="cuda")
    outputs, _ = within_memory(forward)(images)
    assert torch.equal(outputs, images + 1)


@pytest.mark.parametrize("preset", ["cifar", "imagenet"])
def test_images_stay_with_their_samples_while_training_is_behind(tiny_store, preset):
    """DALI decodes further batches before the stream that trains has come to the first."""
    pytest.importorskip("nvidia.dali")
    options = {
        "transforms": TRANSFORM_PRESETS[preset],
        "train": True,
        "batch_size": 8,
        "normalize": False,
        "resident": False,
    }
    view = everything(tiny_store)
    expected = [
        batch.images for batch in make_loader(view, tiny_store, decoder="pillow", **options)
    ]
    found = []
    for batch in make_loader(view, tiny_store, decoder="dali", device="cuda", **options):
        torch.cuda._sleep(50_000_000)  # some 30 ms
        found.append(batch.images.clone())
    for ours, other in zip(found, expected, strict=True):
        difference = (ours.cpu().float() - other.float()).abs().mean(dim=(1, 2, 3))
        assert difference.max() < 8  # another sample's image differs by some 60


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside training"])
def test_batches_are_not_mixed_up_while_the_gpu_is_behind(busy):
    pytest.importorskip("nvidia.dali")
    device = torch.device("cuda")
    assert ordering_mismatches(lambda: make_decoder("dali", device), 50, busy, device) == 0


@pytest.mark.parametrize("width", [64, 500])
def test_pixels_of_every_kind_of_jpeg_are_close_to_pillows(width):
    pytest.importorskip("nvidia.dali")
    found = pixel_differences(torch.device("cuda"), images_of_all_kinds(width))
    for name, difference in found.items():
        assert difference.mean <= 1, (name, difference)
        assert difference.p99 <= 6, (name, difference)


def test_decoding_in_every_epoch_does_not_wait_for_the_gpu(tiny_store):
    """As far as torch sees; DALI's own waits are not torch's."""
    pytest.importorskip("nvidia.dali")
    loader = make_loader(
        everything(tiny_store),
        tiny_store,
        transforms=TRANSFORM_PRESETS["imagenet"],
        train=True,
        batch_size=8,
        resident=False,
        decoder="dali",
        device="cuda",
    )
    list(loader)  # builds the pipeline
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums = [batch.images.sum() for batch in loader]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(torch.stack(sums)).all()


def test_windows_that_work_and_whole_images_look_alike(tiny_store, monkeypatch):
    pytest.importorskip("nvidia.dali")
    from iirc_data.loader import dali

    device = torch.device("cuda", torch.cuda.current_device())
    found = window_decoding(device)
    if not found.works:
        pytest.skip(f"windows are not decoded here: {found.reason}")

    def images():
        options = {"train": True, "batch_size": 8, "normalize": False, "decoder": "dali"}
        loader = make_loader(
            everything(tiny_store),
            tiny_store,
            transforms=TRANSFORM_PRESETS["imagenet"],
            device="cuda",
            **options,
        )
        return torch.cat([batch.images for batch in loader]).float()

    windows = images()
    monkeypatch.setattr(dali, "window_decoding", lambda *_, **__: WindowDecoding(False, "a test"))
    with pytest.warns(UserWarning, match="a test"):
        whole = images()
    assert windows.device == whole.device == device
    assert (windows - whole).abs().mean() < 1


def test_resident_images_are_the_same_on_the_gpu(tiny_settings):
    experiment = Experiment(ExperimentConfig.parse(tiny_settings | {"method": "finetune"}))
    loaders = [
        make_loader(
            experiment.view(TRAIN, 0),
            experiment.store,
            transforms=TRANSFORM_PRESETS["cifar"],
            train=True,
            batch_size=7,
            normalize=False,
            resident=True,
            device=device,
            decoder="pillow",
        )
        for device in ("cpu", "cuda")
    ]
    for ours, expected in zip(*reversed([list(loader) for loader in loaders]), strict=True):
        assert ours.images.is_cuda
        assert torch.equal(ours.images.cpu(), expected.images)
        assert torch.equal(ours.targets.cpu(), expected.targets)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_in_bfloat16_on_the_gpu(tiny_settings, tmp_path, method):
    config = config_for(method, tiny_settings, device="cuda", precision="bf16")
    run = run_experiment(config, tmp_path / "run", Console(quiet=True))
    scores = [r for r in read_metrics(run) if r["kind"] == "evaluation" and r["task"] == "all"]
    assert len(scores) == 8


# ------------------------------------------------------------------ waiting


@contextmanager
def nothing_waits():
    """Make an operation that waits for the GPU an error; tests/test_never_waits.py finds others."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_reading_a_value_is_an_error_where_nothing_may_wait():
    value = torch.ones(1, device="cuda")
    with nothing_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        value.item()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_no_step_and_no_prediction_waits_for_the_gpu(method, dtype):
    run = MadeUpRun(METHODS[method].model, device="cuda", memory_strength=2.0)
    run.method.autocast_dtype = dtype
    for _ in run.method.n_cla_per_tsk:
        batch = run.begin_task()
        run.train(batch)  # chooses algorithms, creates the optimizer's state
        run.evaluate(batch)
        with nothing_waits():
            run.train(batch)
            run.evaluate(batch)
        run.end_task()
        run.evaluate(batch)
        with nothing_waits():
            run.evaluate(batch)
