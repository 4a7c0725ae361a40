"""GDumb: a network trained from scratch on a balanced set of memories, the sanity baseline."""

import copy
import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from iirc_data.errors import ConfigurationError
from iirc_data.label_combinations import most_specific
from iirc_data.order import epoch_order
from iirc_train.buffer import ReferenceBuffer
from iirc_train.buffer.balanced import balanced_slots
from iirc_train.buffer.samples import HasView, TaskSamples
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.config.intervals import warmup_epochs
from iirc_train.config.weights import NONE
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.optimizers import ParameterGroup
from iirc_train.methods.step import Step
from iirc_train.models.trunk import head_of

WARM_START = 0.1  # of the learning rate
_STREAM = 5  # separates these random numbers from other draws of a seed


class Buffer(ReferenceBuffer):
    """Keeps the samples that the greedy balanced sampler chooses; see :func:`balanced_slots`.

    The stream of a task is one permutation of its samples.
    """

    needs_memories = (
        "gdumb learns from memories only: set n_memories_per_class or total_n_mems above 0"
    )

    def update_buffer_new_task(
        self, new_task_data: TaskSamples, dist_args: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Choose memories from a task's samples, and commit them.

        Args:
            new_task_data: The task's data.
            dist_args: Accepted for code written for the published package.
        """
        if isinstance(new_task_data, HasView):
            view, task_id = new_task_data.view, new_task_data.cur_task_id
            order = epoch_order(len(view), seed=self.seed, epoch=task_id, shuffle=True)
            labels = view.labels[order]
            chosen = balanced_slots(
                most_specific(labels),
                self.references.classes,
                n_slots=self.n_slots,
                generator=np.random.default_rng([self.seed, task_id, _STREAM]),
            )
            slots, numbers = (np.array(list(n), np.int64) for n in (chosen, chosen.values()))
            self._put(slots, view.sample_ids[order[numbers]], labels[numbers], task_id)
            self.n_seen += len(view)
        super().update_buffer_new_task(new_task_data)


class Model(BaseMethod):
    """Trains a new network after each task, on the memories only.

    Prabhu et al., "GDumb: a simple approach that questions our progress in continual learning"
    (ECCV 2020), sections 3.2 (the sampler) and 3.3 (the learner); a method that does not beat it
    makes no use of what it learned before. Memories are chosen at the start of a task; its epochs
    show all memories, those of the task among them. The epochs of a task are the setting
    ``epochs_per_task``. After a first epoch at a tenth of the learning rate, it falls in cycles of
    1, 2, 4, … epochs along a cosine from ``lr`` to ``gdumb_min_lr``; a schedule that the settings
    give takes its place. The paper has an ``lr`` of 0.05 and batches of 16. Its CutMix and its
    early stopping are left out.

    In IIRC, the loss is the binary cross-entropy of all seen classes, and the sampler balances the
    most specific visible labels. The network of each task starts from new random weights; a network
    that is passed to the method, from its first ones. Of a frozen network, only the output layer
    starts from new weights.
    """

    class Config(MethodConfig):
        """Settings of GDumb."""

        gdumb_min_lr: Annotated[
            float,
            Field(ge=0, le=MAX_FACTOR, description="Learning rate at the end of each cosine cycle"),
        ] = 0.0005
        gdumb_warm_start: Annotated[
            bool,
            Field(description="Learn the first epoch of a task at a tenth of the learning rate"),
        ] = True

    config: Config
    losses = ("bce", "ce")
    memories_only: ClassVar[bool] = True

    _makes_networks = False

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        if self._makes_networks and not self.config.frozen:
            self._check_starts_anew()
        self._first_weights = None if self._makes_networks else copy.deepcopy(net.state_dict())
        return net

    def _check_starts_anew(self) -> None:
        given = {"frozen_until": self.config.frozen_until, "weights": self.config.weights}
        for name, value in given.items():
            if value not in (None, NONE):
                raise ConfigurationError(
                    f"{name} {value}: method gdumb starts each task from new random weights, which "
                    f"must be trained: set frozen, or leave out {name}"
                )

    def _make_network(self) -> nn.Module:
        self._makes_networks = True
        return super()._make_network()

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        if self.cur_task_id > 0:
            if self.config.frozen:
                head_of(self.net).reset_parameters()  # type: ignore[operator]
                return
            weights = self._first_weights
            self.net.load_state_dict(
                self._make_network().state_dict() if weights is None else weights
            )

    def reset_optimizer_and_scheduler(
        self,
        optimizable_parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup] | None = None,
    ) -> None:
        """Create a new optimizer, and the paper's schedule unless the settings give one."""
        super().reset_optimizer_and_scheduler(optimizable_parameters)
        config = self.config
        if config.lr_schedule or config.reduce_lr_on_plateau or config.lr_cosine:
            return
        lowest = min(config.gdumb_min_lr / config.lr, 1.0)
        by_settings = warmup_epochs(config.lr_warmup)
        warmup = by_settings or int(config.gdumb_warm_start)

        def factor(epoch: int) -> float:
            if epoch < warmup:
                return (epoch + 1) / (warmup + 1) if by_settings else WARM_START
            cosine = (1 + math.cos(math.pi * part_of_cycle(epoch - warmup))) / 2
            return lowest + (1 - lowest) * cosine

        for group in self.opt.param_groups:
            group["lr"] = group.pop("initial_lr")
        self.scheduler = LambdaLR(self.opt, factor)
        self.warmup.apply(self.opt, self.scheduler)

    def _loss(self, step: Step) -> torch.Tensor:
        return self._classification_loss(step.output, step.targets, step.in_buffer)


def part_of_cycle(epoch: int) -> float:
    """Return how far an epoch is in its cycle, in [0, 1); cycles have 1, 2, 4, … epochs.

    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts" (ICLR 2017),
    section 3, with T_0 = 1 and T_mult = 2.
    """
    length = 1 << ((epoch + 1).bit_length() - 1)
    return (epoch + 1 - length) / length
