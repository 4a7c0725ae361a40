"""Other libraries that stream datasets, configured as their documentation recommends.

Each function takes local shards and an empty folder. It returns the folder to serve, and a function
that takes the server's address and returns the epochs: a function that reads one epoch and returns
the number of images. They use two worker processes where nothing else is said, and the decoder and
transforms of torchvision.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.streaming_links import use_s3
from iirc_data.shards import ShardStore

BATCH_SIZE = 32
WORKERS = 2

Epoch = Callable[[int], int]
Prepared = tuple[Callable[[str], Epoch], Path]

_TRANSFORM = transforms.Compose(
    [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class UnavailableError(RuntimeError):
    """A library is not installed."""


def decoded(encoded: bytes) -> torch.Tensor:
    """Decode and augment one image, float32 (3, 224, 224)."""
    image: torch.Tensor = _TRANSFORM(Image.open(io.BytesIO(encoded)).convert("RGB"))
    return image


def _counted(loader: Any) -> int:
    return sum(len(batch) for batch in loader)


def webdataset(local: ShardStore, folder: Path) -> Prepared:
    """Stream the same tars, cached by webdataset."""
    import webdataset as wds

    def make(address: str) -> Epoch:
        urls = [f"{address}/{shard.path}" for shard in local.manifest.shards]
        data = (
            wds.WebDataset(
                [f"pipe:curl -s -f {url}" for url in urls],
                shardshuffle=len(urls),
                cache_dir=str(folder / "cache"),
                empty_check=False,
            )
            .shuffle(100)
            .map(_of_tar)
        )
        loader = DataLoader(data, BATCH_SIZE, num_workers=WORKERS)
        return lambda number: _counted(loader)

    (folder / "cache").mkdir()
    return make, local.root


def _of_tar(sample: dict[str, Any]) -> torch.Tensor:
    return decoded(next(sample[key] for key in ("jpg", "jpeg", "png") if key in sample))


def litdata(local: ShardStore, folder: Path) -> Prepared:
    """Stream chunks of LitData through its S3 client."""
    try:
        import litdata as ld
    except ImportError as error:
        raise UnavailableError("not installed") from error
    from litdata.streaming import downloader
    from litdata.streaming.writer import BinaryWriter

    options = getattr(downloader, "_OBSTORE_CLIENT_OPTIONS", None) or {}
    downloader._OBSTORE_CLIENT_OPTIONS = {**options, "allow_http": True}  # there is no setting

    out = folder / "bench"
    out.mkdir()
    writer = BinaryWriter(str(out), chunk_bytes="4MB")
    for number in range(len(local)):
        writer[number] = {"image": local.read(number).tobytes()}
    writer.done()
    writer.merge(1)

    def make(address: str) -> Epoch:
        use_s3(address)
        data = ld.StreamingDataset(
            "s3://bench",
            cache_dir=str(folder / "cache"),
            shuffle=True,
            transform=_of_record,
            storage_options={"endpoint_url": address},
        )
        loader = ld.StreamingDataLoader(data, batch_size=BATCH_SIZE, num_workers=WORKERS)
        return lambda number: _counted(loader)

    return make, folder


def mosaicml(local: ShardStore, folder: Path) -> Prepared:
    """Stream shards of MosaicML Streaming through its S3 client.

    With one worker process: with two, version 0.13.0 read damaged shards beside recent clients.
    """
    try:
        from streaming import MDSWriter, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory
    except ImportError as error:
        raise UnavailableError("not installed") from error
    out = folder / "bench"
    with MDSWriter(out=str(out), columns={"image": "bytes"}, size_limit=1 << 22) as writer:
        for number in range(len(local)):
            writer.write({"image": local.read(number).tobytes()})

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            return decoded(super().__getitem__(at)["image"])

    def make(address: str) -> Epoch:
        use_s3(address)
        clean_stale_shared_memory()
        data = Images(
            remote="s3://bench",
            local=str(folder / "cache"),
            shuffle=True,
            batch_size=BATCH_SIZE,
        )
        loader: DataLoader[Any] = DataLoader(data, BATCH_SIZE, num_workers=1)
        return lambda number: _counted(loader)

    return make, folder


def _of_record(record: dict[str, Any]) -> torch.Tensor:
    return decoded(record["image"])


PEERS: dict[str, Callable[[ShardStore, Path], Prepared]] = {
    "webdataset": webdataset,
    "LitData": litdata,
    "MosaicML, 1 worker": mosaicml,
}
