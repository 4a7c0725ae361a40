"""Pretrained weights: read, checked, loaded, named by a digest, and needed no second time."""

import os
import pickle
import sys
from urllib.error import URLError

import pytest
import torch
from torch import nn

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.augment.network_images import NetworkImages, preset_for
from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.config import ExperimentConfig
from iirc_train.config.experiment import MethodConfig
from iirc_train.models.networks import NETWORKS, expected_images, make_network
from iirc_train.models.weights import read_weights, remembered_digest, trunk_digest
from iirc_train.run.checkpoint import load_checkpoint
from iirc_train.run.record import read_record
from iirc_train.training.components import Experiment
from iirc_train.training.launch import repeat_experiment, resume_experiment, run_experiment
from tests.small_network import Small
from tests.test_resume import BrokenOffError, break_off_at_save


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "small", Small)


def network_with(weights, n_classes=3, network="small"):
    return make_network(MethodConfig(network=network, weights=str(weights)), n_classes)


def trunk(net):
    return {k: v for k, v in net.state_dict().items() if "output_layer" not in k}


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.fixture
def donor():
    torch.manual_seed(1)
    net = Small(7)
    for buffer in net.buffers():
        buffer.fill_(2)
    return net


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".pth", lambda state: state),
        (".pt", lambda state: {"state_dict": prefixed("module.", state)}),
        (".pt", lambda state: {"experiment": {"method": {"modules": prefixed("net.", state)}}}),
        (".pth", lambda state: prefixed("_orig_mod.", state)),  # of torch.compile
        (".safetensors", lambda state: state),
    ],
)
def test_a_file_gives_all_layers_but_the_head_and_one_digest(donor, tmp_path, suffix, wrap):
    path = tmp_path / f"weights{suffix}"
    state = wrap(donor.state_dict())
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save(state, path)
    net = network_with(path)
    assert trunk(net).keys() == trunk(donor).keys()
    assert all(torch.equal(value, trunk(net)[key]) for key, value in trunk(donor).items())
    assert net.model.output_layer.weight.shape == (3, 36)
    assert remembered_digest(net) == trunk_digest(donor)
    assert remembered_digest(network_with("none")) is None


