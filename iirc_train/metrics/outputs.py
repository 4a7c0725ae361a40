"""What a metric is computed from."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from iirc_train.metrics.seen_taxonomy import SeenTaxonomy


class Outputs(NamedTuple):
    """The outputs of a method for a batch, and the targets.

    Attributes:
        predictions: Predicted labels, bool (N, classes seen).
        targets: True labels, bool (N, classes seen).
        scores: A score for each label, higher for a more likely one, float (N, classes seen):
            logits, or the negative distance to a class mean. None in training steps, which return
            only predictions.
        task_of_class: The task that introduces each class, int64 (classes seen or more,). None in
            training steps.
        taxonomy: The taxonomy of the classes seen. None in training steps, and where no class has a
            superclass.
    """

    predictions: torch.Tensor
    targets: torch.Tensor
    scores: torch.Tensor | None = None
    task_of_class: torch.Tensor | None = None
    taxonomy: SeenTaxonomy | None = None

    @property
    def ancestors(self) -> torch.Tensor | None:
        """Whether the class of a column is that of the row or one of its ancestors.

        bool (classes seen, classes seen); None without a taxonomy.
        """
        return None if self.taxonomy is None else self.taxonomy.ancestors


KeepRows = Callable[[Outputs], torch.Tensor]
"""Returns the rows to keep of a batch, one per sample, (N, ...)."""
