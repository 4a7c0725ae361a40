"""The base class of methods that draw memories in each step, from a reservoir."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from iirc_data.loader import Batch
from iirc_train.buffer import ReservoirBuffer
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.losses import NEVER
from iirc_train.methods.step import DrawnMemories, Step

Buffer = ReservoirBuffer

ForwardPass = Annotated[
    Literal["joint", "separate"],
    Field(
        description="Whether the batch and the draws of memories pass the network together, or "
        "one after the other; batch normalisation makes them differ"
    ),
]


class ReplayConfig(MethodConfig):
    """Settings of the methods that draw memories in each step."""

    replay_batch_size: Annotated[
        Annotated[int, Field(ge=1, le=10**6)] | None,
        Field(description="Memories per draw of a step, over all processes; by default batch_size"),
    ] = None
    reservoir_stream: Annotated[
        Literal["presentations", "first_epoch"],
        Role.STATE,
        Field(
            description="What the reservoir samples from: every presentation of a sample, so that "
            "a later epoch may replace memories of the task, or those of a task's first epoch"
        ),
    ] = "presentations"
    output_classes: Annotated[
        Literal["seen", "all"],
        Field(
            description="Classes that the loss covers: those seen so far, or all outputs of the "
            "network, as in Mammoth"
        ),
    ] = "seen"
    forward_pass: ForwardPass = "joint"


class ReplayMethod(BaseMethod):
    """A method that draws memories in each step, and adds the step's samples to a reservoir.

    A subclass computes its loss from one :class:`Step`, whose rows are those of the batch
    (``step.stream``), followed by those of each draw (``step.draws[k].rows``). While the buffer is
    empty, there are no draws.
    """

    Config: ClassVar[type[MethodConfig]] = ReplayConfig
    config: ReplayConfig
    losses = ("bce", "ce")
    replay_in_batches = False

    n_draws: ClassVar[int] = 1
    """Number of independent draws in each step."""

    def draw_sizes(self, batch_size: int) -> tuple[int, ...]:
        """See :meth:`BaseMethod.draw_sizes`."""
        return (self.config.replay_batch_size or batch_size,) * self.n_draws

    def images_per_pass(self, batch_size: int) -> int:
        """See :meth:`BaseMethod.images_per_pass`."""
        is_joint = self.config.forward_pass == "joint"
        return batch_size + (sum(self.draw_sizes(batch_size)) if is_joint else 0)

    def kept_epochs(self, task_id: int) -> range | None:
        """See :meth:`BaseMethod.kept_epochs`."""
        if self.config.reservoir_stream == "presentations":
            return None
        first = self.first_epoch_of_task(task_id)
        return range(first, first + 1)

    def _learn(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`BaseMethod.training_step`. The predictions are those of the batch itself."""
        step = self._forward(batch)
        loss = self._loss(step)
        self.columns_of_step = self._columns(step)
        self._update(loss, batch.share)
        return self._predict(step.output[step.stream]), loss.detach()

    def _forward(self, batch: Batch) -> Step:
        """Return the step of a batch, with the memories drawn for it."""
        whole = batch if batch.whole is None else batch.whole
        parts = [slice(0, len(batch)), *(draw.rows for draw in batch.draws)]
        if self.config.forward_pass == "joint" or len(parts) == 1:
            output, latent = self.forward_net(whole.images)
        else:
            passes = [self.forward_net(whole.images[rows]) for rows in parts]
            output, latent = (torch.cat(tensors) for tensors in zip(*passes, strict=True))
        share = batch.share
        draws = [
            DrawnMemories(
                draw.rows,
                (draw.rows.stop - draw.rows.start) / (draw.n_total * share),
                draw.columns,
            )
            for draw in batch.draws
        ]
        n_total = len(batch) / share + sum(draw.n_total for draw in batch.draws)
        return Step(
            output[:, : self.n_seen_classes],
            latent,
            whole.images,
            whole.targets,
            whole.in_buffer,
            share,
            tuple(draws),
            all_output=output,
            scale=len(whole) / (n_total * share),
        )

    def _columns(self, step: Step) -> dict[str, torch.Tensor]:
        """Return the columns of the samples of the batch, to be kept if they become memories."""
        return {}

    def _covered(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and targets of the classes that the loss covers, (N, classes)."""
        if self.config.output_classes == "seen" or step.all_output is None:
            return step.output, step.targets
        missing = step.all_output.shape[1] - step.targets.shape[1]
        return step.all_output, F.pad(step.targets, (0, missing))

    def _loss_of_rows(
        self, step: Step, rows: slice, scale: float = 1.0, without: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the classification loss of some rows, a scalar.

        Args:
            step: The step.
            rows: The rows, such as ``step.stream``.
            scale: The scale of these rows, see :class:`DrawnMemories`.
            without: bool (classes seen,), True for classes that the loss leaves out; no row may
                show them.
        """
        logits, targets = self._covered(step)
        logits = logits[rows]
        if without is not None:
            missing = logits.shape[1] - len(without)
            logits = logits.masked_fill(F.pad(without, (0, missing)), NEVER)
        loss = self._classification_loss(logits, targets[rows], step.in_buffer[rows])
        return loss if scale == 1 else scale * loss
