"""Tables of real runs: their commands, what is kept of them, and the page that shows them."""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from benchmarks.method_runs import NamedRun, check_made_by, replace_part, train_all
from iirc_data.definitions import POSTTASK_VALID
from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically, write_json
from iirc_train.config.plain_yaml import read_settings, settings_text
from iirc_train.metrics import MAIN_METRIC
from iirc_train.metrics.table import is_of_hierarchy
from iirc_train.run.directory import CONFIG_NAME, METRICS_NAME, read_metrics
from iirc_train.run.record import is_finished, read_record
from iirc_train.run.results import read_results

RunsFolder: TypeAlias = Annotated[
    Path, typer.Argument(help="Folder for the runs, outside the checkout.")
]
Data: TypeAlias = Annotated[Path | None, typer.Option(help="Shard folder of the dataset; trains.")]
WriteTable: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--table", help="Write the table of finished runs into the page, with those kept before."
    ),
]

COSTS_NAME = "costs.json"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Name in the table.
        options: Options of the row's runs before those of all rows: what is trained on what.
        schedules: The schedules of the benchmark in which it is measured.
        published: Published numbers to show beside it; empty for none.
    """

    name: str
    options: str
    schedules: tuple[int, ...] = (0,)
    published: tuple[int, ...] = ()

    def folder(self, runs: Path, schedule: int) -> Path:
        """Return the folder of a run."""
        name = re.sub(r"[^a-z0-9+]+", "_", self.name.lower()).strip("_")
        return runs / name / f"order_{schedule}"


@dataclass(frozen=True)
class MeasuredTable:
    """A table of runs, which a program trains and writes.

    Attributes:
        program: The module of the program, ``benchmarks.NAME``.
        page: Markdown file with the table, see :func:`~benchmarks.method_runs.replace_part`.
        kept: Folder for the settings, metrics and costs of finished runs.
        options: Options of all rows.
        rows: The rows, in the order in which they are trained.
        shards: Folder of the shards in the commands that the page shows.
    """

    program: str
    page: Path
    kept: Path
    options: str
    rows: tuple[Row, ...]
    shards: str

    def command(self, row: Row, schedule: int, shards: str, output: str) -> str:
        """Return the command of a run."""
        return (
            f"iirc train {row.options} {self.options} "
            f"--schedule {schedule} --data {shards} --output {output}"
        )

    def run(
        self,
        runs: Path,
        data: Path | None,
        write: bool,
        lines: Callable[[dict[Row, list[Path]]], Iterable[str]],
    ) -> None:
        """Train the runs, or write the table of those that are finished.

        Args:
            runs: Folder of the runs.
            data: Shard folder to train on; None does not train.
            write: Write the table.
            lines: Returns the lines of the table, given the kept folders of each row.

        Raises:
            ConfigurationError: A run failed, or was trained with other options than it has now.
            ShardError: ``data`` is not a finished shard folder.
        """
        if data is None and not write:
            raise ConfigurationError("nothing to do: give --data SHARDS to train, or --table")
        if data is not None:
            self._train(runs, data)
        if write:
            self._keep(runs)
            finished = self.finished()
            text = [*lines(finished), *self._commands(finished)]
            replace_part(self.page, self.program, text)
            print("\n".join(text))

    def _train(self, runs: Path, data: Path) -> None:
        queue = []
        for row in self.rows:
            for schedule in row.schedules:
                folder = row.folder(runs, schedule)
                words = (shlex.quote(str(path)) for path in (data, folder))
                line = self.command(row, schedule, *words)
                queue.append(NamedRun(f"{row.name}, schedule {schedule}", line, folder))
        train_all(queue, runs, data)

    def _keep(self, runs: Path) -> None:
        """Copy what is kept of finished runs to the folder beside the page."""
        for row in self.rows:
            for schedule in row.schedules:
                source, target = row.folder(runs, schedule), row.folder(self.kept, schedule)
                if is_finished(source):
                    check_made_by(self._shown_command(row, schedule), source)
                    target.mkdir(parents=True, exist_ok=True)
                    settings = read_settings(source / CONFIG_NAME) | {"data": "shards"}
                    (target / CONFIG_NAME).write_bytes(settings_text(settings))
                    with write_atomically(target / METRICS_NAME) as file:
                        for record in kept_metrics(read_metrics(source)):
                            file.write(f"{json.dumps(record)}\n".encode())
                    if costs := costs_of(source):
                        write_json(target / COSTS_NAME, costs)

    def finished(self) -> dict[Row, list[Path]]:
        """Return the kept folders of each row with finished runs."""
        folders = {row: [row.folder(self.kept, s) for s in row.schedules] for row in self.rows}
        kept = {
            row: [folder for folder in of_row if (folder / METRICS_NAME).exists()]
            for row, of_row in folders.items()
        }
        return {row: found for row, found in kept.items() if found}

    def _commands(self, finished: dict[Row, list[Path]]) -> Iterator[str]:
        yield "\nThe command of each run:\n"
        yield "```sh"
        for row, folders in finished.items():
            for folder in folders:
                command = self._shown_command(row, schedule_of(folder))
                check_made_by(command, folder)
                yield command
        yield "```"

    def _shown_command(self, row: Row, schedule: int) -> str:
        return self.command(row, schedule, self.shards, str(row.folder(Path("runs"), schedule)))


def schedule_of(folder: Path) -> int:
    """Return the schedule of a run that is in a folder of :meth:`Row.folder`."""
    return int(folder.name.removeprefix("order_"))


def last_scores(finished: dict[Row, list[Path]], metrics: Mapping[str, str]) -> Iterator[str]:
    """Return a table of runs on one schedule: average pw-JS, and scores after the last task.

    Args:
        finished: The kept folder of each row's run.
        metrics: Title of each metric's column.
    """
    yield "| | average pw-JS | last: " + " | ".join(metrics.values()) + " |"
    yield "|---|" + "---:|" * (len(metrics) + 1)
    for row, (folder,) in finished.items():
        average = read_results(folder).all_seen.mean()
        last = [read_results(folder, metric=name).all_seen[-1] for name in metrics]
        yield f"| {row.name} | " + " | ".join(f"{score:.3f}" for score in (average, *last)) + " |"


def kept_metrics(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the metrics of a run that tables and reports read, a fifth of all in IIRC.

    Leaves out post-task validation and, of evaluations on single tasks, what the model knows of the
    hierarchy, except its score at each level. Numbers are rounded to 6 digits.

    Args:
        records: The lines of ``metrics.jsonl``.
    """
    for record in records:
        if record["split"] == POSTTASK_VALID:
            continue
        of_one_task = record["kind"] == "evaluation" and record["task"] != "all"
        yield {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in record.items()
            if not (of_one_task and is_of_hierarchy(name)) or name.endswith(f"_{MAIN_METRIC}")
        }


def costs_of(run: Path) -> dict[str, float]:
    """Return the ``seconds`` of a finished run and its ``peak_memory_bytes``.

    Returns:
        Nothing if the run was interrupted: its record does not say how long it took in all.
    """
    first, *further = read_record(run)["sessions"]
    if further or "peak_memory_bytes" not in first:
        return {}
    started, finished = (datetime.fromisoformat(first[key]) for key in ("started", "finished"))
    return {
        "seconds": (finished - started).total_seconds(),
        "peak_memory_bytes": first["peak_memory_bytes"],
    }
