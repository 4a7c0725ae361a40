"""Every examination, in the order of the output."""

from collections.abc import Callable, Iterable
from importlib import import_module

from iirc_train.doctor.finding import Finding, guarded

EXAMINATIONS = {
    "versions": ("iirc_train.doctor.software:packages", "iirc_train.doctor.software:libraries"),
    "devices": (
        "iirc_train.doctor.processors:processors",
        "iirc_train.doctor.processors:memory",
        "iirc_train.doctor.gpus:gpus",
    ),
    "decoders": (
        "iirc_train.doctor.decoders:pillow",
        "iirc_train.doctor.decoders:dali",
        "iirc_train.doctor.decoders:windows",
    ),
    "limits": (
        "iirc_train.doctor.limits:open_files",
        "iirc_train.doctor.limits:shared_memory",
        "iirc_train.doctor.limits:folders",
    ),
    "variables": ("iirc_train.doctor.variables:variables",),
}
"""Section to the functions that examine it, as ``"module:function"``; each is imported guarded."""


def examine() -> list[Finding]:
    """Examine this machine; takes as long as importing torch and DALI, and never fails."""
    return [
        finding
        for section, places in EXAMINATIONS.items()
        for place in places
        for finding in guarded(section, place.partition(":")[2].replace("_", " "), _of(place))
    ]


def _of(place: str) -> Callable[[], Iterable[Finding]]:
    module, _, name = place.partition(":")
    return lambda: getattr(import_module(module), name)()
