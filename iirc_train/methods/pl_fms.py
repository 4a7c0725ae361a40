"""PL-FMS: losses within a level of the hierarchy, and new classes that give way to memories."""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from iirc_data.loader import Batch
from iirc_train.methods.replay import Buffer, ReplayConfig, ReplayMethod
from iirc_train.methods.step import Step

__all__ = ["Buffer", "Model"]


class Model(ReplayMethod):
    """Learns each label within its level of the hierarchy; memories stand in for new samples.

    Lee et al., "Online continual learning on hierarchical label expansion" (ICCV 2023,
    arXiv:2308.14374). The abstract, the figure of the method and the authors' code are the sources
    of this implementation; the paper's text was not available to it.

    - *Losses*. Each level of the hierarchy has a classifier of its own, and a sample is learned by
      the classifiers of the levels that it has labels of. It says nothing about other levels: a dog
      is no negative example of an animal. A sample without labels is one of every class.
    - *Flexible memory sampling*. A sample of the stream takes part in a step with the probability
      min(1, t · C / T), where t is the number of samples since its class appeared, C the number of
      classes seen and T the length of the stream. A further memory replaces it otherwise. So
      samples of new classes do not dominate the first steps.

    In the task-wise setting, as here:

    - All classes of a task appear at its start, so t counts the presentations of the task's
      samples, in all of its epochs. T is unknown; it is taken to be the presentations in this task
      times the number of tasks.
    - Each step has the expectation of the loss over the random choice: samples of the batch have
      that probability as their weight, and a second draw of memories has the rest. So the loss does
      not depend on the number of processes.
    - The authors' classifiers have a softmax each. Here, the loss of a sample is the mean binary
      cross-entropy over the classes of its levels, because samples of IIRC may have several labels.
    - A method does not know the levels of classes. ``pl_fms_levels`` derives them from the
      schedule: ``first_task`` is right where the first task has the superclasses and later ones
      refine them, ``task`` where each task adds a level; the paper has a scenario of each kind.

    Not implemented: *pseudo-labelling based memory management*, which discards the least important
    memory of the class that has most, counting the classes that the network predicts at other
    levels too. Memories here are a reservoir, whose samples do not depend on the network. The
    authors' adaptive learning rate and CutMix are not part of it, either.

    Attributes:
        n_presented: Number of samples of the current task that were presented so far.
    """

    class Config(ReplayConfig):
        """Settings of PL-FMS."""

        pl_fms_levels: Annotated[
            Literal["first_task", "task", "one"],
            Field(
                description="Levels of the classes: those of the first task and all others, one "
                "for each 'task', or 'one' for all"
            ),
        ] = "first_task"
        pl_fms_sampling: Annotated[
            bool,
            Field(description="Let memories replace samples of new classes in their first steps"),
        ] = True

    config: Config
    losses = ("bce",)  # type: ignore[assignment]
    method_variables = ("n_presented",)
    n_draws = 2
    _same_level: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_presented = 0

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        self.n_presented = 0
        tasks = self.task_of_class[: self.n_seen_classes]
        level = {
            "first_task": tasks.clamp(max=1),
            "task": tasks,
            "one": torch.zeros_like(tasks),
        }[self.config.pl_fms_levels]
        same = level.unsqueeze(0) == level.unsqueeze(1)
        self.register_buffer("_same_level", same.float(), persistent=False)

    def _learn(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = super()._learn(batch)
        self.n_presented += round(len(batch) / batch.share)
        return outputs

    @property
    def stream_weight(self) -> float:
        """The weight of the samples of the next batch, in [0, 1]; see the class."""
        if self.task_data is None or not self.config.pl_fms_sampling:
            return 1.0
        n_epochs = len(self.config.epochs_of_task(self.cur_task_id))
        length = len(self.task_data) * n_epochs * len(self.n_cla_per_tsk)
        return min(1.0, self.n_presented * self.n_seen_classes / max(length, 1))

    def _loss(self, step: Step) -> torch.Tensor:
        covered = step.targets @ self._same_level > 0
        covered = (covered | ~covered.any(dim=1, keepdim=True)).float()
        logits = step.output / self.config.temperature
        losses = F.binary_cross_entropy_with_logits(logits, step.targets, reduction="none")
        losses = (covered * losses).sum(dim=1) / covered.sum(dim=1).clamp(min=1)
        weight = self._weight_of_rows(step)
        return step.average(
            (weight * losses * self._sample_weight(step.in_buffer)).sum(), weight.sum()
        )

    def _weight_of_rows(self, step: Step) -> torch.Tensor:
        """Return the weight of each row of a step, float32 (N,), before ``memory_strength``."""
        weight = torch.ones(len(step.output), device=step.output.device)
        if step.draws:
            weight[step.stream] = self.stream_weight
            weight[step.draws[1].rows] = 1 - self.stream_weight
        return weight
