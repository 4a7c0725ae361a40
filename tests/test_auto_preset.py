"""``--preset auto``: which preset it takes, and the presets of class-incremental learning."""

import re
from functools import partial

import pytest

from iirc_data.benchmarks import benchmark_names, load_benchmark
from iirc_data.definitions import CIL_SETUP
from iirc_data.errors import ConfigurationError
from iirc_train.config import compose as composing
from iirc_train.config.auto_preset import FAMILIES, auto_preset, implied_preset, missed_preset
from iirc_train.config.plain_yaml import read_settings
from iirc_train.config.preset_files import PRESETS, preset_file, preset_names
from iirc_train.config.setup import with_setup
from iirc_train.methods import METHODS
from iirc_train.methods.settings import method_configs
from iirc_train.sweep import plan

compose = partial(composing.compose, methods=method_configs())
CLASS_INCREMENTAL = [n for n in preset_names() if preset_file(n).parent != PRESETS]


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_a_class_incremental_preset_is_complete_and_says_where_it_is_from(name):
    config = compose(name, overrides={"data": "shards"})
    benchmark = load_benchmark(config.benchmark)
    assert benchmark.setup == CIL_SETUP
    resolved = with_setup(config, CIL_SETUP, METHODS[config.method].model.losses, config.method)
    assert (resolved.loss, resolved.decision) == (config.loss, "argmax")
    assert config.first_task_epochs is not None
    assert all(epoch < config.epochs_per_task for epoch in config.lr_schedule or [])
    assert not config.use_best_model and not config.reduce_lr_on_plateau  # no validation images


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_the_name_of_a_class_incremental_preset_is_its_family_and_method(name):
    settings = read_settings(preset_file(name))
    joint = [kind for kind in ("joint", "incremental_joint") if settings.get(kind)]
    family, _, kind = name.partition("-")
    assert kind == (joint[0] if joint else settings["method"])
    assert family in FAMILIES.values() and settings["benchmark"].startswith(family)
    comment = re.match(r"(#.*\n)+", preset_file(name).read_text())[0]
    assert "\n# Source: " in comment


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cil_imagenet100-podnet", {"pod_spatial": 8.0, "pod_flat": 10.0, "finetuning_lr": 0.01}),
        ("cil_imagenet1k-podnet", {"pod_spatial": 8.0, "pod_flat": 10.0, "finetuning_lr": 0.01}),
        ("cil_cifar100-podnet", {"pod_spatial": 3.0, "pod_flat": 1.0, "finetuning_lr": 0.05}),
        ("cil_imagenet100-der_expandable", {"classifier_temperature": 1.0}),
        ("cil_cifar100-der_expandable", {"classifier_temperature": 5.0}),
        (
            "cil_imagenet100-foster",
            {"alignment_beta": 0.97, "compression_beta": 0.97, "compression_weight_decay": 0.0},
        ),
    ],
)
def test_a_preset_has_the_published_settings_of_the_method_for_its_dataset(name, published):
    config = compose(name, overrides={"data": "shards"})
    assert {setting: getattr(config, setting) for setting in published} == published


@pytest.mark.parametrize("name", [n for n in CLASS_INCREMENTAL if n.endswith("-gdumb")])
def test_gdumb_starts_a_task_at_a_tenth_of_the_learning_rate(name):
    config = compose(name, overrides={"data": "shards", "network": "auto", "n_layers": 8})
    method = METHODS["gdumb"].model([2], {"a": 0, "b": 1}, config)
    rates = []
    for _ in range(3):
        rates += method.get_last_lr()
        method.opt.step()
        method.consolidate_epoch_knowledge()
    assert rates == pytest.approx([0.005, 0.05, 0.05])  # then a cycle of 1 epoch, one of 2


@pytest.mark.parametrize(
    ("settings", "preset"),
    [
        ({"benchmark": "cil_cifar100_b0_10", "method": "icarl"}, "cil_cifar100-icarl"),
        ({"benchmark": "cil_cifar100_b50_25", "method": "lucir"}, "cil_cifar100-lucir"),
        ({"benchmark": "here/cil_cifar100_mine.json", "method": "icarl"}, "cil_cifar100-icarl"),
        ({"dataset": "cil_imagenet100_cmc_b0_10", "method": "bic"}, "cil_imagenet100-bic"),
        ({"benchmark": "split_cifar10", "method": "der_plus_plus"}, "split_cifar10-der_plus_plus"),
        (
            {"benchmark": "split_cifar100", "method": "lucir", "joint": True},
            "split_cifar100-joint",
        ),
        (
            {"benchmark": "cil_cifar100_b0_5", "method": "finetune", "incremental_joint": True},
            "cil_cifar100-incremental_joint",
        ),
        ({"benchmark": "iirc_cifar100", "method": "finetune"}, "cifar100-finetune"),
        ({"benchmark": "iirc_imagenet_lite", "method": "lucir"}, "imagenet_lite-lucir-20"),
    ],
)
def test_benchmark_and_method_choose_a_preset(settings, preset):
    assert auto_preset([settings]) == preset
    if read_settings(preset_file(preset))["method"] in METHODS:
        given = settings | {"data": "d"}
        assert compose("auto", None, given) == compose(preset, None, given)


