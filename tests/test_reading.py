"""Files that users name: any Unicode encoding, and nothing that would wait or never end."""

import os
import socket
from pathlib import Path

import pytest

from iirc_data import reading
from iirc_data.benchmarks import load_benchmark
from iirc_data.commands.shard.selection import read_class_list
from iirc_data.errors import BenchmarkError, ConfigurationError, SourceError
from iirc_data.reading import read_text
from iirc_data.sources.restricted_pickle import load_cifar_pickle
from iirc_data.sources.tar import list_members, read_compressed
from iirc_data.taxonomies.json_file import read_taxonomy
from iirc_train.config.plain_yaml import read_settings
from tests.faults.limits import time_limit


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_is_not_text(tmp_path, encoding):
    path = tmp_path / "text"
    path.write_bytes("chêne\r\nEiche".encode(encoding))
    assert read_text(path) == "chêne\r\nEiche"


@pytest.mark.parametrize(
    "data, problem",
    [
        ("Buche".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("aé".encode("latin-1"), "not UTF-8 at byte 1"),
        (b"\xff\xfea", "not UTF-16 at byte"),
    ],
)
def test_another_encoding_is_named(tmp_path, data, problem):
    (tmp_path / "text").write_bytes(data)
    with pytest.raises(UnicodeError, match=problem):
        read_text(tmp_path / "text")


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_TEXT", 1 << 20)
    (tmp_path / "text").write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_text(tmp_path / "text")


READERS = {
    "list.txt": (lambda path: read_class_list(str(path)), SourceError, b"oak\nrose"),
    "taxonomy.json": (
        lambda path: read_taxonomy(path).superclasses,
        BenchmarkError,
        b'{"plant": ["oak"]}',
    ),
    "benchmark.json": (
        load_benchmark,
        BenchmarkError,
        b'{"name": "b", "dataset": "d", "other_classes": ["a"], "schedules": [[["a"]]]}',
    ),
    "settings.yaml": (read_settings, ConfigurationError, b"lr: 0.1"),
}


@pytest.mark.parametrize("name", READERS)
def test_whatever_users_write_may_have_a_byte_order_mark(tmp_path, name):
    read, error, content = READERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    expected = read(path)
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(content.decode().encode(encoding))
        assert read(path) == expected
    path.write_bytes(content.decode().encode("utf-16-le"))
    with pytest.raises(error, match="UTF-16"):
        read(path)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as unused:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            unused.bind(path.name)
        finally:
            os.chdir(here)


def make_endless_link(path):
    path.symlink_to("/dev/zero")


OTHER_READERS = {
    "images.tar": (list_members, SourceError),
    "cifar.tar.gz": (lambda path: read_compressed(path, ["a"]), SourceError),
    "batch": (load_cifar_pickle, SourceError),
}


@pytest.mark.parametrize(
    "make, kind",
    [
        (make_pipe, "a named pipe"),
        (make_socket, "a socket"),
        (make_endless_link, "a device"),
        (os.mkdir, "a folder"),
    ],
)
@pytest.mark.parametrize("name", [*READERS, *OTHER_READERS])
def test_what_would_wait_or_never_end_is_not_opened(tmp_path, name, make, kind):
    read, error, *_ = {**READERS, **OTHER_READERS}[name]
    make(tmp_path / name)
    with time_limit(10), pytest.raises(error, match=f"{name}: it is {kind}, not a file"):
        read(tmp_path / name)
