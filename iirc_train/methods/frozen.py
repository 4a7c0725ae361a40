"""Methods that learn on the latents of a frozen network."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from iirc_train.config.experiment import MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod


class FrozenConfig(MethodConfig):
    """Settings of a method whose network is frozen.

    By default, a task has one epoch, the first task of an IIRC benchmark two, unless the method
    says otherwise. Images are not augmented, so that features are cached.
    """

    frozen: Annotated[
        bool,
        Role.STATE,
        Field(description="Keep the network as it is, except its output layer"),
    ] = True
    augment: Annotated[
        bool,
        Field(description="Augment training images, whose features are then not cached"),
    ] = False
    epochs_per_task: Annotated[int, Field(ge=1, le=10**6, description="Epochs per task")] = 1

    @model_validator(mode="after")
    def _is_frozen(self) -> Self:
        if not self.frozen:
            raise ValueError("the method learns on a frozen network: leave out frozen, got false")
        return self


class FrozenMethod(BaseMethod):
    """A method whose network is frozen, except the output layer.

    Use pretrained weights: the latents of a network with random weights separate classes poorly.
    """

    Config = FrozenConfig

    config: FrozenConfig
