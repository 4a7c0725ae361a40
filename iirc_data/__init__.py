"""Data half: raw images to shards to task views to batches. Never imports ``iirc_train``.

The names in ``__all__`` are the public surface. Each is imported when it is first used, so that
``import iirc_data`` takes no time.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Training and decoding share the CPU cores: threads that spin while they wait would starve the
# others. The threading library reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from iirc_data.augment import TRANSFORM_PRESETS
    from iirc_data.benchmarks import Benchmark, benchmark_names, load_benchmark
    from iirc_data.datasets import open_datasets
    from iirc_data.errors import IIRCError
    from iirc_data.loader import Batch, Loader, make_loader
    from iirc_data.shards import ShardStore, write_shards
    from iirc_data.shards.sharing import publish, pull
    from iirc_data.shards.verify import verify
    from iirc_data.sources import Sample, Source, open_cifar, open_folder, open_imagenet
    from iirc_data.task_sequence import TaskSequence
    from iirc_data.task_view import TaskView

    open_shards = ShardStore.open

__all__ = [
    "TRANSFORM_PRESETS",
    "Batch",
    "Benchmark",
    "IIRCError",
    "Loader",
    "Sample",
    "ShardStore",
    "Source",
    "TaskSequence",
    "TaskView",
    "benchmark_names",
    "load_benchmark",
    "make_loader",
    "open_cifar",
    "open_datasets",
    "open_folder",
    "open_imagenet",
    "open_shards",
    "publish",
    "pull",
    "verify",
    "write_shards",
]

_PLACES = {
    "iirc_data.augment": ("TRANSFORM_PRESETS",),
    "iirc_data.benchmarks": ("Benchmark", "benchmark_names", "load_benchmark"),
    "iirc_data.datasets": ("open_datasets",),
    "iirc_data.errors": ("IIRCError",),
    "iirc_data.loader": ("Batch", "Loader", "make_loader"),
    "iirc_data.shards": ("ShardStore", "write_shards"),
    "iirc_data.shards.sharing": ("publish", "pull"),
    "iirc_data.shards.verify": ("verify",),
    "iirc_data.sources": ("Sample", "Source", "open_cifar", "open_folder", "open_imagenet"),
    "iirc_data.task_sequence": ("TaskSequence",),
    "iirc_data.task_view": ("TaskView",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "open_shards":
        found: Any = __getattr__("ShardStore").open
    elif name in _MODULES:
        found = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
