"""Reads the cost and the surroundings of a run, from ``timings.jsonl`` and ``record.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iirc_data.errors import ConfigurationError
from iirc_train.run.directory import RECORD_NAME, TIMINGS_NAME
from iirc_train.run.record import read_record
from iirc_train.runtime.waiting import NOTABLE_SHARE

_ADVICE = (
    "loading limits this run: use resized shards (iirc data shard --resize 256), resident images, "
    "more processors or a GPU that decodes; python -m benchmarks.stages shows which stage limits"
)


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        hours: Time spent in training epochs.
        images_per_second: Training images per second, median over epochs.
        peak_memory: Peak memory in bytes; None if it was not measured.
        waiting_share: Fraction of the hours in which the network waited for images, the largest of
            all processes; None if it was not measured.
    """

    hours: float
    images_per_second: float
    peak_memory: int | None
    waiting_share: float | None = None

    @property
    def waiting_text(self) -> str:
        """A sentence on the waiting, with advice if it is notable; empty if it was not measured."""
        if self.waiting_share is None:
            return ""
        text = f"the network waited for images {100 * self.waiting_share:.0f} % of the time"
        return f"{text}; {_ADVICE}" if self.waiting_share >= NOTABLE_SHARE else text


def read_cost(run: Path) -> Cost | None:
    """Read the cost of a run; None if the run has no timings.

    Raises:
        ConfigurationError: The timings are damaged.
    """
    path = run / TIMINGS_NAME
    if not path.exists():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        epochs = [line for line in lines if "seconds" in line and "images" in line]
        if not epochs:
            return None
        seconds = np.array([line["seconds"] for line in epochs], dtype=np.float64)
        images = np.array([line["images"] for line in epochs], dtype=np.float64)
        measured = np.array(["waited" in line for line in epochs])
        waited = np.array([line.get("waited", 0.0) for line in epochs], dtype=np.float64)
        peaks = [int(line["peak_memory_bytes"]) for line in lines if line.get("peak_memory_bytes")]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from error
    speeds = images[seconds > 0] / seconds[seconds > 0]
    speed = float(np.median(speeds)) if len(speeds) else np.nan
    of_measured = float(seconds[measured].sum())
    share = float(waited.sum()) / of_measured if of_measured > 0 else None
    return Cost(float(seconds.sum()) / 3600, speed, max(peaks, default=None), share)


def flat_record(run: Path) -> dict[str, str] | None:
    """Read the record of a run's surroundings; None if the run has no record.

    Returns:
        Values by name; the name of a nested value is its path, joined by dots.

    Raises:
        ConfigurationError: The record is damaged.
    """
    return dict(_flat(read_record(run))) if (run / RECORD_NAME).exists() else None


def _flat(record: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{within}{name}", " ".join(map(str, value))
        else:
            yield f"{within}{name}", str(value)
