"""iCaRL: distils earlier classes, classifies by the nearest class mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel

from iirc_data.definitions import PathLike
from iirc_data.errors import ConfigurationError
from iirc_train.buffer.buffer import HerdingBuffer, class_latents
from iirc_train.methods import icarl_cnn
from iirc_train.utils import l_distance, labels_index_to_one_hot


class Buffer(HerdingBuffer):
    """Keeps the samples that herding chooses; at least one per class.

    Raises:
        ConfigurationError: No memories are to be kept.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | BaseModel,
        buffer_dir: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, buffer_dir, **kwargs)
        if max(self.config.n_memories_per_class, self.config.total_n_mems) == 0:
            raise ConfigurationError(
                "icarl classifies by the means of each class's memories: set "
                "n_memories_per_class or total_n_mems above 0 (or use icarl_cnn)"
            )


class Model(icarl_cnn.Model):
    """Learns as :class:`icarl_cnn.Model` does, and predicts the class of the nearest mean.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    algorithm 1. While a task is learned its means are not known: the output layer predicts.

    Attributes:
        class_means: Mean of each class's memories at unit length, float32 (classes seen, D),
            infinite for a class without memories; None while a task is learned.
    """

    class_means: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("class_means", None)

    def _prepare_model_for_new_task(
        self, task_data: Any = None, dist_args: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super()._prepare_model_for_new_task(task_data, dist_args, **kwargs)
        self.class_means = None

    def consolidate_task_knowledge(
        self,
        buffer: Any = None,
        device: torch.device | str | None = None,
        batch_size: int = 128,
        **kwargs: Any,
    ) -> None:
        """End a task: compute the class means from the memories, not augmented.

        Args:
            buffer: The replay buffer, with the task's memories.
            device: Where the means are wanted; by default with the network.
            batch_size: Memories per batch.
            **kwargs: Not used.

        Raises:
            ConfigurationError: There is no memory.
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict one class per image; see :meth:`BaseMethod.forward`."""
        if self.class_means is None:
            return super().forward(x)
        _, latent = self.forward_net(x)
        distance = l_distance(F.normalize(latent.float(), dim=1), self.class_means)
        return labels_index_to_one_hot(distance.argmin(dim=1), self.n_seen_classes).bool()
