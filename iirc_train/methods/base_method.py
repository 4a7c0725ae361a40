"""What all methods share; a method adds its loss, its head growth, and little else."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from iirc_data.loader import Batch
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.state import load_method_state, method_state
from iirc_train.methods.step import Step
from iirc_train.models import ResNet, ResNetCIFAR
from iirc_train.models.inference import Forward, in_parts, without_batch_norms
from iirc_train.runtime.distributed import total, world_size
from iirc_train.utils import get_optimizer


class BaseMethod(nn.Module, ABC):
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
            last layer at ``net.model.output_layer``. By default a ResNet for the dataset.

    Attributes:
        net: The network.
        old_net: The network as it was before the current task, for methods that distil from it.
        seen_classes: Names of the classes of the tasks so far, in order of their indices.
        cur_task_id: Number of the current task; -1 before the first.
        autocast_dtype: What the network computes in, ``torch.bfloat16`` for example; None for the
            type of its parameters. Losses are computed in float32.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    """Class of the method's settings; a method with settings of its own names a subclass."""

    config: MethodConfig

    replay_in_batches: bool = True
    """Whether replayed samples are mixed into the method's training batches."""

    method_variables: tuple[str, ...] = ()
    """Names of attributes that checkpoints keep besides modules, buffers, optimizer, scheduler."""

    _wrapper: nn.Module | None

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
        self.config = type(self).Config.from_any(config)
        self.net = self._with_first_head(self._make_network() if net is None else net)
        self.old_net: nn.Module | None
        self.register_module("old_net", None)
        self.seen_classes: list[str] = []
        self.cur_task_id = -1
        self.autocast_dtype: torch.dtype | None = None
        self._share = 1.0
        self._infer: Forward | None = None
        self.train_through(None)
        self.opt: optim.Optimizer
        self.scheduler: LRScheduler | ReduceLROnPlateau
        self.reset_optimizer_and_scheduler()

    def _make_network(self) -> nn.Module:
        n_classes = sum(self.n_cla_per_tsk)
        network = ResNet if "imagenet" in self.config.dataset else ResNetCIFAR
        return network(num_classes=n_classes, num_layers=self.config.n_layers)

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        """Return the network with the output layer that the first task needs."""
        return net

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.net.parameters()).device

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
        self, task_data: Any = None, dist_args: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Begin a task: its classes count as seen, optimizer and scheduler start anew.

        Args:
            task_data: The task's data; by default the task after the last one begins.
            dist_args: Accepted for code written for the published package.
            **kwargs: What ``_prepare_model_for_new_task`` needs.
        """
        before = self.cur_task_id
        self.cur_task_id = before + 1 if task_data is None else int(task_data.cur_task_id)
        names = sorted(self.class_names_to_idx, key=self.class_names_to_idx.__getitem__)
        self.seen_classes = names[: self.n_seen_classes]
        self._prepare_model_for_new_task(task_data, dist_args, **kwargs)
        self.reset_optimizer_and_scheduler()

    def _prepare_model_for_new_task(
        self, task_data: Any = None, dist_args: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Do what the method needs at the start of a task."""

    def resume_task(self, **kwargs: Any) -> None:
        """Go on with a task that was begun before the method's state was saved and loaded.

        Args:
            **kwargs: What ``_prepare_model_for_new_task`` was given and no state holds.
        """

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from one batch; never waits for the device.

        Args:
            batch: Images and targets.

        Returns:
            Predictions, bool (N, classes seen), and the loss, a scalar; both of the network
            before the update.
        """
        self._share = batch.share
        return self._step(batch.images, batch.targets, batch.in_buffer, train=True)

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
        self._share = 1.0
        predictions, loss = self._step(x, y.float(), in_buffer, train=train)
        return predictions, float(loss)

    def _step(
        self, x: torch.Tensor, y: torch.Tensor, in_buffer: torch.Tensor, *, train: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.set_grad_enabled(train):
            output, latent = self.forward_net(x)
            step = Step(output[:, : self.n_seen_classes], latent, x, y, in_buffer)
            loss = self._loss(step) if train else self._validation_loss(step)
        if train:
            self.opt.zero_grad()
            self._backward(loss, self._share)
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

    def consolidate_epoch_knowledge(self, val_metric: float | None = None, **kwargs: Any) -> None:
        """End an epoch: the scheduler takes a step.

        Args:
            val_metric: In-task validation pw-JS, for ``reduce_lr_on_plateau``.
            **kwargs: What ``_consolidate_epoch_knowledge`` needs.
        """
        self.step_scheduler(val_metric)
        self._consolidate_epoch_knowledge(val_metric, **kwargs)

    def _consolidate_epoch_knowledge(self, val_metric: float | None = None, **kwargs: Any) -> None:
        """Do what the method needs at the end of an epoch."""

    def consolidate_task_knowledge(self, **kwargs: Any) -> None:
        """End a task, after the buffer was updated."""

    # ------------------------------------------------------------------ inference

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            bool (N, classes seen).
        """
        output, _ = self.forward_net(x)
        return self._predict(output[:, : self.n_seen_classes])

    def _predict(self, output: torch.Tensor) -> torch.Tensor:
        return output > 0.0

    def forward_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's output (N, classes) and latent (N, D) for images."""
        if self._infer is not None:
            return self._infer(x)
        return self._run(self._trained_net if torch.is_grad_enabled() else self.net, x)

    def forward_old_net(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teacher's output and latent, without a gradient; see :meth:`forward_net`."""
        assert self.old_net is not None
        with torch.no_grad():
            return self._run(self.old_net, x)

    def _run(self, net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.autocast_dtype is None:
            output, latent = net(x)
            return output, latent
        with torch.autocast(x.device.type, self.autocast_dtype):
            output, latent = net(x)
        return output.float(), latent.float()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Make :meth:`forward_net` faster, up to rounding, while the network stays as it is.

        Within, the method is in evaluation mode and no gradients are kept. Prepared once where one
        such context is within another.
        """
        if self._infer is not None:
            yield
            return
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                net = without_batch_norms(self.net)
                forward = partial(self._run, net)
                with nullcontext(forward) if net is self.net else in_parts(forward) as self._infer:
                    yield
        finally:
            self._infer = None
            self.train(was_training)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute in the type of the parameters: what is kept is not rounded to another type."""
        before, self.autocast_dtype = self.autocast_dtype, None
        try:
            yield
        finally:
            self.autocast_dtype = before

    def train_through(self, wrapper: nn.Module | None) -> None:
        """Let training steps call the network through a wrapper of it.

        Args:
            wrapper: ``DistributedDataParallel`` of ``net``, for example; None for the network
                itself. Whoever wraps does so again after :meth:`prepare_model_for_new_task`.
        """
        object.__setattr__(self, "_wrapper", wrapper)  # the network is no part twice

    @property
    def _trained_net(self) -> nn.Module:
        return self.net if self._wrapper is None else self._wrapper

    # ------------------------------------------------------------------ shared parts

    def _backward(self, loss: torch.Tensor, share: float) -> None:
        """Add a loss's gradient; with several processes, that of the batch that they share.

        Args:
            loss: Mean over this process's samples, a scalar.
            share: Part of the batch that these are; see :class:`~iirc_data.loader.Batch`.
        """
        # the processes' gradients are averaged as if their parts were equal
        torch.autograd.backward(loss * (share * world_size()) if world_size() > 1 else loss)

    def _divisor(self, count: torch.Tensor) -> torch.Tensor:
        """Return by what to divide a sum over a number of things to get their mean loss.

        With several processes the mean is over those of all of them.

        Args:
            count: Number of things in this process's part of the batch, a scalar.
        """
        return (total(count) * self._share).clamp(min=self._share)

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

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.old_net is not None:
            self.old_net.eval()
        return self

    # ------------------------------------------------------------------ optimizer

    def reset_optimizer_and_scheduler(
        self, optimizable_parameters: Iterable[nn.Parameter] | None = None
    ) -> None:
        """Make optimizer and scheduler anew.

        Args:
            optimizable_parameters: Parameters to optimize; by default all of the network's.
        """
        config = self.config
        self.opt, self.scheduler = get_optimizer(
            self.net.parameters() if optimizable_parameters is None else optimizable_parameters,
            config.optimizer,
            config.lr,
            config.lr_gamma,
            config.lr_schedule,
            config.reduce_lr_on_plateau,
            config.weight_decay,
        )

    def method_state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values and tensors."""
        return method_state(self)

    def load_method_state_dict(self, state_dicts: dict[str, Any]) -> None:
        """Take over a state of :meth:`method_state_dict`.

        Raises:
            CheckpointError: The method has learned already, or the state is another method's.
        """
        load_method_state(self, state_dicts)

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.opt.param_groups]

    def step_scheduler(self, val_metric: float | None = None) -> None:
        """Take a step with the scheduler.

        Args:
            val_metric: The metric that ``reduce_lr_on_plateau`` watches.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if val_metric is not None:
                self.scheduler.step(val_metric)
        else:
            self.scheduler.step()
