"""The samples of a split with their classes, from one dataset or from several."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iirc_data.datasets import DatasetPart
from iirc_data.definitions import SplitName
from iirc_data.runs import Runs, joined
from iirc_data.shards.table import SampleTable
from iirc_data.splits import split_sample_runs


class SplitSamples(NamedTuple):
    """The samples of a split.

    Attributes:
        runs: The sample ids, grouped by leaf class, an index into ``classes``.
        classes: Names of classes in the benchmark.
        sources: int32 (R,), number of the class that each run of samples has in its dataset; None
            if each leaf class is one class of one dataset.
    """

    runs: Runs
    classes: list[str]
    sources: NDArray[np.int32] | None


def samples_of_split(
    parts: Sequence[DatasetPart],
    tables: Sequence[SampleTable],
    split: SplitName,
    samples_per_class: int | None,
) -> SplitSamples:
    """Return the samples of a split that belong to a benchmark's classes.

    Args:
        parts: The datasets of the benchmark.
        tables: The sample table of each.
        split: See :meth:`iirc_data.task_sequence.TaskSequence.from_table`.
        samples_per_class: Likewise, for each class of each dataset.

    Raises:
        BenchmarkError: A dataset lacks the split's folder.
    """
    if len(parts) == 1 and parts[0].has_own_names:
        (part,), (table,) = parts, tables
        runs = split_sample_runs(part.benchmark, part.manifest, table, split, samples_per_class)
        return SplitSamples(runs, part.manifest.classes, None)
    number_of: dict[str, int] = {}
    found, sources = [], []
    first = first_source = 0
    for part, table in zip(parts, tables, strict=True):
        leaves = [
            part.leaf_of.get(name, f"{part.manifest.dataset}/{name}")
            for name in part.manifest.classes
        ]
        numbers = [number_of.setdefault(leaf, len(number_of)) for leaf in leaves]
        runs = split_sample_runs(part.benchmark, part.manifest, table, split, samples_per_class)
        found.append(runs.shifted(first).in_groups(np.array(numbers, np.int32)[runs.groups]))
        sources.append(first_source + runs.groups)
        first += len(table)
        first_source += len(leaves)
    return SplitSamples(joined(found), list(number_of), np.concatenate(sources))
