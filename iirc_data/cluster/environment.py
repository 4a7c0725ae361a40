"""Whether a worker computes with the same software as the command that it works for."""

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import lru_cache

PACKAGES = ("iirc-pipeline", "dask", "distributed", "numpy", "pillow", "torch", "torchvision")


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = version.partition("+")[0]  # builds for CPU and GPU are the same version
    return found


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return which versions differ; empty if none does. Packages that one side lacks are left out.

    Args:
        expected: Versions of the command.
        found: Versions of the worker.
    """
    return ", ".join(
        f"{name} {found[name]} instead of {version}"
        for name, version in expected.items()
        if found.get(name, version) != version
    )
