"""The commands under test, each on its own dataset of a few kilobytes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from iirc_data.benchmarks import Benchmark
from iirc_data.shards import write_shards
from iirc_data.sources import open_folder
from iirc_train.methods import METHODS
from tests.conftest import encode, noise_image, write_image_folder
from tests.faults.campaign import (
    Command,
    Words,
    counted_content,
    dataset_content,
    run_content,
    sweep_content,
)
from tests.faults.changing_ranks import METHOD
from tests.raw_datasets import write_cifar100, write_imagenet_tars

BENCHMARK = Benchmark(
    name="tiny",
    dataset="tiny",
    superclasses={"animal": ["bear", "cat", "dog"]},
    other_classes=["bus"],
    schedules=[[["animal"], ["dog", "bus"], ["cat"]]],
)

WITHIN_EPOCHS = {"checkpoint_every": "1step", "checkpoint_interval": 0, "batch_size": 4}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def commands(folder: Path) -> Iterator[dict[str, Command]]:
    """Yield all commands by name; their raw data is created in a folder."""
    splits = {"train": 10, "test": 3}
    counts = {split: dict.fromkeys(BENCHMARK.leaf_classes, n) for split, n in splits.items()}
    images = write_image_folder(folder / "images", counts)
    shards = folder / "shards"
    write_shards(open_folder(images), shards)
    benchmark = folder / "tiny.json"
    benchmark.write_text(BENCHMARK.model_dump_json())
    cifar = write_cifar100(folder)
    imagenet = write_imagenet_tars(folder / "imagenet")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shards))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        words = {
            "shard a folder": lambda out: ("tools.shard_folder", [str(images), str(out)]),
            "shard CIFAR": lambda out: ("tools.shard_cifar", [str(cifar), str(out)]),
            "shard ILSVRC": lambda out: ("tools.shard_imagenet", [str(imagenet), str(out)]),
            "publish": lambda out: ("iirc", ["data", "publish", str(shards), str(out)]),
            "pull": lambda out: ("iirc", ["data", "pull", address, str(out)]),
        }
        found = [Command(name, call, dataset_content) for name, call in words.items()]
        for method in METHODS:
            train = partial(_train, benchmark, shards, method)
            found.append(Command(f"train {method}", train, run_content))
        within = partial(_train, benchmark, shards, "agem", **WITHIN_EPOCHS)
        found.append(Command("train within epochs", within, run_content))
        branch = partial(_branch, benchmark, shards, folder / "parent")
        found.append(Command("branch", branch, run_content))
        changing = partial(_train_by_turns, benchmark, shards)
        found.append(Command("train in one or two processes", changing, counted_content))
        found.append(Command("sweep", partial(_sweep, benchmark, shards), sweep_content))
        yield {command.name: command for command in found}
        server.shutdown()


def on_clusters(found: dict[str, Command], folder: Path) -> list[Command]:
    """Return the commands that can work on a cluster; their raw data is created in a folder."""
    images = folder / "many images"
    for number in range(24):
        images_of_class = images / "train" / f"class{number:02d}"
        images_of_class.mkdir(parents=True)
        (images_of_class / "000.jpg").write_bytes(encode(noise_image(number, 100, 100)))
        for i in range(1, 120):  # long enough to be lost while they are written
            os.link(images_of_class / "000.jpg", images_of_class / f"{i:03d}.jpg")
    shard = Command(
        "shard a large folder",
        lambda out: ("tools.shard_folder", [str(images), str(out)]),
        lambda out: (dataset_content(out), sorted(str(p.relative_to(out)) for p in out.rglob("*"))),
    )
    return [shard, found["sweep"]]


def _train(benchmark: Path, shards: Path, method: str, out: Path, **own: object) -> Words:
    """Start a run, or resume it."""
    if (out / "config.yaml").exists():
        return "iirc", ["train", "--resume", str(out)]
    return "iirc", ["train", "--method", method, *_settings(benchmark, shards, out, **own)]


def _train_by_turns(benchmark: Path, shards: Path, out: Path) -> Words:
    """Start a run, or resume it with another number of processes."""
    settings = _settings(benchmark, shards, out, **WITHIN_EPOCHS)
    _, words = _train(benchmark, shards, METHOD, out)
    if "--method" in words:
        words = ["train", "--method", METHOD, *settings, "--output", str(out)]
    return "tests.faults.changing_ranks", ["--", *words]


def _branch(benchmark: Path, shards: Path, parent: Path, out: Path) -> Words:
    """Branch from a run, which is trained when the first branch needs it; or resume the branch."""
    if not parent.exists():
        _, words = _train(benchmark, shards, "icarl", parent)
        subprocess.run(
            [sys.executable, "-m", "iirc_train", *words, "--save-each-task-model"],
            check=True,
            capture_output=True,
        )
    origin = ["--from", str(parent), "--from-task", "0"]
    return "iirc", ["train", *origin, "--output", str(out), "--lr", "0.05"]


def _sweep(benchmark: Path, shards: Path, out: Path) -> Words:
    return "iirc", [
        *("sweep", "--method", "finetune", "--seed", "0,1"),
        *_settings(benchmark, shards, out),
    ]


def _settings(benchmark: Path, shards: Path, out: Path, **own: object) -> list[str]:
    settings = {
        "benchmark": benchmark,
        "data": shards,
        "output": out,
        "n-layers": 8,
        "n-memories-per-class": 2,
        "epochs-per-task": 1,
        "batch-size": 16,
        "lr": 0.1,
        "device": "cpu",
        "threads": 1,
        "decoder": "pillow",
    } | {name.replace("_", "-"): value for name, value in own.items()}
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
