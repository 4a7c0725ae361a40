"""Shared by the loader benchmarks: options, and the steps from images to a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
import typer
from rich.console import Console

from benchmarks.contenders import Contender, Workload, measure
from benchmarks.images import opened
from benchmarks.results import Result, Setting
from iirc_data.errors import LoaderError
from iirc_data.sources import Source

Data: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        help="Shard folder, image folder split/class/*, or a tar of one. [default: drawn images]"
    ),
]
Images: TypeAlias = Annotated[int, typer.Option(min=1, help="Minimum number of images per epoch.")]
BatchSize: TypeAlias = Annotated[int, typer.Option(min=1, help="Images per batch.")]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Processes or threads of each contender. [default: all processors]"),
]
Runs: TypeAlias = Annotated[int, typer.Option(min=1, help="Timed epochs of each contender.")]
Device: TypeAlias = Annotated[
    str, typer.Option(help="Device that receives the images: cpu or cuda.")
]
Results: TypeAlias = Annotated[Path, typer.Option(help="Folder for the JSON file.")]

_SHARDS_PER_WORKER = 4


def device_named(name: str) -> torch.device:
    """Return the device that ``--device`` names.

    Raises:
        LoaderError: It is neither ``"cpu"`` nor ``"cuda"``, or there is no GPU.
    """
    if name not in ("cpu", "cuda"):
        raise LoaderError(f"--device {name}: give cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise LoaderError("no CUDA device: run without --device cuda")
    return torch.device(name)


def compare(
    name: str,
    contenders: Sequence[Contender],
    *,
    preset: str,
    data: Path | None,
    drawn: Source,
    images: int,
    batch_size: int,
    workers: int,
    runs: int,
    device: str,
    results: Path,
) -> Result:
    """Measure float32 and uint8 output, print a table, and write a JSON file.

    Args:
        name: Name of the benchmark.
        contenders: The contenders.
        preset: Name of the transforms.
        data: The images; see :func:`benchmarks.images.opened`.
        drawn: The images if ``data`` is None.
        images: Minimum number of images per epoch.
        batch_size: Images per batch.
        workers: Processes or threads of each contender.
        runs: Timed epochs of each contender.
        device: ``"cpu"`` or ``"cuda"``.
        results: Folder for the JSON file.

    Returns:
        The result.
    """
    target = device_named(device)
    speeds = []
    with opened(data, drawn, images, _SHARDS_PER_WORKER * workers) as store:
        for normalize in (True, False):
            workload = Workload.of_size(
                store,
                images,
                preset=preset,
                normalize=normalize,
                batch_size=batch_size,
                workers=workers,
                device=target,
            )
            Console(stderr=True).print(
                f"{name}, {workload.output}: {len(contenders)} contenders, {runs} epochs of "
                f"{len(workload.sample_ids):,} images each"
            )
            speeds += measure(workload, contenders, runs)
    settings: dict[str, Setting] = {
        "images": store.manifest.dataset,
        "images per epoch": len(workload.sample_ids),
        "batch size": batch_size,
        "workers": workers,
        "device": target.type,
        "runs": runs,
    }
    result = Result.now(name, target, settings, speeds)
    Console().print(result.table())
    print(f"written to {result.write(results)}")
    return result
