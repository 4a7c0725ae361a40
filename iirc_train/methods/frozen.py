"""Methods that learn on the latents of a frozen network."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from iirc_train.config.experiment import MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.optimizers import ParameterGroup


class FrozenConfig(MethodConfig):
    """Settings of a method whose network is frozen; a task has one epoch by default."""

    frozen: Annotated[
        bool,
        Role.STATE,
        Field(description="Keep the network as it is, except its output layer"),
    ] = True
    epochs_per_task: Annotated[int, Field(ge=1, le=10**6, description="Epochs per task")] = 1

    @model_validator(mode="after")
    def _is_frozen(self) -> Self:
        if not self.frozen:
            raise ValueError("the method learns on a frozen network: leave out frozen, got false")
        return self


class FrozenMethod(BaseMethod):
    """A method whose network is frozen, except the output layer.

    Parameters before the output layer need no gradient, and the network is always in evaluation
    mode, so batch normalisation keeps its statistics. Use pretrained weights: the latents of a
    network with random weights separate classes poorly.
    """

    Config = FrozenConfig

    config: FrozenConfig

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        freeze_trunk(net)
        return net.eval()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters of the output layer."""
        return [{"params": [each for each in self.net.parameters() if each.requires_grad]}]

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; the network always stays in evaluation mode."""
        super().train(mode)
        self.net.eval()
        return self


def freeze_trunk(net: nn.Module) -> None:
    """Let all parameters of a network before its output layer need no gradient."""
    head = {id(parameter) for parameter in net.model.output_layer.parameters()}  # type: ignore[union-attr]
    for parameter in net.parameters():
        if id(parameter) not in head:
            parameter.requires_grad_(False)
