"""``iirc data show``: the sheet shows exactly what a task's training begins with."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from rich.console import Console

from iirc_data.definitions import TRAIN
from iirc_train.cli import app as cli
from iirc_train.cli.show import images_shown, recall_memories
from iirc_train.config import ExperimentConfig
from iirc_train.report.contact_sheet import ShownImage, contact_sheet
from iirc_train.run.directory import BUFFER_NAME, RunDirectory
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training.components import Experiment
from iirc_train.training.launch import run_experiment
from iirc_train.training.trainer import Position, Training
from tests.test_resume import contents

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def settings(tiny_settings) -> dict[str, object]:
    # a buffer that shrinks: what an earlier task saw is more than what is left of it
    sizes = {"n_memories_per_class": -1, "total_n_mems": 12}
    return tiny_settings | sizes | {"method": "icarl_cnn", "decoder": "pillow", "threads": 1}


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    return run_experiment(ExperimentConfig.parse(settings), output, QUIET)


def as_shown(experiment: Experiment, images: torch.Tensor) -> np.ndarray:
    (transforms,) = experiment.transforms.values()
    mean, std = np.array(transforms.mean), np.array(transforms.std)
    return np.rint((images.permute(0, 2, 3, 1).numpy() * std + mean) * 255).astype(np.uint8)


def test_a_run_shows_the_images_that_its_task_began_with(settings, run, tmp_path):
    config = ExperimentConfig.parse(settings)
    trained = Experiment(config, tmp_path / "again" / BUFFER_NAME)
    training = Training(trained, RunDirectory.create(tmp_path / "again", config))
    seen = []
    step = trained.method.training_step
    trained.method.training_step = lambda batch: (seen.append(batch), step(batch))[1]
    for task in range(3):
        training.position = Position(task)
        seen.clear()
        training.learn_task(TrainingProgress(QUIET, "t", 4))
    n = sum(map(len, seen))

    looking = Experiment(config)
    recall_memories(looking, run, 2)
    shown = images_shown(looking, 2, n + 5)
    assert len(shown) == n
    expected = as_shown(trained, torch.cat([batch.images for batch in seen]))
    assert np.array_equal(np.stack([image.pixels for image in shown]), expected)
    replayed = torch.cat([batch.in_buffer for batch in seen]).tolist()
    assert [image.is_replayed for image in shown] == replayed
    assert sum(replayed) == 12  # of four classes 3 each, though the finished run keeps 2 of each
    names = trained.view(TRAIN, 2).class_names
    targets = torch.cat([batch.targets for batch in seen])
    for image, target in zip(shown, targets, strict=True):
        assert image.labels == tuple(names[i] for i in target.nonzero().flatten())


def test_half_the_sheet_are_memories_that_are_drawn_apart(settings):
    experiment = Experiment(ExperimentConfig.parse(settings | {"method": "agem"}))
    experiment.buffer.update_buffer_new_task(experiment.task_data(0))
    shown = images_shown(experiment, 1, 9)
    assert [image.is_replayed for image in shown] == [False] * 5 + [True] * 4


def test_a_sheet_frames_what_was_replayed_and_shows_names_as_they_are():
    pixels = np.zeros((4, 4, 3), np.uint8)
    images = [ShownImage(pixels, ("a$b$", "c"), k == 1) for k in range(9)]
    figure = contact_sheet(images, "title $x$", "more")
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert len(frames) == 2  # of the image, and of the legend
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "from the replay buffer" in texts and "a\\$b\\$\nc" in texts
    without = contact_sheet([ShownImage(pixels, ("a",), False)], "title", "more")
    assert not without.axes[0].patches


def command(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["iirc", "data", "show", *map(str, arguments)])
    cli.main()


def test_the_command_draws_a_run_and_changes_nothing_in_it(run, tmp_path, monkeypatch, capsys):
    before = contents(run)
    output = tmp_path / "new" / "sheet.png"
    with pytest.raises(SystemExit) as exit_:
        command(monkeypatch, "--run", run, "--task", 3, "--images", 5, "--output", output)
    assert exit_.value.code == 0
    assert re.search(r"5 images, \d of them replayed", capsys.readouterr().out)
    with Image.open(output) as image:
        assert image.width > 1000
    assert contents(run) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "4"], "there is no task 4: schedule 0 of tiny has tasks 0 to 3"),
        (["--schedule", "7"], "schedule"),
        (["--benchmark", "iirc_cifar01"], "did you mean 'iirc_cifar10'"),
        (["--benchmark", "iirc_cifar10"], "airplane"),
        (["--output", "sheet.bmp"], "must end in .png, .pdf, .svg"),
    ],
)
def test_wrong_input_is_one_line(tiny_settings, tmp_path, monkeypatch, capsys, flags, message):
    given = {"--benchmark": tiny_settings["benchmark"], "--output": tmp_path / "sheet.png"}
    given |= dict([flags])
    with pytest.raises(SystemExit) as exit_:
        command(
            monkeypatch, tiny_settings["data"], *(part for pair in given.items() for part in pair)
        )
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_wrong_runs_are_told_in_one_line(run, settings, tmp_path, monkeypatch, capsys):
    config = ExperimentConfig.parse(settings)
    bare = RunDirectory.create(tmp_path / "bare", config).path
    begun = RunDirectory.create(tmp_path / "begun", config).path
    Experiment(config, begun / BUFFER_NAME)
    for arguments, message in [
        ([], "nothing to show"),
        (["--run", tmp_path], "holds no run"),
        (["--run", run, "--seed", 1], "--run determines seed"),
        (["--run", bare, "--task", 1], "has no replay buffer"),
        (["--run", begun, "--task", 1], "has no memories of animal, vehicle"),
        (["--run", run, "--output", run / "config.yaml" / "sheet.png"], "cannot write"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            command(monkeypatch, *arguments)
        assert exit_.value.code == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
