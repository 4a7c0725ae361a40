"""Work for the workers of a cluster, which import this module without pytest."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iirc_data.cluster.attempt import is_abandoned, patience, stop_if_abandoned
from iirc_data.locks import sole_writer_of
from iirc_data.sources import Sample
from iirc_data.sources.derived import DerivedSource


def double(number: int) -> int:
    return 2 * number


def double_after(number: int, path: Path) -> int:
    """Wait until a file exists."""
    try:
        path.with_name("waiting").touch()
        while not path.exists():
            stop_if_abandoned()
            time.sleep(0.005)
        return 2 * number
    finally:
        path.with_name("waited").touch()


def write_alone(path: Path, until: Path) -> str:
    """Append a line at the start and at the end of each attempt that holds the lock."""
    with sole_writer_of(path, patience=patience(), check=stop_if_abandoned):
        _add(path, f"{os.getpid()} begins")
        while not until.exists() and not is_abandoned():
            time.sleep(0.005)
        time.sleep(0.1)  # slow to stop
        _add(path, f"{os.getpid()} ends")
        stop_if_abandoned()
    return path.read_text()


@dataclass(frozen=True)
class Deadly(DerivedSource):
    """A source whose classes kill the process that reads them, a given number of times each.

    Attributes:
        source: The original source.
        kills: The number of times for each class that kills.
        folder: Where the kills are counted.
    """

    kills: dict[str, int]
    folder: Path

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        for number, sample in enumerate(self.source.samples(split, class_name)):
            yield sample
            path = self.folder / f"{split}-{class_name}"
            if number == 2 and split == "train" and _lines(path) < self.kills.get(class_name, 0):
                _add(path, "killed")
                os.kill(os.getpid(), signal.SIGKILL)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _add(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
