"""Networks by name: the registry, the default, other libraries' models, a network of one's own."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from iirc_data.errors import ConfigurationError
from iirc_train.cli import app as cli
from iirc_train.config import ExperimentConfig, MethodConfig
from iirc_train.config.compose import compose
from iirc_train.config.network import current_name, resolve_network
from iirc_train.methods import get_method
from iirc_train.methods.settings import method_configs
from iirc_train.models import MLP, NETWORKS, ResNet, ResNetCIFAR
from iirc_train.models.networks import check_network, get_network, make_network
from iirc_train.report.runs import Run, group_runs
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import METRICS_NAME
from iirc_train.run.record import is_finished, read_record
from iirc_train.sweep import plan
from tests.made_up_runs import write_run
from tests.test_docs import DOCS, block_named
from tests.test_resume import BrokenOffError, break_off_at_save

REQUIRED = {"benchmark": "iirc_cifar10", "data": "shards", "method": "finetune"}


def n_parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def method_net(config):
    """Return the network that a method makes for itself."""
    torch.manual_seed(0)
    return get_method("finetune").model([2, 2], dict.fromkeys("abcd", 0), config).net


def assert_same(net, expected):
    assert type(net) is type(expected)
    ours, theirs = net.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# ---------------------------------------------------------------------- the registry


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # He et al. (2016), table 6
        ("resnet20_a", 0.27e6),
        ("resnet32_a", 0.46e6),
        ("resnet44_a", 0.66e6),
        ("resnet56_a", 0.85e6),
        ("resnet110_a", 1.7e6),
        # torchvision's documentation, 1000 classes
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("torchvision:resnet18", 11_689_512),
        ("torchvision:densenet121", 7_978_856),
        ("torchvision:mobilenet_v3_small", 2_542_856),
    ],
)
def test_a_network_has_the_published_number_of_parameters(name, expected):
    found = n_parameters(get_network(name)(num_classes=10 if name.endswith("_a") else 1000))
    if name.endswith("_a"):
        assert float(f"{found:.2g}") == expected or found == pytest.approx(expected, abs=5e3)
    else:
        assert found == expected


def test_a_stem_for_cifar_differs_from_imagenets_only_in_its_convolution():
    small, large = (
        get_network(name)(num_classes=10).eval() for name in ("resnet18_cifar", "resnet18")
    )
    assert n_parameters(large) - n_parameters(small) == 64 * 3 * (7 * 7 - 3 * 3)
    maps = [net.feature_maps(torch.rand(1, 3, 32, 32))[0].shape[2:] for net in (small, large)]
    assert maps == [(32, 32), (8, 8)]


@pytest.mark.parametrize(
    "name",
    [
        "resnet20",
        "resnet32",
        "resnet20_a",
        "resnet110_a",
        "resnet18",
        "resnet50",
        "resnet18_cifar",
        "mlp",
    ],
)
def test_every_layer_begins_as_its_definition_says(name):
    torch.manual_seed(0)
    net = make_network(MethodConfig(network=name), 200)
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is None
            # Kaiming, for a ReLU: by its inputs in the published code, its outputs in torchvision
            channels = layer.in_channels if isinstance(net, ResNetCIFAR) else layer.out_channels
            expected = (2 / (channels * layer.kernel_size[0] ** 2)) ** 0.5
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            # Kaiming with gain 1 in the published code, PyTorch's uniform default elsewhere
            expected = bound if isinstance(net, ResNetCIFAR) else bound / 3**0.5
            assert layer.bias.abs().max() <= bound
            assert layer.bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
        elif isinstance(layer, nn.BatchNorm2d):  # the residual branch's too
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
            continue
        else:
            continue
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(expected, rel=4 / (2 * n) ** 0.5), path
        assert abs(layer.weight.mean()) < 4 * expected / n**0.5, path


@torch.no_grad()
def test_the_shortcut_of_option_a_takes_every_second_pixel_and_appends_zeros():
    net = get_network("resnet8_a")(num_classes=3).eval()
    for block in net.model.blocks:
        nn.init.zeros_(block.norm2.weight)  # nothing but the shortcuts
    images = torch.rand(2, 3, 32, 32)
    first, *_, last = net.feature_maps(images)
    assert last.shape == (2, 64, 8, 8)
    assert torch.equal(last[:, :16], first[:, :, ::4, ::4])
    assert not last[:, 16:].any()


@pytest.mark.parametrize("name", ["resnet8", "resnet8_a", "resnet18", "resnet18_cifar"])
@torch.no_grad()
def test_feature_maps_end_with_what_the_latent_is_the_mean_of(name):
    net = get_network(name)(num_classes=3).eval()
    images = torch.rand(2, 3, 40, 40)
    maps, (output, latent) = net.feature_maps(images), net(images)
    torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), latent)
    torch.testing.assert_close(net.model.output_layer(latent), output)
    assert (latent.min() >= 0) == (name != "resnet8")


def test_all_names_are_known_and_a_wrong_one_is_an_error_that_names_the_nearest():
    for name in [*NETWORKS, "resnet8", "resnet14_a", "resnet50_b", "resnet20_b", "resnet1202"]:
        get_network(name)
    for name in ("resnet18_a", "resnet33", "resnet2", "resnet8000", "resnet020", "densenet"):
        with pytest.raises(ConfigurationError, match=f"no network '{name}': choose resnet20, "):
            get_network(name)
    with pytest.raises(ConfigurationError, match="did you mean 'resnet32_a'"):
        get_network("resnet32-a")


# ---------------------------------------------------------------------- which one is meant


@pytest.mark.parametrize(
    ("network", "n_layers", "image_size", "name"),
    [
        ("auto", None, 32, "resnet20"),
        ("auto", None, 64, "resnet20"),
        ("auto", None, 65, "resnet18"),
        ("auto", None, 224, "resnet18"),
        ("auto", 8, 32, "resnet8"),
        ("auto", 32, 32, "resnet32"),
        ("auto", 50, 32, "resnet50_b"),  # of 6 n + 2 layers too
        ("auto", 50, 224, "resnet50"),
        ("resnet18", None, 32, "resnet18"),
        ("mlp", None, 224, "mlp"),
    ],
)
def test_settings_mean_one_network(network, n_layers, image_size, name):
    assert resolve_network(network, n_layers, image_size) == name


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda: ResNetCIFAR(4, 20)),
        ({"n_layers": 8}, lambda: ResNetCIFAR(4, 8)),
        ({"network": "resnet8", "n_layers": 8}, lambda: ResNetCIFAR(4, 8)),
        ({"n_layers": 50}, lambda: ResNetCIFAR(4, 50)),
        ({"n_layers": 8, "dataset": "iirc_cifar100"}, lambda: ResNetCIFAR(4, 8)),
        ({"n_layers": 8, "dataset": "incremental_cifar100"}, lambda: ResNetCIFAR(4, 8)),
        ({"n_layers": 18, "dataset": "imagenet"}, lambda: ResNet(4, 18)),
        ({"n_layers": 18, "dataset": "incremental_imagenet_full"}, lambda: ResNet(4, 18)),
        ({"n_layers": 18, "dataset": "incremental_imagenet_lite"}, lambda: ResNet(4, 18)),
        ({"n_layers": 18, "dataset": "iirc_imagenet_lite"}, lambda: ResNet(4, 18)),
        ({"dataset": "iirc_imagenet_full"}, lambda: ResNet(4, 18)),
        ({"network": "resnet8", "dataset": "no benchmark"}, lambda: ResNetCIFAR(4, 8)),
        ({"network": "mlp"}, lambda: MLP((3, 32, 32), 1, 4, 2, 400)),
        ({"network": "mlp", "dataset": "imagenet"}, lambda: MLP((3, 224, 224), 1, 4, 2, 400)),
    ],
)
def test_a_method_makes_the_network_of_its_settings(settings, expected):
    net = method_net(settings)
    torch.manual_seed(0)
    assert_same(net, expected())


@pytest.mark.parametrize("dataset", ["my_imagenet_subset", "not_cifar", "imagenet100"])
def test_no_part_of_a_name_chooses_a_network(dataset):
    with pytest.raises(ConfigurationError, match=f"for dataset '{dataset}', which is neither"):
        method_net({"dataset": dataset})


def test_a_configuration_for_imagenet_gives_a_method_a_network_for_imagenet():
    config = ExperimentConfig.parse(REQUIRED | {"benchmark": "iirc_imagenet_lite"})
    assert isinstance(method_net(config), ResNet)
    assert isinstance(method_net(config.model_copy(update={"n_layers": 34})), ResNet)
    assert isinstance(method_net(ExperimentConfig.parse(REQUIRED)), ResNetCIFAR)


@pytest.mark.parametrize("network", ["resnet32", "mlp", "torchvision:resnet18", "a:b"])
def test_network_and_n_layers_must_agree(network):
    for config in (MethodConfig, ExperimentConfig):
        required = REQUIRED if config is ExperimentConfig else {}
        with pytest.raises(ConfigurationError, match=f"n_layers 18 contradicts network '{network}"):
            config.parse(required | {"network": network, "n_layers": 18})
    for agreeing in ("resnet18", "resnet18_cifar", "auto"):
        MethodConfig(network=agreeing, n_layers=18)


def test_a_later_source_of_settings_replaces_network_and_n_layers_together(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("n_layers: 8\ndata: here\n")
    config = compose("cifar100-lucir-20", file, methods=method_configs())
    assert (config.network, config.n_layers) == ("auto", 8)
    config = compose("cifar100-lucir-20", file, {"network": "mlp"}, methods=method_configs())
    assert (config.network, config.n_layers) == ("mlp", None)
    with pytest.raises(ConfigurationError, match="contradicts"):
        compose(
            "cifar100-lucir-20", file, {"network": "mlp", "n_layers": 8}, methods=method_configs()
        )


def test_a_sweep_refuses_an_unknown_network_before_it_starts(tiny_settings, tmp_path):
    settings = tiny_settings | {"method": "finetune", "n_layers": None}
    with pytest.raises(ConfigurationError, match="no network 'resnet33'"):
        plan(tmp_path / "sweep", overrides=settings | {"network": "resnet33"})


# ---------------------------------------------------------------------- earlier releases


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ("ResNetCIFAR-20", "resnet20"),
        ("ResNetCIFAR-50", "resnet50_b"),
        ("ResNet-50", "resnet50"),
        ("OwnNetwork-20", None),
        ("resnet18_cifar", "resnet18_cifar"),
        ("torchvision:resnet18", "torchvision:resnet18"),
    ],
)
def test_names_that_earlier_releases_recorded_are_read(recorded, name):
    assert current_name(recorded) == name


def test_a_run_of_an_earlier_release_repeats_one_that_names_the_same_network(tmp_path):
    names = {"before": {"n_layers": 32, "seed": 1}, "now": {"network": "resnet32", "seed": 2}}
    runs = [
        Run.read(write_run(tmp_path / name, "iirc_cifar10", **settings))
        for name, settings in names.items()
    ]
    (group,) = group_runs(runs)
    assert len(group.runs) == 2
    other = Run.read(write_run(tmp_path / "other", "iirc_cifar10", network="mlp"))
    assert [group.name for group in group_runs([*runs, other])] == [
        "finetune, network resnet32",
        "finetune, network mlp",
    ]


def test_a_sweep_takes_over_a_run_of_an_earlier_release_with_the_same_network(
    tiny_settings, tmp_path
):
    settings = tiny_settings | {"method": "finetune"}
    (planned,) = plan(tmp_path, overrides=settings)
    planned.folder.mkdir(parents=True)
    planned.config.save(planned.folder / "config.yaml")
    (planned.folder / METRICS_NAME).touch()
    named = settings | {"n_layers": None, "network": "resnet8"}
    assert plan(tmp_path, overrides=named)[0].folder == planned.folder
    with pytest.raises(ConfigurationError, match="network was resnet8, is resnet8_a now"):
        plan(tmp_path, overrides=named | {"network": "resnet8_a"})


# ---------------------------------------------------------------------- other libraries


@pytest.mark.parametrize("name", ["vgg11", "googlenet", "regnet_y_400mf", "vit_b_16", "swin_t"])
def test_classification_models_of_torchvision_serve(name):
    with torch.device("meta" if "regnet" not in name else "cpu"):
        net = get_network(f"torchvision:{name}")(num_classes=7)
        output, latent = net.train()(torch.zeros(2, 3, 224, 224))
    assert output.shape == (2, 7)
    assert latent.shape == (2, net.model.output_layer.in_features)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:squeezenet1_0", "ends with a Conv2d, not with a linear layer"),
        ("torchvision:resnet19", "no classification model 'resnet19'; did you mean 'resnet1"),
        ("torchvision:fcn_resnet50", "no classification model"),
        ("timm:resnet18", r"needs timm: pip install 'iirc-pipeline\[timm\]'"),
    ],
)
def test_models_of_other_libraries_that_do_not_serve_are_refused(name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=message):
        get_network(name)(num_classes=3)


class TimmModel(nn.Sequential):
    def __init__(self, num_classes, n_heads=1):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, num_classes)
        if n_heads == 2:
            self.head_dist = nn.Linear(4, num_classes)

    def get_classifier(self):
        return self.head


def test_models_of_timm_serve_if_they_have_one_output_layer(monkeypatch):
    made = {"one": TimmModel, "two": lambda num_classes: TimmModel(num_classes, n_heads=2)}
    timm = SimpleNamespace(
        is_model=made.__contains__,
        list_models=lambda: list(made),
        create_model=lambda name, num_classes: made[name](num_classes),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    net = get_network("timm:one")(num_classes=7)
    check_network(net, "timm:one", 32)
    assert net.model.output_layer.weight.shape == (7, 4)
    with pytest.raises(ConfigurationError, match="several output layers"):
        get_network("timm:two")(num_classes=7)
    with pytest.raises(ConfigurationError, match="timm has no model 'onn'; did you mean 'one'"):
        get_network("timm:onn")(num_classes=7)


# ---------------------------------------------------------------------- a network of one's own


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder from which modules are imported, as by the installed command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in ("my_network", "my_package")]:
        del sys.modules[name]


def iirc(*arguments):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_network_of_ones_own_takes_as_many_lines_as_said_and_trains_and_resumes(
    folder, tiny_settings
):
    block = block_named("networks.md", "my_network.py")
    n_lines = sum(bool(line.strip()) for line in block.text.splitlines())
    assert f"A file of {n_lines} lines (blank ones not counted), and one option" in (
        (DOCS / "networks.md").read_text()
    )
    (folder / "my_network.py").write_text(block.text)
    settings = tiny_settings | {"engine": "torch", "threads": 1, "method": "lucir"}
    del settings["n_layers"]
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    run = folder / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 3)
        iirc("train", *options, "--network", "my_network:SmallNet", "--output", run)
    del sys.modules["my_network"]
    iirc("train", "--resume", run)
    assert is_finished(run)
    assert "my_network" in sys.modules
    assert read_record(run)["sessions"][-1]["resolved"]["network"] == "my_network:SmallNet"
    iirc("train", *options, "--network", "my_network:SmallNet", "--output", folder / "unbroken")
    assert (run / METRICS_NAME).read_text() == (folder / "unbroken" / METRICS_NAME).read_text()

    path = run / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    state["experiment"]["resolved"]["network"] = "Former-20"  # class and n_layers, as recorded once
    save_checkpoint(path, state)
    iirc("train", "--resume", run)


OWN = """
from torch import nn
from iirc_train.models import MLP

