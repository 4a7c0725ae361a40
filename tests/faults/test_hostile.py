"""Malicious input is rejected with a documented error before it uses much time or memory."""

import struct
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console

from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.console import errors_in_one_line
from iirc_data.errors import (
    BufferStorageError,
    CheckpointError,
    LoaderError,
    ShardError,
    SourceError,
)
from iirc_data.loader import make_decoder, make_loader
from iirc_data.shards import ShardStore, addresses, class_writer, write_shards
from iirc_data.shards.sharing import pull
from iirc_data.shards.verify import verify
from iirc_data.sources import download as download_module
from iirc_data.sources import open_folder
from iirc_data.sources.download import download
from iirc_data.sources.images import ImageHeader
from iirc_train.config import ExperimentConfig
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.training.launch import resume_experiment, run_experiment
from tests.conftest import TINY_TREE, write_image_folder
from tests.test_loader import DECODERS, everything

QUIET = Console(quiet=True)


# --- images that decode to gigabytes -----------------------------------------------------------


def png_bomb(height: int, width: int) -> bytes:
    """A small PNG whose header declares height by width pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1 << 16))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg_bomb(jpeg: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header declares height by width pixels."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


@pytest.fixture(params=["png", "jpg"])
def bombs(request, tmp_path, tiny_folder):
    """A folder of images, one of which is a decompression bomb."""
    folder = write_image_folder(tmp_path / "images", TINY_TREE)
    place = folder / "train" / "dog" / "0001.jpg"
    whole = place.read_bytes()
    place.unlink()
    bomb = png_bomb(60_000, 60_000) if request.param == "png" else jpeg_bomb(whole, 65_000, 65_000)
    place.with_name(f"0001.{request.param}").write_bytes(bomb)
    return folder


def test_a_bomb_is_not_sharded(bombs, tmp_path):
    with pytest.raises(SourceError, match=r"dog/0001\.(png|jpg) is too large an image"):
        write_shards(open_folder(bombs), tmp_path / "shards")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_bomb_that_a_forged_table_calls_small_is_not_decoded(
    bombs, tmp_path, monkeypatch, decoder
):
    monkeypatch.setattr(class_writer, "read_header", lambda *_: ImageHeader(32, 32, "RGB"))
    write_shards(open_folder(bombs), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    loader = make_loader(
        everything(store),
        store,
        transforms=TRANSFORM_PRESETS["cifar"],
        train=False,
        batch_size=64,
        decoder=make_decoder(decoder),
    )
    with pytest.raises(LoaderError, match=r"dog-000000\.tar:0001\.(png|jpg)"):
        list(loader)
    assert any("dog" in problem for problem in verify(tmp_path / "shards").problems)


def test_a_table_that_promises_gigantic_images_is_refused(bombs, tmp_path, monkeypatch):
    monkeypatch.setattr(class_writer, "read_header", lambda *_: ImageHeader(60_000, 60_000, "RGB"))
    write_shards(open_folder(bombs), tmp_path / "shards")
    with pytest.raises(ShardError, match="wrong height or width"):
        ShardStore.open(tmp_path / "shards")


# --- servers -----------------------------------------------------------------------------------


class HostileHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.answer(self)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def server(answer):
    """Serve every request with a function; yield the server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HostileHandler) as http:
        http.answer = answer
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def redirect_to(target: str):
    def answer(handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target.format(path=handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(addresses, "_SECONDS_BETWEEN_ATTEMPTS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("target", ["file://{root}/manifest.json", "ftp://h/m", "/again{{path}}"])
def test_a_redirection_to_files_or_in_circles_is_not_followed(tiny_store, tmp_path, target):
    with (
        server(redirect_to(target.format(root=tiny_store.root))) as address,
        pytest.raises(ShardError, match=r"cannot read http://.*manifest\.json"),
    ):
        pull(address, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["file://{root}/manifest.json", "/again{{path}}"])
def test_a_download_is_not_redirected_to_files_or_in_circles(tiny_store, tmp_path, target):
    with (
        server(redirect_to(target.format(root=tiny_store.root))) as address,
        pytest.raises(SourceError, match="cannot download"),
    ):
        download(f"{address}/cifar.tar.gz", tmp_path / "cifar.tar.gz", "0" * 64)
    assert not (tmp_path / "cifar.tar.gz").exists()


def endless(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def wrong_length(handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "many")
    handler.end_headers()
    handler.wfile.write(b"short")


@pytest.mark.parametrize(
    "answer, problem", [(endless, "gives more than"), (wrong_length, "gave a file other than")]
)
def test_a_download_of_any_length_comes_to_an_end(tmp_path, monkeypatch, answer, problem):
    monkeypatch.setattr(download_module, "_LARGEST_FILE", 1 << 22)
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)  # clients disconnect
    with server(answer) as address, pytest.raises(SourceError, match=problem):
        download(f"{address}/cifar.tar.gz", tmp_path / "cifar.tar.gz", "0" * 64)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


# --- malformed checkpoints ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_settings, tmp_path_factory):
    run = tmp_path_factory.mktemp("hostile") / "run"
    settings = tiny_settings | {"method": "finetune", "decoder": "pillow", "threads": 1}
    return run_experiment(ExperimentConfig.parse(settings), run, QUIET)


PARTS = [
    ("position",),
    ("sizes",),
    ("best",),
    ("experiment", "method"),
    ("experiment", "buffer"),
    ("experiment", "random"),
    ("experiment", "threads"),
    ("experiment", "random", "numpy"),
    ("experiment", "random", "torch"),
    ("experiment", "buffer", "counts"),
]


@pytest.mark.parametrize("value", ["missing", None, "x"])
def test_a_checkpoint_of_another_form_is_refused(finished, value):
    path = finished / "checkpoints" / "last.pt"
    original = path.read_bytes()
    try:
        for *outer, last in PARTS:
            state = load_checkpoint(path)
            part = state
            for name in outer:
                part = part[name]
            if value == "missing":
                del part[last]
            else:
                part[last] = value
            save_checkpoint(path, state)
            if last == "best":  # a finished run does not use it
                continue
            with pytest.raises((CheckpointError, BufferStorageError)):
                resume_experiment(finished, QUIET)
            path.write_bytes(original)
    finally:
        path.write_bytes(original)


# --- errors of the operating system ------------------------------------------------------------


def test_what_the_system_says_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught, errors_in_one_line():
        raise FileNotFoundError(2, "No such file or directory", "/some/where")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "No such file or directory: '/some/where'" in told
