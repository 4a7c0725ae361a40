"""``iirc features compute``: the features of a frozen network, computed ahead of its runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iirc_data.console import errors_in_one_line, plain_console, shown
from iirc_data.features.store import FeatureStore
from iirc_data.interrupts import interrupted_in_one_line
from iirc_train.cli.options import at_home_if_given, given
from iirc_train.config.compose import compose
from iirc_train.config.weights import NONE
from iirc_train.methods.settings import method_configs
from iirc_train.runtime.distributed import is_first_process
from iirc_train.runtime.lines import print_line
from iirc_train.training.components import Experiment
from iirc_train.training.features import in_the_cache


class Bar:
    """Shows the progress of computing features, and counts what was computed.

    Attributes:
        computed: Number of features computed of each dataset.
        seconds: How long that took.
    """

    def __init__(self, display: Progress) -> None:
        self.computed: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._display = display
        self._started: dict[str, float] = {}
        self._bars: dict[str, Any] = {}

    def __call__(self, dataset: str, n_computed: int, n_left: int, n_total: int) -> None:
        """See :data:`~iirc_train.training.features.Progress`."""
        now = time.perf_counter()
        if dataset not in self._bars:
            self._started[dataset] = now
            n_done = n_total - n_left
            if n_done:
                print_line(self._display.console, in_the_cache(dataset, n_done, n_total))
            self._bars[dataset] = self._display.add_task(
                f"features of {dataset}", total=n_total, completed=n_done, speed=""
            )
        self.computed[dataset] = n_computed
        self.seconds[dataset] = spent = now - self._started[dataset]
        self._display.update(
            self._bars[dataset],
            completed=n_total - n_left,
            speed=f"{n_computed / spent:,.0f} images/s" if n_computed else "",
        )


@contextmanager
def _bar() -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    console = plain_console(stderr=True)
    console.quiet = not is_first_process()
    with shown(Progress(*columns, console=console)) as display:
        yield Bar(display)


def compute(
    data: Annotated[
        list[str] | None,
        typer.Option(help="Shard folder or URL; NAME=FOLDER for each of several datasets."),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Name or file of a benchmark.")] = None,
    network: Annotated[str | None, typer.Option(help="The network, as in iirc train.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="'default' or a file, as in iirc train.")
    ] = None,
    image_preset: Annotated[
        str | None, typer.Option(help="Image preset, as in iirc train.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings of runs; options override it.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Compute all images of the dataset, not only those of the benchmark."
        ),
    ] = False,
    device: Annotated[str | None, typer.Option(help="'cpu', 'cuda' or 'auto'.")] = None,
    decoder: Annotated[str | None, typer.Option(help="'dali', 'pillow' or 'auto'.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of random weights.")] = None,
) -> None:
    """Compute the features of a benchmark's images ahead of the runs that train on them.

    Features that are in the cache are kept, so the command resumes where it was interrupted. Any
    number of processes, for example started by torchrun, share the work.
    """
    hint = "run the same command again to resume" if is_first_process() else ""
    with interrupted_in_one_line(hint), errors_in_one_line():
        options = given(
            {
                "data": data,
                "benchmark": benchmark,
                "network": network,
                "weights": weights,
                "image_preset": image_preset,
                "device": device,
                "decoder": decoder,
                "threads": threads,
                "seed": seed,
            }
        )
        fixed = {"method": "finetune", "frozen": True, "augment": False, "cache_features": True}
        settings = compose(
            None, at_home_if_given(config), options | fixed, methods=method_configs()
        )
        with _bar() as bar, Experiment(settings, progress=bar, all_features=everything) as made:
            store = made.samples
        assert isinstance(store, FeatureStore)
        console = plain_console()
        is_new = settings.weights == NONE
        suffix = ", not pretrained (--weights default loads pretrained weights)" if is_new else ""
        for name, array in zip(store.datasets, store.arrays, strict=True):
            n, size = int(array.present.sum()), array.shape[1]
            print_line(
                console,
                f"{name}: {n:,} features of {size:,} numbers, {decimal(4 * n * size)}, network "
                f"{array.key.network}{suffix}",
            )
            if computed := bar.computed.get(name, 0):
                seconds = bar.seconds[name]
                print_line(
                    console,
                    f"computed {computed:,} in {seconds:,.0f} s, {computed / seconds:,.1f} "
                    "images/s",
                )
            else:
                print_line(console, "all of them were in the cache")
            print_line(console, f"cache  {array.folder}")
