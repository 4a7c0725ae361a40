"""The base class of methods: a method adds its loss, the growth of its head, and little else."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import nn

from iirc_data.definitions import IIRC_SETUP
from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.buffer.columns import Column
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.network import AUTO
from iirc_train.config.setup import Loss, with_setup
from iirc_train.methods.hcv import HierarchyVerified
from iirc_train.methods.optimizers import Optimized
from iirc_train.methods.stages import Stage
from iirc_train.methods.state import load_method_state, method_state
from iirc_train.methods.statistics import Axis, Statistics
from iirc_train.methods.step import Step
from iirc_train.methods.weighted_losses import WeightedLosses
from iirc_train.models.feature_maps import check_has_feature_maps
from iirc_train.models.frozen import freeze_trunk, freeze_until
from iirc_train.models.networks import make_network
from iirc_train.runtime.distributed import world_size


class BaseMethod(HierarchyVerified, WeightedLosses, Optimized, ABC):
    """A lifelong learning method.

    A method learns task after task::

        method.prepare_model_for_new_task(task_data)
        for each epoch:
            for each batch:
                predictions, loss = method.training_step(batch)
            method.consolidate_epoch_knowledge(val_metric)
        method.consolidate_task_knowledge()
        predictions = method(images)

    It may add epochs to a task; see :class:`~iirc_train.methods.stages.Staged`.

    Args:
        n_cla_per_tsk: Number of classes of each task.
        class_names_to_idx: Index of each class, in order of appearance.
        config: The method's settings, typed or a plain mapping; see
            :class:`~iirc_train.config.experiment.MethodConfig`.
        net: The network: any module that returns ``(output, latent)`` for images and whose last
            layer is ``net.model.output_layer``. By default the one that the settings name.

    Attributes:
        net: The network.
        old_net: A frozen copy of the network from before the current task, for methods that distil
            from it; None for others.
        seen_classes: Names of the classes of all tasks so far, in order of their indices.
        cur_task_id: Number of the current task; -1 before the first.
        task_of_class: The task that introduces each class, int64 (classes,).
        task_data: The samples of the current task; None if it started without.
        statistics: The tensors that :attr:`parameter_statistics` and :attr:`class_statistics`
            declare; they grow with the network and the seen classes.
        autocast_dtype: Type that the network computes in, for example ``torch.bfloat16``; None for
            the type of its parameters. Losses are computed in float32.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    """Class of the method's settings; a method with settings of its own names a subclass."""

    config: MethodConfig
    task_of_class: torch.Tensor

    losses: ClassVar[tuple[Loss, ...]] = ("bce",)
    """The losses that the method has, ``"bce"`` and ``"ce"``; the first is the default of IIRC."""

    replay_in_batches: bool = True
    """Whether replayed samples are mixed into the method's training batches."""

    capturable: ClassVar[bool] = False
    """Whether a CUDA graph may capture :meth:`training_step`. See :meth:`is_capturable`."""

    memories_only: ClassVar[bool] = False
    """Whether a task starts with the choice of its memories, and its epochs show memories only."""

    columns_of_step: Mapping[str, torch.Tensor] = MappingProxyType({})
    """The values of :meth:`memory_columns` for the samples of the last step's batch."""

    method_variables: tuple[str, ...] = ()
    """Names of attributes that checkpoints save besides modules, buffers, optimizer, scheduler."""

    trains_trunk: ClassVar[str] = ""
    """What the method does with the trunk, as a verb phrase, if it rules out a frozen one."""

    adds_prompts: ClassVar[bool] = False
    """Whether the method adds prompts to the network, so that latents change though it is frozen.

    See :func:`~iirc_train.models.prompts.attach_prompt`."""

    parameter_statistics: ClassVar[Sequence[str]] = ()
    """Names of statistics with a value per trained parameter, such as Fisher information."""

    class_statistics: ClassVar[Mapping[str, Sequence[Axis]]] = {}
    """Names of statistics with a row per class, and the axes of a row.

    See :class:`~iirc_train.methods.statistics.Statistics`."""

    learns_by_statistics: ClassVar[bool] = False
    """Whether the method learns by adding up what it is shown, without a loss. It must see each
    sample once."""

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
        name = type(self).__module__.rpartition(".")[2]
        settings = type(self).Config.from_any(config)
        self.config = with_setup(settings, IIRC_SETUP, self.losses, name)
        self.check_calibration(settings, name)
        tasks = [task for task, n in enumerate(self.n_cla_per_tsk) for _ in range(n)]
        self.register_buffer("task_of_class", torch.tensor(tasks), persistent=False)
        self.cur_task_id = -1
        self.stages_run = []
        net = self._make_network() if net is None else net
        self._freeze_parts(net, name)
        self.net = self._with_first_head(net)
        if self.compares_feature_maps:
            check_has_feature_maps(self.net, name)
        self.seen_classes: list[str] = []
        self.task_data: TaskSamples | None = None
        self.statistics = self._make_statistics()
        self.reset_optimizer_and_scheduler()

    def _make_network(self) -> nn.Module:
        return make_network(self.config, sum(self.n_cla_per_tsk))

    def _freeze_parts(self, net: nn.Module, name: str) -> None:
        """Freeze what the settings say, in place.

        Raises:
            ConfigurationError: The network has no such stage, or the method trains its trunk.
        """
        config = self.config
        if config.frozen:
            if self.trains_trunk:
                raise ConfigurationError(
                    f"frozen: method {name} {self.trains_trunk}, which a frozen trunk rules out: "
                    "choose another method, or freeze a part with frozen_until"
                )
            freeze_trunk(net)
        elif config.frozen_until is not None:
            shown = type(net).__name__ if config.network == AUTO else config.network
            freeze_until(net, config.frozen_until, shown)

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        """Return the network with the output layer for the first task."""
        return net

    def _make_statistics(self) -> Statistics:
        """Return the statistics, for a method whose settings decide which they are."""
        return Statistics(self.parameter_statistics, self.class_statistics)

    def remedy(self) -> str:
        """Return what to do if training diverges, for the error that says so."""
        return "lower the learning rate, or use precision fp32"

    @property
    def n_old_classes(self) -> int:
        """Number of classes of the tasks before the current one."""
        return sum(self.n_cla_per_tsk[: self.cur_task_id])

    @property
    def n_seen_classes(self) -> int:
        """Number of classes of the tasks up to the current one."""
        return sum(self.n_cla_per_tsk[: self.cur_task_id + 1])

    @classmethod
    def is_capturable(cls) -> bool:
        """Return whether a CUDA graph may capture the method's training step.

        A graph repeats the kernels of one step on the same memory, and runs no Python. A class that
        sets ``capturable = True`` states that, within a task, its step depends on nothing but
        images, targets, ``in_buffer``, parameters and buffers, which stay in place; that it waits
        for no result; and that it takes the same branches while :attr:`step_variant` is the same.
        Subclasses do not inherit the statement, because they may add to the step.
        """
        return bool(vars(cls).get("capturable", False))

    @property
    def step_variant(self) -> bool:
        """What the branches of a training step depend on, besides the task; by default nothing."""
        return False

    @property
    def modules_of_best(self) -> dict[str, nn.Module]:
        """The modules that ``use_best_model`` takes back to the best epoch, by name."""
        return {"net": self.net}

    def draw_sizes(self, batch_size: int) -> tuple[int, ...]:
        """Return the number of memories of each draw of a step; by default no memories are drawn.

        Args:
            batch_size: Samples per batch, over all processes.
        """
        return ()

    def images_per_pass(self, batch_size: int) -> int:
        """Return the number of images of a full training batch that pass the network together.

        Args:
            batch_size: Samples per batch, over all processes.
        """
        return batch_size

    def kept_epochs(self, task_id: int) -> range | None:
        """Return the epochs whose samples may enter a reservoir; None for all."""
        return None

    def memory_columns(self) -> tuple[Column, ...]:
        """Return what the buffer keeps for each memory beside its image; by default nothing."""
        return ()

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
        """Start a task: add its classes to the seen ones, and reset optimizer and scheduler.

        Args:
            task_data: The task's data. Without it, the next task starts.
            dist_args: Accepted for code written for the published package.
            buffer: The memories of earlier tasks.
            memory_batches: An endless iterator of memories, one batch per step, for a method whose
                ``replay_in_batches`` is False.
            batch_size: Samples per batch when the method computes latents of ``task_data``.
            num_workers: Accepted for code written for the published package.
        """
        self.train_through(None)  # a wrapper of the networks of the task before
        before = self.cur_task_id
        task_id = before + 1 if task_data is None else int(task_data.cur_task_id)
        self._discover(task_data, task_id, batch_size)
        self.label_thresholds = None
        self.cur_task_id = task_id
        n_more = self.cur_task_id + 1 - len(self.stages_run)
        self.stages_run += [[0, 0] for _ in range(n_more)]
        names = sorted(self.class_names_to_idx, key=self.class_names_to_idx.__getitem__)
        self.seen_classes = names[: self.n_seen_classes]
        self.task_data = task_data
        self._prepare_model_for_new_task(
            task_data,
            dist_args,
            buffer=buffer,
            memory_batches=memory_batches,
            batch_size=batch_size,
        )
        self.statistics.follow(self.net, self.n_seen_classes)
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
        """Prepare what the method needs for a task, such as a teacher or a wider head."""

    def resume_task(self, *, memory_batches: Iterator[Batch] | None = None) -> None:
        """Resume a task after :meth:`load_method_state_dict` restored a state from within it.

        Args:
            memory_batches: As in :meth:`prepare_model_for_new_task`, starting with the batch of the
                next step.
        """

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from one batch, without waiting for the device.

        Args:
            batch: Images and targets.

        Returns:
            Predictions, bool (N, classes seen), and the loss, a scalar, both from before the
            update.
        """
        return self._learn(self._batch_with_superclasses(batch))

    def _learn(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`training_step`."""
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
            in_buffer: bool (N,), True for replayed samples. By default no sample is.
            train: Whether to update the network.

        Returns:
            Predictions, bool (N, classes seen), and the loss, both from before the update.
        """
        if in_buffer is None:
            in_buffer = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        targets = self._with_superclasses(y.float()) if train else y.float()
        predictions, loss = self._step(x, targets, in_buffer, train=train)
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
        stage = self.stage
        with torch.set_grad_enabled(train):
            maps: Sequence[torch.Tensor] = ()
            if train and self.compares_feature_maps:
                output, latent, maps = self.forward_net_with_maps(x)
            else:
                output, latent = self.forward_net(x)
            step = Step(output[:, : self.n_seen_classes], latent, x, y, in_buffer, share, maps=maps)
            if not train:
                loss = self._validation_loss(step)
            else:
                loss = self._loss(step) if stage is None else self._stage_loss(stage, step)
        if train:
            self._update(loss, share)
        return self._predict(step.output), loss.detach()

    def _update(self, loss: torch.Tensor, share: float) -> None:
        """Update the network by the gradient of a loss; see :meth:`_backward`."""
        self.opt.zero_grad()
        self._backward(loss, share)
        self._correct_gradient()
        self.opt.step()
        self._after_update()
        self.warmup.step_done(self.opt, self.scheduler)

    @abstractmethod
    def _loss(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""

    def _stage_loss(self, stage: Stage, step: Step) -> torch.Tensor:
        """Return the loss of a batch in a stage, a scalar; by default that of the main epochs."""
        return self._loss(step)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch that the network does not learn from, a scalar."""
        return self._loss(step)

    def _correct_gradient(self) -> None:
        """Change the gradient before the optimizer uses it."""

    def _after_update(self) -> None:
        """Do what the method needs after the optimizer has updated the network."""

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
            device: Where to put the result; by default the network's device.
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
        """Do what the method needs after an epoch."""

    def consolidate_task_knowledge(
        self,
        buffer: Memories | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End a task. Call this after updating the buffer.

        Args:
            buffer: The memories, including those of the task.
            device: Where to put the result; by default the network's device.
            batch_size: Memories per batch.
        """

    # ------------------------------------------------------------------ shared parts

    def _backward(self, loss: torch.Tensor, share: float) -> None:
        """Add the gradient of a loss; with several processes, of the loss on their whole batch.

        Args:
            loss: Mean over this process's samples, a scalar.
            share: This process's share of the batch; see :class:`~iirc_data.loader.Batch`.
        """
        # DistributedDataParallel averages gradients with equal weights
        torch.autograd.backward(loss * (share * world_size()) if world_size() > 1 else loss)

    # ------------------------------------------------------------------ state

    def method_state_dict(self) -> dict[str, Any]:
        """Return the state of the method as tensors and plain values."""
        return method_state(self)

    def load_method_state_dict(self, state_dicts: dict[str, Any]) -> None:
        """Load a state from :meth:`method_state_dict`.

        Raises:
            CheckpointError: The method has already learned, or the state does not fit it.
        """
        load_method_state(self, state_dicts)
