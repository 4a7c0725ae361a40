"""Benchmark definitions: taxonomy, schedules of tasks, splits, sampling and image preset.

Each JSON file in ``manifests/`` defines one benchmark. The path of a user's own file can be given
wherever a name is expected.
"""

from iirc_data.benchmarks.definition import Benchmark, Tasks, class_order
from iirc_data.benchmarks.files import (
    SCHEMA_VERSION,
    benchmark_names,
    load_benchmark,
    manifests_folder,
    parse_benchmark,
    parse_json,
)
from iirc_data.benchmarks.making import make_benchmark
from iirc_data.benchmarks.schedules import make_schedule
from iirc_data.benchmarks.settings import DatasetSettings, SamplingSettings, SplitSettings
from iirc_data.benchmarks.text import benchmark_text, content_digest

__all__ = [
    "SCHEMA_VERSION",
    "Benchmark",
    "DatasetSettings",
    "SamplingSettings",
    "SplitSettings",
    "Tasks",
    "benchmark_names",
    "benchmark_text",
    "class_order",
    "content_digest",
    "load_benchmark",
    "make_benchmark",
    "make_schedule",
    "manifests_folder",
    "parse_benchmark",
    "parse_json",
]
