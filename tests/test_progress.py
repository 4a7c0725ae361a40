"""What a run shows while it works."""

import io

import pytest
from rich.console import Console

from iirc_train.runtime.progress import TrainingProgress, run_progress

CLASSES = ["large_omnivores_and_herbivores", "aquarium_fish", "flatfish", "whale", "otter"]


def shown(*, terminal: bool, width: int = 80) -> str:
    """Return what is shown amid the fifth of twenty epochs of the second of 22 tasks."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, color_system=None)
    with TrainingProgress(console, "icarl_cnn on iirc_cifar100", 22, 1) as progress:
        progress.begin_task(1, CLASSES, n_epochs=20, n_batches=10, batches_done=30)
        for _ in range(10):
            progress.batch_done()
        record = {"task": 1, "epoch": 3, "loss": 1.23456, "modified_jaccard_sim": 0.5}
        progress.epoch_done(record, 12345.0)
        progress.batch_done()
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_tasks_epochs_loss_score_speed_and_times(width):
    text = shown(terminal=True, width=width)
    last = text[text.rindex("icarl_cnn on iirc_cifar100") :]
    for part in (
        *("1/22 tasks", "task 1", "4/20 epochs", "loss 1.2346", "pw-JS 0.500"),
        *("12,345 images/s", "0:00:00", "-:--:--"),
    ):
        assert part in last, (part, last)


def test_elsewhere_the_start_of_a_task_and_an_epoch_are_lines():
    assert shown(terminal=False).splitlines() == [
        "icarl_cnn on iirc_cifar100: task 1: 5 new classes, 20 epochs of 10 batches",
        "icarl_cnn on iirc_cifar100: task 1 epoch 3: loss 1.2346  pw-JS 0.500  12,345 images/s",
    ]


@pytest.mark.parametrize("logged", [False, True])
def test_elsewhere_a_stage_begins_with_a_line_too(caplog, logged):
    text = io.StringIO()
    console = None if logged else Console(file=text, width=200)
    with caplog.at_level("INFO", "iirc_train"), run_progress(console, "bic on mine", 2, 1) as shown:
        shown.begin_task(1, ["cat"], n_epochs=1, n_batches=1, stage="balanced")
    line = "bic on mine: task 1 (balanced): 1 new class, 1 epoch of 1 batch"
    assert [text.getvalue().strip(), *caplog.messages] == (["", line] if logged else [line])


@pytest.mark.parametrize(("share", "ending"), [(0.1, ""), (0.314, "  waited for images 31 %")])
def test_notable_waiting_for_images_is_shown(share, ending):
    text = io.StringIO()
    with TrainingProgress(Console(file=text, width=200), "run", 2) as progress:
        record = {"task": 1, "epoch": 3, "loss": 1.0, "modified_jaccard_sim": 0.5}
        progress.epoch_done(record, 10.0, share)
    assert text.getvalue().endswith(f"10 images/s{ending}\n")
