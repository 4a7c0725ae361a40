"""``iirc presets``: the published configurations."""

from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from iirc_data.console import errors_in_one_line
from iirc_train.config.experiment import BufferConfig, MethodConfig
from iirc_train.config.plain_yaml import read_settings
from iirc_train.config.preset_files import PRESETS, preset_file, preset_names

app = typer.Typer(help="List the published configurations, or show one.")


@app.callback(invoke_without_command=True)
def list_presets(context: typer.Context) -> None:
    """List the published configurations, or show one."""
    if context.invoked_subcommand is not None:
        return
    # both tables fit 80 columns
    published = _table("name", "benchmark", "method")
    class_incremental = _table("name")
    for name in preset_names():
        settings = read_settings(preset_file(name))
        numbers = (
            _memories(BufferConfig.from_any(settings)),
            str(settings["epochs_per_task"]),
            f"{MethodConfig.from_any(settings).lr:g}",
        )
        if preset_file(name).parent == PRESETS:
            published.add_row(name, settings["benchmark"], settings["method"], *numbers)
        else:
            class_incremental.add_row(name, *numbers)
    console = Console()
    console.print("[bold]Curves of the IIRC paper")
    console.print(published)
    console.print("\n[bold]Class-incremental learning: BENCHMARKS-METHOD, chosen by --preset auto")
    console.print(class_incremental)
    console.print("memory: samples per class (* in total); epochs: per task")


def _table(*texts: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    for heading in ("memory", "epochs", "lr"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a preset.")]) -> None:
    """Print a preset as YAML, to start a configuration of your own."""
    with errors_in_one_line():
        typer.echo(preset_file(name).read_text(encoding="utf-8"), nl=False)


def _memories(buffer: BufferConfig) -> str:
    if buffer.n_memories_per_class >= 0:
        return str(buffer.n_memories_per_class)
    return f"{buffer.total_n_mems}*"
