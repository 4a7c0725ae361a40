"""Shards in an S3-compatible store and on the Hugging Face Hub, by servers started here."""

import importlib
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

from iirc_data.errors import ShardError
from iirc_data.shards import ShardStore, addresses
from iirc_data.shards.sharing import publish, pull
from tests.hub_endpoint import hub
from tests.test_streaming import contents, local, surroundings  # noqa: F401  # fixtures

FEW = [40, 41, 90]


def range_of(store: ShardStore, sample_id: int) -> tuple[int, int]:
    layout = store.blocks
    block = int(layout.of_samples(np.array([sample_id]))[0])
    return int(layout.start[block]), int(layout.stop[block])


@pytest.fixture
def bucket(monkeypatch):
    """The name of an empty bucket of an S3-compatible server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'iirc-pipeline[test]'")
    server = pytest.importorskip("moto.server", reason="moto with flask is not installed")
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="lab")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield "lab"
    moto.stop()


def test_a_dataset_in_an_s3_bucket_is_published_read_by_blocks_and_pulled(local, bucket, tmp_path):  # noqa: F811
    address = f"s3://{bucket}/tiny"
    publish(local.root, address)
    store = ShardStore.open(address)
    assert contents(store, FEW) == contents(local, FEW)
    assert store.fetched_bytes == sum(
        stop - start for start, stop in {range_of(local, i) for i in FEW}
    )
    plan = store.plan(np.arange(len(local)))
    assert contents(store) == contents(local)
    plan.close()
    assert store.fetched_bytes == sum(shard.bytes for shard in local.manifest.shards)
    pull(address, tmp_path / "copy")
    assert contents(ShardStore.open(tmp_path / "copy")) == contents(local)


class CuttingProxy(ThreadingHTTPServer):
    """Passes requests on to a server, and cuts the answers to some of them.

    Attributes:
        cuts: How many answers that begin at a byte are still to be cut.
        asked: First and last byte of each request of a part of a shard.
    """

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.behind = urlsplit(address).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.cuts: Counter[int] = Counter()
        self.asked: list[tuple[int, int]] = []


class ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CuttingProxy

    def do_GET(self) -> None:
        server = self.server
        behind = HTTPConnection(server.behind)
        behind.request(self.command, self.path, headers=dict(self.headers))
        answer = behind.getresponse()
        body = answer.read()
        behind.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found and ".tar" in self.path:
            start = int(found[1])
            server.asked.append((start, int(found[2])))
            if server.cuts[start]:
                server.cuts[start] -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        if self.close_connection:
            time.sleep(0.05)  # what was sent arrives before the end of the connection

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def cutting(address: str) -> Iterator[CuttingProxy]:
    with CuttingProxy(address) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        yield proxy
        proxy.shutdown()


def test_a_cut_transfer_from_a_bucket_resumes_where_it_was_cut(local, bucket, monkeypatch):  # noqa: F811
    import s3fs

    publish(local.root, f"s3://{bucket}/tiny")
    start, stop = range_of(local, 41)
    middle = start + (stop - start) // 2
    with cutting(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        store = ShardStore.open(f"s3://{bucket}/tiny")
        proxy.cuts[start] = 1
        assert contents(store, [41]) == contents(local, [41])
    assert proxy.asked == [(start, stop - 1), (middle, stop - 1)]
    assert store.fetched_bytes == stop - start


def test_a_bucket_without_the_dataset_is_an_error_with_its_address(local, bucket):  # noqa: F811
    with pytest.raises(ShardError, match=r"s3://lab/nothing/manifest\.json does not exist"):
        ShardStore.open(f"s3://{bucket}/nothing")


def test_an_object_that_is_shorter_than_the_manifest_says_is_refused(local, bucket):  # noqa: F811
    publish(local.root, f"s3://{bucket}/tiny")
    import boto3

    path = local.manifest.shards[int(local.table.shard[90])].path
    boto3.client("s3").put_object(Bucket=bucket, Key=f"tiny/{path}", Body=b"\0" * 1000)
    with pytest.raises(ShardError, match=f"s3://lab/tiny/{path}"):
        ShardStore.open(f"s3://{bucket}/tiny").read(90)


def test_a_dataset_on_the_hub_is_read_by_blocks(local, monkeypatch):  # noqa: F811
    package = pytest.importorskip(
        "huggingface_hub", reason="huggingface_hub is not installed: pip install it"
    )
    with hub(local.root) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint.url)
        constants = importlib.import_module("huggingface_hub.constants")
        # imported before, by timm for example, it has the addresses of the true hub
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        download = importlib.import_module("huggingface_hub.file_download")
        if hasattr(download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # a copy, before release 1.0
            monkeypatch.setattr(download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint.url)
        package.HfFileSystem.clear_instance_cache()
        store = ShardStore.open("hf://datasets/lab/tiny")
        assert contents(store, FEW) == contents(local, FEW)
        ranges = {range_of(local, sample_id) for sample_id in FEW}
        asked = {text for name, text in endpoint.ranges if name.endswith(".tar")}
        assert asked == {f"bytes={start}-{stop - 1}" for start, stop in ranges}
        plan = store.plan(np.arange(len(local)))
        assert contents(store) == contents(local)
        plan.close()


@pytest.mark.parametrize(
    "protocol, package, extra",
    [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gs"), ("hf", "huggingface_hub", "hf")],
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, protocol, package, extra):
    from fsspec.registry import _registry

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, protocol, raising=False)
    with pytest.raises(ShardError, match=rf"pip install 'iirc-pipeline\[{extra}\]'"):
        addresses.filesystem_at(f"{protocol}://lab/tiny")
