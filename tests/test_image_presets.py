"""Image presets as data: their fields, their errors, and one of a user's own in a whole run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
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
from iirc_data.benchmarks import Benchmark, load_benchmark, parse_benchmark
from iirc_data.errors import BenchmarkError, CheckpointError
from iirc_train.cli import app as cli
from iirc_train.config import ExperimentConfig
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import read_metrics
from iirc_train.training.components import Experiment

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