def test_later_sources_choose_the_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("benchmark: cil_cifar100_b0_10\nmethod: lucir\nlr: 0.2\n")
    config = compose("auto", file, {"data": "d", "method": "icarl"})
    assert (config.method, config.lr, config.total_n_mems) == ("icarl", 0.2, 2000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "icarl"}, "give benchmark$"),
        ({}, "give benchmark and method"),
        (
            {"benchmark": "demo", "method": "icarl"},
            r"only for cil_cifar100_\*, .*iirc_imagenet_full",
        ),
        (
            {"benchmark": "split_cifar10", "method": "lucir"},
            "no preset of 'lucir' for split_cifar10, only of agem, der, .*: give the settings",
        ),
        (
            {"benchmark": "iirc_cifar100", "method": "agem"},
            "several presets.*cifar100-agem-20-lr0.5 or cifar100-agem-20-lr1",
        ),
    ],
)
def test_without_a_preset_the_error_says_which_there_are(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        auto_preset([settings])


def test_every_family_has_benchmarks_and_presets():
    for pattern, prefix in FAMILIES.items():
        regular = re.compile(pattern.replace("*", ".*"))
        assert any(regular.fullmatch(name) for name in benchmark_names()), pattern
        assert any(name.startswith(f"{prefix}-") for name in preset_names()), prefix


@pytest.mark.parametrize(
    ("given", "implied"),
    [
        ({}, "auto"),
        ({"schedule": 1, "seed": 3, "device": "cpu", "joint": True}, "auto"),
        ({"lr": 0.1}, None),
        ({"epochs_per_task": 2}, None),
        ({"n_memories_per_class": 20}, None),
        ({"benchmark": "iirc_cifar100"}, "auto"),
        ({"benchmark": "iirc_cifar100", "method": "agem"}, None),  # which of two learning rates?
        ({"benchmark": "iirc_cifar100", "memory_strength": 2.0}, None),
        ({"benchmark": "incremental_cifar100"}, None),
        ({"method": "mask_seen_classes"}, None),
    ],
)
def test_only_a_bare_command_implies_a_preset(given, implied):
    bare = {"benchmark": "cil_cifar100_b0_10", "method": "finetune", "data": "d"}
    assert implied_preset(bare | given) == implied


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        ({"n_memories_per_class": 20}, "cil_cifar100-finetune"),
        ({"lr": 0.1}, None),
        ({"benchmark": "iirc_cifar100"}, "cifar100-finetune"),
        ({"benchmark": "demo"}, None),
    ],
)
def test_a_command_without_a_learning_rate_hears_of_the_preset(given, missed):
    assert missed_preset({"benchmark": "cil_cifar100_b0_10", "method": "finetune"} | given) == (
        missed
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"n_memories_per_class": 5}, {"n_memories_per_class": 5, "total_n_mems": -1}),
        ({"total_n_mems": 500}, {"n_memories_per_class": -1, "total_n_mems": 500}),
        ({"n_memories_per_class": -1}, {"total_n_mems": 2000}),
        ({"lr_cosine": True}, {"lr_schedule": None}),
        ({"epochs_per_task": 3}, {"first_task_epochs": None}),
        ({"n_layers": 20}, {"network": "auto"}),
    ],
)
def test_a_setting_replaces_those_of_the_preset_that_it_contradicts(given, expected):
    config = compose("cil_cifar100-icarl", None, {"data": "d"} | given)
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_later_schedule_replaces_the_cosine_of_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("lr_cosine: true\n")
    config = compose("cil_cifar100-icarl", file, {"data": "d"})
    assert (config.lr_cosine, config.lr_schedule) == (True, None)
    config = compose("cil_cifar100-icarl", file, {"data": "d", "lr_schedule": [1]})
    assert (config.lr_cosine, config.lr_schedule) == (False, [1])


def test_a_sweep_takes_the_preset_of_each_method(tmp_path):
    runs = plan(
        tmp_path,
        presets=["auto"],
        methods=["icarl", "lucir"],
        overrides={"benchmark": "cil_cifar100_b0_10", "data": "d"},
    )
    assert [(run.name, run.preset) for run in runs] == [
        ("icarl/schedule_0/seed_0", "cil_cifar100-icarl"),
        ("lucir/schedule_0/seed_0", "cil_cifar100-lucir"),
    ]
    assert [run.config.lr for run in runs] == [2.0, 0.1]
    implied = plan(
        tmp_path, overrides={"benchmark": "cil_cifar100_b0_10", "data": "d", "method": "lucir"}
    )
    assert [run.preset for run in implied] == ["cil_cifar100-lucir"]
