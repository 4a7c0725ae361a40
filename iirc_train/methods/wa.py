"""WA: weights of new classes that are as long as those of earlier classes."""

from typing import Annotated, Any

import torch
from pydantic import Field

from iirc_train.buffer import HerdingBuffer
from iirc_train.methods.distilling import DistillingConfig, DistillingMethod
from iirc_train.models.branches import align_new_weights

Buffer = HerdingBuffer


class Model(DistillingMethod):
    """Distils the outputs for earlier classes, and aligns the output layer at the end of a task.

    Zhao et al., "Maintaining discrimination and fairness in class incremental learning" (CVPR
    2020). The loss is (1 - λ) times the cross-entropy plus λ times the distillation, where λ is
    the fraction of earlier classes among those seen (section 3.2). At the end of a task, the
    weights of its classes are scaled so that their mean norm is that of earlier classes
    (section 3.3, equations 8 to 10); biases stay as they are. The teacher is the network after
    that.

    The method has only the loss ``ce``. With a threshold per label, as in IIRC, a prediction
    depends on the sign of a logit, which scaling its weights changes only through the bias.
    """

    class Config(DistillingConfig):
        """Settings of WA."""

        nonnegative_weights: Annotated[
            bool,
            Field(
                description="Clip the weights of the output layer at 0 after each step, the "
                "paper's restriction of section 3.4"
            ),
        ] = False

    config: Config
    capturable = True

    @torch.no_grad()
    def _after_update(self) -> None:
        if self.config.nonnegative_weights:
            self._head_weight.clamp_(min=0)

    @torch.no_grad()
    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: align the weights of its classes with those of earlier classes."""
        n_old, n_seen = self.n_old_classes, self.n_seen_classes
        if n_old and n_seen > n_old:
            align_new_weights(self._head_weight[:n_seen], n_old)

    @property
    def _head_weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.net.model.output_layer.weight  # type: ignore[assignment,union-attr]
        return weight
