"""Downloads: resumed, retried, and kept only with the right digest."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from iirc_data.errors import SourceError
from iirc_data.sources.download import download
from tests.full_disk import space_left

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; what it does besides, the server's attributes say."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status is not None:
            self.send_error(server.status)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if first >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.most])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.status, server.ranges, server.most = [], None, True, None
        server.url = f"http://127.0.0.1:{server.server_port}/data.tar.gz"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_is_downloaded_once(server, tmp_path):
    path = tmp_path / "new" / "data.tar.gz"
    told = []
    download(server.url, path, SHA256, lambda *progress: told.append(progress))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    download(server.url, path, SHA256)
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["data.tar.gz"]


def test_a_connection_that_breaks_is_gone_on_with(server, tmp_path):
    server.most = 100_000
    download(server.url, tmp_path / "data", SHA256)
    assert (tmp_path / "data").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_an_interrupted_download_is_gone_on_with(server, tmp_path):
    server.most = 1_000
    with pytest.raises(SourceError, match=r"was interrupted .*run the command again to resume"):
        download(server.url, tmp_path / "data", SHA256)
    assert not (tmp_path / "data").exists()
    server.most = None
    server.asked.clear()
    download(server.url, tmp_path / "data", SHA256)
    assert server.asked == ["bytes=5000-"]
    assert (tmp_path / "data").read_bytes() == CONTENT


@pytest.mark.parametrize("there", [b"", CONTENT[:7], CONTENT])
@pytest.mark.parametrize("ranges", [True, False])
def test_whatever_part_is_there_the_whole_is_right(server, tmp_path, there, ranges):
    server.ranges = ranges
    (tmp_path / "data.part").write_bytes(there)
    download(server.url, tmp_path / "data", SHA256)
    assert (tmp_path / "data").read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_told_and_the_download_gone_on_with(server, tmp_path):
    with (
        space_left(tmp_path, 200_000),
        pytest.raises(SourceError, match=f"to {tmp_path}/data.part: .*No space left on device"),
    ):
        download(server.url, tmp_path / "data", SHA256)
    assert not (tmp_path / "data").exists()
    download(server.url, tmp_path / "data", SHA256)
    assert (tmp_path / "data").read_bytes() == CONTENT


def test_another_file_than_was_published_is_not_kept(server, tmp_path):
    with pytest.raises(SourceError, match=f"a file other than the published one.*{SHA256}"):
        download(server.url, tmp_path / "data", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_that_is_there_is_named_and_left_alone(server, tmp_path):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(SourceError, match="data is not the published file: remove it"):
        download(server.url, tmp_path / "data", SHA256)
    assert (tmp_path / "data").read_bytes() == b"mine"


def test_what_the_server_refuses_is_told(server, tmp_path):
    server.status = 404
    with pytest.raises(SourceError, match=r"cannot download http://.*404"):
        download(server.url, tmp_path / "data", SHA256)


def test_a_server_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SourceError, match=r"cannot download http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", tmp_path / "data", SHA256)
