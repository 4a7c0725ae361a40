"""Memory, threads, open files and disk use of a long run do not grow from start to end.

``LONG_RUN_TASKS=200 LONG_RUN_EPOCHS=500 pytest tests/faults/test_long_runs.py`` is the long
version; it writes its measurements to the file that ``LONG_RUN_REPORT`` names.
"""

import gc
import json
import os
import sys
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console

from iirc_data.benchmarks import Benchmark
from iirc_data.shards import write_shards
from iirc_data.sources import open_folder
from iirc_train.config import ExperimentConfig
from iirc_train.run.directory import RunDirectory
from iirc_train.training.launch import run_experiment
from tests.conftest import write_image_folder
from tests.test_loader import resources

TASKS = int(os.environ.get("LONG_RUN_TASKS", "6"))
EPOCHS = int(os.environ.get("LONG_RUN_EPOCHS", "15"))
REPORT = os.environ.get("LONG_RUN_REPORT")
KIB_PER_TASK = 256  # of memory: a class, its memories, its part of the network and of the metrics
KIB_OF_NOISE = 20_000
FILES_PER_TASK = 2  # shards that were read stay open, up to 512 of them

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def settings(folder: Path, n_tasks: int, epochs: int) -> ExperimentConfig:
    """Create a sharded dataset with one class per task; return the configuration of a run on it."""
    names = [f"class{number:03d}" for number in range(n_tasks)]
    images = write_image_folder(
        folder / "images", {"train": dict.fromkeys(names, 6), "test": dict.fromkeys(names, 1)}
    )
    write_shards(open_folder(images), folder / "shards")
    benchmark = Benchmark(
        name="long", dataset="long", other_classes=names, schedules=[[[name] for name in names]]
    )
    (folder / "long.json").write_text(benchmark.model_dump_json())
    return ExperimentConfig.parse(
        {
            "benchmark": str(folder / "long.json"),
            "data": str(folder / "shards"),
            "method": "icarl_cnn",
            "n_layers": 8,
            "n_memories_per_class": 1,
            "epochs_per_task": epochs,
            "batch_size": 8,
            "lr": 0.01,
            "device": "cpu",
            "threads": 1,
            "decoder": "pillow",
        }
    )


def train(config: ExperimentConfig, run: Path, monkeypatch) -> list[dict[str, int]]:
    """Train; return the resources of the process and of the run's folder after each epoch."""
    held: list[dict[str, int]] = []
    add_timing = RunDirectory.add_timing

    def measure(self, **record):
        add_timing(self, **record)
        generations = run / "buffer.zarr" / "generations"
        measured = resources()
        # zarr's thread pool has a fixed size, but starts its threads only as it needs them
        measured["threads"] -= sum(
            thread.name.startswith("asyncio_") for thread in threading.enumerate()
        )
        held.append(
            {
                **measured,
                "tensors": sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()),
                "generations": len(list(generations.glob("*/"))) if generations.exists() else 0,
                "checkpoints": len(list((run / "checkpoints").glob("*"))),
                "task": record["task"],
            }
        )

    monkeypatch.setattr(RunDirectory, "add_timing", measure)
    run_experiment(config, run, Console(quiet=True))
    if REPORT:
        with Path(REPORT).open("a") as file:
            line = {"epochs": len(held), "second": held[1], "middle": held[len(held) // 2]}
            file.write(json.dumps({**line, "last": held[-1]}) + "\n")
    return held


def check_flat(first: dict[str, int], last: dict[str, int]) -> None:
    n_tasks = last["task"] - first["task"]
    for name in ("threads", "children", "checkpoints"):
        assert last[name] <= first[name], (name, first, last)
    assert last["files"] - first["files"] <= n_tasks * FILES_PER_TASK
    assert last["generations"] <= 1
    assert last["memory"] - first["memory"] < n_tasks * KIB_PER_TASK + KIB_OF_NOISE, (first, last)


def test_many_task_changes_leave_nothing_behind(tmp_path, monkeypatch):
    held = train(settings(tmp_path, TASKS, epochs=1), tmp_path / "run", monkeypatch)
    assert held[-1]["task"] == TASKS - 1
    middle = held[len(held) // 2]
    check_flat(middle, held[-1])
    # a leaked teacher or optimizer would leave hundreds of tensors per task
    grown = held[-1]["tensors"] - middle["tensors"]
    assert grown <= 8 * (held[-1]["task"] - middle["task"]), (middle, held[-1])


def test_many_epochs_leave_nothing_behind(tmp_path, monkeypatch):
    held = train(settings(tmp_path, 2, epochs=EPOCHS // 3), tmp_path / "run", monkeypatch)
    second_task = [epoch for epoch in held if epoch["task"] == 1]
    check_flat(second_task[2], second_task[-1])
    assert second_task[-1]["tensors"] <= second_task[2]["tensors"], second_task
