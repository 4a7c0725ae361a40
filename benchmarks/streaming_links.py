"""Links for the benchmark of streaming: an HTTP and an S3 server, and what each of them carries."""

import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.range_server import serving
from iirc_data.shards import ShardStore
from iirc_data.shards.lookahead import CONNECTIONS

LATENCY = 0.02
BUCKET = "bench"
RATES = {"50 MB/s": 50e6, "unlimited": 0.0}
PROTOCOLS = ("http", "s3")


@dataclass(frozen=True)
class Link:
    """A server's addresses while it runs.

    Attributes:
        address: Address of the dataset.
        server: Address of the server.
        prefix: Path of the dataset on the server.
    """

    address: str
    server: str
    prefix: str


@contextmanager
def link(local: ShardStore, protocol: str, rate: float) -> Iterator[Link]:
    """Serve a dataset.

    Args:
        local: The dataset.
        protocol: ``http``, or ``s3`` for reading through s3fs.
        rate: Bytes per second; 0 for no limit.
    """
    with tempfile.TemporaryDirectory(prefix="iirc-served-") as folder:
        (Path(folder) / BUCKET).symlink_to(local.root.resolve())
        with serving(Path(folder), LATENCY, rate) as server:
            if protocol == "s3":
                use_s3(server)
                yield Link(f"s3://{BUCKET}", server, f"/{BUCKET}")
            else:
                yield Link(f"{server}/{BUCKET}", server, f"/{BUCKET}")


def use_s3(server: str) -> None:
    """Let S3 clients that are made from now on use a server."""
    os.environ["AWS_ENDPOINT_URL"] = os.environ["S3_ENDPOINT_URL"] = server
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "none")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    os.environ.setdefault("AWS_ALLOW_HTTP", "true")
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    try:
        import s3fs
    except ImportError:
        return
    s3fs.S3FileSystem.clear_instance_cache()


def download(local: ShardStore, served: Link) -> float:
    """Download all blocks and drop them, over as many connections; return the seconds."""
    layout, todo = local.blocks, queue.SimpleQueue[int]()
    for block in range(len(layout)):
        todo.put(block)

    def work() -> None:
        connection = HTTPConnection(urlsplit(served.server).netloc)
        buffer = bytearray(1 << 20)
        while True:
            try:
                block = todo.get_nowait()
            except queue.Empty:
                connection.close()
                return
            shard = local.manifest.shards[int(layout.shard[block])]
            span = f"bytes={layout.start[block]}-{layout.stop[block] - 1}"
            connection.request("GET", f"{served.prefix}/{shard.path}", headers={"Range": span})
            answer = connection.getresponse()
            while answer.readinto(buffer):
                pass

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def earliest_end(
    local: ShardStore, sample_ids: list[int], batch_size: int, link_seconds: float, speed: float
) -> float:
    """Return when a loader of whole, verified blocks can end an epoch at the earliest.

    It decodes the batches in their order, each when its last block has arrived. The blocks arrive
    in the order in which they are needed.

    Args:
        local: The dataset.
        sample_ids: The samples in the order of the epoch.
        batch_size: Samples per batch.
        link_seconds: Seconds in which the link carries all blocks.
        speed: Images that are decoded per second.

    Returns:
        Seconds from the start of the epoch.
    """
    layout = local.blocks
    sizes = layout.stop - layout.start
    of_sample = layout.of_samples(np.array(sample_ids)).tolist()
    arrived: dict[int, float] = {}
    seconds, end = LATENCY, 0.0
    for first in range(0, len(of_sample), batch_size):
        for block in of_sample[first : first + batch_size]:
            if block not in arrived:
                seconds += link_seconds * float(sizes[block]) / float(sizes.sum())
                arrived[block] = seconds
        end = max(end, seconds + (len(of_sample) - first) / speed)
    return end
