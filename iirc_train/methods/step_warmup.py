"""A warm-up of the learning rate by training steps."""

from torch import optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class StepWarmup:
    """Multiplies the learning rates of the first steps of a task by a factor that rises linearly.

    With W steps of warm-up, step k < W has the factor (k + 1) / (W + 1), as an epoch of a warm-up
    by epochs does. An epoch's own learning rate remains that of the scheduler.

    Args:
        n_steps: Number of steps W; 0 changes nothing.

    Attributes:
        n_steps: Number of steps.
        n_done: Number of steps already trained, at most ``n_steps``.
    """

    def __init__(self, n_steps: int = 0) -> None:
        self.n_steps = n_steps
        self.n_done = 0

    @property
    def factor(self) -> float:
        """Factor of the next step's learning rates, in (0, 1]."""
        return (self.n_done + 1) / (self.n_steps + 1)

    def apply(self, optimizer: optim.Optimizer, scheduler: LRScheduler | ReduceLROnPlateau) -> None:
        """Set the learning rates of the next step, from those that the scheduler set."""
        if self.n_done < self.n_steps:
            self._set(optimizer, scheduler)

    def step_done(
        self, optimizer: optim.Optimizer, scheduler: LRScheduler | ReduceLROnPlateau
    ) -> None:
        """Count a training step, and set the learning rates of the next one.

        After the warm-up, this does nothing, so a CUDA graph may contain the step. During it, the
        learning rate changes at every step, so no step is captured.
        """
        if self.n_done >= self.n_steps:
            return
        self.n_done += 1
        self._set(optimizer, scheduler)

    def _set(self, optimizer: optim.Optimizer, scheduler: LRScheduler | ReduceLROnPlateau) -> None:
        for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = lr * self.factor
