"""Ctrl-C, and SIGTERM: training stops where it can go on from without a loss."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch

from iirc_train.runtime.distributed import rank, total, world_size

_STANDARD_ERROR = 2
_ANSWER = b"\nstopping after this epoch, with a checkpoint; once more stops at once\n"


class StopRequest:
    """Notes that the user asked to stop; asked a second time, it stops at once.

    A context: within it Ctrl-C and SIGTERM are noted. One of each is not a second time: what
    starts runs may pass on the Ctrl-C that a terminal sent to all.

    Args:
        device: Where processes tell each other.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._signals: list[int] = []
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's
        for number in (signal.SIGINT, signal.SIGTERM):
            self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def check(self) -> bool:
        """Tell whether to stop; all processes that train together are told the same."""
        asked = bool(self._signals)
        if world_size() > 1:
            asked = bool(total(torch.tensor(float(asked), device=self._device)))
        return asked

    def stop(self) -> None:
        """End what this process does, as the signal would have.

        Raises:
            KeyboardInterrupt: Always; its argument is the signal's number.
        """
        raise KeyboardInterrupt(*self._signals[:1] or [signal.SIGTERM])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._signals:
            raise KeyboardInterrupt(number)
        self._signals.append(number)
        if rank() == 0 and len(self._signals) == 1:
            os.write(_STANDARD_ERROR, _ANSWER)  # whatever else prints may be half-way through
