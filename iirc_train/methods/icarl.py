"""iCaRL: distillation of earlier classes, classification by the nearest class mean."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from iirc_data.errors import ConfigurationError
from iirc_train.buffer import HerdingBuffer
from iirc_train.buffer.latents import BATCH_SIZE, class_latents
from iirc_train.buffer.samples import Memories
from iirc_train.methods import icarl_cnn
from iirc_train.methods.decisions import highest
from iirc_train.methods.losses import l_distance


class Buffer(HerdingBuffer):
    """Keeps the samples that herding chooses, at least one per class."""

    needs_memories = (
        "icarl classifies by the means of each class's memories: set "
        "n_memories_per_class or total_n_mems above 0 (or use icarl_cnn)"
    )


class Model(icarl_cnn.Model):
    """Learns like :class:`icarl_cnn.Model`, and predicts the class with the nearest mean.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    algorithm 1. Class means are computed at the end of a task; during training, the output layer
    predicts.

    Attributes:
        class_means: Mean of each class's memories, scaled to unit length, float32
            (classes seen, D); infinite for a class without memories. None during training.
    """

    class_means: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("class_means", None)

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        super()._prepare_model_for_new_task(*args, **kwargs)
        self.class_means = None

    def consolidate_task_knowledge(
        self,
        buffer: Memories | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """End a task: compute the class means from the memories, without augmentation.

        Args:
            buffer: The memories, including those of the task.
            device: Where to put the means; by default the network's device.
            batch_size: Memories per batch.

        Raises:
            ConfigurationError: There are no memories.
        """
        if buffer is None or not len(buffer):
            raise ConfigurationError("icarl needs a buffer with memories to compute class means")
        counts = {name: n for name, n in buffer.n_memories_per_class.items() if n}
        slots = np.concatenate([buffer.get_image_indices_by_class(name) for name in counts])
        latents = F.normalize(class_latents(self, buffer, slots, batch_size), dim=1)
        class_means = torch.full((self.n_seen_classes, latents.shape[1]), torch.inf)
        for name, of_class in zip(counts, torch.split(latents, list(counts.values())), strict=True):
            mean = F.normalize(of_class.mean(dim=0), dim=0)
            class_means[self.class_names_to_idx[name]] = mean
        self.class_means = class_means.to(self.device if device is None else device)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Return the negative distance to each class mean; during training, logits."""
        if self.class_means is None:
            return super().scores(x)
        _, latent = self.forward_net(x)
        return -l_distance(F.normalize(latent.float(), dim=1), self.class_means)

    def decide(self, scores: torch.Tensor) -> torch.Tensor:
        """Predict the class with the nearest mean; during training, labels with logits above 0."""
        return super().decide(scores) if self.class_means is None else highest(scores)
