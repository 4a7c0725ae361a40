"""What runs took, and on what: ``timings.jsonl`` and ``record.json`` of a run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iirc_data.errors import ConfigurationError
from iirc_train.run.directory import RECORD_NAME, TIMINGS_NAME
from iirc_train.run.record import read_record


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Attributes:
        hours: Time spent in epochs of training.
        images_per_second: Median over epochs of the images trained on per second.
        peak_memory: Largest memory in bytes; None where it was not measured.
    """

    hours: float
    images_per_second: float
    peak_memory: int | None


def read_cost(run: Path) -> Cost | None:
    """Read what a run took; None where it wrote no times.

    Raises:
        ConfigurationError: Its times are damaged.
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
        peaks = [int(line["peak_memory_bytes"]) for line in lines if line.get("peak_memory_bytes")]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from error
    speeds = images[seconds > 0] / seconds[seconds > 0]
    speed = float(np.median(speeds)) if len(speeds) else np.nan
    return Cost(float(seconds.sum()) / 3600, speed, max(peaks, default=None))


def flat_record(run: Path) -> dict[str, str] | None:
    """Read what a run recorded of data, versions and machine; None where it has no record.

    Returns:
        Name, preceded by those of the groups that contain it with dots between, to value.

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
