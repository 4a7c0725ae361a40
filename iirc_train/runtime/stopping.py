"""Ctrl-C and SIGTERM: training stops at the end of the epoch, after writing a checkpoint."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch

from iirc_train.runtime.distributed import rank, total, world_size

_STANDARD_ERROR = 2
_ANSWER = b"\nstopping after this epoch, with a checkpoint; a second signal stops at once\n"


class StopRequest:
    """Records a request to stop; a second request stops at once.

    A context manager that handles Ctrl-C and SIGTERM inside the block. A second request must be
    the same signal as the first. After Ctrl-C, which the terminal sends to every process, a
    launcher may also send SIGTERM to its runs; that SIGTERM is not a second request.

    Args:
        device: Device of the tensor with which processes share the request.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._signals: list[int] = []
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread can handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def check(self) -> bool:
        """Return whether to stop; the result is the same in all processes of the run."""
        asked = bool(self._signals)
        if world_size() > 1:
            asked = bool(total(torch.tensor(float(asked), device=self._device)))
        return asked

    def stop(self) -> None:
        """End the training as the signal would have.

        Raises:
            KeyboardInterrupt: Always; its argument is the signal number.
        """
        raise KeyboardInterrupt(*self._signals[:1] or [signal.SIGTERM])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._signals:
            raise KeyboardInterrupt(number)
        self._signals.append(number)
        if rank() == 0 and len(self._signals) == 1:
            os.write(_STANDARD_ERROR, _ANSWER)  # not print: the signal may interrupt one
