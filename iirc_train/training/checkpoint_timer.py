"""When the next checkpoint within an epoch is due."""

import time

from iirc_train.config.intervals import Interval


class CheckpointTimer:
    """Counts time and steps since the last checkpoint.

    Args:
        every: The setting ``checkpoint_every``; None for no checkpoints by time or steps.
    """

    def __init__(self, every: str | None) -> None:
        self._interval = None if every is None else Interval.parse(every)
        self.saved()

    def saved(self) -> None:
        """Start again, because a checkpoint was written."""
        self._n_steps = 0
        self._since = time.monotonic()

    def step_done(self) -> None:
        """Count a training step."""
        self._n_steps += 1

    @property
    def is_due(self) -> bool:
        """Whether the interval has passed since the last checkpoint."""
        if self._interval is None:
            return False
        if self._interval.steps is not None:
            return self._n_steps >= self._interval.steps
        assert self._interval.seconds is not None
        return time.monotonic() - self._since >= self._interval.seconds
