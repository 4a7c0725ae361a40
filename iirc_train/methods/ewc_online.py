"""Online EWC: elastic weight consolidation with one penalty for all earlier tasks."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from iirc_data.errors import ConfigurationError
from iirc_train.buffer import RandomBuffer
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories
from iirc_train.config.experiment import MAX_COUNT, MAX_FACTOR, MethodConfig
from iirc_train.methods.anchored import AnchoredMethod
from iirc_train.methods.fisher import Labels, fisher_information
from iirc_train.methods.losses import masked_for_new_classes
from iirc_train.methods.statistics import trained_parameters
from iirc_train.methods.step import Step

Buffer = RandomBuffer


class Model(AnchoredMethod):
    """Penalises changes of parameters by their Fisher information on the earlier tasks.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (PNAS 2017),
    equation 3: the loss of a task plus λ/2 Σ F (θ - θ*)². In the online form of Schwarz et al.,
    "Progress & Compress" (ICML 2018), section 4, there is one F and one θ*: at the end of a task,
    F becomes gamma F plus the Fisher information of the task's samples, and θ* the present
    parameters. As in Mammoth, the Fisher information of a task is not normalised, and gamma does
    not weigh the penalty; the paper has both.

    The papers leave open how the Fisher information is estimated (see van de Ven, "On the
    computation of the Fisher information in continual learning", 2025); ``ewc_fisher`` chooses. By
    default, it is that of the network's own predictions, with a draw per sample. They give no λ and
    gamma for class-incremental learning either; the defaults are Mammoth's for Split CIFAR-10 (its
    penalty has no 1/2, so λ is twice its value). If training diverges, lower λ or the learning
    rate, or bound the Fisher information with ``ewc_fisher_max``. Memories, if there are any, are
    learned like samples of the task.
    """

    class Config(MethodConfig):
        """Settings of online EWC."""

        ewc_lambda: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight λ of the penalty, which is λ/2")
        ] = 20.0
        ewc_gamma: Annotated[
            float, Field(ge=0, le=1, description="Decay gamma of the earlier tasks' information")
        ] = 1.0
        ewc_fisher: Annotated[
            Labels,
            Field(
                description="Fisher information: of labels drawn from the 'model' (the paper's), "
                "of those of the 'data', 'data_weighted' by their probability (as Mammoth), or of "
                "the mean gradients of 'batches' (as PyCIL)"
            ),
        ] = "model"
        ewc_fisher_classes: Annotated[
            Literal["seen", "all"],
            Field(
                description="Classes of the likelihood: the 'seen' ones, or 'all' outputs of the "
                "network (as Mammoth)"
            ),
        ] = "seen"
        ewc_fisher_samples: Annotated[
            int,
            Field(ge=0, le=MAX_COUNT, description="Samples for the Fisher information; 0 for all"),
        ] = 0
        ewc_fisher_batch_size: Annotated[
            int, Field(ge=1, le=10**6, description="Batch size of ewc_fisher batches")
        ] = 128
        ewc_fisher_max: Annotated[
            float,
            Field(
                ge=0,
                le=MAX_FACTOR,
                description="Upper bound of a task's Fisher information; 0 for none (PyCIL: 1e-4)",
            ),
        ] = 0.0
        ewc_merge: Annotated[
            Literal["online", "average"],
            Field(
                description="'online' adds a task's information to gamma times the earlier; "
                "'average' weighs both by their classes (as PyCIL)"
            ),
        ] = "online"
        ewc_classes: Annotated[
            Literal["seen", "new"],
            Field(
                description="Classes of the cross-entropy, with loss ce: all 'seen' ones, or the "
                "'new' ones for samples of new classes (as PyCIL)"
            ),
        ] = "seen"

    config: Config
    capturable = True
    losses = ("bce", "ce")
    weight_setting = "ewc_lambda"

    @property
    def penalty_weight(self) -> float:
        """See :class:`AnchoredMethod`."""
        return self.config.ewc_lambda / 2

    def _task_loss(self, step: Step) -> torch.Tensor:
        output = step.output
        if self.config.ewc_classes == "new" and self.config.loss == "ce":
            output = masked_for_new_classes(output, step.targets, self.n_old_classes)
        return self._classification_loss(output, step.targets, step.in_buffer)

    def consolidate_task_knowledge(
        self,
        buffer: Memories | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End a task: add the Fisher information of its samples.

        Args:
            buffer: Not used.
            device: Not used.
            batch_size: Samples per batch.

        Raises:
            ConfigurationError: The task started without its samples.
        """
        config, data = self.config, self.task_data
        if data is None:
            raise ConfigurationError(
                "ewc_online needs the samples of the task for their Fisher information: pass "
                "task_data to prepare_model_for_new_task"
            )
        in_batches = config.ewc_fisher == "batches"
        order = self.order_of_samples(len(data))
        n_classes = self.n_seen_classes
        if config.ewc_fisher_classes == "all":
            n_classes = sum(self.n_cla_per_tsk)
        of_task = fisher_information(
            self,
            data,
            config.ewc_fisher,
            n_classes=n_classes,
            indices=order[: config.ewc_fisher_samples or None],
            batch_size=config.ewc_fisher_batch_size if in_batches else batch_size,
            seed=self.cur_task_id,
        )
        if config.ewc_fisher_max:
            torch._foreach_clamp_max_(of_task, config.ewc_fisher_max)
        self._merge(of_task)

    def order_of_samples(self, n: int) -> NDArray[np.int64]:
        """Return the order of a task's ``n`` samples, int64 (n,), of which the first are used."""
        return np.random.default_rng(self.cur_task_id).permutation(n)

    @torch.no_grad()
    def _merge(self, of_task: list[torch.Tensor]) -> None:
        importance = self.statistics.of_parameters("importance")
        if self.config.ewc_merge == "online":
            torch._foreach_mul_(importance, self.config.ewc_gamma)
            torch._foreach_add_(importance, of_task)
            return
        share = self.n_old_classes / self.n_seen_classes
        head = {id(parameter) for parameter in self.net.model.output_layer.parameters()}  # type: ignore[union-attr]
        for (_, parameter), before, new in zip(
            trained_parameters(self.net), importance, of_task, strict=True
        ):
            weight = torch.full_like(new, 1 - share)
            if id(parameter) in head:  # new rows have no earlier information
                weight[self.n_old_classes :] = 1.0
            before.mul_(share).addcmul_(weight, new)
