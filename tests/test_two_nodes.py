"""One run on two nodes reads remote shards through a shared cache, or through one per node."""

import os
import re
import socket
import sys
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch.distributed.run import main as torchrun

from iirc_train.cli import main
from tests.processes import CONTEXT

pytestmark = pytest.mark.slow

CACHES = {"shared": ["cache", "cache"], "own": ["first", "second"]}


class Server(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        sent: Number of bytes sent of each tar.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.sent: Counter[str] = Counter()
        self.lock = threading.Lock()


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(data) - 1
        if found:
            first, last = int(found[1]), min(int(found[2] or last), last)
        body = data[first : last + 1]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with self.server.lock:
            if path.suffix == ".tar":
                self.server.sent[self.path.lstrip("/")] += len(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients go away
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def write_to(log: Path) -> None:
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def run_node(cache: Path, log: Path, arguments: list[str]) -> None:
    write_to(log)
    os.environ |= {"IIRC_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    torchrun(arguments)


def start_nodes(root: Path, caches: list[str], url: str, options: list[str]) -> list[BaseProcess]:
    """Start nodes with one process each, which train together."""
    rendezvous = [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
    launcher = [f"--nnodes={len(caches)}", "--rdzv-backend=c10d", *rendezvous]
    command = ["-m", "iirc_train", "train", f"--output={root / 'run'}", f"--data={url}", *options]
    return [
        CONTEXT.Process(target=run_node, args=(root / cache, root / f"log-{number}", words))
        for number, (cache, words) in enumerate((cache, [*launcher, *command]) for cache in caches)
    ]


def run_rank(rank: int, port: int, log: Path, arguments: list[str]) -> None:
    write_to(log)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RUN_ID"] = "one node"  # as torchrun does
    sys.argv = ["iirc", *arguments]
    main()


def test_two_nodes_train_like_one_from_one_cache_or_from_their_own(
    tiny_settings, tiny_store, tmp_path
):
    settings = tiny_settings | {"method": "icarl", "threads": 1, "decoder": "pillow"}
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items() if k != "data"]
    one, port = tmp_path / "one node", free_port()
    one.mkdir()
    command = ["train", f"--output={one / 'run'}", f"--data={tiny_store.root}", *options]
    started = {
        one: [
            CONTEXT.Process(target=run_rank, args=(rank, port, one / f"log-{rank}", command))
            for rank in (0, 1)
        ]
    }
    servers = {}
    with ExitStack() as stack:
        for name, caches in CACHES.items():
            root = tmp_path / name
            root.mkdir()
            server = servers[name] = stack.enter_context(Server(tiny_store.root))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            started[root] = start_nodes(root, caches, server.url, options)
        for process in chain.from_iterable(started.values()):
            process.start()
        for root, processes in started.items():
            for process in processes:
                process.join(300)
            logs = "".join(log.read_text() for log in root.glob("log-*"))
            assert [process.exitcode for process in processes] == [0, 0], logs

    expected = (one / "run/metrics.jsonl").read_bytes()
    sizes = {shard.path: shard.bytes for shard in tiny_store.manifest.shards}
    for name, caches in CACHES.items():
        assert (tmp_path / name / "run/metrics.jsonl").read_bytes() == expected
        sent = servers[name].sent
        assert len(sent) >= 6
        for path, n_bytes in sent.items():  # once per cache
            assert n_bytes <= len(set(caches)) * sizes[path]
