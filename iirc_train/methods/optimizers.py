"""Optimizers and learning rate schedules."""

from collections.abc import Iterable, Sequence

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from iirc_data.errors import ConfigurationError
from iirc_train.config.experiment import MethodConfig


def get_optimizer(
    model_parameters: Iterable[nn.Parameter],
    optimizer_type: str = "momentum",
    lr: float = 0.01,
    lr_gamma: float = 1.0,
    lr_schedule: Sequence[int] | None = None,
    reduce_lr_on_plateau: bool = False,
    weight_decay: float = 0.0001,
) -> tuple[optim.Optimizer, LRScheduler | ReduceLROnPlateau]:
    """Create an optimizer and a learning rate scheduler.

    Args:
        model_parameters: Parameters to optimize.
        optimizer_type: ``"momentum"`` (SGD with momentum 0.9) or ``"adam"``.
        lr: Initial learning rate.
        lr_gamma: Multiplies the learning rate at each decay.
        lr_schedule: Epochs at which the learning rate decays.
        reduce_lr_on_plateau: Decay if the validation metric (larger is better) has not risen by
            0.001 for 10 epochs, and ignore ``lr_schedule``.
        weight_decay: Weight decay.

    Returns:
        The optimizer, and the scheduler, to be stepped once per epoch.

    Raises:
        ConfigurationError: The optimizer type is unknown.
    """
    optimizer: optim.Optimizer
    if optimizer_type == "momentum":
        optimizer = optim.SGD(model_parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    elif optimizer_type == "adam":
        optimizer = optim.Adam(model_parameters, lr=lr, weight_decay=weight_decay)
    else:
        raise ConfigurationError(f"unknown optimizer {optimizer_type!r}: choose momentum or adam")
    if reduce_lr_on_plateau:
        return optimizer, ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=lr_gamma,
            patience=10,
            threshold=1e-3,
            threshold_mode="abs",
        )
    if lr_schedule:
        return optimizer, MultiStepLR(optimizer, milestones=list(lr_schedule), gamma=lr_gamma)
    return optimizer, LambdaLR(optimizer, lr_lambda=lambda epoch: 1.0)


class Optimized:
    """The optimizer and the scheduler of a method's network.

    Attributes:
        opt: The optimizer.
        scheduler: The learning rate scheduler, stepped once per epoch.
    """

    config: MethodConfig
    net: nn.Module
    opt: optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau

    def reset_optimizer_and_scheduler(
        self, optimizable_parameters: Iterable[nn.Parameter] | None = None
    ) -> None:
        """Create a new optimizer and scheduler.

        Args:
            optimizable_parameters: Parameters to optimize; by default all parameters of the
                network.
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

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.opt.param_groups]

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
