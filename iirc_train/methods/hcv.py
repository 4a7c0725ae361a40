"""HCV: any method, with targets and predictions that follow the hierarchy that it discovers."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from iirc_data.loader import Batch
from iirc_train.buffer.labelled import labelled_batches
from iirc_train.buffer.samples import TaskSamples
from iirc_train.methods.calibration import Calibrated
from iirc_train.methods.hierarchy import (
    consistent,
    find_superclasses,
    grown,
    levels,
    singletons,
    with_superclasses,
)
from iirc_train.runtime.distributed import share_of, total


class HierarchyVerified(Calibrated):
    """Hierarchy-consistency verification, as the setting ``hcv`` asks for it.

    Wang et al., "HCV: Hierarchy-consistency verification for incremental implicitly-refined
    classification" (BMVC 2021, arXiv:2110.11148), whose figure of the framework names three parts:

    1. *Learning hierarchical relations*. Before a task, the network of the tasks so far predicts
       the labels of the task's training samples, without augmentation. If it predicts an earlier
       class for more than ``hcv_threshold`` of the samples of a new class, the earlier class is the
       superclass of the new one. The benchmark's own hierarchy plays no part in this.
    2. *Superclass pseudo-labeling* (``hcv: train``). In training, a sample or memory with a label
       whose superclass was discovered has all its superclasses as labels, too.
    3. *Infer-HCV* (``hcv: infer``). A prediction that is not a class with all of its superclasses
       is replaced by the nearest one that is, in the number of labels that differ.

    ``hcv: both`` does 2 and 3. The abstract, that figure and the authors' code are the sources of
    this implementation; the equations of the paper's text were not available to it. From the code
    come the threshold of 0.6; that predictions count, and not probabilities; that an earlier class
    may be a superclass although it has one itself; and that pseudo-labels replace the
    distillation targets of iCaRL (:meth:`_pseudo_labelled`). In training, the code adds the direct
    superclass only, which is the same in two levels.

    What the sources leave open:

    - Of several earlier classes above the threshold, the code chooses the most frequent one. That
      is ``hcv_superclass: highest``. In deeper hierarchies, where a sample has several
      superclasses, ``deepest`` chooses the one at the end of the chain discovered so far.
    - The code chooses among several nearest predictions at random. Here, those come first whose own
      class was predicted, then those of the most labels, then those with the highest score.
    - A class has one direct superclass at most, which must appear in an earlier task.
    - A method whose loss omits earlier classes, such as ``mask_seen_classes``, omits their
      pseudo-labels too. Training metrics compare the uncorrected predictions with the visible
      labels; validation and tests use the corrected predictions.

    Attributes:
        found_hierarchy: The classes seen, each followed by its superclasses, int64
            (classes seen, levels), -1 for none; None before the first task and without ``hcv``.
    """

    found_hierarchy: torch.Tensor | None
    n_cla_per_tsk: list[int]
    class_names_to_idx: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("found_hierarchy", None)

    @property
    def found_superclasses(self) -> dict[str, str]:
        """The superclass of each class that has one in the discovered hierarchy, by name."""
        if self.found_hierarchy is None:
            return {}
        names = {number: name for name, number in self.class_names_to_idx.items()}
        rows = [row for row in self.found_hierarchy.tolist() if len(row) > 1 and row[1] >= 0]
        return {names[row[0]]: names[row[1]] for row in rows}

    def _discover(self, task_data: TaskSamples | None, task_id: int, batch_size: int) -> None:
        """Add the classes of a task to the hierarchy, before the network changes for them.

        With several processes, all must call this; they share the work.

        Args:
            task_data: The task's samples; without them, its classes have no superclass.
            task_id: Number of the task.
            batch_size: Samples per batch.
        """
        if self.config.hcv == "off":
            self.found_hierarchy = None
            return
        n_new = self.n_cla_per_tsk[task_id]
        if self.found_hierarchy is None:
            n_earlier = sum(self.n_cla_per_tsk[:task_id])
            self.found_hierarchy = singletons(n_earlier).to(self.device)
        superclasses = torch.full((n_new,), -1)
        if task_data is not None and self.n_seen_classes:
            config, hierarchy = self.config, self.found_hierarchy
            fractions = self._fractions(task_data, n_new, batch_size)
            found = find_superclasses(
                fractions, hierarchy, config.hcv_threshold, config.hcv_superclass
            )
            superclasses = found.cpu()
        self.found_hierarchy = grown(self.found_hierarchy.cpu(), superclasses).to(self.device)

    def _fractions(self, samples: TaskSamples, n_new: int, batch_size: int) -> torch.Tensor:
        """Return how often each earlier class is predicted for each new one, (new, earlier)."""
        n_old = self.n_seen_classes
        counts = torch.zeros(n_new, n_old + 1, dtype=torch.float64, device=self.device)
        batches = labelled_batches(
            samples,
            np.arange(len(samples))[share_of(len(samples))],
            self.class_names_to_idx,
            n_classes=n_old + n_new,
            device=self.device,
            batch_size=batch_size,
        )
        with samples.disable_augmentations(), self.inference(), self.full_precision():
            for images, targets in batches:
                new = targets[:, n_old:].double().T
                _, predictions = self._scores_and_decisions(images)
                counts[:, :n_old] += new @ predictions.double()
                counts[:, n_old] += new.sum(dim=1)
        counts = total(counts)
        return counts[:, :n_old] / counts[:, n_old:].clamp(min=1)

    def _with_superclasses(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets of a training step: labels, and their discovered superclasses."""
        hierarchy = self._hierarchy_for("train")
        return targets if hierarchy is None else with_superclasses(targets, hierarchy)

    def _batch_with_superclasses(self, batch: Batch) -> Batch:
        """Return a batch with the targets of :meth:`_with_superclasses`."""
        targets = self._with_superclasses(batch.targets)
        if targets is batch.targets:
            return batch
        whole = batch.whole
        if whole is not None:
            whole = self._batch_with_superclasses(whole)
        return replace(batch, targets=targets, whole=whole)

    def _pseudo_labelled(self, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return a teacher's targets, with those of samples that have pseudo-labels replaced.

        For a method whose targets for earlier classes are not the labels, but a teacher's outputs.

        Args:
            targets: In [0, 1], (N, classes seen).
            labels: The step's targets, (N, classes seen).

        Returns:
            ``labels`` for samples with a label whose superclass was discovered, else ``targets``.
        """
        hierarchy = self._hierarchy_for("train")
        if hierarchy is None:
            return targets
        has_superclass = (levels(hierarchy) > 1).to(labels.dtype)
        return torch.where((labels @ has_superclass > 0).unsqueeze(1), labels, targets)

    def _verified(self, predictions: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return predictions that are consistent with the discovered hierarchy."""
        hierarchy = self._hierarchy_for("infer")
        return predictions if hierarchy is None else consistent(predictions, scores, hierarchy)

    def _hierarchy_for(self, part: Literal["train", "infer"]) -> torch.Tensor | None:
        """Return the discovered hierarchy where the setting ``hcv`` asks for it; else None."""
        return self.found_hierarchy if self.config.hcv in (part, "both") else None
