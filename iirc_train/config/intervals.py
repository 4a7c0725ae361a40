"""Settings that are a time, a number of steps or a number of epochs: checkpoints and warm-up."""

import re
from dataclasses import dataclass
from typing import Any, Self

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_TEXT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h|steps?)\s*")


@dataclass(frozen=True)
class Interval:
    """The interval between two checkpoints; exactly one of the attributes is not None.

    Attributes:
        seconds: Time in seconds, above 0.
        steps: Number of training steps, at least 1.
    """

    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an interval, such as ``"90s"``, ``"10min"``, ``"1.5 h"`` or ``"500 steps"``.

        Raises:
            ValueError: The text is not an interval.
        """
        match = _TEXT.fullmatch(text)
        number, unit = match.groups() if match else ("0", "s")
        if unit in _SECONDS and float(number) > 0:
            return cls(seconds=float(number) * _SECONDS[unit])
        if unit not in _SECONDS and number.isdecimal() and int(number) > 0:
            return cls(steps=int(number))
        raise ValueError("give a number above 0 with a unit: 30s, 10min, 2h or 500steps")


def checked_interval(text: str) -> str:
    """Return the text of an interval without spaces.

    Raises:
        ValueError: The text is not an interval.
    """
    Interval.parse(text)
    return "".join(text.split())


MOST_EPOCHS = 10**6


def read_warmup(value: Any) -> int | str:
    """Return the setting ``lr_warmup``: a number of epochs, or steps such as ``"500steps"``.

    Raises:
        ValueError: The value is neither.
    """
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_EPOCHS:
        return value
    if isinstance(value, str) and value.strip().endswith(("step", "steps")):
        return checked_interval(value)
    raise ValueError("give a number of epochs, or of steps such as 500steps")


def warmup_epochs(value: int | str) -> int:
    """Return the number of epochs that a setting ``lr_warmup`` asks for; 0 if it asks for steps."""
    return value if isinstance(value, int) else 0


def warmup_steps(value: int | str) -> int:
    """Return the number of steps that a setting ``lr_warmup`` asks for; 0 if it asks for epochs."""
    return 0 if isinstance(value, int) else Interval.parse(value).steps or 0
