"""Replay buffers, by how they choose the memories of a class."""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iirc_data.errors import ConfigurationError
from iirc_train.buffer.base import BufferBase
from iirc_train.buffer.latents import LatentSource, class_latents
from iirc_train.buffer.samples import TaskSamples
from iirc_train.buffer.selection import herding


class RandomBuffer(BufferBase):
    """Keeps randomly chosen samples."""

    def _choose(
        self, task_data: TaskSamples, class_label: str, n: int, **_: Any
    ) -> NDArray[np.int64]:
        pool = self.config.max_mems_pool_per_class
        n = n if pool == -1 else min(n, pool)
        indices = task_data.get_image_indices_by_cla(class_label, num_samples=n, shuffle=True)
        return np.asarray(indices, np.int64)


class HerdingBuffer(BufferBase):
    """Keeps the samples that herding chooses from the method's latents."""

    def _choosing(self, method: LatentSource | None) -> AbstractContextManager[None]:
        return _needed(method).inference()  # one preparation for all classes

    def _choose(
        self,
        task_data: TaskSamples,
        class_label: str,
        n: int,
        *,
        method: LatentSource | None,
        batch_size: int,
    ) -> NDArray[np.int64]:
        pool = self.config.max_mems_pool_per_class
        indices = np.asarray(
            task_data.get_image_indices_by_cla(class_label, num_samples=pool, shuffle=pool != -1),
            np.int64,
        )
        if not len(indices):
            return indices
        return indices[herding(class_latents(_needed(method), task_data, indices, batch_size), n)]


def _needed(method: LatentSource | None) -> LatentSource:
    if method is None:
        raise ConfigurationError(
            "herding needs the method to compute latents: pass method=... to update_buffer_new_task"
        )
    return method
