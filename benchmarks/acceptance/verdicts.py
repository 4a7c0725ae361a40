"""Expected against seen: the rows of a step, and the files that hold all rows."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.acceptance.process import Outcome
from benchmarks.acceptance.step import Step, Value
from iirc_data.files import write_atomically, write_json

Verdict = Literal["as expected", "UNEXPECTED", "not judged"]

JSON_NAME, TABLE_NAME = "acceptance.json", "acceptance.md"


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        number: Number of the step.
        step: Name of the step.
        figure: What was looked at.
        expected: What was expected.
        seen: What was seen.
        verdict: The verdict; figures that are not judged are not unexpected.
    """

    number: int
    step: str
    figure: str
    expected: str
    seen: str
    verdict: Verdict


def rows_of(step: Step, outcome: Outcome, figures: dict[str, Value], rehearse: bool) -> list[Row]:
    """Return the rows of a step that has run.

    Args:
        step: The step.
        outcome: How its process ended.
        figures: What it reported.
        rehearse: Whether it ran in a rehearsal.
    """

    def row(figure: str, expected: str, seen: str, verdict: Verdict) -> Row:
        return Row(step.number, step.name, figure, expected, seen, verdict)

    end = f"{outcome.end}, {outcome.seconds:.0f} s"
    if not outcome.is_well and outcome.last_line:
        end += f": {outcome.last_line}"
    rows = [row("end", "exit 0", end, "as expected" if outcome.is_well else "UNEXPECTED")]
    named: set[str] = set()
    for expectation in step.expected:
        names = expectation.names(figures)
        if not names and not expectation.is_estimate:
            rows.append(row(expectation.figure, expectation.text, "missing", "UNEXPECTED"))
        for name in names:
            verdict: Verdict = "as expected" if expectation.is_met(figures[name]) else "UNEXPECTED"
            if expectation.is_estimate or (rehearse and expectation.only_on_gpu):
                verdict = "not judged"
            rows.append(row(name, expectation.text, shown(figures[name]), verdict))
        named.update(names)
    others = [name for name in figures if name not in named]
    return rows + [row(name, "", shown(figures[name]), "not judged") for name in others]


def row_of_missing(step: Step, reason: str) -> Row:
    """Return the row of a step that did not run."""
    return Row(step.number, step.name, "end", "exit 0", reason, "UNEXPECTED")


def shown(value: Value) -> str:
    """Return a figure as text."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:,.3g}"


def write_results(out: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Replace both files of results, each atomically.

    Args:
        out: Folder of the acceptance.
        rows: All rows so far.
        about: What else the JSON holds: plain values.
    """
    rows = sorted(rows, key=lambda row: row.number)  # stable: a step's rows keep their order
    as_expected = is_as_expected(rows)
    content = {**about, "as_expected": as_expected, "rows": [row._asdict() for row in rows]}
    write_json(out / JSON_NAME, content)
    with write_atomically(out / TABLE_NAME) as file:
        file.write(("\n".join(markdown(rows)) + "\n").encode())


def is_as_expected(rows: list[Row]) -> bool:
    """Return whether no row is unexpected."""
    return all(row.verdict != "UNEXPECTED" for row in rows)


def markdown(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    lines = ["| | step | figure | expected | seen | verdict |", "| --- " * 6 + "|"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
