"""Settings of runs that every method has: for those with only the loss ``ce``, or with stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iirc_data.benchmarks import Benchmark, SamplingSettings, SplitSettings
from iirc_train.config import ExperimentConfig
from iirc_train.config.own_settings import own_names
from iirc_train.methods import METHODS

SINGLE_LABELS = "tiny_cil.json"


def write_single_labels(folder: Path) -> None:
    """Write a class-incremental benchmark of the tiny dataset: four tasks, one label per sample."""
    benchmark = Benchmark(
        name="tiny_cil",
        dataset="tiny",
        setup="CIL",
        other_classes=["bear", "bus", "cat", "dog", "truck", "tulip"],
        splits=SplitSettings(intask_valid_ratio=0.1, posttask_valid_ratio=0.1),
        schedules=[[["bear", "bus"], ["cat", "truck"], ["dog"], ["tulip"]]],
    )
    (folder / SINGLE_LABELS).write_text(benchmark.model_dump_json())


def write_three_levels(benchmark: Benchmark, path: Path) -> Path:
    """Write the tiny benchmark with one more superclass above those that it has, in four tasks."""
    upper = {"moving": list(benchmark.superclasses), **benchmark.superclasses}
    tasks = [["moving"], ["animal", "tulip", "vehicle"], ["dog", "bus"], ["cat", "bear", "truck"]]
    sampling = SamplingSettings(superclass_data_pct=[0.6, 0.5], subclass_data_pct=0.8)
    changes = {"superclasses": upper, "schedules": [tasks], "sampling": sampling}
    deep = benchmark.model_copy(update=changes)
    path.write_text(deep.model_dump_json())
    return path


def settings_for(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a run of a method.

    Args:
        method: Name of the method.
        settings: Settings of a run on the tiny benchmark. A method without the loss ``bce`` gets
            the one with single labels instead, which is in the same folder. Settings that have
            no effect on the method are left out.
    """
    found = {**settings, "method": method}
    if method not in METHODS:
        return found
    if METHODS[method].model.learns_by_statistics:  # one epoch by default
        found["first_task_epochs"] = found.get("epochs_per_task", 1)
    if not METHODS[method].model.replay_in_batches:
        found.pop("buffer_sampling_multiplier", None)
    if "bce" not in METHODS[method].model.losses:
        found["benchmark"] = str(Path(settings["benchmark"]).with_name(SINGLE_LABELS))
    return found


def config_for(method: str, settings: Mapping[str, Any], **changes: Any) -> ExperimentConfig:
    """Return the configuration of a run of a method, whose stages have one epoch each.

    Args:
        method: Name of the method.
        settings: See :func:`settings_for`.
        **changes: Settings that replace those.
    """
    own = own_names(METHODS[method].config) if method in METHODS else []
    short = {name: 1 for name in own if name.endswith("_epochs")}
    return ExperimentConfig.parse(short | settings_for(method, settings) | changes, own=own)