def sized(num_classes, image_size):
    return MLP((3, image_size, image_size), 1, num_classes)

class WithoutLatent(MLP):
    def __init__(self, num_classes):
        super().__init__((3, 32, 32), 1, num_classes)

    def forward(self, images):
        return super().forward(images)[0]

class OtherLatent(WithoutLatent):
    def forward(self, images):
        output, latent = MLP.forward(self, images)
        return output, latent[:, :5]

def other_size(num_classes):
    return MLP((3, 28, 28), 1, num_classes)

def headless(num_classes):
    return nn.Linear(3, num_classes)

def nothing(num_classes):
    return None

number = 3
"""


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("my_package.nets:WithoutLatent", r"must return output and latent, .* got Tensor"),
        ("my_package.nets:OtherLatent", r"\(2, 8\) and \(2, 128\) for 2 images, .*\(2, 5\)"),
        ("my_package.nets:other_size", "cannot process images of 32 x 32 pixels: mat1 and mat2"),
        ("my_package.nets:headless", "no linear layer at net.model.output_layer: .* got Linear"),
        ("my_package.nets:nothing", "no linear layer at net.model.output_layer: .* got NoneType"),
        ("my_package.nets:number", "module my_package.nets has no function 'number'"),
        ("my_package.nets:absent", "module my_package.nets has no function 'absent'"),
        ("my_package.nets:", "has no function ''"),
        ("my_package.absent:net", "cannot import network my_package.absent:net: No module named"),
        ("absent:net", "start the command in the folder of absent, or add that"),
        (":net", "cannot import network :net"),
    ],
)
def test_a_network_of_ones_own_that_does_not_serve_is_refused(
    folder, tiny_settings, network, message
):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "nets.py").write_text(OWN)
    options = [f"--{k.replace('_', '-')}={v}" for k, v in tiny_settings.items() if k != "n_layers"]
    options += ["--method=finetune", "--network", network, "--output", "run"]
    with pytest.raises(ConfigurationError, match=message):
        iirc("train", *options)
    assert not (folder / "run").exists()


def test_a_network_of_ones_own_may_ask_for_the_size_of_the_images(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "nets.py").write_text(OWN)
    for dataset, size in (("cifar", 32), ("iirc_imagenet_lite", 224)):
        net = method_net({"network": "my_package.nets:sized", "dataset": dataset})
        check_network(net, "my_package.nets:sized", size)
