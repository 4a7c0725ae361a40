"""What all methods share; a method adds its loss, its head growth, and little else."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import nn

from iirc_data.loader import Batch
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.optimizers import Optimized
from iirc_train.methods.prediction import Predictor
from iirc_train.methods.state import load_method_state, method_state
from iirc_train.methods.step import Step
from iirc_train.models.networks import make_network
from iirc_train.runtime.distributed import world_size


class BaseMethod(Predictor, Optimized, ABC):
    """A lifelong learning method.

    A method learns task after task::

        method.prepare_model_for_new_task(task_data)
        for each epoch:
            for each batch:
                predictions, loss = method.training_step(batch)
            method.consolidate_epoch_knowledge(val_metric)
        method.consolidate_task_knowledge()
        predictions = method(images)

    Args:
        n_cla_per_tsk: Number of classes of each task.
        class_names_to_idx: Index of each class, in order of appearance.
        config: The method's settings, typed or a plain mapping; see
            :class:`~iirc_train.config.experiment.MethodConfig`.
        net: The network: any module that returns ``(output, latent)`` for images and has its
            last layer at ``net.model.output_layer``. By default the one that the settings name.

    Attributes:
        net: The network.
        old_net: The network as it was before the current task, for methods that distil from it.
        seen_classes: Names of the classes of the tasks so far, in order of their indices.
        cur_task_id: Number of the current task; -1 before the first.
        autocast_dtype: What the network computes in, ``torch.bfloat16`` for example; None for the
            type of its parameters. Losses are computed in float32.
    """

    replay_in_batches: bool = True
    """Whether replayed samples are mixed into the method's training batches."""

    method_variables: tuple[str, ...] = ()
    """Names of attributes that checkpoints keep besides modules, buffers, optimizer, scheduler."""

    def __init__(
        self,
        n_cla_per_tsk: Sequence[int],
        class_names_to_idx: Mapping[str, int],
        config: Mapping[str, Any] | BaseModel,
        net: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.n_cla_per_tsk = [int(n) for n in n_cla_per_tsk]
        self.class_names_to_idx = dict(class_names_to_idx)
        self.config = MethodConfig.from_any(config)
        self.net = self._with_first_head(self._make_network() if net is None else net)
        self.seen_classes: list[str] = []
        self.cur_task_id = -1
        self.reset_optimizer_and_scheduler()

    def _make_network(self) -> nn.Module:
        return make_network(self.config, sum(self.n_cla_per_tsk))

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        """Return the network with the output layer that the first task needs."""
        return net

    @property
    def n_old_classes(self) -> int:
        """Number of classes of the tasks before the current one."""
        return sum(self.n_cla_per_tsk[: self.cur_task_id])

    @property
    def n_seen_classes(self) -> int:
        """Number of classes of the tasks up to the current one."""
        return sum(self.n_cla_per_tsk[: self.cur_task_id + 1])

    # ------------------------------------------------------------------ the life of a task

    def prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        buffer: Memories | None = None,
        memory_batches: Iterator[Batch] | None = None,
        batch_size: int = BATCH_SIZE,
        num_workers: int = 0,
    ) -> None:
        """Begin a task: its classes count as seen, optimizer and scheduler start anew.

        Args:
            task_data: The task's data; by default the task after the last one begins.
            dist_args: Accepted for code written for the published package.
            buffer: The memories of earlier tasks.
            memory_batches: An endless iterator of memories, one batch per step, for a method that
                does not replay in batches.
            batch_size: Samples per batch for what the method computes from ``task_data``.
            num_workers: Accepted for code written for the published package.
        """
        before = self.cur_task_id
        self.cur_task_id = before + 1 if task_data is None else int(task_data.cur_task_id)
        names = sorted(self.class_names_to_idx, key=self.class_names_to_idx.__getitem__)
        self.seen_classes = names[: self.n_seen_classes]
        self._prepare_model_for_new_task(
            task_data,
            dist_args,
            buffer=buffer,
            memory_batches=memory_batches,
            batch_size=batch_size,
        )
        self.reset_optimizer_and_scheduler()

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        buffer: Memories | None = None,
        memory_batches: Iterator[Batch] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Do what the method needs at the start of a task."""

    def resume_task(self, *, memory_batches: Iterator[Batch] | None = None) -> None:
        """Go on with a task that was begun before the method's state was saved and loaded.

        Args:
            memory_batches: As for :meth:`prepare_model_for_new_task`, from the batch of the next
                step on.
        """

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from one batch; never waits for the device.

        Args:
            batch: Images and targets.

        Returns:
            Predictions, bool (N, classes seen), and the loss, a scalar; both of the network
            before the update.
        """
        return self._step(batch.images, batch.targets, batch.in_buffer, batch.share, train=True)

    def observe(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        in_buffer: torch.Tensor | None = None,
        train: bool = True,
    ) -> tuple[torch.Tensor, float]:
        """Learn from one batch, or only compute its loss.

        Args:
            x: Images (N, 3, H, W).
            y: Indicator targets (N, classes seen).
            in_buffer: bool (N,), which samples were replayed; by default none.
            train: Update the network.

        Returns:
            Predictions, bool (N, classes seen), and the loss; both of the network before the
            update.
        """
        if in_buffer is None:
            in_buffer = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        predictions, loss = self._step(x, y.float(), in_buffer, train=train)
        return predictions, float(loss)

    def _step(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        in_buffer: torch.Tensor,
        share: float = 1.0,
        *,
        train: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.set_grad_enabled(train):
            output, latent = self.forward_net(x)
            step = Step(output[:, : self.n_seen_classes], latent, x, y, in_buffer, share)
            loss = self._loss(step) if train else self._validation_loss(step)
        if train:
            self.opt.zero_grad()
            self._backward(loss, share)
            self._correct_gradient()
            self.opt.step()
        return self._predict(step.output), loss.detach()

    @abstractmethod
    def _loss(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""

    def _validation_loss(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch that is not learned from, a scalar."""
        return self._loss(step)

    def _correct_gradient(self) -> None:
        """Change the gradient of a step before the optimizer uses it."""

    def consolidate_epoch_knowledge(
        self,
        val_metric: float | None = None,
        *,
        task_data: TaskSamples | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End an epoch: the scheduler takes a step.

        Args:
            val_metric: In-task validation pw-JS, for ``reduce_lr_on_plateau``.
            task_data: The task's data, for a method that computes something from it.
            device: Where what is computed is wanted; by default with the network.
            batch_size: Samples per batch.
        """
        self.step_scheduler(val_metric)
        self._consolidate_epoch_knowledge(
            val_metric, task_data=task_data, device=device, batch_size=batch_size
        )

    def _consolidate_epoch_knowledge(
        self,
        val_metric: float | None = None,
        *,
        task_data: TaskSamples | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Do what the method needs at the end of an epoch."""

    def consolidate_task_knowledge(
        self,
        buffer: Memories | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End a task, after the buffer was updated.

        Args:
            buffer: The memories, those of the task included.
            device: Where what is computed from them is wanted; by default with the network.
            batch_size: Memories per batch.
        """

    # ------------------------------------------------------------------ shared parts

    def _backward(self, loss: torch.Tensor, share: float) -> None:
        """Add a loss's gradient; with several processes, that of the batch that they share.

        Args:
            loss: Mean over this process's samples, a scalar.
            share: Part of the batch that these are; see :class:`~iirc_data.loader.Batch`.
        """
        # the processes' gradients are averaged as if their parts were equal
        torch.autograd.backward(loss * (share * world_size()) if world_size() > 1 else loss)

    def _sample_weight(self, in_buffer: torch.Tensor) -> torch.Tensor:
        """Return each sample's weight in the loss, (N,): ``memory_strength`` where replayed."""
        return torch.where(in_buffer, self.config.memory_strength, 1.0)

    def _bce(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        in_buffer: torch.Tensor,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """Return binary cross-entropy, replayed samples weighted.

        Args:
            logits: (N, classes).
            targets: In [0, 1], (N, classes).
            in_buffer: bool (N,), which samples count ``memory_strength`` times.
            temperature: Logits are divided by this; by default the configuration's.

        Returns:
            Mean over samples and classes.
        """
        logits = logits / (self.config.temperature if temperature is None else temperature)
        weight = self._sample_weight(in_buffer).unsqueeze(1)
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weight)

    # ------------------------------------------------------------------ state

    def method_state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values and tensors."""
        return method_state(self)

    def load_method_state_dict(self, state_dicts: dict[str, Any]) -> None:
        """Take over a state of :meth:`method_state_dict`.

        Raises:
            CheckpointError: The method has learned already, or the state is another method's.
        """
        load_method_state(self, state_dicts)
