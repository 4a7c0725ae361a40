"""What the settings of a run came to on this machine; ``auto`` leaves much of it open."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from iirc_data.errors import ConfigurationError

Precision = Literal["fp32", "bf16"]

UNITS = {"processes": "process(es)", "threads": "thread(s)"}


def resolved_precision(precision: str, device: torch.device) -> Precision:
    """Return the arithmetic that a setting asks for on a device.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        device: Where the network computes.

    Raises:
        ConfigurationError: The device cannot compute so.
    """
    on_gpu = device.type == "cuda"
    can = not on_gpu or torch.cuda.is_bf16_supported()
    if precision == "auto":
        return "bf16" if on_gpu and can else "fp32"
    if precision == "fp32":
        return "fp32"
    if not can:
        name = torch.cuda.get_device_name(device)
        raise ConfigurationError(f"{name} cannot compute in bf16: give --precision fp32")
    return "bf16"


def changes_said(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what a run goes on with that is not as it was; nothing where nothing changed.

    Args:
        before: What the settings came to; a part that was not recorded is left out.
        now: What they come to now.
    """
    changed = [name for name in now if name in before and before[name] != now[name]]
    return ", ".join(
        f"{now[name]} {UNITS[name]} instead of {before[name]}"
        if name in UNITS
        else f"{name} {now[name]} instead of {before[name]}"
        for name in changed
    )
