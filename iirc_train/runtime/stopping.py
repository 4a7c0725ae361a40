"""Ctrl-C and SIGTERM: training stops after the current step and writes a checkpoint."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch

from iirc_train.runtime.distributed import any_process, rank

_STANDARD_ERROR = 2
_ANSWER = b"\nstopping soon, with a checkpoint; a second signal stops at once\n"


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

    @property
    def is_asked(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self._signals)

    def check(self) -> bool:
        """Return whether to stop; the result is the same in all processes of the run."""
        return any_process([self.is_asked], self._device)[0]

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
