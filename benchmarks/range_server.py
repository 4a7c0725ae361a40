"""A file server with ranges, latency and a limit of bytes per second, in a process of its own.

    python -m benchmarks.range_server FOLDER --latency 0.02 --rate 50000000

It answers GET and HEAD as web servers do, and as S3 does with path-style addresses, without
checking signatures. It prints its address. All connections share one limit. ``GET /.sent`` answers
with the number of bytes sent so far.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import typer

from iirc_data.console import run_tool
from iirc_data.errors import ConfigurationError

_PART = 1 << 16


class Bucket:
    """Spreads the bytes of all connections over time.

    Args:
        rate: Bytes per second; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until this many bytes may be sent."""
        if not self._rate:
            return
        with self._lock:
            start = max(time.monotonic(), self._free_at)
            self._free_at = start + size / self._rate
        if (wait := start - time.monotonic()) > 0:
            time.sleep(wait)


class Server(ThreadingHTTPServer):
    """The server; see the module."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, latency: float, rate: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.latency = latency
        self.bucket = Bucket(rate)
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Send a file, or a range of it."""
        path = unquote(urlsplit(self.path).path)
        if path == "/.sent":
            self._finish(200, str(self.server.sent).encode())
            return
        time.sleep(self.server.latency)
        file = self.server.folder / path.lstrip("/")
        if not file.is_file():
            self._finish(404, b"")
            return
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            start, stop = 0, size
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start = int(found[1])
                stop = min(int(found[2] or size - 1) + 1, size)
            self.send_response(206 if found else 200)
            if found:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{size:x}"')
            self.send_header("Last-Modified", formatdate(0, usegmt=True))
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if self.command == "GET":
                self._send(opened.fileno(), start, stop)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self.do_GET()

    def _send(self, descriptor: int, start: int, stop: int) -> None:
        self.wfile.flush()
        while start < stop:
            size = min(_PART, stop - start)
            self.server.bucket.take(size)
            sent = os.sendfile(self.connection.fileno(), descriptor, start, size)
            start += sent
            self.server.sent += sent

    def _finish(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """Answer until the client goes away."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def serving(folder: Path, latency: float, rate: float) -> Iterator[str]:
    """Run the server in another process; yield its address."""
    options = ["--latency", str(latency), "--rate", str(rate)]
    command = [sys.executable, "-m", "benchmarks.range_server", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def bytes_sent(address: str) -> int:
    """Return the number of bytes of files that a server has sent."""
    with urlopen(f"{address}/.sent") as answer:
        return int(answer.read())


def main(
    folder: Path,
    latency: Annotated[float, typer.Option(help="Seconds before each answer.")] = 0.0,
    rate: Annotated[float, typer.Option(help="Bytes per second; 0 for no limit.")] = 0.0,
) -> None:
    """Serve a folder until the process is ended."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder: give the folder to serve")
    server = Server(folder, latency, rate)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    run_tool(main)
