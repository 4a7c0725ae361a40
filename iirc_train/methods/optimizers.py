"""Optimizers and learning rate schedules."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.intervals import warmup_epochs, warmup_steps
from iirc_train.methods.stages import Staged
from iirc_train.methods.step_warmup import StepWarmup
from iirc_train.models.frozen import frozen_parameters

ParameterGroup = dict[str, Any]
"""``params``, a list of parameters; optionally ``lr_factor``, and options of the optimizer.

``lr_factor`` multiplies the learning rate of the run; by default it is 1. An option such as
``weight_decay`` replaces that of the run.
"""


def get_optimizer(
    model_parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup],
    optimizer_type: str = "momentum",
    lr: float = 0.01,
    lr_gamma: float = 1.0,
    lr_schedule: Sequence[int] | None = None,
    reduce_lr_on_plateau: bool = False,
    weight_decay: float = 0.0001,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    lr_cosine: bool = False,
    lr_warmup: int | str = 0,
    n_epochs: int = 1,
) -> tuple[optim.Optimizer, LRScheduler | ReduceLROnPlateau]:
    """Create an optimizer and a learning rate scheduler.

    Args:
        model_parameters: Parameters to optimize, or groups of them.
        optimizer_type: ``"momentum"`` (SGD with momentum 0.9), ``"sgd"``, ``"adam"`` or
            ``"adamw"``.
        lr: Learning rate, before decay and after warm-up.
        lr_gamma: Multiplies the learning rate at each decay.
        lr_schedule: Epochs at which the learning rate decays.
        reduce_lr_on_plateau: Decay if the validation metric (larger is better) has not risen by
            0.001 for 10 epochs, and ignore ``lr_schedule``.
        weight_decay: Weight decay.
        momentum: Momentum of ``"sgd"``.
        nesterov: Nesterov's momentum, for ``"sgd"``.
        lr_cosine: See :func:`lr_factor`.
        lr_warmup: See :func:`lr_factor`. A number of steps, such as ``"500steps"``, is for
            :class:`~iirc_train.methods.step_warmup.StepWarmup`.
        n_epochs: See :func:`lr_factor`.

    Returns:
        The optimizer, and the scheduler, to be stepped once per epoch.

    Raises:
        ConfigurationError: The optimizer type is unknown.
    """
    optimizer: optim.Optimizer
    model_parameters = [_with_learning_rate(each, lr) for each in model_parameters]
    if optimizer_type == "momentum":
        optimizer = optim.SGD(model_parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    elif optimizer_type == "sgd":
        optimizer = optim.SGD(
            model_parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov
        )
    elif optimizer_type == "adam":
        optimizer = optim.Adam(model_parameters, lr=lr, weight_decay=weight_decay)
    elif optimizer_type == "adamw":
        optimizer = optim.AdamW(model_parameters, lr=lr, weight_decay=weight_decay)
    else:
        raise ConfigurationError(
            f"unknown optimizer {optimizer_type!r}: choose momentum, sgd, adam or adamw"
        )
    if reduce_lr_on_plateau:
        return optimizer, ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=lr_gamma,
            patience=10,
            threshold=1e-3,
            threshold_mode="abs",
        )
    if lr_cosine or lr_warmup:
        milestones = sorted(lr_schedule or [])

        def factor(epoch: int) -> float:
            decayed = float(lr_gamma ** bisect_right(milestones, epoch))
            return decayed * lr_factor(epoch, n_epochs, warmup_epochs(lr_warmup), cosine=lr_cosine)

        return optimizer, LambdaLR(optimizer, lr_lambda=factor)
    if lr_schedule:
        return optimizer, MultiStepLR(optimizer, milestones=list(lr_schedule), gamma=lr_gamma)
    return optimizer, LambdaLR(optimizer, lr_lambda=lambda epoch: 1.0)


def lr_factor(epoch: int, n_epochs: int, lr_warmup: int = 0, *, cosine: bool = False) -> float:
    """Return the factor of the learning rate in an epoch of a task.

    With W epochs of warm-up, epoch e < W has (e + 1) / (W + 1). The cosine of the remaining epochs
    is that of Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts"
    (ICLR 2017), equation 5, without restarts: from 1 in epoch W to 0 after the last one.

    Args:
        epoch: The epoch of the task, from 0.
        n_epochs: Number of epochs of the task, above ``lr_warmup``.
        lr_warmup: Number of epochs of warm-up.
        cosine: Whether the factor follows half a cosine; otherwise it stays 1 after the warm-up.

    Returns:
        In [0, 1].
    """
    if epoch < lr_warmup:
        return (epoch + 1) / (lr_warmup + 1)
    if not cosine:
        return 1.0
    done = (epoch - lr_warmup) / (n_epochs - lr_warmup)
    return (1 + math.cos(math.pi * min(done, 1.0))) / 2


def without(
    parameters: Iterable[nn.Parameter], left_out: Iterable[nn.Parameter]
) -> list[nn.Parameter]:
    """Return the parameters, in their order, except those that are left out."""
    ids = {id(parameter) for parameter in left_out}
    return [parameter for parameter in parameters if id(parameter) not in ids]


def _without_frozen(
    parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup], frozen: Sequence[nn.Parameter]
) -> Iterable[nn.Parameter] | Iterable[ParameterGroup]:
    """Leave frozen parameters out of parameters, or of groups, which may become empty."""
    if not frozen:
        return parameters
    given: list[Any] = list(parameters)
    if given and isinstance(given[0], dict):
        return [{**group, "params": without(group["params"], frozen)} for group in given]
    return [{"params": without(given, frozen)}]  # the optimizer takes an empty group


def _with_learning_rate(group: nn.Parameter | ParameterGroup, lr: float) -> Any:
    if not isinstance(group, dict):
        return group
    options = {name: value for name, value in group.items() if name != "lr_factor"}
    return {"lr": lr * group.get("lr_factor", 1.0), **options}


class Optimized(Staged):
    """The optimizer and the scheduler of a method's network, in the main epochs and in a stage.

    Attributes:
        opt: The optimizer.
        scheduler: The learning rate scheduler, stepped once per epoch.
        warmup: The warm-up by steps, counted at each step.
    """

    config: MethodConfig
    opt: optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau
    warmup: StepWarmup

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters of the main epochs, in groups with their own learning rates.

        Called when a task has been prepared. The first group should have the factor 1, because
        its learning rate is the one that a run records. Tasks with the same number must give the
        same groups, because the optimizer's state is saved by group. By default, there is one
        group, and with the setting ``trunk_lr_factor`` a second one.
        """
        factor = self.config.trunk_lr_factor
        if factor == 1:
            return [{"params": list(self.net.parameters())}]
        head = list(self.net.model.output_layer.parameters())  # type: ignore[union-attr]
        return [
            {"params": head},
            {"params": without(self.net.parameters(), head), "lr_factor": factor},
        ]

    def reset_optimizer_and_scheduler(
        self,
        optimizable_parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup] | None = None,
    ) -> None:
        """Create a new optimizer and scheduler.

        Args:
            optimizable_parameters: Parameters to optimize, or groups of them; by default
                :meth:`parameter_groups`. Those of frozen parts of the network are left out.
        """
        stage = self.stage
        config = self.config if stage is None else stage.applied_to(self.config)
        n_epochs = len(config.epochs_of_task(max(self.cur_task_id, 0)))
        if optimizable_parameters is None:
            optimizable_parameters = self.parameter_groups()
        self.opt, self.scheduler = get_optimizer(
            _without_frozen(optimizable_parameters, frozen_parameters(self.net)),
            config.optimizer,
            config.lr,
            config.lr_gamma,
            config.lr_schedule,
            config.reduce_lr_on_plateau,
            config.weight_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
            lr_cosine=config.lr_cosine,
            lr_warmup=config.lr_warmup,
            n_epochs=n_epochs if stage is None else stage.epochs,
        )
        self.warmup = StepWarmup(warmup_steps(config.lr_warmup))
        self.warmup.apply(self.opt, self.scheduler)

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of the next step, of each parameter group."""
        return [float(group["lr"]) for group in self.opt.param_groups]

    def get_epoch_lr(self) -> list[float]:
        """Return the learning rate that the schedule gives to the current epoch, of each group.

        The rates of steps are lower during a warm-up by steps.
        """
        if not self.warmup.n_steps:
            return self.get_last_lr()
        return [float(lr) for lr in self.scheduler.get_last_lr()]

    def step_scheduler(self, val_metric: float | None = None) -> None:
        """Step the scheduler.

        Args:
            val_metric: The metric for ``reduce_lr_on_plateau``.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if val_metric is not None:
                self.scheduler.step(val_metric)
        else:
            self.scheduler.step()
            self.warmup.apply(self.opt, self.scheduler)
