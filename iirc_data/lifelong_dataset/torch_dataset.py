"""Published API: the lifelong dataset for PyTorch's ``DataLoader``."""

from typing import SupportsIndex

from torch.utils import data
from torchvision import transforms

from iirc_data.definitions import Item
from iirc_data.lifelong_dataset.base_dataset import BaseDataset, Transform


class Dataset(BaseDataset, data.Dataset[Item]):
    """A :class:`BaseDataset` whose images are tensors.

    The arguments are those of :class:`BaseDataset`. ``essential_transforms_fn`` defaults to
    ``torchvision.transforms.ToTensor()``, which returns float32 (C, H, W) in [0, 1].

    Choose the task before you create a ``DataLoader``, and create a new one for each task: the
    loader's workers hold a copy of the dataset.
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
        to_tensor: Transform = transforms.ToTensor()
        return to_tensor
