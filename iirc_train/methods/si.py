"""SI: synaptic intelligence, importance of a parameter as its share in the fall of the loss."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from iirc_train.buffer import RandomBuffer
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.methods.anchored import AnchoredMethod, gradients_of

Buffer = RandomBuffer


class Model(AnchoredMethod):
    """Integrates, along the path of training, what each parameter contributes to the loss.

    Zenke, Poole and Ganguli, "Continual learning through synaptic intelligence" (ICML 2017),
    section 3. With the gradient g of the loss without the surrogate term and the change Δθ of a
    step, each step adds -g Δθ to the path integral ω (equation 3). At the end of a task, in which
    the parameter has moved by Δ, its importance Ω grows by ω / (Δ² + ξ) (equation 5), and ω starts
    again at 0. The loss of later tasks is the task's loss plus c Σ Ω (θ - θ*)² (equation 4).

    The paper does not say what happens if ω is negative. As in the authors' program, an importance
    that would be negative is 0; otherwise, the surrogate loss has no minimum. The experiments with
    CIFAR use ξ = 0.001, permuted MNIST ξ = 0.1. The paper has an output layer per task; here, the
    loss covers all seen classes. The optimizer is reset at each task, as in the paper.
    """

    class Config(MethodConfig):
        """Settings of SI."""

        si_c: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight c of the surrogate loss")
        ] = 0.1
        si_xi: Annotated[
            float, Field(gt=0, le=MAX_FACTOR, description="Damping ξ of the importance")
        ] = 1e-3
        si_clip: Annotated[
            float,
            Field(
                ge=0,
                le=MAX_FACTOR,
                description="Clip each element of the gradient, surrogate term included, to this "
                "magnitude; 0 does not (the paper; Mammoth has 1)",
            ),
        ] = 0.0
        si_negative: Annotated[
            Literal["zero", "keep"],
            Field(
                description="Importance below 0: set to 'zero' (the authors' program), or 'keep' "
                "(Mammoth)"
            ),
        ] = "zero"

    config: Config
    capturable = True
    losses = ("bce", "ce")
    weight_setting = "si_c"
    parameter_statistics: ClassVar[Sequence[str]] = ("importance", "anchor", "path")

    _gradients: list[torch.Tensor]
    _before: list[torch.Tensor]

    @property
    def penalty_weight(self) -> float:
        """See :class:`AnchoredMethod`."""
        return self.config.si_c

    @property
    def modules_of_best(self) -> dict[str, nn.Module]:
        """The network, and the path integral that led to it."""
        return {**super().modules_of_best, "statistics": self.statistics}

    @torch.no_grad()
    def _correct_gradient(self) -> None:
        parameters = self._trained()
        # copies in one launch each: torch 2.11 has no _foreach_clone
        self._gradients = list(torch._foreach_mul(gradients_of(parameters), 1.0))
        self._before = list(torch._foreach_mul(parameters, 1.0))
        super()._correct_gradient()
        if self.config.si_clip:
            gradients = gradients_of(parameters)
            torch._foreach_clamp_min_(gradients, -self.config.si_clip)
            torch._foreach_clamp_max_(gradients, self.config.si_clip)

    @torch.no_grad()
    def _after_update(self) -> None:
        change = torch._foreach_sub(self._before, self._trained())  # -Δθ
        torch._foreach_addcmul_(self.statistics.of_parameters("path"), self._gradients, change)
        self._gradients, self._before = [], []

    @torch.no_grad()
    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: the path integral becomes importance."""
        importance, path = map(self.statistics.of_parameters, ("importance", "path"))
        moved = torch._foreach_sub(self._trained(), self.statistics.of_parameters("anchor"))
        damped = torch._foreach_add(torch._foreach_mul(moved, moved), self.config.si_xi)
        torch._foreach_addcdiv_(importance, path, damped)
        if self.config.si_negative == "zero":
            torch._foreach_clamp_min_(importance, 0.0)
        torch._foreach_zero_(path)
