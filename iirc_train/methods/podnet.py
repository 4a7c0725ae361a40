"""PODNet: distillation of pooled feature maps, and a classifier with several proxies per class."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import TaskSamples
from iirc_train.config.experiment import MAX_FACTOR, MethodConfig
from iirc_train.config.settings import Role
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.imprinting import kmeans, latents_of_new_classes
from iirc_train.methods.optimizers import ParameterGroup, without
from iirc_train.methods.podnet_losses import (
    between_directions,
    nca,
    nca_of_reference,
    pod_spatial,
    pod_spatial_of_reference,
)
from iirc_train.methods.stages import Stage
from iirc_train.methods.step import Step
from iirc_train.models.cosine_linear import SplitCosineLinear, grow_cosine_layer, with_cosine_layer

Buffer = HerdingBuffer


class Model(BaseMethod):
    """Distils feature maps, pooled over height and over width, and latents.

    Douillard et al., "PODNet: Pooled outputs distillation for small-tasks incremental learning"
    (ECCV 2020). POD-spatial (equation 5) compares the outputs of all stages of the network,
    POD-flat (equation 6) the latents; both grow with √(seen classes / new classes). The output
    layer computes local similarities to the proxies of each class (equations 8 and 9) and learns
    with a margin by NCA (equation 11). The proxies of a new class start at the centres of its
    latents (section 3.2).

    The equations leave open how pooled maps and latents are scaled. Here, and in the authors'
    code, they have unit length; otherwise the weights that the paper states would be too large.
    Nor do they say how the scale η is trained: here by the scores, not by the margin η δ, which
    would be smallest at a negative scale. The learning rate of the fine-tuning is constant, as in
    the authors' code.

    The setting ``podnet_form: reference`` is the form of PyCIL: maps are taken after the ReLU and
    squared before they are pooled, distances are not squared; NCA has no margin, keeps the label's
    own term in the denominator, as 1, and may be negative; and the fine-tuning trains all layers
    with all losses, but not the proxies of earlier classes if ``old_proxies_lr_factor`` is 0, and
    its learning rate follows a cosine. Unlike PyCIL, it still starts proxies at the centres.

    The method has only the loss ``ce``: NCA compares the label of a sample with all other classes.
    A sample with two labels, as in IIRC, is outside its definition.

    Attributes:
        factor: Factor of the distillation in the current task, √(seen classes / new classes).
    """

    class Config(MethodConfig):
        """Settings of PODNet; the defaults are the paper's for CIFAR-100 (section 4.1)."""

        pod_spatial: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight of POD-spatial, λ_c")
        ] = 3.0
        pod_flat: Annotated[
            float, Field(ge=0, le=MAX_FACTOR, description="Weight of POD-flat, λ_f")
        ] = 1.0
        proxies_per_class: Annotated[
            int,
            Role.STATE,
            Field(ge=1, le=1000, description="Proxies of each class in the output layer"),
        ] = 10
        nca_margin: Annotated[float, Field(ge=0, le=MAX_FACTOR, description="Margin of NCA, δ")] = (
            0.6
        )
        old_proxies_lr_factor: Annotated[
            float,
            Field(
                ge=0,
                le=MAX_FACTOR,
                description="Learning rate of the proxies of earlier classes in the main epochs, "
                "in multiples of lr; 0 in the authors' code and in PyCIL",
            ),
        ] = 1.0
        finetuning_epochs: Annotated[
            int,
            Role.STATE,
            Field(
                ge=0,
                le=10**6,
                description="Epochs on a balanced set after each task but the first; 0 for none",
            ),
        ] = 20
        finetuning_lr: Annotated[
            float, Field(gt=0, le=MAX_FACTOR, description="Learning rate of these epochs")
        ] = 0.05
        podnet_form: Annotated[
            Literal["paper", "reference"],
            Field(description="Form of losses and fine-tuning: the paper's, or that of PyCIL"),
        ] = "paper"

    config: Config
    capturable = True
    compares_feature_maps = True
    losses = ("ce",)

    factor = 1.0

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return with_cosine_layer(net, self.n_cla_per_tsk[0], self.config.proxies_per_class)

    def _prepare_model_for_new_task(
        self,
        task_data: TaskSamples | None = None,
        dist_args: dict[str, Any] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        **_: Any,
    ) -> None:
        """Start a task: copy the teacher, grow the output layer, imprint its new proxies.

        Args:
            task_data: The task's data. Without it, new proxies stay random.
            dist_args: Accepted for code written for the published package.
            batch_size: Samples per batch for computing latents.
        """
        if self.cur_task_id == 0:
            return
        n_new = self.n_cla_per_tsk[self.cur_task_id]
        self.factor = (self.n_seen_classes / n_new) ** 0.5
        self.old_net = copy_freeze(self.net)
        sigma = self._sigma.detach().clone()
        layer = grow_cosine_layer(self.net, n_new)
        self._sigma.data.copy_(sigma)
        if task_data is not None:
            self._imprint(layer, task_data, batch_size)

    @property
    def _sigma(self) -> torch.Tensor:
        sigma: torch.Tensor = self.net.model.output_layer.sigma  # type: ignore[assignment,union-attr]
        return sigma

    @torch.no_grad()
    def _imprint(self, layer: SplitCosineLinear, task_data: TaskSamples, batch_size: int) -> None:
        norm, k = layer.fc1.weight.norm(dim=1).mean(), self.config.proxies_per_class
        for row, latents in latents_of_new_classes(self, task_data, -1, batch_size):
            centres = F.normalize(kmeans(latents, k), dim=1).to(norm)
            layer.fc2.weight[row * k : (row + 1) * k] = norm * centres

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters; the proxies of earlier classes have their own learning rate."""
        groups, layer = super().parameter_groups(), self.net.model.output_layer  # type: ignore[union-attr]
        factor = self.config.old_proxies_lr_factor
        if factor == 1 or not isinstance(layer, SplitCosineLinear):
            return groups
        old = [layer.fc1.weight]
        groups = [{**group, "params": without(group["params"], old)} for group in groups]
        return [*groups, {"params": old, "lr_factor": factor}]

    def stages_of_task(self, task_id: int) -> Sequence[Stage]:
        """Return the fine-tuning on a balanced set; the first task has none."""
        epochs = self.config.finetuning_epochs
        if task_id == 0 or not epochs:
            return ()
        is_cosine = self.config.podnet_form == "reference"
        settings = {"lr": self.config.finetuning_lr, "lr_cosine": is_cosine}
        return (Stage("balanced", epochs, "balanced", after_memories=True, settings=settings),)

    def _parameters_of_stage(self, stage: Stage) -> Iterable[nn.Parameter]:
        layer = self.net.model.output_layer  # type: ignore[union-attr]
        assert isinstance(layer, SplitCosineLinear)
        if self.config.podnet_form == "paper":
            return layer.parameters()
        left_out = [] if self.config.old_proxies_lr_factor else [layer.fc1.weight]
        return without(self.net.parameters(), left_out)

    def _stage_loss(self, stage: Stage, step: Step) -> torch.Tensor:
        is_paper = self.config.podnet_form == "paper"  # the distillation does not train the layer
        return self._validation_loss(step) if is_paper else self._loss(step)

    def _loss(self, step: Step) -> torch.Tensor:
        loss = self._validation_loss(step)
        if self.old_net is None:
            return loss
        _, latent, maps = self.forward_old_net_with_maps(step.images)
        is_paper = self.config.podnet_form == "paper"
        spatial = pod_spatial if is_paper else pod_spatial_of_reference
        flat = between_directions(step.latent, latent).square().sum(dim=1)
        # half the squared distance of unit vectors is 1 - cosine, the form of the reference
        distilled = self.config.pod_spatial * spatial(step.maps, maps) + self.config.pod_flat * (
            flat if is_paper else 0.5 * flat
        )
        return loss + self.factor * self._mean(distilled, step.in_buffer)

    def _validation_loss(self, step: Step) -> torch.Tensor:
        if self.config.podnet_form == "paper":
            # detached: else the margin pulls the scale below 0, where it reverses all scores
            margin = self._sigma.detach() * self.config.nca_margin
            losses = nca(step.output, step.targets, margin)
        else:
            losses = nca_of_reference(step.output, step.targets)
        return self._mean(losses, step.in_buffer)
