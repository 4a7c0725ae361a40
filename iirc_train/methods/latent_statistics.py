"""Methods that learn by statistics of latents: one epoch, no gradient, a classifier in closed form.

Latents and targets of a batch are gathered from all processes, so all of them keep the same
statistics, whatever their number.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories
from iirc_train.config.settings import Role
from iirc_train.config.setup import Decision, Loss
from iirc_train.methods.frozen import FrozenConfig, FrozenMethod
from iirc_train.methods.statistics import Axis, Statistics
from iirc_train.methods.step import Step
from iirc_train.runtime.distributed import gathered


class StatisticsConfig(FrozenConfig):
    """Settings of a method that learns by statistics."""

    decision: Annotated[
        Decision | Literal["auto"],
        Role.STATE,
        Field(description="'threshold' predicts several labels, which may take more statistics"),
    ] = "auto"
    first_task_epochs: int | None = 1


class StatisticsMethod(FrozenMethod):
    """Adds the latents of the first epoch of a task to statistics, and fits a classifier to them.

    The classifier is fitted when it is first needed after a step. The statistics are the state of
    the method; the classifier follows from them. Further epochs of a task and memories change
    nothing. There is no loss and no prediction during an epoch: its record shows 0 for both.

    Attributes:
        epochs_done: Number of epochs of the current task.
    """

    Config = StatisticsConfig

    losses: ClassVar[tuple[Loss, ...]] = ("bce", "ce")
    learns_by_statistics = True
    replay_in_batches = False
    method_variables: tuple[str, ...] = ("epochs_done",)

    latent_statistics: ClassVar[Mapping[str, Sequence[Axis]]] = {}
    """Names of statistics of all latents together, and their axes."""

    label_statistics: ClassVar[Mapping[str, Sequence[Axis]]] = {}
    """The same, of those that only the prediction of several labels needs."""

    statistics_dtype: ClassVar[torch.dtype] = torch.float64
    """Type of the statistics."""

    epochs_done = 0
    _is_fitted = False

    @property
    def predicts_several(self) -> bool:
        """Whether each label is predicted on its own, as in IIRC, instead of the best one."""
        return self.config.decision == "threshold"

    def _make_statistics(self) -> Statistics:
        of_labels = self.label_statistics if self.predicts_several else {}
        of_latents = {**self.latent_statistics, **of_labels}
        return Statistics((), self.class_statistics, of_latents, dtype=self.statistics_dtype)

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        self.epochs_done, self._is_fitted = 0, False

    @torch.no_grad()
    def _step(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        in_buffer: torch.Tensor,
        share: float = 1.0,
        *,
        train: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if train and not self.epochs_done:
            self._learn_latents(gathered(self.latents(x)), gathered(y))
            self._is_fitted = False
        nothing = torch.zeros(len(x), self.n_seen_classes, dtype=torch.bool, device=x.device)
        return nothing, torch.zeros((), device=x.device)

    def _loss(self, step: Step) -> torch.Tensor:
        """Return 0, as the record of an epoch shows it: :meth:`_step` learns without a loss."""
        return torch.zeros((), device=step.output.device)

    @torch.no_grad()
    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latents of images, float32 (N, D), regardless of the precision of training."""
        with self.full_precision():
            return self.forward_net(x)[1].float()

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score for each label, float32 (N, classes seen); fits the classifier first."""
        self._fit_once()
        with torch.no_grad():
            return self._scores(self.latents(x)).float()

    def _fit_once(self) -> None:
        if not self._is_fitted:
            with torch.inference_mode(False), torch.no_grad():
                self._fit()
            self._is_fitted = True

    def step_scheduler(self, val_metric: float | None = None) -> None:
        """Do nothing: there is no optimizer step, so the learning rate has no effect."""

    def _consolidate_epoch_knowledge(self, *args: Any, **kwargs: Any) -> None:
        self.epochs_done += 1
        self._fit_once()

    def consolidate_task_knowledge(
        self,
        buffer: Memories | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End a task: fit the classifier.

        Args:
            buffer: Not used.
            device: Not used.
            batch_size: Not used.
        """
        self._fit_once()

    @abstractmethod
    def _learn_latents(self, latents: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch to the statistics.

        Args:
            latents: float32 (N, D), of the whole batch of all processes.
            targets: Indicator targets, float32 (N, classes seen).
        """

    @abstractmethod
    def _fit(self) -> None:
        """Compute the classifier from the statistics."""

    @abstractmethod
    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        """Return a score for each label of latents, (N, classes seen)."""


class CollectingMethod(StatisticsMethod):
    """Keeps the latents of a task until its end, for statistics that need all of them.

    Attributes:
        task_latents: The latents of the task, by batch.
        task_targets: Their targets.
        n_absorbed: Number of batches that the statistics contain.
    """

    method_variables = ("epochs_done", "task_latents", "task_targets", "n_absorbed")

    task_latents: list[torch.Tensor]
    task_targets: list[torch.Tensor]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forget_task()

    def _forget_task(self) -> None:
        self.task_latents, self.task_targets, self.n_absorbed = [], [], 0

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        super()._prepare_model_for_new_task(*args, **kwargs)
        self._forget_task()

    def _learn_latents(self, latents: torch.Tensor, targets: torch.Tensor) -> None:
        self.task_latents.append(latents)
        self.task_targets.append(targets)

    def _fit(self) -> None:
        if len(self.task_latents) > self.n_absorbed:
            first = sum(map(len, self.task_latents[: self.n_absorbed]))
            latents, targets = torch.cat(self.task_latents), torch.cat(self.task_targets)
            self._absorb(latents, targets, first)
            self.n_absorbed = len(self.task_latents)
        self._fit_to_statistics()

    def consolidate_task_knowledge(self, *args: Any, **kwargs: Any) -> None:
        """End a task: fit the classifier, and forget the latents of the task."""
        super().consolidate_task_knowledge(*args, **kwargs)
        self._forget_task()

    @abstractmethod
    def _absorb(self, latents: torch.Tensor, targets: torch.Tensor, first: int) -> None:
        """Add the task to the statistics.

        Args:
            latents: All latents of the task so far, float32 (N, D).
            targets: Their indicator targets, float32 (N, classes seen).
            first: The first of them that the statistics do not contain yet.
        """

    def _fit_to_statistics(self) -> None:
        """Compute the classifier from the statistics; by default they are the classifier."""
