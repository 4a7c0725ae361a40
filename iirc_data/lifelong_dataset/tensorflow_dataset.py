"""Published API: the lifelong dataset for TensorFlow and other libraries that read NumPy arrays."""

from typing import SupportsIndex

import numpy as np

from iirc_data.definitions import Item
from iirc_data.lifelong_dataset.base_dataset import BaseDataset, Transform


class Dataset(BaseDataset):
    """A :class:`BaseDataset` whose images are NumPy arrays. It does not import TensorFlow.

    The arguments are those of :class:`BaseDataset`. ``essential_transforms_fn`` defaults to
    ``numpy.asarray``, which returns uint8 (H, W, 3). In TensorFlow, for images of 32 x 32 pixels::

        item = tf.TensorSpec((32, 32, 3), tf.uint8), *[tf.TensorSpec((), tf.string)] * 2
        batches = tf.data.Dataset.from_generator(lambda: iter(dataset), output_signature=item)
    """

    def __getitem__(self, index: SupportsIndex) -> Item:
        """Return a sample of the current task.

        Returns:
            The image, transformed by ``augmentation_transforms_fn``, or by
            ``essential_transforms_fn`` if there is none and inside :meth:`disable_augmentations`;
            then the labels of :meth:`get_labels`.

        Raises:
            IndexError: The index is out of range.
            BenchmarkError: The sample has several labels in the class-incremental setup.
            LoaderError: The image cannot be read.
        """
        return self._transformed_item(index)

    def _default_transforms_fn(self) -> Transform:
        return np.asarray
