"""Loaders of other libraries, configured as their documentation recommends."""

import io
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from torchvision.transforms import v2

from benchmarks.contenders import Epoch, UnavailableError, Workload

_SHUFFLE_BUFFER = 1000


class PillowImages(Dataset[torch.Tensor]):
    """Images that Pillow decodes and torchvision's v1 transforms augment.

    The bytes come from open shards, which is faster than opening a file for each image.
    """

    def __init__(self, workload: Workload) -> None:
        self.store = workload.store
        self.sample_ids = workload.sample_ids.tolist()
        self.transform = v1_transform(workload)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        encoded = self.store.read(self.sample_ids[index])
        image: torch.Tensor = self.transform(Image.open(io.BytesIO(encoded.data)).convert("RGB"))
        return image


class DecodedPillowImages(Dataset[torch.Tensor]):
    """Images in memory, decoded in advance as Pillow images."""

    def __init__(self, workload: Workload) -> None:
        read = workload.store.read
        self.images = [
            Image.open(io.BytesIO(read(sample_id).data)).convert("RGB")
            for sample_id in workload.sample_ids.tolist()
        ]
        self.transform = v1_transform(workload)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(self.images[index])
        return image


class TorchvisionImages(Dataset[torch.Tensor]):
    """Images that torchvision.io decodes and torchvision's v2 transforms augment."""

    def __init__(self, workload: Workload) -> None:
        self.store = workload.store
        self.sample_ids = workload.sample_ids.tolist()
        preset = workload.transforms
        normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preset.mean, preset.std)]
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(224, antialias=True),
                v2.RandomHorizontalFlip(),
                *(normalize if workload.normalize else []),
            ]
        )

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        encoded = torch.tensor(self.store.read(self.sample_ids[index]))
        image: torch.Tensor = self.transform(decode_image(encoded, ImageReadMode.RGB))
        return image


def v1_transform(workload: Workload) -> v1.Compose:
    """Return torchvision's v1 transforms for training."""
    preset = workload.transforms
    crop = {
        "imagenet": v1.RandomResizedCrop(224),
        "cifar": v1.RandomCrop(32, padding=4),
    }
    normalize = [v1.ToTensor(), v1.Normalize(preset.mean, preset.std)]
    return v1.Compose(
        [
            crop[workload.preset],
            v1.RandomHorizontalFlip(),
            *(normalize if workload.normalize else [v1.PILToTensor()]),
        ]
    )


def pillow(workload: Workload, stack: ExitStack) -> Epoch:
    """DataLoader, Pillow, torchvision's v1 transforms."""
    return _data_loader(PillowImages(workload), workload)


def decoded_pillow(workload: Workload, stack: ExitStack) -> Epoch:
    """DataLoader over images decoded in advance, torchvision's v1 transforms."""
    return _data_loader(DecodedPillowImages(workload), workload)


def torchvision(workload: Workload, stack: ExitStack) -> Epoch:
    """DataLoader, torchvision's decoder and its v2 transforms."""
    return _data_loader(TorchvisionImages(workload), workload)


def webdataset(workload: Workload, stack: ExitStack) -> Epoch:
    """Plain webdataset over the same tars, Pillow, torchvision's v1 transforms."""
    tars = [str(path) for path in workload.paths]
    dataset = (
        wds.WebDataset(tars, shardshuffle=len(tars))
        .shuffle(_SHUFFLE_BUFFER)
        .decode("pilrgb")
        .to_tuple("jpg;jpeg;png")
        .map_tuple(v1_transform(workload))
        .batched(workload.batch_size)
    )
    loader = wds.WebLoader(
        dataset,
        batch_size=None,
        num_workers=min(workload.workers, len(tars)),
        persistent_workers=True,
        pin_memory=workload.device.type == "cuda",
    )
    return lambda: (images for (images,) in loader)


def ffcv(workload: Workload, stack: ExitStack) -> Epoch:
    """FFCV, if it is installed. It re-encodes the images into a file in its own format."""
    try:
        from benchmarks.ffcv_peer import build
    except ImportError as error:
        raise UnavailableError("not installed") from error
    return build(workload, stack)


def torchvision_on_gpu(workload: Workload, stack: ExitStack) -> Epoch:
    """The decoder of torchvision.io and torchvision's v2 transforms, both on the GPU."""
    augment = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])
    preset = workload.transforms
    normalize = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preset.mean, preset.std)]
    )
    read = DataLoader(
        EncodedImages(workload),
        workload.batch_size,
        shuffle=True,
        num_workers=min(2, workload.workers),  # they only copy bytes
        persistent_workers=True,
        collate_fn=list,
    )

    def epoch() -> Iterable[torch.Tensor]:
        for encoded in read:
            decoded = decode_jpeg(encoded, ImageReadMode.RGB, device=workload.device)
            images = torch.stack([augment(image) for image in decoded])
            yield normalize(images) if workload.normalize else images

    return epoch


class EncodedImages(Dataset[torch.Tensor]):
    """Encoded images, uint8 (bytes,)."""

    def __init__(self, workload: Workload) -> None:
        self.store = workload.store
        self.sample_ids = workload.sample_ids.tolist()

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(self.store.read(self.sample_ids[index]))


def _data_loader(dataset: Dataset[torch.Tensor], workload: Workload) -> Epoch:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        workload.batch_size,
        shuffle=True,
        num_workers=workload.workers,
        persistent_workers=True,
        pin_memory=workload.device.type == "cuda",
    )
    return lambda: loader
