"""Settings whose default depends on a benchmark's setup: loss, decision, epochs of the first task.

IIRC benchmarks default to what the paper does (Abdelsalam et al., 2021, section 5); benchmarks of
class-incremental learning default to the field's standard.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from iirc_data.definitions import CIL_SETUP, Setup
from iirc_data.errors import ConfigurationError

Loss = Literal["bce", "ce"]
"""Binary cross-entropy of each class, or cross-entropy over all classes."""

Decision = Literal["threshold", "argmax"]
"""Predict every label with a probability above 1/2, or the one with the highest score."""

Hcv = Literal["off", "train", "infer", "both"]
"""Where the discovered hierarchy of classes corrects targets and predictions."""

DEFAULT_EPOCHS = 140
"""The default epochs of a task, as published."""

FORMER_FIRST_TASK_EPOCHS = 2
"""The epochs of the first task, in multiples of those of the others, as published."""

C = TypeVar("C", bound=BaseModel)


def with_setup(config: C, setup: Setup, losses: Sequence[Loss], method: str) -> C:
    """Return settings in which loss, decision and epochs of the first task are not left open.

    Args:
        config: Settings of a method, or of a run.
        setup: Setup of the benchmark.
        losses: The losses that the method has.
        method: Name of the method, for errors.

    Raises:
        ConfigurationError: The method does not have the loss, or loss, decision, hcv and
            calibrate_thresholds contradict each other.
    """
    asked: Any = config
    loss, decision = _loss_and_decision(asked.loss, asked.decision, setup, losses, method)
    if asked.hcv != "off" and decision == "argmax":
        raise ConfigurationError(
            f"hcv {asked.hcv!r} needs decision 'threshold', got 'argmax', which predicts one "
            "label: give --hcv off, or an IIRC benchmark"
        )
    if asked.calibrate_thresholds and decision == "argmax":
        raise ConfigurationError(
            "calibrate_thresholds needs decision 'threshold', got 'argmax', which has no "
            "thresholds: leave it out, or give --loss bce --decision threshold"
        )
    epochs = asked.first_task_epochs
    if epochs is None:
        times = 1 if setup == CIL_SETUP else FORMER_FIRST_TASK_EPOCHS
        epochs = times * asked.epochs_per_task
    found = {"loss": loss, "decision": decision, "first_task_epochs": epochs}
    return config.model_copy(update=found)


def _loss_and_decision(
    loss: str, decision: str, setup: Setup, losses: Sequence[Loss], method: str
) -> tuple[str, str]:
    if loss == "auto":
        prefers_ce = setup == CIL_SETUP and decision != "threshold"
        loss = "ce" if prefers_ce and "ce" in losses else losses[0]
    elif loss not in losses:
        raise ConfigurationError(
            f"method {method} has no loss {loss!r}: choose --loss {' or '.join(losses)}"
        )
    if decision == "auto":
        decision = "argmax" if loss == "ce" or setup == CIL_SETUP else "threshold"
    if (loss, decision) == ("ce", "threshold"):
        raise ConfigurationError(
            "decision 'threshold' needs loss 'bce', got 'ce', whose probabilities sum to 1: choose "
            "--decision argmax"
            + (", or --loss bce" if "bce" in losses else f"; method {method} has only ce")
        )
    return loss, decision


def with_former_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, with those that it was saved without as they were then.

    Args:
        settings: Settings that this or an earlier release wrote.
    """
    former: dict[str, Any] = {"loss": "bce", "decision": "threshold"}
    epochs = settings.get("epochs_per_task", DEFAULT_EPOCHS)
    if isinstance(epochs, int):
        former["first_task_epochs"] = FORMER_FIRST_TASK_EPOCHS * epochs
    return former | dict(settings)
