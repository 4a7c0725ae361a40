"""The values that settings such as ``auto`` resolve to on this machine."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.config.network import LARGEST_SMALL_IMAGE
from iirc_train.runtime.notes import logger

Precision = Literal["fp32", "bf16"]
OnOff = Literal["on", "off"]

WEIGHTS_DIGEST = "weights_digest"
"""Name of the digest of the weights that a network started from."""

UNITS = {"processes": "process(es)", "threads": "thread(s)"}


def resolved_precision(precision: str, device: torch.device, image_size: int) -> Precision:
    """Return the precision that a setting resolves to on a device.

    On a GPU, ``"fp32"`` means TF32 in convolutions, the default of PyTorch: float32 with products
    of 10 bits of mantissa. Small networks wait for their kernels to be launched, and bfloat16
    launches more of them, because it converts the weights.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``. ``"auto"`` is ``"bf16"`` on a GPU that
            supports it if images are larger than
            :data:`~iirc_train.config.network.LARGEST_SMALL_IMAGE`, and ``"fp32"`` otherwise.
        device: Device of the network.
        image_size: Height and width in pixels at which images are shown.

    Raises:
        ConfigurationError: The device does not support the precision.
    """
    on_gpu = device.type == "cuda"
    can = not on_gpu or torch.cuda.is_bf16_supported()
    if precision == "auto":
        return "bf16" if on_gpu and can and image_size > LARGEST_SMALL_IMAGE else "fp32"
    if precision == "fp32":
        return "fp32"
    if not can:
        name = torch.cuda.get_device_name(device)
        raise ConfigurationError(f"{name} does not support bf16: give --precision fp32")
    return "bf16"


def note_slow_precision(precision: Precision, device: torch.device) -> None:
    """Log that bf16 is slower than fp32 on an x86 processor without AVX-512, which emulates it.

    Args:
        precision: The resolved precision.
        device: Device of the network.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if precision == "bf16" and device.type == "cpu" and capability in ("AVX2", "NO AVX"):
        logger.warning(
            "note: this processor has no AVX-512 and emulates bf16, which takes several times as "
            "long as fp32: unless the run is to be compared with one in bf16, give --precision fp32"
        )


def resolved_graph(
    config: ExperimentConfig, *, is_capturable: bool, device: torch.device, processes: int
) -> OnOff:
    """Return whether training steps are captured in a CUDA graph, as far as settings decide it.

    Args:
        config: Its settings ``graph``, ``method``, ``optimizer``, ``compile`` and ``resident``
            count. ``graph: auto`` is off where ``on`` would be an error, and with ``compile``,
            because the two together have not been measured.
        is_capturable: Whether the method's step can be captured.
        device: Device of the network.
        processes: Number of processes of the run.

    Raises:
        ConfigurationError: ``graph`` is ``on``, and the step cannot be captured.
    """
    if config.graph == "off":
        return "off"
    needs = [
        (device.type == "cuda", "a GPU", f"device {device.type}"),
        (processes == 1, "a single process", f"{processes} processes"),
        (is_capturable, "a method whose step can be captured", f"method {config.method}"),
        (
            config.optimizer in ("momentum", "sgd"),
            "optimizer momentum or sgd",
            f"optimizer {config.optimizer}",
        ),
        (config.resident is not False, "resident images", "resident: false"),
    ]
    missing = [(need, found) for is_met, need, found in needs if not is_met]
    if config.graph == "auto":
        return "off" if missing or config.compile else "on"
    if missing:
        need, found = missing[0]
        raise ConfigurationError(f"graph: on needs {need}, got {found}: give --graph auto")
    return "on"


def changes_said(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe which resolved values have changed; return an empty string if none has.

    Args:
        before: The values then. Names that are missing, because an earlier release did not record
            them, are skipped.
        now: The values now.
    """
    changed = [name for name in now if name in before and before[name] != now[name]]
    return ", ".join(
        f"{now[name]} {UNITS[name]} instead of {before[name]}"
        if name in UNITS
        else f"{name} {now[name]} instead of {before[name]}"
        for name in changed
    )
