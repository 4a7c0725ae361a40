"""Which stage of training limits a run, from the speed of each stage alone."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

READ_AS_FOUND = "reading, as found"
READ = "reading, warm"
DECODE = "decoding alone"
PARAMETERS = "augmentation parameters"
REQUEST = "requests, reading included"
FEED = "feeding DALI"
DECODER = "decoding, resizing, collecting"
TRANSFER = "transfer to the device"
NORMALIZE = "normalisation"
LOADER = "the loader"
STEP = "network step"
RUN = "the loader and the network"

_DECODING = (
    "use resized shards (iirc data shard --resize 256), resident images where they have one size, "
    "more processors, or a GPU that decodes"
)
_NETWORK = (
    "precision bf16, compile, a larger batch, a smaller network or a faster device would help; "
    "a faster loader would not"
)
_HINTS = {
    READ_AS_FOUND: (
        "reading",
        "put the shards on a local disk or in memory, or use resized shards (iirc data shard "
        "--resize 256)",
    ),
    DECODE: ("decoding", _DECODING),
    DECODER: ("resizing and collecting", f"use smaller crops, more processors, or {_DECODING}"),
    FEED: (
        "feeding (parameters, requests and DALI's inputs, on one thread)",
        "use resident images where they have one size, or several processes",
    ),
    TRANSFER: ("transfer", "train with a GPU that decodes, so that encoded images are copied"),
    NORMALIZE: ("normalisation", "use resized shards or a smaller crop, or normalise on a GPU"),
}


class Stage(NamedTuple):
    """The speed of a stage that runs alone.

    Attributes:
        name: One of this module's constants.
        images_per_second: Images per second; None if the stage does not exist on this device.
        main_thread: Microseconds of CPU time of the main thread for an image.
    """

    name: str
    images_per_second: float | None
    main_thread: float = 0.0


def costs_of_loading(stages: Iterable[Stage]) -> dict[str, float]:
    """Return the seconds for an image of each part of loading, without those of another part.

    Parts run in parallel as far as there are processors, so the largest of them limits, not their
    sum.
    """
    known = {stage.name: stage for stage in stages}

    def seconds(name: str) -> float:
        speed = known[name].images_per_second if name in known else None
        return 1 / speed if speed else 0.0

    feeding = sum(known[name].main_thread for name in (PARAMETERS, REQUEST, FEED) if name in known)
    costs = {name: seconds(name) for name in (READ_AS_FOUND, DECODE, TRANSFER, NORMALIZE)}
    costs[DECODER] = max(0.0, seconds(DECODER) - seconds(DECODE))
    costs[FEED] = feeding / 1e6
    return costs


def verdict(stages: Sequence[Stage], is_resident: bool) -> str:
    """Return one sentence: what limits a run, and what to try.

    Args:
        stages: The stages; among them the loader and the network's step.
        is_resident: Whether the loader keeps decoded images, so that its other stages run once.
    """
    speeds = {stage.name: stage.images_per_second for stage in stages}
    loader, step = speeds[LOADER], speeds[STEP]
    if loader is None or step is None:
        raise ValueError(f"expected the speeds of {LOADER!r} and {STEP!r}, got {speeds}")
    if step <= loader:
        return (
            f"The network limits: the loader alone delivers {loader / step:.1f} times as many "
            f"images as the network alone can take; {_NETWORK}."
        )
    found = f"the network alone takes {step / loader:.1f} times as many images as the loader does"
    if is_resident:
        return (
            f"Augmenting resident images limits: {found}; use a faster device, or fewer operations "
            "of colour jitter and AutoAugment."
        )
    costs = costs_of_loading(stages)
    cause, hint = _HINTS[max(costs, key=costs.__getitem__)]
    return f"Loading limits, most of all {cause}: {found}; {hint}."
