"""Image presets as data: their fields, their errors, and one of a user's own in a whole run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iirc_data.augment import (
    IMAGE_PRESETS,
    TRANSFORM_PRESETS,
    ColorJitter,
    ImagePreset,
    ImageSteps,
    uniform,
)
from iirc_data.augment import image_presets as module
from iirc_data.benchmarks import Benchmark, DatasetSettings, load_benchmark, parse_benchmark
from iirc_data.errors import BenchmarkError, CheckpointError, ConfigurationError
from iirc_train.cli import app as cli
from iirc_train.config import ExperimentConfig
from iirc_train.config.image_preset import benchmark_as_shown
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import RunDirectory, read_metrics
from iirc_train.training.components import Experiment
from iirc_train.training.same_run import changes_to

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "benchmarks.md"
STATISTICS = {"mean": [0.5] * 3, "std": [0.2] * 3}
HEIGHTS, WIDTHS = np.array([40, 64, 300], np.int32), np.array([50, 64, 200], np.int32)


def parsed(transforms) -> Benchmark:
    values = {"name": "x", "dataset": "d", "setup": "CIL", "other_classes": ["a"]}
    content = values | {"schedules": [[["a"]]], "transforms": transforms}
    return parse_benchmark(json.dumps(content), "mine.json")


def drawn(preset: ImagePreset, seed: int = 0):
    transform = preset.transforms.train
    random = uniform(seed, 0, 0, len(HEIGHTS), transform.n_random)
    return transform.parameters(HEIGHTS, WIDTHS, random)


def test_a_name_and_the_same_preset_as_an_object_are_equal():
    for name, preset in IMAGE_PRESETS.items():
        written = preset.model_dump(mode="json")
        assert parsed(name).image_preset == parsed(written).image_preset == preset
        assert parsed(written).model_dump(mode="json")["transforms"] == written
        assert TRANSFORM_PRESETS[name] == preset.transforms


@pytest.mark.parametrize(
    ("transforms", "problem"),
    [
        ("cifat", r"transforms: no image preset is named 'cifat': choose 'cifar' or 'imagenet'"),
        (3, r"transforms: .*string, got 3"),
        ({}, r"transforms.mean: .*; transforms.std: "),
        ({"mean": [1, 2, 3]}, r"transforms.mean.1: .* got 2"),
        ({"mean": [0.5, 0.5]}, r"transforms.mean.2: Field required"),
        ({"std": [1, 0, 1]}, r"transforms.std.1: .* got 0"),
        ({"std": [1, float("nan"), 1]}, r"transforms.std.1: .*finite"),
        ({"sise": 64}, r"transforms.sise: Extra"),
        ({"size": True}, r"transforms.size: .* got True"),
        ({"size": 64}, r"transforms: size 64 has no effect"),
        ({"train": {"crop": "random"}}, r"transforms: size is missing: train.crop needs it"),
        ({"size": 9, "train": {"crop": "randum"}}, r"transforms.train.crop: .* got 'randum'"),
        ({"size": 9, "train": {"crop": "center", "padding": 1}}, r"transforms.train: padding"),
        ({"size": 9, "train": {"crop": "random", "scale": [0.2, 1]}}, r"transforms.train: scale"),
        ({"train": {"ratio": [2, 1]}}, r"transforms.train: ratio \[2.0, 1.0\] is not ascending"),
        ({"train": {"resize": 9}}, r"transforms.train: resize needs"),
        ({"size": 9, "train": {"crop": "random", "resize": 8}}, r"train.resize 8 is less than"),
        ({"size": 9, "evaluate": {"crop": "random"}}, r"transforms: evaluate.crop"),
        (
            {"evaluate": {"flip": True}},
            r"transforms: evaluate.flip is random: use it in train only",
        ),
        ({"evaluate": {"auto_augment": "cifar10"}}, r"transforms: evaluate.auto_augment is"),
        ({"train": {"auto_augment": "cifar"}}, r"transforms.train.auto_augment: .* got 'cifar'"),
        (
            {"size": 9, "train": {"crop": "random", "interpolation": "bicubic"}},
            r"interpolation",
        ),
        ({"train": {"interpolation": "cubic"}}, r"transforms.train.interpolation: .* got 'cubic'"),
        ({"train": {"color_jitter": {"hue": 0.6}}}, r"transforms.train.color_jitter.hue: .* 0.6"),
    ],
)
def test_an_error_names_the_field(transforms, problem):
    if isinstance(transforms, dict) and transforms:
        transforms = STATISTICS | transforms
    with pytest.raises(BenchmarkError, match=problem) as raised:
        parsed(transforms)
    assert "\n" not in str(raised.value) and "an object" not in str(raised.value).split("give")[0]


def test_resized_random_crops_lie_inside_the_resized_image():
    steps = ImageSteps(resize=48, crop="random", flip=True)
    found = drawn(ImagePreset(size=32, train=steps, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert found.resize.tolist() == [[48, 60], [48, 48], [72, 48]]
    assert found.output_size == (32, 32)
    assert ((found.crop >= 0) & (found.crop + 32 <= found.resize)).all()


def test_only_a_preset_that_resizes_bicubically_says_how_it_resizes():
    """Digests of the others stay as they were before there was a choice."""
    for preset in IMAGE_PRESETS.values():
        assert "interpolation" not in preset.model_dump_json()
    steps = ImageSteps(resize=48, crop="center", interpolation="bicubic")
    preset = ImagePreset(size=32, evaluate=steps, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert ImagePreset.model_validate_json(preset.model_dump_json()) == preset
    sizes = np.full(1, 60, np.int32)
    shown = preset.transforms.evaluate.parameters(sizes, sizes, np.zeros((1, 0)))
    assert shown.interpolation == "bicubic"


def test_a_center_crop_needs_no_resize_and_may_be_mirrored():
    steps = ImageSteps(crop="center", flip=True)
    preset = ImagePreset(size=32, train=steps, mean=(0.5,) * 3, std=(0.2,) * 3)
    found = drawn(preset)
    assert found.resize is None
    assert found.crop.tolist() == [[4, 9], [16, 16], [134, 84]]
    assert {bool(flip) for seed in range(9) for flip in drawn(preset, seed).flip} == {False, True}


def run(*arguments):
    return CliRunner(env={"COLUMNS": "300"}).invoke(cli.app, [str(part) for part in arguments])


def train(benchmark: Path, tiny_settings, output: Path):
    settings = tiny_settings | {"benchmark": benchmark, "method": "finetune", "threads": 1}
    settings |= {"epochs_per_task": 1, "decoder": "pillow"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    result = run("train", "--output", output, "--no-tensorboard", *options)
    assert result.exit_code == 0, result.output
    return read_metrics(output)


def test_a_preset_takes_the_lines_that_the_page_says(tiny_settings, tmp_path):
    text = PAGE.read_text()
    claimed = re.search(r"is (\w+) lines:\n\n```json\n(.*?)\n```", text, re.DOTALL)
    number, lines = claimed[1], claimed[2].splitlines()
    assert len(lines) == ["zero", "one", "two", "three", "four", "five", "six"].index(number)
    original = json.loads(load_benchmark(tiny_settings["benchmark"]).model_dump_json())
    del original["transforms"]
    original_lines = json.dumps(original, indent=1).splitlines()
    preset = [line.replace("64", "32") for line in lines]  # the tiny images are smaller
    path = tmp_path / "mine.json"
    path.write_text("\n".join([original_lines[0], *preset, *original_lines[1:]]))
    assert run("benchmarks", "show", path).output.count('image preset: {"size": 32') == 1
    assert train(path, tiny_settings, tmp_path / "run")


def test_a_run_goes_on_with_its_own_preset_only(tiny_settings, tmp_path):
    values = json.loads(load_benchmark(tiny_settings["benchmark"]).model_dump_json())
    values["transforms"] = STATISTICS | {"train": {"flip": True}}
    path = tmp_path / "mine.json"

    def experiment():
        path.write_text(json.dumps(values))
        return Experiment(
            ExperimentConfig(**tiny_settings | {"benchmark": str(path), "method": "finetune"})
        )

    save_checkpoint(tmp_path / "last.pt", experiment().state_dict())
    state = load_checkpoint(tmp_path / "last.pt")
    experiment().load_state_dict(state)
    values["transforms"] |= {"std": [0.3] * 3}
    with pytest.raises(CheckpointError, match=r"another transforms \(std: \[0.2"):
        experiment().load_state_dict(state)


def test_a_run_may_choose_another_preset_than_its_benchmarks(tiny_settings, tmp_path):
    config = ExperimentConfig.parse(tiny_settings | {"method": "finetune"})
    jittered = config.model_copy(update={"image_preset": "cifar100_pycil"})
    with Experiment(config) as own, Experiment(jittered) as experiment:
        assert list(own.transforms.values()) == [IMAGE_PRESETS["cifar"].transforms]
        assert list(experiment.transforms.values()) == [IMAGE_PRESETS["cifar100_pycil"].transforms]
        data = experiment.task_data(0)
        experiment.buffer.update_buffer_new_task(data)
        own.buffer.update_buffer_new_task(own.task_data(0))
        replayed = []
        for each in (own, experiment):
            loader = each.training_loader(each.view("train", 1))
            loader.set_epoch(0)
            images = [batch.images[batch.in_buffer] for batch in loader]
            mean, std = (
                torch.tensor(values).view(3, 1, 1)
                for values in (each.transforms["images"].mean, each.transforms["images"].std)
            )
            replayed.append(torch.cat(images) * std + mean)
        assert len(replayed[0]) == len(replayed[1]) > 0
        assert not torch.allclose(*replayed, atol=0.02)  # the brightness of memories differs, too
        state = own.state_dict()
        with pytest.raises(CheckpointError, match="another transforms"):
            experiment.load_state_dict(state)
    folder = RunDirectory.create(tmp_path / "run", jittered).path
    assert changes_to(folder, jittered) == {}
    with pytest.raises(ConfigurationError, match="image_preset was cifar100_pycil, is auto now"):
        changes_to(folder, config)


def test_the_size_of_a_chosen_preset_chooses_the_network(tiny_settings, tmp_path):
    values = tiny_settings | {"method": "finetune", "n_layers": None, "network": "auto"}
    folder = RunDirectory.create(
        tmp_path / "run", ExperimentConfig.parse(values | {"image_preset": "imagenet"})
    ).path
    named = ExperimentConfig.parse(values | {"image_preset": "imagenet", "network": "resnet18"})
    assert changes_to(folder, named) == {}
    assert benchmark_as_shown(values["benchmark"], "imagenet").image_preset.size == 224


def test_a_wrong_choice_of_a_preset_is_named(tiny_settings, tiny_benchmark, tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'cifar100_pycil'"):
        ExperimentConfig.parse(
            tiny_settings | {"method": "finetune", "image_preset": "cifar100pycil"}
        )
    result = run(
        "data",
        "show",
        "--benchmark",
        tiny_settings["benchmark"],
        tiny_settings["data"],
        "--image-preset",
        "cifr",
        "--output",
        tmp_path / "sheet.png",
    )
    assert result.exit_code == 1 and "image_preset" in result.output
    datasets = {"tiny": DatasetSettings(transforms="cifar")}
    several = tiny_benchmark.model_copy(update={"datasets": datasets, "name": "two"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("iirc_train.config.image_preset.load_benchmark", lambda place: several)
        with pytest.raises(
            ConfigurationError, match=r"transforms that benchmark two gives to tiny: "
        ):
            benchmark_as_shown("two", "cifar100")
        assert benchmark_as_shown("two", "auto") is several
        datasets["tiny"] = DatasetSettings()
        assert (
            benchmark_as_shown("two", "cifar100").image_presets["tiny"] is IMAGE_PRESETS["cifar100"]
        )


def test_a_preset_with_a_name_is_one_row(tiny_settings, tmp_path, monkeypatch):
    row = IMAGE_PRESETS["cifar"].model_copy(
        update={"train": ImageSteps(crop="random", padding=2, color_jitter=ColorJitter(hue=0.1))}
    )
    monkeypatch.setitem(module.IMAGE_PRESETS, "mine", row)
    values = json.loads(load_benchmark(tiny_settings["benchmark"]).model_dump_json())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values | {"transforms": "mine"}))
    assert "image preset mine: " in run("benchmarks", "show", path).output
    assert load_benchmark(path).image_preset is row
