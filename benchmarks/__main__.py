"""Runs all loader benchmarks: ``python -m benchmarks``, or ``make bench``."""

import os
from pathlib import Path
from typing import Annotated


def main() -> None:
    """Run the command line."""
    # read when torch is imported; spinning threads would take time from the decoders
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    import typer

    from benchmarks import loader, small_images
    from benchmarks.comparison import Results, Runs
    from benchmarks.results import RESULTS_FOLDER
    from iirc_data.console import run_tool

    def run_all(
        photographs: Annotated[
            Path | None,
            typer.Option(help="Photographs: shards, an image folder, or a tar. [default: drawn]"),
        ] = None,
        cifar: Annotated[
            Path | None,
            typer.Option(
                "--small-images", help="The same for images of 32 x 32 pixels. [default: drawn]"
            ),
        ] = None,
        runs: Runs = 5,
        results: Results = RESULTS_FOLDER,
    ) -> None:
        """Measure the loaders on the CPU and, if there is one, on the GPU."""
        has_gpu = torch.cuda.is_available()
        for device in ("cpu", "cuda") if has_gpu else ("cpu",):
            loader.main(photographs, runs=runs, device=device, results=results)
            small_images.main(cifar, runs=runs, device=device, results=results)
        if not has_gpu:
            print("no CUDA device: the GPU was not measured")

    run_tool(run_all)


if __name__ == "__main__":
    main()
