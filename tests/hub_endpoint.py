"""An endpoint with the part of the Hugging Face Hub's protocol that reads a dataset repository."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "1" * 40


class HubEndpoint(ThreadingHTTPServer):
    """Serves a folder as the repository ``datasets/lab/tiny``.

    Attributes:
        ranges: Path and header ``Range`` of each request of a file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.ranges: list[tuple[str, str | None]] = []

    def entry(self, path: Path) -> dict[str, object]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": "0" * 40, "size": path.stat().st_size}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubEndpoint

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        folder = self.server.folder
        if path.startswith("/datasets/lab/tiny/resolve/"):
            self._send_file(path.split("/", 6)[6])
        elif path.startswith("/api/datasets/lab/tiny/tree/"):
            start = folder.joinpath(*path.split("/")[7:])
            paths = start.rglob("*") if "recursive=true" in self.path.lower() else start.iterdir()
            self._send([self.server.entry(found) for found in sorted(paths)])
        elif path.startswith("/api/datasets/lab/tiny"):
            self._send({"id": "lab/tiny", "sha": COMMIT, "private": False, "siblings": []})
        else:
            self._send({"error": "not found"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_json = body.startswith("{")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body)["paths"]
        found = [self.server.folder / path for path in paths]
        self._send([self.server.entry(path) for path in found if path.exists()])

    def _send_file(self, name: str) -> None:
        asked = self.headers.get("Range")
        data = (self.server.folder / name).read_bytes()
        self.server.ranges.append((name, asked))
        first, last = 0, len(data) - 1
        if asked:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", COMMIT)
        self._finish(data[first : last + 1])

    def _send(self, value: object, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self._finish(json.dumps(value).encode())

    def _finish(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def hub(folder: Path) -> Iterator[HubEndpoint]:
    with HubEndpoint(folder) as endpoint:
        threading.Thread(target=endpoint.serve_forever, args=(0.02,), daemon=True).start()
        yield endpoint
        endpoint.shutdown()
