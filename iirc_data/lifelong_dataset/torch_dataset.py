"""The lifelong dataset for PyTorch's ``DataLoader``."""

from typing import SupportsIndex

from torch.utils import data
from torchvision import transforms

from iirc_data.lifelong_dataset.base_dataset import BaseDataset, Item, Transform


class Dataset(BaseDataset, data.Dataset[Item]):
    """A :class:`BaseDataset` whose images are tensors.

    The arguments are those of :class:`BaseDataset`; ``essential_transforms_fn`` is
    ``torchvision.transforms.ToTensor()`` by default (float32 (C, H, W), 0 to 1).

    Choose the task before a ``DataLoader`` is made of the dataset, and make a new one whenever
    the task changes: the loader's workers hold a copy of the dataset.
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
        to_tensor: Transform = transforms.ToTensor()
        return to_tensor
