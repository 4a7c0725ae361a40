"""FFCV as a peer; this module requires FFCV."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image
from torchvision.transforms import v2

from benchmarks.contenders import Epoch, Workload
from iirc_data.decoding import decode

_JPEG_QUALITY = (
    90  # as in FFCV's ImageNet scripts; FFCV cannot keep the original bytes of a photograph
)


class _DecodedImages(Sequence[tuple[Image.Image, int]]):
    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def __len__(self) -> int:
        return len(self.workload.sample_ids)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        store, sample_id = self.workload.store, int(self.workload.sample_ids[index])
        return decode(store.read(sample_id), lambda: store.name(sample_id)), 0


def build(workload: Workload, stack: ExitStack) -> Epoch:
    """Write the images in FFCV's format and create its loader."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="iirc-benchmark-"))
    path = str(Path(folder, "images.beton"))
    fields = {
        "image": RGBImageField(write_mode="jpg", jpeg_quality=_JPEG_QUALITY),
        "label": IntField(),
    }
    writer = DatasetWriter(path, fields, num_workers=workload.workers)
    writer.from_indexed_dataset(_DecodedImages(workload))
    preset = workload.transforms
    steps = [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip(), ToTensor()]
    if workload.device.type == "cuda":
        steps.append(ToDevice(workload.device, non_blocking=True))
    steps.append(ToTorchImage())
    # FFCV's own normalisation of batches on a CPU can hang in the second epoch
    normalize = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preset.mean, preset.std)]
    )
    loader = Loader(
        path,
        batch_size=workload.batch_size,
        num_workers=workload.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={"image": steps, "label": None},
    )
    return lambda: (normalize(batch[0]) if workload.normalize else batch[0] for batch in loader)
