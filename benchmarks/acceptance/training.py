"""Steps 6, 9 and 10: the training step with replay in each variant, and complete runs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from benchmarks.acceptance.step import Situation
from benchmarks.gpu_run import (
    PUBLISHED_EPOCHS,
    configuration,
    noise_shards,
    replay_figures,
    run_figures,
)
from benchmarks.replay_epochs import WARM_UP, ReplayEpochs
from benchmarks.synthetic import CIFAR100_TRAIN
from iirc_train.config import ExperimentConfig
from iirc_train.doctor.finding import said

CUDNN = "cudnn.benchmark"
VARIANTS: dict[str, dict[str, Any]] = {
    "eager TF32": {"precision": "fp32", "graph": "off", CUDNN: False},
    "eager bfloat16": {"precision": "bf16", "graph": "off", CUDNN: False},
    "TF32, cudnn.benchmark": {"precision": "fp32", "graph": "off", CUDNN: True},
    "graph TF32": {"precision": "fp32", "graph": "on", CUDNN: True},
    "graph bfloat16": {"precision": "bf16", "graph": "on", CUDNN: True},
    "compile TF32": {"precision": "fp32", "graph": "off", "compile": True, CUDNN: True},
}
"""Name of each variant to its settings; those that may fail or take long come last."""

BEST = "best variant"
SHORT_RUN = "run"  # name of step 9
_TIMED_EPOCHS = 20
_SHARE = 0.8  # of the time that is left, for the training of the long run
_SMALL: dict[str, Any] = {"benchmark": "iirc_cifar10", "n_memories_per_class": 2, "n_layers": 8}
_SMALL_IMAGES = 10


def training_step(situation: Situation) -> None:
    """Report milliseconds per step of ``icarl_cnn`` with replay, for each variant."""
    found: dict[str, float] = {}
    for name, settings in VARIANTS.items():
        if situation.rehearse and not name.startswith("eager"):
            situation.report(f"{name} (ms)", "needs a GPU")
            continue
        try:
            found[name] = _milliseconds(situation, settings)
        except Exception as error:  # the other variants are worth knowing
            situation.report(f"works: {name}", False)
            situation.report(f"{name} (ms)", said(error))
            continue
        situation.report(f"works: {name}", True)
        situation.report(f"{name} (ms)", found[name])
    if found:
        best = min(found, key=found.__getitem__)
        situation.report(BEST, best)
        situation.report("fastest (ms)", found[best])


def short_run(situation: Situation) -> None:
    """Report the times of a run of two epochs per task, and of what they extrapolate to."""
    config = _config(situation, _best(situation), epochs_per_task=1 if situation.rehearse else 2)
    _report(situation, run_figures(config, _new_folder(situation, "short-run"), Console()))
    epochs = {"epochs": 1} if situation.rehearse else {}
    _report(situation, replay_figures(config, **epochs))


def long_run(situation: Situation) -> None:
    """Report the times of a run of as many epochs as there is time for, at most as published."""
    epochs = affordable_epochs(situation.figures(SHORT_RUN), _SHARE * situation.seconds)
    epochs = 1 if situation.rehearse else epochs
    situation.report("epochs per task", epochs)
    config = _config(situation, _best(situation), epochs_per_task=epochs)
    _report(situation, run_figures(config, _new_folder(situation, "long-run"), Console()))


def affordable_epochs(short: Mapping[str, Any], seconds: float) -> int:
    """Return how many epochs per task a run can have in a given time.

    Args:
        short: Figures of the short run, of two epochs per task; empty if it did not run.
        seconds: The time.

    Returns:
        3 to 140; 3 if nothing is known.
    """
    try:
        total = short["end to end (s)"]
        all_epochs = 60 * short[f"with {PUBLISHED_EPOCHS} epochs per task (min)"]
    except KeyError:
        return 3
    each = max(1e-3, (all_epochs - total) / (PUBLISHED_EPOCHS - 2))
    return int(min(PUBLISHED_EPOCHS, max(3, 2 + (seconds - total) / each)))


def images_per_class(situation: Situation) -> int:
    """Return the number of training images per class of the noise."""
    return _SMALL_IMAGES if situation.rehearse else CIFAR100_TRAIN


def noise(situation: Situation) -> Path:
    """Return the shards of noise, which the first step that needs them writes."""
    benchmark = {"benchmark": _SMALL["benchmark"]} if situation.rehearse else {}
    folder = situation.out / f"noise-{images_per_class(situation)}"
    return noise_shards(folder, images_per_class(situation), **benchmark)


def _config(situation: Situation, variant: str, **changes: Any) -> ExperimentConfig:
    settings = {name: value for name, value in VARIANTS[variant].items() if name != CUDNN}
    if situation.rehearse:
        settings = {**settings, **_SMALL, "graph": "off"}
    if "graph" not in ExperimentConfig.model_fields and settings["graph"] == "off":
        del settings["graph"]
    settings |= {"device": situation.device, **changes}
    return configuration(noise(situation), images_per_class(situation), **settings)


def _best(situation: Situation) -> str:
    best = situation.figures("training-step").get(BEST, "")
    return best if isinstance(best, str) and best in VARIANTS else next(iter(VARIANTS))


def _milliseconds(situation: Situation, settings: Mapping[str, Any]) -> float:
    name = next(name for name, others in VARIANTS.items() if others is settings)
    training = ReplayEpochs(_config(situation, name))
    torch.backends.cudnn.benchmark = settings[CUDNN]
    try:
        for _ in range(1 if situation.rehearse else WARM_UP):
            training.seconds()
        n = 1 if situation.rehearse else _TIMED_EPOCHS
        return 1000 * median(training.seconds() for _ in range(n)) / training.n_steps
    finally:
        training.close()


def _new_folder(situation: Situation, name: str) -> Path:
    folder = situation.out / name
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier acceptance
    return folder


def _report(situation: Situation, figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        situation.report(name, value)
