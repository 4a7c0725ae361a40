"""The values that settings such as ``auto`` resolve to on this machine."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from iirc_data.errors import ConfigurationError

Precision = Literal["fp32", "bf16"]

UNITS = {"processes": "process(es)", "threads": "thread(s)"}


def resolved_precision(precision: str, device: torch.device) -> Precision:
    """Return the precision that a setting resolves to on a device.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        device: Device of the network.

    Raises:
        ConfigurationError: The device does not support the precision.
    """
    on_gpu = device.type == "cuda"
    can = not on_gpu or torch.cuda.is_bf16_supported()
    if precision == "auto":
        return "bf16" if on_gpu and can else "fp32"
    if precision == "fp32":
        return "fp32"
    if not can:
        name = torch.cuda.get_device_name(device)
        raise ConfigurationError(f"{name} does not support bf16: give --precision fp32")
    return "bf16"


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
