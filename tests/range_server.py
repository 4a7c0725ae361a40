"""A static web server that answers ranges, and misbehaves for chosen paths."""

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class RangeServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        faults: For each path what goes wrong with the next requests, in order.
        asked: Every answered request: path, first byte, end.
        served: Bytes sent of each path.
        most_at_once: Largest number of requests of shards at the same time.
        has_ranges: Whether the server knows ranges.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults: dict[str, deque[str]] = {}
        self.asked: list[tuple[str, int, int]] = []
        self.served: Counter[str] = Counter()
        self.has_ranges = True
        self.delay = 0.0
        self.lock = threading.Lock()
        self.now = self.most_at_once = 0

    def shard_ranges(self) -> list[tuple[str, int, int]]:
        return [asked for asked in self.asked if asked[0].endswith(".tar")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        server = self.server
        path = unquote(self.path)
        with server.lock:
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        try:
            if server.delay:
                time.sleep(server.delay)
            self._answer(path)
        finally:
            with server.lock:
                server.now -= 1

    def _answer(self, path: str) -> None:
        file = self.server.folder / path.partition("?")[0].lstrip("/")
        if not file.is_file():
            self._send(404, b"")
            return
        data = file.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = 0, len(data)
        headers = {}
        if found and self.server.has_ranges:
            start, stop = int(found[1]), min(int(found[2]) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        status = 206 if headers else 200
        body = data[start:stop]
        self.server.asked.append((path, start, stop))
        faults = self.server.faults.get(path)
        fault = faults.popleft() if faults else None
        match fault:
            case None:
                self._send(status, body, headers)
            case "cut":
                self._send(status, body[: len(body) // 2], headers, length=len(body))
                time.sleep(0.05)  # what was sent arrives before the end of the connection
                self.close_connection = True
            case "slow":
                self._send(status, body[:100], headers, length=len(body))
                time.sleep(1.0)
                self.close_connection = True
            case "shorter":
                self._send(status, body[:-512], headers)
            case "wrong bytes":
                self._send(status, bytes([body[0] ^ 1]) + body[1:], headers)
            case "other size":
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data) + 512}"
                self._send(status, body, headers)
            case "other range":
                headers["Content-Range"] = f"bytes {start + 512}-{stop - 1}/{len(data)}"
                self._send(status, body, headers)
            case status_and_wait:
                status_text, _, seconds = status_and_wait.partition(" ")
                wait = {"Retry-After": seconds} if seconds else {}
                self._send(int(status_text), b"no", wait)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.server.served[unquote(self.path)] += len(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients go away
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
