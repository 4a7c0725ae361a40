"""The command ``iirc``."""

import inspect
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Console

from iirc_data.commands import benchmarks, data
from iirc_data.console import errors_in_one_line
from iirc_data.errors import ConfigurationError
from iirc_train.commands import presets
from iirc_train.commands.compare import compare_runs
from iirc_train.commands.report import report
from iirc_train.composition import compose
from iirc_train.config import ExperimentConfig
from iirc_train.demo import run_demo
from iirc_train.distributed import is_first_process
from iirc_train.engine import resume_experiment, run_experiment
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
app.add_typer(presets.app, name="presets")
app.command("compare")(compare_runs)
app.command()(report)
console = Console()


def main() -> None:
    """Run the command; known errors are one line, not a stack trace."""
    with errors_in_one_line():
        app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """See the whole pipeline at work on drawn images, in minutes."""
    run_demo(output, seed, console)


def train(
    output: Path | None,
    resume: Path | None,
    preset: str | None,
    config: Path | None,
    **settings: Any,
) -> None:
    """Train a method through all tasks of a benchmark's schedule.

    Settings come from a preset, a YAML file and options; of these the later wins.
    """
    overrides = {
        name: " ".join(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None and value != []
    }
    if resume is not None:
        if output or preset or config or overrides:
            raise ConfigurationError("--resume goes on as the run began: give no other option")
        run = resume_experiment(resume, console)
    elif output is None:
        raise ConfigurationError("say where the run goes: --output FOLDER")
    else:
        run = run_experiment(compose(preset, config, overrides), output, console)
    if is_first_process():
        console.print(task_table(read_results(run)))
        console.print(f"run: {run}", highlight=False)


RUN_OPTIONS = {
    "output": (Path, "Folder for the run."),
    "resume": (Path, "Folder of a run to go on with."),
    "preset": (str, "Start from a published configuration; 'iirc presets' lists them."),
    "config": (Path, "YAML file of settings; they win over the preset's."),
}


def _option_type(annotation: Any) -> Any:
    """Return what the command line parses a setting as; the configuration checks the value."""
    kinds = (*get_args(annotation), annotation)
    if any(get_origin(kind) is list for kind in kinds):
        return list[str]
    return next((kind for kind in kinds if kind in (bool, int, float)), str)


def _train_signature() -> inspect.Signature:
    """Make an option of every setting, so that each is documented once."""
    options = [
        _option(name, kind, typer.Option(help=text)) for name, (kind, text) in RUN_OPTIONS.items()
    ]
    for name in ExperimentConfig.setting_names():
        field = ExperimentConfig.model_fields[name]
        shown: Any = False if field.is_required() or field.default is None else str(field.default)
        choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
        text = (
            f"{field.description} ({', '.join(choices)})." if choices else f"{field.description}."
        )
        kind = _option_type(field.annotation)
        options.append(_option(name, kind, typer.Option(help=text, show_default=shown)))
    return inspect.Signature(options)


def _option(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


train.__signature__ = _train_signature()  # type: ignore[attr-defined]
train.__annotations__ = {
    name: parameter.annotation for name, parameter in _train_signature().parameters.items()
}
app.command()(train)
