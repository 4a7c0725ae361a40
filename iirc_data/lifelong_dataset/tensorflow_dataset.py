"""The lifelong dataset for TensorFlow, and for anything that takes numpy arrays."""

from typing import SupportsIndex

import numpy as np

from iirc_data.lifelong_dataset.base_dataset import BaseDataset, Item, Transform


class Dataset(BaseDataset):
    """A :class:`BaseDataset` whose images are numpy arrays; TensorFlow is not needed for it.

    The arguments are those of :class:`BaseDataset`; ``essential_transforms_fn`` is
    ``numpy.asarray`` by default (uint8 (H, W, 3)). In TensorFlow, for images of 32 x 32 pixels::

        item = tf.TensorSpec((32, 32, 3), tf.uint8), *[tf.TensorSpec((), tf.string)] * 2
        batches = tf.data.Dataset.from_generator(lambda: iter(dataset), output_signature=item)
    """

    def __getitem__(self, index: SupportsIndex) -> Item:
        """Return one of the current samples, and its labels as of :meth:`get_labels`.

        Returns:
            The image after ``augmentation_transforms_fn``, or after ``essential_transforms_fn``
            where none was given and inside :meth:`disable_augmentations`; and the two labels.

        Raises:
            IndexError: There is no such sample.
            LoaderError: The image cannot be read.
        """
        return self._transformed_item(index)

    def _default_transforms_fn(self) -> Transform:
        return np.asarray