def test_the_digest_is_of_names_types_shapes_and_bytes(donor):
    digests = {trunk_digest(donor)}
    donor.model.output_layer.weight.data.add_(1)
    assert trunk_digest(donor) in digests
    for change in (
        lambda: donor.features[1].weight.data[0, 0, 0, 0].add_(1),
        lambda: setattr(donor.features[1], "weight", nn.Parameter(torch.ones(4, 3, 3, 2))),
        lambda: donor.half(),
        lambda: donor.features.add_module("more", nn.BatchNorm1d(1)),
    ):
        change()
        digests.add(trunk_digest(donor))
    assert len(digests) == 5


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", r"weights .*w.pth: the file is damaged"),
        (pickle.dumps(os.system), "weights .*w.pth: the file is damaged"),
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ],
    ids=["text", "pickle", "numbers", "list"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    write(tmp_path / "w.pth", content)
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(raised.value)


def test_no_code_of_a_file_is_run_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "w.pth"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    torch.save({"a": Trap()}, path)
    with pytest.raises(ConfigurationError, match="more than tensors and plain values"):
        read_weights(path)
    assert not (tmp_path / "trap").exists()
    with pytest.raises(ConfigurationError, match=r"cannot read weights .*No such file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(ConfigurationError, match="needs safetensors: pip install"):
            read_weights(tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_are_named_in_one_line_and_none_is_loaded(donor, tmp_path):
    state = donor.state_dict()
    state["features.1.weight"] = torch.zeros(4, 3, 5, 5)
    del state["features.2.weight"], state["features.2.bias"]
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ConfigurationError) as raised:
        network_with(tmp_path / "w.pth")
    message = str(raised.value)
    assert "\n" not in message and "network small, weights" in message
    for part in (
        "missing: features.2.weight, features.2.bias",
        "unexpected: extra.weight",
        "of another shape: features.1.weight ((4, 3, 5, 5), expected (4, 3, 3, 3))",
    ):
        assert part in message


# ---------------------------------------------------------------------- default weights


def test_default_weights_are_those_of_the_library_or_an_error_says_which_file_to_bring(monkeypatch):
    from torchvision import models

    torch.manual_seed(0)
    state = models.resnet18().state_dict()
    weights = models.ResNet18_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: state)
    nets = [network_with("default", network=name) for name in ("resnet18", "torchvision:resnet18")]
    assert all(torch.equal(net.trunk.conv1.weight, state["conv1.weight"]) for net in nets)
    assert remembered_digest(nets[0]) == remembered_digest(nets[1])

    def offline(self, **_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(weights, "get_state_dict", offline)
    with pytest.raises(ConfigurationError) as raised:
        network_with("default", network="resnet18")
    message = str(raised.value)
    assert "\n" not in message
    assert "Name or service not known" in message
    assert "bring https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert "--weights FILE" in message


@pytest.mark.parametrize("network", ["resnet20", "mlp", "small"])
def test_networks_without_weights_of_their_own_say_so(network):
    with pytest.raises(ConfigurationError, match=f"network {network} has no pretrained weights"):
        network_with("default", network=network)


@pytest.mark.parametrize("weights", ["default", "some.pth"])
def test_without_timm_its_networks_say_what_to_install(weights, monkeypatch):
    for module in ("timm", "timm.data", "timm.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r"needs timm: pip install 'iirc-pipeline\[timm"):
        expected_images("timm:resnet18", weights)


def test_ones_own_network_may_have_pretrained_weights(monkeypatch):
    def own(num_classes, pretrained=False):
        net = Small(num_classes)
        net.was_pretrained = pretrained
        return net

    monkeypatch.setitem(NETWORKS, "own", own)
    assert network_with("default", network="own").was_pretrained
    assert not network_with("none", network="own").was_pretrained
    assert expected_images("own", "default") is None
    own.images = {"size": 40, "resize": 50, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    assert expected_images("own", "default") == NetworkImages(40, 50, (0.5,) * 3, (0.2,) * 3)
    assert expected_images("own", "none") is None
    for images in ({"size": 40}, own.images | {"interpolation": "cubic"}):
        own.images = images
        with pytest.raises(ConfigurationError, match="network own: images must have size, resize"):
            expected_images("own", "default")


# ---------------------------------------------------------------------- images

IMAGES = NetworkImages(224, 248, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("cifar", {"crop": "random", "resize": 224, "padding": 28, "flip": True}),
        ("tiny_imagenet", {"crop": "random", "resize": 224, "padding": 14, "flip": True}),
        ("imagenet", {"crop": "random_resized", "resize": None, "flip": True}),
    ],
)
def test_a_benchmark_shows_images_as_the_network_expects_them_and_augments_as_before(name, train):
    preset = preset_for(IMAGES, IMAGE_PRESETS[name])
    assert (preset.size, preset.mean, preset.std) == (224, IMAGES.mean, IMAGES.std)
    assert (preset.evaluate.resize, preset.evaluate.crop) == (248, "center")
    assert preset.evaluate.interpolation == preset.train.interpolation == "bicubic"
    assert {key: getattr(preset.train, key) for key in train} == train
    jittered = preset_for(IMAGES, IMAGE_PRESETS["cifar100_pycil"])
    assert jittered.train.color_jitter == IMAGE_PRESETS["cifar100_pycil"].train.color_jitter
    preset.transforms  # noqa: B018  # valid


def test_what_libraries_say_about_their_weights_is_taken_over():
    images = expected_images("torchvision:resnet50", "default")
    assert images == expected_images("resnet50", "file.pth")
    assert (images.size, images.resize, images.mean) == (224, 232, (0.485, 0.456, 0.406))
    assert images.interpolation == "bilinear"
    pytest.importorskip("timm")
    images = expected_images("timm:vit_base_patch16_224", "default")
    assert (images.size, images.resize, images.mean) == (224, 248, (0.5, 0.5, 0.5))
    assert images.interpolation == "bicubic"


# ---------------------------------------------------------------------- runs


def test_a_run_records_its_weights_resumes_without_their_file_and_is_repeated_with_the_same_only(
    donor, tiny_settings, tmp_path, monkeypatch, caplog
):
    images = NetworkImages(32, 36, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    monkeypatch.setattr(Small, "images", images, raising=False)
    file = tmp_path / "w.pth"
    torch.save(donor.state_dict(), file)
    settings = {k: v for k, v in tiny_settings.items() if k != "n_layers"}
    settings |= {"decoder": "pillow", "threads": 1, "method": "finetune", "frozen": True}
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig.parse(settings | {"network": "small", "weights": "w.pth"})
    with Experiment(config) as experiment:
        assert experiment.benchmark.image_preset.evaluate.resize == 36
    assert "expect images" not in caplog.text
    other = config.model_copy(update={"image_preset": "cifar100"})
    with Experiment(other) as experiment:
        assert experiment.benchmark.image_preset is IMAGE_PRESETS["cifar100"]
    assert "expect images of 32 pixels with mean (0.500, 0.500, 0.500)" in caplog.text
    with Experiment(config.model_copy(update={"image_preset": "benchmark"})) as experiment:
        assert experiment.benchmark == load_benchmark(config.benchmark)
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 2)
        run_experiment(config, run)
    file.rename(tmp_path / "elsewhere.pth")
    resume_experiment(run)
    digest = trunk_digest(donor)
    sessions = read_record(run)["sessions"]
    assert [session["resolved"]["weights_digest"] for session in sessions] == [digest, digest]
    state = load_checkpoint(run / "checkpoints/last.pt")["experiment"]
    assert state["resolved"]["weights_digest"] == digest
    found = {k.removeprefix("net."): v for k, v in state["method"]["modules"].items()}
    assert all(torch.equal(found[key], value) for key, value in trunk(donor).items())

    with pytest.raises(ConfigurationError, match=r"cannot read weights .*w.pth"):
        repeat_experiment(run, tmp_path / "again")
    donor.features[1].weight.data.add_(1)
    torch.save(donor.state_dict(), file)
    with pytest.raises(ConfigurationError, match=f"weights with digest {digest}, here they have"):
        repeat_experiment(run, tmp_path / "again")
    assert not (tmp_path / "again" / "config.yaml").exists()
    changes = {"weights": str(tmp_path / "elsewhere.pth")}
    repeat_experiment(run, tmp_path / "again", changes=changes)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "again")]
    assert metrics[0] == metrics[1]


def test_a_transformer_of_timm_with_weights_from_a_file_is_fine_tuned_at_its_own_size(
    tiny_settings, tmp_path
):
    timm = pytest.importorskip("timm")
    donor = timm.create_model("test_vit", num_classes=9)
    file = tmp_path / "w.safetensors"
    pytest.importorskip("safetensors.torch").save_file(donor.state_dict(), file)
    settings = {k: v for k, v in tiny_settings.items() if k != "n_layers"}
    settings |= {"decoder": "pillow", "threads": 1, "method": "finetune", "batch_size": 4}
    network = {"network": "timm:test_vit", "weights": str(file), "frozen_until": "blocks.2"}
    with Experiment(ExperimentConfig.parse(settings | network)) as experiment:
        method = experiment.method
        method.prepare_model_for_new_task(experiment.task_data(0))
        method.train()
        batch = next(iter(experiment.training_loader(experiment.view("train", 0))))
        assert batch.images.shape == (4, 3, 160, 160)
        method.training_step(batch)
        assert experiment.image_size == 160
    trained = method.net.backbone.state_dict()
    for name, value in donor.state_dict().items():
        is_frozen = not name.startswith(("blocks.3", "blocks.4", "blocks.5", "norm", "head"))
        if not name.startswith("head"):
            assert torch.equal(trained[name], value) == is_frozen, name
