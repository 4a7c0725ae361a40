"""Times each stage of training alone, and says which one limits a run.

    python -m benchmarks.stages SHARDS_OR_IMAGES --network resnet18 --device cuda

The stages of the loader and the step of the network run one by one on the same images; then the
loader runs alone, and then with the network. For each stage the program prints images per second,
and the CPU time of the main thread for an image: all stages share this thread, which also starts
the network's operations. The first pass reads the files as it finds them, from the disk if they
are not in the page cache; all others are warm. Runs of the stages alternate, and medians are
compared. Stages that run only on the main thread, and feeding, are rated by its CPU time.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Annotated, cast

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import bottleneck
from benchmarks.bottleneck import Stage, verdict
from benchmarks.comparison import (
    BatchSize,
    Data,
    Device,
    Images,
    Results,
    Runs,
    Workers,
    device_named,
)
from benchmarks.contenders import Workload
from benchmarks.images import DrawnPhotographs, opened
from benchmarks.results import RESULTS_FOLDER, Result, Setting
from benchmarks.stage_runs import Run, WithNetwork, in_batches, prepared, read, stages_of_loading
from benchmarks.timing import interleaved
from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.console import run_tool
from iirc_data.definitions import DecoderName
from iirc_data.errors import ConfigurationError, LoaderError
from iirc_data.loader import make_decoder
from iirc_data.loader.decoder import default_threads
from iirc_data.sources.drawn import DrawnSource

ON_MAIN_THREAD = {bottleneck.PARAMETERS, bottleneck.REQUEST, bottleneck.FEED}
_SHARDS_PER_WORKER = 4
_PRECISIONS = ("auto", "fp32", "bf16")
_STEPS = {"cpu": 4, "cuda": 100}


def timed(stages: Mapping[str, Run], runs: int, device: torch.device) -> list[Stage]:
    """Time stages in turn, after a run of each that is not timed.

    Args:
        stages: The stages by name.
        runs: Timed runs of each.
        device: Device whose work belongs to a run.
    """

    def timing_the_main_thread(run: Run) -> tuple[int, float]:
        started = time.thread_time()
        n_images = run()
        seconds = time.thread_time() - started
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return n_images, seconds

    contenders = {name: partial(timing_the_main_thread, run) for name, run in stages.items()}
    interleaved(contenders, 1)
    found = []
    for name, timing in interleaved(contenders, runs).items():
        n_images = timing.results[0][0]
        on_main_thread = median(seconds for _, seconds in timing.results)
        seconds = on_main_thread if name in ON_MAIN_THREAD else timing.median
        found.append(Stage(name, n_images / seconds, 1e6 * on_main_thread / n_images))
    return found


def table(stages: list[Stage], title: str) -> Table:
    """Return the table of stages for a terminal."""
    shown = Table("stage", title=title)
    for heading in ("images/s", "main thread, µs/image"):
        shown.add_column(heading, justify="right")
    for stage in stages:
        speed = "" if stage.images_per_second is None else f"{stage.images_per_second:,.0f}"
        cost = f"{stage.main_thread:,.2f}" if stage.main_thread else ""
        shown.add_row(stage.name, speed, cost)
    return shown


def main(
    data: Data = None,
    preset: Annotated[str, typer.Option(help="Transforms: imagenet or cifar.")] = "imagenet",
    network: Annotated[
        str | None,
        typer.Option(help="Network. [default: resnet18, with the preset cifar resnet32]"),
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision: auto, fp32 or bf16.")] = "auto",
    decoder: Annotated[str, typer.Option(help="Decoder: auto, dali or pillow.")] = "auto",
    images: Images = 1000,
    batch_size: BatchSize = 128,
    workers: Workers = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most steps with the network, unless resident. [default: 4, GPU: 100]",
        ),
    ] = None,
    runs: Runs = 3,
    device: Device = "cpu",
    results: Results = RESULTS_FOLDER,
) -> None:
    """Measure, print a table and what limits a run, and write a JSON file."""
    target, workers = device_named(device), workers or default_threads()
    network = network or ("resnet32" if preset == "cifar" else "resnet18")
    steps = steps or _STEPS[target.type]
    with ExitStack() as stack:
        if preset not in TRANSFORM_PRESETS:
            raise LoaderError(f"no transforms {preset!r}: choose {', '.join(TRANSFORM_PRESETS)}")
        if precision not in _PRECISIONS:
            raise ConfigurationError(f"--precision {precision}: give {', '.join(_PRECISIONS)}")
        drawn = DrawnSource() if preset == "cifar" else DrawnPhotographs()
        n_shards = _SHARDS_PER_WORKER * workers
        store = stack.enter_context(opened(data, drawn, images, n_shards))
        workload = Workload.of_size(
            store,
            images,
            preset=preset,
            normalize=True,
            batch_size=batch_size,
            workers=workers,
            device=target,
        )
        batches = in_batches(workload)
        started = time.perf_counter()
        n_images = read(*batches)
        as_found = n_images / (time.perf_counter() - started)
        chosen = make_decoder(cast(DecoderName, decoder), target, workers)
        stack.callback(chosen.close)
        work = prepared(workload, chosen)
        with_network = WithNetwork(workload, chosen, network, precision, steps)
        loading = timed(stages_of_loading(workload, work, chosen, stack), runs, target)
        together = timed(with_network.stages, runs, target)
    stages = [Stage(bottleneck.READ_AS_FOUND, as_found), *loading, *together]
    share = median(with_network.waiting_shares[1:])  # the first run is not timed
    sentence = verdict(stages, with_network.is_resident)
    settings: dict[str, Setting] = {
        "images": store.manifest.dataset,
        "images per epoch": n_images,
        "preset": preset,
        "network": network,
        "precision": precision,
        "decoder": chosen.name,
        "resident": with_network.is_resident,
        "batch size": batch_size,
        "workers": workers,
        "steps": steps,
        "device": target.type,
        "runs": runs,
    }
    figures = {f"{stage.name} (images/s)": stage.images_per_second or 0.0 for stage in stages}
    figures |= {f"{stage.name} (main thread, µs/image)": stage.main_thread for stage in stages}
    figures["waiting share"] = share
    result = Result.now("stages", target, settings, [], figures)
    Console().print(table(stages, result.title))
    print(f"Together, the network waited for images {100 * share:.0f} % of the time.")
    print(sentence)
    print(f"written to {result.write(results)}")


if __name__ == "__main__":
    run_tool(main)
