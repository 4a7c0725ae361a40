"""The command ``iirc``."""

import inspect
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console

from iirc_data.commands import benchmarks, data
from iirc_data.console import errors_in_one_line
from iirc_train.config import ExperimentConfig
from iirc_train.demo import run_demo
from iirc_train.engine import run_experiment
from iirc_train.report.results import read_results
from iirc_train.report.tables import task_table

app = typer.Typer(
    help="Incremental implicitly-refined classification, data pipeline first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(benchmarks.app, name="benchmarks")
app.add_typer(data.app, name="data")
console = Console()


def main() -> None:
    """Run the command; known errors are one line, not a stack trace."""
    with errors_in_one_line():
        app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for shards, runs and plot.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """See the whole pipeline at work on drawn images, in minutes."""
    run_demo(output, seed, console)


def train(output: Path, **settings: Any) -> None:
    """Train a method through all tasks of a benchmark's schedule."""
    given = {name: value for name, value in settings.items() if value is not None}
    run = run_experiment(ExperimentConfig.parse(given), output, console)
    console.print(task_table(read_results(run)))
    console.print(f"run: {run}", highlight=False)


def _option_type(annotation: Any) -> Any:
    """Return what the command line parses a setting as; the configuration checks the value."""
    kinds = [kind for kind in (*get_args(annotation), annotation) if kind in (bool, int, float)]
    if any(kind == list[int] for kind in (*get_args(annotation), annotation)):
        return list[int]
    return kinds[0] if kinds else str


def _train_signature() -> inspect.Signature:
    """Make an option of every setting, so that each is documented once."""
    output = Annotated[Path, typer.Option(help="Folder for the run.")]
    parameters = [inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=output)]
    for name, field in ExperimentConfig.model_fields.items():
        required = field.is_required()
        shown: Any = False if required or field.default is None else str(field.default)
        choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
        text = (
            f"{field.description} ({', '.join(choices)})." if choices else f"{field.description}."
        )
        kind = _option_type(field.annotation)
        option = typer.Option(help=text, show_default=shown)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else None,
                annotation=Annotated[kind if required else kind | None, option],
            )
        )
    return inspect.Signature(parameters)


train.__signature__ = _train_signature()  # type: ignore[attr-defined]
train.__annotations__ = {
    name: parameter.annotation for name, parameter in _train_signature().parameters.items()
}
app.command()(train)
