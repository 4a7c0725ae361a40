"""Methods that hold important parameters near their values after the earlier tasks."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.statistics import trained_parameters
from iirc_train.methods.step import Step

Tensors = Sequence[torch.Tensor]


class AnchoredMethod(BaseMethod):
    """Adds a quadratic penalty to the loss from the second task on.

    The penalty is ``penalty_weight`` Σ Ω (θ - θ*)², with two statistics: ``importance``, Ω, and
    ``anchor``, the parameters θ* at the start of the task, which are those at the end of the one
    before. The loss that a step returns contains the penalty. Its gradient is added in
    :meth:`_correct_gradient`, for all parameters at once, which is faster than differentiating it;
    until then, gradients are those of the loss without the penalty.

    Parameters whose importance is 0, such as new rows of an output layer, are free.

    SGD diverges where the learning rate times the second derivative of the loss is above
    2 (1 + momentum). That of the penalty, 2 ``penalty_weight`` Ω, grows from task to task, so a
    weight that served few tasks may be too large for more.
    """

    parameter_statistics: ClassVar[Sequence[str]] = ("importance", "anchor")

    weight_setting: ClassVar[str]
    """The setting to which the weight of the penalty is proportional."""

    _pull: list[torch.Tensor]

    @property
    @abstractmethod
    def penalty_weight(self) -> float:
        """Weight of the penalty."""

    def remedy(self) -> str:
        """See :meth:`BaseMethod.remedy`; says by how much the penalty is too strong."""
        if not self.n_old_classes or self.config.optimizer not in ("momentum", "sgd"):
            return super().remedy()
        importance = self.statistics.of_parameters("importance")
        steepest = 2 * self.penalty_weight * max(float(each.max()) for each in importance)
        excess = max(self.get_epoch_lr()) * steepest / (2 * (1 + self.config.momentum))
        if not excess > 1:  # also if it is nan
            return super().remedy()
        largest = getattr(self.config, self.weight_setting) / excess
        return (
            f"the penalty is too strong for this learning rate: {self.weight_setting} has to be "
            f"below {largest:.2g} in this task, and lower in later ones"
        )

    def prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`BaseMethod.prepare_model_for_new_task`; anchors the present parameters."""
        super().prepare_model_for_new_task(*args, **kwargs)
        with torch.no_grad():
            torch._foreach_copy_(self.statistics.of_parameters("anchor"), self._trained())

    def _task_loss(self, step: Step) -> torch.Tensor:
        """Return the loss without the penalty, a scalar."""
        return self._classification_loss(step.output, step.targets, step.in_buffer)

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._task_loss(step)
        if not self.n_old_classes:
            return loss
        importance, anchors = map(self.statistics.of_parameters, ("importance", "anchor"))
        penalty, self._pull = quadratic_penalty(self._trained(), anchors, importance)
        return loss + self.penalty_weight * penalty

    def _validation_loss(self, step: Step) -> torch.Tensor:
        return self._task_loss(step)

    def _correct_gradient(self) -> None:
        if self.n_old_classes:
            gradients = gradients_of(self._trained())
            torch._foreach_add_(gradients, self._pull, alpha=2 * self.penalty_weight)
            self._pull = []

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for _, parameter in trained_parameters(self.net)]


@torch.no_grad()
def quadratic_penalty(
    parameters: Tensors, anchors: Tensors, importance: Tensors
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return a quadratic penalty of the distance of parameters from their anchors.

    Args:
        parameters: The parameters θ.
        anchors: Their anchors θ*, with the same shapes.
        importance: Their importance Ω, with the same shapes.

    Returns:
        Σ Ω (θ - θ*)², a scalar, and half of its gradient, Ω (θ - θ*).
    """
    distance = torch._foreach_sub(list(parameters), list(anchors))
    pull = torch._foreach_mul(distance, list(importance))
    terms = torch._foreach_mul(distance, pull)
    negative = torch._foreach_clamp_max(terms, 0.0)
    # there is no sum of many tensors at once, but a sum of magnitudes
    magnitudes, of_negative = (torch._foreach_norm(each, 1) for each in (terms, negative))
    return torch.stack(magnitudes).sum() - 2 * torch.stack(of_negative).sum(), list(pull)


def gradients_of(parameters: Tensors) -> list[torch.Tensor]:
    """Return the gradients of parameters; a missing gradient becomes 0."""
    gradients: list[torch.Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    return gradients
