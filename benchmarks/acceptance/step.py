"""A step of the acceptance, what is expected of it, and what it reports."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple

Value = float | str


@dataclass(frozen=True)
class Situation:
    """What a step works with.

    Attributes:
        out: Folder of the acceptance; steps share data there.
        rehearse: Run at small size on the CPU.
        seconds: Time that is left for the step.
        photographs: Shard folder, image folder or tar of photographs; None draws some.
        file: Receives the figures, a line of JSON each.
    """

    out: Path
    rehearse: bool
    seconds: float
    photographs: Path | None = None
    file: IO[str] = sys.stdout

    @property
    def device(self) -> str:
        """``"cuda"``, or ``"cpu"`` in a rehearsal."""
        return "cpu" if self.rehearse else "cuda"

    def report(self, name: str, value: Value | bool) -> None:
        """Report a figure at once: a step that crashes later keeps it."""
        kept = value if isinstance(value, str) else float(value)
        self.file.write(json.dumps({name: kept}) + "\n")
        self.file.flush()

    def figures(self, step: str) -> dict[str, Value]:
        """Return what another step has reported; empty if it did not run."""
        return read_figures(figures_path(self.out, step))


class Expectation(NamedTuple):
    """What figures should be.

    Attributes:
        figure: Name of the figure, or a pattern with ``*`` that every matching figure must fulfil.
        least: Lower bound, if any.
        most: Upper bound, if any.
        only_on_gpu: Not judged in a rehearsal, in which the figure must only be there.
        is_estimate: Shown beside the figure if that is there, but never judged.
    """

    figure: str
    least: float | None = None
    most: float | None = None
    only_on_gpu: bool = False
    is_estimate: bool = False

    @property
    def text(self) -> str:
        """The bounds, as text."""
        if self.least is None and self.most is None:
            return "any"
        if self.least == self.most:
            return f"{self.least:,g}"
        if self.least is None:
            return f"at most {self.most:,g}"
        if self.most is None:
            return f"at least {self.least:,g}"
        return f"{self.least:,g} to {self.most:,g}"

    def names(self, figures: dict[str, Value]) -> list[str]:
        """Return the names of the figures that it is about."""
        return [name for name in figures if fnmatchcase(name, self.figure)]

    def is_met(self, value: Value) -> bool:
        """Return whether a figure is as expected; text and NaN are within no bounds."""
        if self.least is None and self.most is None:
            return True
        if isinstance(value, str):
            return False
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


class Step(NamedTuple):
    """A step.

    Attributes:
        number: Its number in tables.
        name: Its name.
        seconds: How long it should take at most; it is killed after a multiple of that.
        place: The function that carries it out, as ``"module:function"``; its argument is a
            :class:`Situation`.
        expected: What is expected of its figures.
    """

    number: int
    name: str
    seconds: float
    place: str
    expected: tuple[Expectation, ...]


Run = Callable[[Situation], Any]
"""Carries a step out."""


def figures_path(out: Path, step: str) -> Path:
    """Return the path of a step's figures."""
    return out / f"{step}.jsonl"


def read_figures(path: Path) -> dict[str, Value]:
    """Read the figures of a step, without a line that was cut off."""
    figures: dict[str, Value] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return figures
    for line in lines:
        try:
            figures |= json.loads(line)
        except (ValueError, TypeError):
            continue
    return figures
