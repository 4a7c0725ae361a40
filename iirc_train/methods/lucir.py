"""LUCIR: a cosine classifier that balances old and new classes."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from iirc_data.loader import Batch
from iirc_train.buffer import HerdingBuffer
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories, TaskSamples
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.imprinting import latents_of_new_classes
from iirc_train.methods.step import Step
from iirc_train.models.cosine_linear import SplitCosineLinear, grow_cosine_layer, with_cosine_layer

Buffer = HerdingBuffer

IMPRINT_SAMPLES = 1000  # per class, as published


class Model(BaseMethod):
    """Cosine output layer, less-forget constraint, inter-class separation.

    Hou et al., "Learning a unified classifier incrementally via rebalancing" (CVPR 2019). The loss
    ``ce`` is the paper's (section 3), ``bce`` that of Abdelsalam et al. (2021); the temperature
    applies to neither, because the cosine layer has a scale. The weights of a new class start at
    the mean latent of its first :data:`IMPRINT_SAMPLES` samples; the weights of earlier classes are
    frozen. The fine-tuning on balanced memories after a task (section 4.4) is left out.

    Attributes:
        lambda_cur: Weight of the distillation during the current task: λ √(old / new classes), as
            in the authors' code; the paper's text names the inverse ratio.
    """

    class Config(MethodConfig):
        """Settings of LUCIR; the names are those of the published configuration."""

        lucir_lambda: Annotated[
            float, Field(ge=0, le=1e9, description="Weight of the distillation of latents")
        ] = 5.0
        lucir_margin_1: Annotated[
            float, Field(ge=0, le=1e9, description="Margin to the most similar new class")
        ] = 0.5
        lucir_margin_2: Annotated[
            float, Field(ge=0, le=1e9, description="Margin to the second most similar new class")
        ] = 0.5

    config: Config
    losses = ("bce", "ce")
    _margins: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lambda_cur = self.config.lucir_lambda
        margins = torch.tensor([self.config.lucir_margin_1, self.config.lucir_margin_2])
        self.register_buffer("_margins", margins, persistent=False)  # not copied at every step

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return with_cosine_layer(net, self.n_cla_per_tsk[0])

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        buffer: Memories | None = None,
        memory_batches: Iterator[Batch] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Start a task: copy the teacher, grow the output layer, imprint its new weights.

        Args:
            task_data: The task's data. Without it, new weights stay random.
            dist_args: Accepted for code written for the published package.
            buffer: Not used.
            memory_batches: Not used.
            batch_size: Samples per batch for computing latents.
        """
        if self.cur_task_id == 0:
            return
        n_new = self.n_cla_per_tsk[self.cur_task_id]
        self.lambda_cur = self.config.lucir_lambda * (self.n_old_classes / n_new) ** 0.5
        self.old_net = copy_freeze(self.net)
        sigma = self._sigma.detach().clone()
        layer = grow_cosine_layer(self.net, n_new)
        layer.fc1.weight.requires_grad_(False)
        self._sigma.data.copy_(sigma)
        if task_data is not None:
            self._imprint(layer, task_data, batch_size)

    @property
    def _sigma(self) -> torch.Tensor:
        sigma: torch.Tensor = self.net.model.output_layer.sigma  # type: ignore[assignment,union-attr]
        return sigma

    @torch.no_grad()
    def _imprint(self, layer: SplitCosineLinear, task_data: TaskSamples, batch_size: int) -> None:
        norm = layer.fc1.weight.norm(dim=1).mean()
        for row, latents in latents_of_new_classes(self, task_data, IMPRINT_SAMPLES, batch_size):
            layer.fc2.weight[row] = norm * F.normalize(latents.mean(dim=0), dim=0).to(norm)

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._validation_loss(step)
        if self.old_net is None:
            return loss
        _, old_latent = self.forward_old_net(step.images)
        less_forget = 1 - F.cosine_similarity(step.latent, old_latent, dim=1)
        if self.config.memory_strength != 1:
            less_forget = self._sample_weight(step.in_buffer) * less_forget
        loss = loss + self.lambda_cur * less_forget.mean()
        # the margins are between cosines; with bce, their loss trains the scale through the output,
        # as in the published package
        scale = self._sigma if self.config.loss == "ce" else self._sigma.detach()
        cosine = step.output / scale
        return loss + self._margin_ranking_loss(cosine, step)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        return self._classification_loss(step.output, step.targets, step.in_buffer, temperature=1.0)

    def _margin_ranking_loss(self, cosine: torch.Tensor, step: Step) -> torch.Tensor:
        """Keep each earlier label of a memory ahead of the two most similar new classes.

        Args:
            cosine: Outputs divided by their scale, (N, classes seen).
            step: The batch.

        Returns:
            Mean over all pairs of an earlier label of a memory and one of the two most similar new
            classes that are not labels of that memory. 0 if there is no such pair.
        """
        n_old, is_label = self.n_old_classes, step.targets > 0
        n_hardest = min(len(self._margins), cosine.shape[1] - n_old)
        new = cosine[:, n_old:].masked_fill(is_label[:, n_old:], -torch.inf)
        hardest = new.topk(n_hardest, dim=1).values.unsqueeze(1)  # N, 1, 2
        own = cosine[:, :n_old].unsqueeze(2)  # N, old classes, 1
        counted = is_label[:, :n_old] & step.in_buffer.unsqueeze(1)
        pairs = counted.unsqueeze(2) & (hardest > -torch.inf)
        hinge = F.relu(hardest + self._margins[:n_hardest] - own).where(pairs, 0.0)
        return step.average(self.config.memory_strength * hinge.sum(), pairs.sum())
