"""A-GEM: to first order, no step increases the loss on memories."""

from collections.abc import Iterator
from typing import Any

import torch

from iirc_data.loader import Batch
from iirc_train.buffer import RandomBuffer
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.merged import memory_batches as endless_memory_batches
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.methods import mask_seen_classes
from iirc_train.methods.gradients import get_gradient, update_gradient

Buffer = RandomBuffer


class Model(mask_seen_classes.Model):
    """Projects the gradient if it conflicts with the gradient of a batch of memories.

    Chaudhry et al., "Efficient lifelong learning with A-GEM" (ICLR 2019), equation 11. The loss of
    the task's samples covers the task's classes, the loss of memories covers the earlier classes.
    The paper has cross-entropy over the classes of a sample's own task, which is given; with
    ``ce``, memories do not know their task.

    The setting ``memory_strength`` has no effect (unless it is 0): the projection does not depend
    on the length of the memories' gradient.
    """

    replay_in_batches = False

    _memories: Iterator[Batch] | None = None

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        buffer: Memories | None = None,
        memory_batches: Iterator[Batch] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Start a task.

        Args:
            task_data: The task's data.
            dist_args: Accepted for code written for the published package.
            buffer: Memories to draw batches from if ``memory_batches`` is None.
            memory_batches: An endless iterator of memories, one batch per step.
            batch_size: Memories per batch drawn from ``buffer``.
        """
        self._memories = memory_batches
        if self.n_old_classes == 0:
            self._memories = None
        elif self._memories is None and buffer is not None and len(buffer):
            self._memories = endless_memory_batches(
                buffer,
                self.class_names_to_idx,
                self.n_seen_classes,
                batch_size=batch_size,
                seed=self.cur_task_id,
                device=self.device,
            )

    def resume_task(self, *, memory_batches: Iterator[Batch] | None = None) -> None:
        """See :meth:`BaseMethod.resume_task`."""
        self._memories = memory_batches

    def _correct_gradient(self) -> None:
        if self._memories is None:
            return
        memories = next(self._memories)
        gradient = get_gradient(self.net)
        self.opt.zero_grad()
        output, _ = self.forward_net(memories.images)
        old = slice(self.n_old_classes)
        targets = self._with_superclasses(memories.targets)[:, old]
        loss = self._classification_loss(output[:, old], targets, memories.in_buffer)
        self._backward(loss, memories.share)
        update_gradient(self.net, project(gradient, get_gradient(self.net)))


def project(gradient: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Remove the component of a gradient that points against a reference gradient.

    Args:
        gradient: (P,).
        reference: (P,).

    Returns:
        The gradient itself if its dot product with the reference is not negative; otherwise the
        nearest vector whose dot product with the reference is 0.
    """
    product = torch.dot(gradient, reference)
    square = torch.dot(reference, reference)
    conflict = product < 0  # so the reference is not 0
    return gradient - torch.where(conflict, product / square, 0.0) * reference
