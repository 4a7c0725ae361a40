"""Environment variables that change how fast a run is, or where."""

import os
from collections.abc import Iterator, Mapping

from iirc_train.doctor.finding import Finding
from iirc_train.doctor.processors import usable_processors

NAMES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "IIRC_CACHE",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
)


def variables() -> Iterator[Finding]:
    """Yield the variables that are set."""
    yield from judged(os.environ, usable_processors())


def judged(environment: Mapping[str, str], processors: int) -> Iterator[Finding]:
    """Yield the variables that are set, with a warning for those that slow a run down.

    Args:
        environment: The variables.
        processors: Number of processors that this process may use.
    """
    for name in NAMES:
        value = environment.get(name)
        if value is None:
            continue
        shown = value or "(empty)"
        remedy = _remedy(name, value, environment, processors)
        yield Finding("variables", name, shown, "warning" if remedy else "ok", remedy)


def _remedy(name: str, value: str, environment: Mapping[str, str], processors: int) -> str:
    if name.endswith("_NUM_THREADS") and value.isdecimal():
        if int(value) > processors:
            return f"more threads than the {processors} processors: unset it"
        if int(value) == 1 and processors > 1 and "WORLD_SIZE" not in environment:
            return "training on the CPU uses one processor: unset it"
    if name == "OMP_WAIT_POLICY" and value.lower() == "active":
        return "waiting threads slow decoding down: set it to passive"
    if name == "CUDA_VISIBLE_DEVICES" and value.strip() in ("", "-1"):
        return "it hides every GPU: unset it to train on one"
    if name == "LOCAL_WORLD_SIZE" and value != "1" and "RANK" not in environment:
        return "each process decodes with its share of the processors: unset it outside of torchrun"
    return ""
