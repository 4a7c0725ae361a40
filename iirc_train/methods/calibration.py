"""Thresholds of labels that are fitted to the memories, instead of a probability of 1/2."""

import numpy as np
import torch

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.labelled import labelled_batches
from iirc_train.buffer.latents import BATCH_SIZE
from iirc_train.buffer.samples import Memories
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods.prediction import Predictor
from iirc_train.runtime.distributed import gathered, share_of

_LABELS_AT_ONCE = 64  # bounds the memory of the fit


def best_thresholds(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return for each label the threshold of its score with the largest F1.

    A threshold lies in the middle between two scores, or 1 below the lowest one; the highest of
    equally good ones is chosen. Yang, "A study of thresholding strategies for text categorization"
    (SIGIR 2001), calls this rule SCut.

    Args:
        scores: Logits, float (N, labels).
        targets: bool (N, labels).

    Returns:
        float (labels,); a sample has a label if its score is *above* the threshold. Labels that no
        sample has get 0, a probability of 1/2.
    """
    if not len(scores):
        return scores.new_zeros(scores.shape[1])
    starts = range(0, scores.shape[1], _LABELS_AT_ONCE)
    parts = [slice(start, start + _LABELS_AT_ONCE) for start in starts]
    return torch.cat([_best_of_part(scores[:, part], targets[:, part]) for part in parts])


def _best_of_part(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    n_positive = targets.sum(dim=0)
    ordered, order = scores.sort(dim=0, descending=True)
    below = torch.cat([ordered[1:], ordered[-1:] - 2])
    hits = targets.gather(0, order).cumsum(dim=0)
    n_predicted = torch.arange(1, len(scores) + 1, device=scores.device).unsqueeze(1)
    f1 = 2 * hits / (n_predicted + n_positive)
    best = f1.masked_fill(ordered == below, -1.0).argmax(dim=0, keepdim=True)
    above, below = ordered.gather(0, best)[0], below.gather(0, best)[0]
    middle = below + (above - below) / 2
    middle = torch.where(middle < above, middle, below)  # of two neighbouring numbers
    return torch.where(n_positive > 0, middle, 0.0)


class Calibrated(Predictor):
    """Predictions by thresholds that are fitted to the memories after each task.

    With the setting ``calibrate_thresholds``, :meth:`decide` predicts each label whose logit is
    above the label's own threshold (:func:`best_thresholds`). In training, validation within a task
    and steps predict labels with a probability above 1/2.

    The fit knows of a memory what training knows: its visible label, and the superclasses that HCV
    discovered. A whippet that was shown as *whippet* therefore counts against *dog*. And the
    memories were trained on, where SCut takes samples that were not.

    Attributes:
        label_thresholds: float (classes seen,), logits; None before the end of a task, and without
            the setting.
    """

    label_thresholds: torch.Tensor | None
    class_names_to_idx: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("label_thresholds", None)

    @classmethod
    def check_calibration(cls, config: MethodConfig, name: str) -> None:
        """Refuse the setting for a method that does not decide by thresholds.

        Args:
            config: Settings of the method, or of a run.
            name: Name of the method, for the error.

        Raises:
            ConfigurationError: The method has a decision of its own.
        """
        decides = ("decide", "_predict", "forward")
        is_own = any(getattr(cls, part) is not getattr(Calibrated, part) for part in decides)
        if config.calibrate_thresholds and is_own:
            raise ConfigurationError(
                f"calibrate_thresholds: method {name} does not predict by thresholds: choose "
                "another method, or leave the setting out"
            )

    def decide(self, scores: torch.Tensor) -> torch.Tensor:
        """Predict labels from :meth:`scores`.

        Returns:
            bool (N, classes seen).
        """
        thresholds = self.label_thresholds
        return super().decide(scores) if thresholds is None else scores > thresholds

    def calibrate(self, memories: Memories, batch_size: int = BATCH_SIZE) -> None:
        """Fit the thresholds to the memories; ends a task if the settings ask for it.

        With several processes, all must call this; they share the work.

        Args:
            memories: The memories, including those of the task.
            batch_size: Memories per batch.
        """
        n_classes = self.n_seen_classes
        scores = torch.zeros(0, n_classes, device=self.device)
        all_scores, all_targets = [scores], [scores.bool()]
        batches = labelled_batches(
            memories,
            np.arange(len(memories))[share_of(len(memories))],
            self.class_names_to_idx,
            n_classes=n_classes,
            device=self.device,
            batch_size=batch_size,
        )
        with memories.disable_augmentations(), self.inference():
            for images, labels in batches:
                all_scores.append(self.scores(images).float())
                all_targets.append(self._with_superclasses(labels).bool())
        scores, targets = (gathered(torch.cat(parts)) for parts in (all_scores, all_targets))
        self.label_thresholds = best_thresholds(scores, targets)

    def _with_superclasses(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets of a training step; by default, the labels."""
        return targets
