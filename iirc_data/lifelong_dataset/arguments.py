"""Published API: checks of the arguments that a lifelong dataset is constructed with."""

from collections.abc import Sequence
from typing import cast

from pydantic import ValidationError

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, Setup
from iirc_data.errors import BenchmarkError


def checked_setup(setup: str) -> Setup:
    """Return ``setup``.

    Raises:
        BenchmarkError: It is neither ``IIRC_SETUP`` nor ``CIL_SETUP``.
    """
    if setup not in (IIRC_SETUP, CIL_SETUP):
        raise BenchmarkError(
            f"setup is {setup!r}, expected IIRC_SETUP ({IIRC_SETUP!r}) or CIL_SETUP ({CIL_SETUP!r})"
        )
    return cast(Setup, setup)


def checked_tasks(tasks: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the class names of each task as lists.

    Raises:
        BenchmarkError: ``tasks`` is empty, or a task is not a list of class names.
    """
    if len(tasks) == 0:
        raise BenchmarkError("tasks is empty, expected a list of class names for each task")
    for number, task in enumerate(tasks):
        if isinstance(task, str) or not all(isinstance(name, str) for name in task):
            raise BenchmarkError(f"task {number} is {task!r:.60}, expected a list of class names")
    return [[str(name) for name in task] for task in tasks]


def checked_sampling(
    superclass_data_pct: float, subclass_data_pct: float, superclass_sampling_size_cap: int
) -> SamplingSettings:
    """Return the sampling settings; see :class:`BaseDataset` for the arguments.

    Raises:
        BenchmarkError: A value is out of its range.
    """
    try:
        return SamplingSettings(
            superclass_data_pct=superclass_data_pct,
            subclass_data_pct=subclass_data_pct,
            superclass_sampling_size_cap=superclass_sampling_size_cap,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchmarkError(f"{first['loc'][0]} is {first['input']!r}: {first['msg']}") from error
