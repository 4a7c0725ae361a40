"""An epoch of training, which may stop after a step and resume there."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from iirc_data.errors import CheckpointError, TrainingError
from iirc_data.loader import Batch, Loader
from iirc_train.methods.base_method import BaseMethod
from iirc_train.metrics import Outputs, Tally
from iirc_train.runtime.distributed import (
    broadcast_buffers,
    gathered,
    parts_of_all,
    rank,
    total,
    world_size,
)
from iirc_train.runtime.progress import RunProgress
from iirc_train.runtime.waiting import Waiting
from iirc_train.training.components import Experiment

SECTION = 50
"""Steps between two points of an epoch at which several processes may stop or write a checkpoint.

There they agree on it, which takes a message, and average their gradients with a new
DistributedDataParallel, as a resumed run does; so the bits do not depend on where a run stopped."""

TALLIED_AT_ONCE = 2048  # samples


class PartialEpoch:
    """What an epoch has yielded so far: losses, and the counts that its metrics need.

    Args:
        method: The method.
        n_samples: Number of samples of the epoch, over all processes.
        batch_size: Samples per batch, over all processes.

    Attributes:
        n_steps: Number of steps trained.
    """

    def __init__(self, method: BaseMethod, n_samples: int, batch_size: int) -> None:
        self.n_steps = 0
        self._device = method.device
        self._n_samples = n_samples
        self._batch_size = batch_size
        self._losses: list[torch.Tensor] = []
        self._sizes: list[int] = []
        self._loaded = torch.zeros(0, device=self._device), torch.zeros(0, dtype=torch.int64)
        self._tally = Tally(
            method.n_seen_classes, method.device, with_scores=False, samples_at_once=TALLIED_AT_ONCE
        )

    @property
    def n_samples_done(self) -> int:
        """Number of samples trained on, in the order of the epoch, over all processes."""
        return min(self.n_steps * self._batch_size, self._n_samples)

    @property
    def can_stop(self) -> bool:
        """Whether training can stop here and resume with any number of processes.

        The rest of the epoch must be a full batch at least, because a remainder that is smaller
        than the number of processes belongs to the batch before it.
        """
        is_meeting_point = world_size() == 1 or self.n_steps % SECTION == 0
        return is_meeting_point and self._n_samples - self.n_samples_done >= self._batch_size

    def add(self, batch: Batch, predicted: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a step, without waiting for the device."""
        self.n_steps += 1
        self._losses.append(loss)
        self._sizes.append(len(batch))
        self._tally.add(Outputs(predicted, batch.targets))

    def values(self) -> dict[str, float]:
        """Return the mean loss and the metrics, over all processes.

        Raises:
            TrainingError: The loss of a step is NaN or infinite; the message names the first such
                step.
        """
        loss = self._total_loss(*self._losses_and_sizes()) / self._n_samples
        return {"loss": loss, **self._tally.kept(gathered).values()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values and tensors; all processes must call this.

        Each value is a list with the part of each process, because sums in another order differ in
        the last bits.

        Raises:
            TrainingError: See :meth:`values`.
        """
        losses, sizes = self._losses_and_sizes()
        self._total_loss(losses, sizes)
        return {
            "losses": _copies(losses),
            "sizes": _copies(sizes.to(self._device)),
            "rows": {name: _copies(rows) for name, rows in self._tally.rows().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], n_samples_done: int) -> None:
        """Load a state into a new object.

        A process takes its own part. If the number of processes has changed, the first one takes
        everything.

        Args:
            state: A state from :meth:`state_dict`.
            n_samples_done: Number of samples trained on.

        Raises:
            CheckpointError: The state was saved with other metrics.
        """
        self.n_steps = n_samples_done // self._batch_size
        losses, sizes = _own(state["losses"]), _own(state["sizes"])
        self._loaded = losses.to(self._device), sizes.cpu()
        try:
            self._tally.add_rows({name: _own(parts) for name, parts in state["rows"].items()})
        except ValueError as error:
            raise CheckpointError(
                f"the run stopped within an epoch, with other metrics ({error}): resume it with "
                "the same rows in iirc_train.metrics.METRICS"
            ) from error

    def _losses_and_sizes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loss and number of samples of this process's steps, each (steps,)."""
        losses, sizes = self._loaded
        if self._losses:
            losses = torch.cat((losses.to(self._losses[0].dtype), torch.stack(self._losses)))
        return losses, torch.cat((sizes, torch.tensor(self._sizes, dtype=torch.int64)))

    def _total_loss(self, losses: torch.Tensor, sizes: torch.Tensor) -> float:
        of_steps = losses * sizes.to(self._device)
        loss = float(total(of_steps.sum()))
        if not math.isfinite(loss):
            wrong = (~of_steps.isfinite()).nonzero().flatten().tolist()
            n_before = self.n_steps - len(self._losses) - len(self._loaded[0])
            step = f"step {n_before + wrong[0]} of {self.n_steps}" if wrong else "another process"
            raise TrainingError(f"the loss is {loss / max(self.n_samples_done, 1)} from {step} on")
        return loss


def train_epoch(
    experiment: Experiment,
    loader: Loader,
    progress: RunProgress,
    waiting: Waiting | None = None,
    *,
    epoch: PartialEpoch | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Train on the batches of a loader.

    Args:
        experiment: Method and network.
        loader: The batches of an epoch that are left.
        progress: Shows each batch.
        waiting: Measures how long the network waits for batches; None does not measure it.
        epoch: What the epoch has yielded before; by default nothing. Each step is added to it.
        after_step: Called after each step.

    Returns:
        Mean loss, and metrics of the predictions made before each step, over the whole epoch.

    Raises:
        TrainingError: The loss of a step is NaN or infinite; the message names the first such step.
    """
    method = experiment.method
    method.train()
    if epoch is None:
        epoch = PartialEpoch(method, loader.n_samples, experiment.config.batch_size)
    training_step = experiment.training_step(loader)
    has_averaging = False
    for batch in loader if waiting is None else waiting.each(loader):
        if not has_averaging or epoch.n_steps % SECTION == 0:
            experiment.average_gradients(is_equal=has_averaging)
            has_averaging = True
        epoch.add(batch, *training_step(batch))
        progress.batch_done()
        after_step()
    broadcast_buffers(method.net)
    return epoch.values()


def _own(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return this process's part of a state; see :meth:`PartialEpoch.load_state_dict`."""
    if len(parts) == world_size():
        return parts[rank()]
    return torch.cat(parts) if rank() == 0 else parts[0][:0]


def _copies(rows: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows of each process; a checkpoint stores everything that a view is a part of."""
    return [part.clone() for part in parts_of_all(rows)]
