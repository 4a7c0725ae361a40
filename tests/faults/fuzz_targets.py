"""Fuzz targets: for each kind of input its mutations, its reader, and its documented errors."""

import gzip
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from iirc_data.benchmarks import Benchmark, parse_benchmark
from iirc_data.decoding import decode
from iirc_data.errors import (
    BenchmarkError,
    BufferStorageError,
    CheckpointError,
    ConfigurationError,
    LoaderError,
    ShardError,
    SourceError,
)
from iirc_data.shards import ShardStore
from iirc_data.shards.headers import header_problems
from iirc_data.shards.manifest import Manifest, load_manifest
from iirc_data.shards.table import SampleTable, load_table, table_problems
from iirc_data.shards.table_columns import COLUMN_DTYPES
from iirc_data.shards.verify import member_problems
from iirc_data.sources.base import Sample
from iirc_data.sources.images import decode_rgb, read_header
from iirc_data.sources.restricted_pickle import parse_cifar_pickle
from iirc_data.sources.tar import list_members, read_compressed, read_images
from iirc_data.task_sequence import TaskSequence
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.store import BufferStore
from iirc_train.cli import main
from iirc_train.config import ExperimentConfig
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import encode, noise_image
from tests.faults.mutations import edited_bytes, edited_value, scalars
from tests.raw_datasets import add_member, cifar_pixels

SPLITS = ("train", "intask_valid", "posttask_valid", "test")


@dataclass(frozen=True)
class Surroundings:
    """What targets are built from."""

    folder: Path
    store: ShardStore
    benchmark: Benchmark


@dataclass(frozen=True)
class Target:
    """Inputs, the function that reads one, and the errors it may raise."""

    inputs: st.SearchStrategy[Any]
    use: Callable[[Any], None]
    documented: tuple[type[Exception], ...]


def manifest_target(around: Surroundings) -> Target:
    text = (around.store.root / "manifest.json").read_bytes()
    inputs = edited_bytes([text]) | st.tuples(edited_value(json.loads(text)), st.booleans())

    def use(value: Any) -> None:
        if isinstance(value, tuple):
            content, with_digest = value
            if with_digest and isinstance(content, dict):
                content["digest"] = fitting_digest(content)
            value = json.dumps(content).encode()
        manifest = load_manifest(value, "manifest")
        assert manifest.digest == manifest.compute_digest()
        for shard in manifest.shards:
            assert around.folder in (around.folder / shard.path).resolve().parents
            assert shard.path.endswith(".tar")
        load_table(around.store.root / "index.npz", manifest, "table")
        table_problems(around.store.table, manifest)

    return Target(inputs, use, (ShardError,))


def fitting_digest(content: dict[str, Any]) -> str:
    """Return the digest that a forger would write, if the content is that of a manifest."""
    try:
        forged = Manifest.model_validate_json(json.dumps({**content, "digest": ""}))
    except ValueError:
        return "0" * 64
    return forged.compute_digest()


def benchmark_target(around: Surroundings) -> Target:
    text = around.benchmark.model_dump_json().encode()
    inputs = edited_bytes([text]) | edited_value(json.loads(text))

    def use(value: Any) -> None:
        text = value if isinstance(value, bytes) else json.dumps(value)
        benchmark = parse_benchmark(text, "benchmark")
        for schedule in range(min(len(benchmark.schedules), 2)):
            for split in SPLITS:
                tasks = TaskSequence.from_table(
                    benchmark, around.store.manifest, around.store.table, split, schedule=schedule
                )
                for task in range(len(tasks)):
                    view = tasks.view(task)
                    assert view.labels.shape == (len(view), 2)
                    assert view.digest() == tasks.view(task).digest()

    return Target(inputs, use, (BenchmarkError,))


def table_target(around: Surroundings) -> Target:
    table, manifest = around.store.table, around.store.manifest
    text = (around.store.root / "index.npz").read_bytes()
    columns = {name: getattr(table, name) for name in COLUMN_DTYPES}
    cell = st.tuples(
        st.sampled_from(list(columns)),
        st.integers(0, len(table) - 1),
        st.sampled_from([-1, 0, 1, 7, 2**20, 2**31 - 1, 2**62]),
    )

    def use(value: Any) -> None:
        if not isinstance(value, bytes):
            changed = {name: column.astype(np.int64) for name, column in columns.items()}
            for name, row, number in value:
                changed[name][row] = number
            file = io.BytesIO()
            np.savez(file, **changed)
            value = file.getvalue()
        found = SampleTable.load(io.BytesIO(value), "table")
        forged = manifest.model_copy(update={"table_sha256": found.digest()})
        found = load_table(io.BytesIO(value), forged, "table")
        ends = np.array([shard.bytes for shard in manifest.shards])[found.shard]
        assert (found.offset + found.size <= ends).all()

    return Target(edited_bytes([text]) | st.lists(cell, min_size=1), use, (ShardError,))


def tars() -> list[bytes]:
    """Return tars in all formats, with long names and other extended headers."""
    image = encode(noise_image(0, 8, 8))
    found = []
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
            add_member(archive, "train/a/0.jpg", image)
            if tar_format != tarfile.USTAR_FORMAT:
                add_member(archive, f"train/a/{'n' * 150}é.jpg", image)
                headers = {"size": str(len(image)), "mtime": "1.5", "comment": "x"}
                add_member(archive, "train/b/1.jpg", image, pax_headers=headers)
            add_member(archive, "train/b", b"", type=tarfile.DIRTYPE)
        data = bytearray(file.getvalue())
        found.append(bytes(data[: -len(data) % 512 or None]))
    return found


def source_tar_target(around: Surroundings) -> Target:
    path = around.folder / "source.tar"
    packed = around.folder / "packed.tar.gz"

    def use(value: tuple[bytes, bool]) -> None:
        data = with_checksums(value[0]) if value[1] else value[0]
        path.write_bytes(data)
        packed.write_bytes(gzip.compress(data, 1))
        members = list_members(path)
        assert len(members) <= len(data) // 512
        for sample in read_images(path, members):
            assert len(sample.data) <= len(data)
        read_compressed(packed, ["train/a/0.jpg"])

    return Target(st.tuples(edited_bytes(tars()), st.booleans()), use, (SourceError,))


def with_checksums(data: bytes) -> bytes:
    """Return a tar with the checksums of its headers, which may be altered, recomputed."""
    tar = bytearray(data)
    for start in range(0, len(tar) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        if tar[start + 257 : start + 262] == b"ustar":
            tar[start + 148 : start + 156] = b" " * 8
            total = sum(tar[start : start + tarfile.BLOCKSIZE])
            tar[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(tar)


def shard_target(around: Surroundings) -> Target:
    """A shard with altered content but matching digests, since a forger recomputes them."""
    table, manifest = around.store.table, around.store.manifest
    original = (around.store.root / manifest.shards[0].path).read_bytes()
    rows = slice(0, manifest.shards[0].samples)
    path = around.folder / "shard.tar"

    def use(value: tuple[bytes, bool]) -> None:
        data = with_checksums(value[0]) if value[1] else value[0]
        data = data[: len(original)].ljust(len(original), b"\0")
        path.write_bytes(data)
        members = table.offset[rows], table.size[rows], manifest.image_formats
        if member_problems(path, *members) or header_problems(path, table, rows):
            raise ShardError("problems were found")

    return Target(st.tuples(edited_bytes([original]), st.booleans()), use, (ShardError,))


def pickle_target(around: Surroundings) -> Target:
    content = {b"data": cifar_pixels(2, 0), b"fine_labels": [1, 2], "text": ["a", 0.5, None]}
    seeds = [pickle.dumps(content, protocol) for protocol in range(6)]
    names = b"cos\nsystem\n cbuiltins\neval\n cnumpy\nndarray\n cnumpy\ndtype\n".split(b" ")
    opcodes = st.sampled_from(
        [bytes([code]) for code in range(256) if code > 32 or code in (0x80, 0x8C)] + names
    )
    made = st.lists(opcodes | st.binary(max_size=4), max_size=40).map(b"".join)
    marker = around.folder / "ran"

    def use(data: bytes) -> None:
        found = parse_cifar_pickle(data, "pickle")
        assert all(isinstance(key, bytes) for key in found)
        assert not marker.exists()

    return Target(edited_bytes(seeds) | made, use, (SourceError,))


def image_target(around: Surroundings) -> Target:
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "L", "P", "RGBA", "1", "I;16")}
    seeds = [
        encode(noise_image(1, 9, 7, "L" if mode == "I;16" else "RGB").convert(mode), kind)
        for kind, m in modes.items()
        for mode in m
    ]

    def use(data: bytes) -> None:
        header = read_header(data, "image")
        assert header.height * header.width > 0
        if header.height * header.width < 1 << 22:
            image = decode_rgb(Sample("0", "jpg", data, "image"))
            assert (image.height, image.width) == header[:2]
            decode(np.frombuffer(data, np.uint8), lambda: "image")

    return Target(edited_bytes(seeds), use, (SourceError, LoaderError))


def checkpoint_target(around: Surroundings) -> Target:
    path = around.folder / "last.pt"
    state = {
        "position": (1, 2),
        "experiment": {"net": {"weight": torch.arange(40.0).reshape(5, 8)}, "threads": 1},
        "sizes": {"metrics.jsonl": 10},
        "best": None,
    }
    save_checkpoint(path, state)
    original = path.read_bytes()

    def use(data: bytes) -> None:
        path.write_bytes(data)
        found = load_checkpoint(path)
        weight = found["experiment"]["net"].pop("weight")
        assert torch.equal(weight, state["experiment"]["net"]["weight"])
        expected = {**state, "experiment": {"net": {}, "threads": 1}}
        assert {name: found[name] for name in expected} == expected

    return Target(edited_bytes([original]), use, (CheckpointError,))


def buffer_target(around: Surroundings) -> Target:
    original, broken = around.folder / "buffer.zarr", around.folder / "broken.zarr"
    store = BufferStore(original)
    for number, name in enumerate(("cat", "dog")):
        store.write_class(
            name,
            [Memory(encode(noise_image(i, 8, 8)), ("animal", name), 8, 8) for i in range(3)],
            number,
        )
    counts = {"cat": 3, "dog": 2}
    generation = store.commit(counts)
    expected = [store.read_class(number, name) for number, name in enumerate(counts)]
    files = sorted(path for path in original.rglob("*") if path.is_file())
    documents = {path: path.read_bytes() for path in files}
    metadata = {path: json.loads(text) for path, text in documents.items() if "zarr" in path.name}
    inputs = st.one_of(
        st.sampled_from(files).flatmap(
            lambda path: st.tuples(st.just(path), edited_bytes([documents[path]]))
        ),
        st.sampled_from(list(metadata)).flatmap(
            lambda path: st.tuples(st.just(path), edited_value(metadata[path]))
        ),
        st.tuples(st.sampled_from(files), st.none()),
    )

    def use(value: Any) -> None:
        path, content = value
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(original, broken)
        target = broken / path.relative_to(original)
        if content is None:
            target.unlink()
        else:
            is_text = isinstance(content, bytes)
            target.write_bytes(content if is_text else json.dumps(content).encode())
        store = BufferStore(broken)
        if store.counts(generation) != counts:
            raise BufferStorageError("a checkpoint records the counts, and would not match")
        for number, (name, memories) in enumerate(zip(counts, expected, strict=True)):
            found = store.read_class(number, name)
            for field, array in vars(memories).items():
                assert np.array_equal(getattr(found, field), array), field
        store.collect(generation)

    return Target(inputs, use, (BufferStorageError,))


def configuration_target(around: Surroundings) -> Target:
    path = around.folder / "config.yaml"
    settings = {
        "benchmark": "iirc_cifar10",
        "data": "shards",
        "method": "finetune",
        "lr": 0.1,
        "lr_schedule": [1, 2],
        "n_memories_per_class": 3,
        "seed": 1,
        "precision": "auto",
    }
    text = yaml.safe_dump(settings).encode()
    telling = st.sampled_from(
        [
            b"!!python/object/apply:os.system [true]",
            b"2001-13-45",
            b"&a [*a, *a]",
            b"0x",
            b"{? [1]: 2}",
            b"<<: *a",
            b"[" * 2000,
            b".inf",
            b"1:70:2",
        ]
    )
    planted = st.tuples(st.sampled_from(list(settings)), telling).map(
        lambda pair: text + pair[0].encode() + b": " + pair[1] + b"\n"
    )
    inputs = edited_bytes([text]) | planted | edited_value(settings)

    def use(value: Any) -> None:
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        config = ExperimentConfig.load(path)
        config.save(path)
        assert ExperimentConfig.load(path) == config

    return Target(inputs, use, (ConfigurationError,))


class RefusedError(Exception):
    """The command ended with an error of one line, or printed its usage."""


def command_line_target(around: Surroundings) -> Target:
    commands = (
        ["train", "--resume"],
        ["train"],
        ["benchmarks"],
        ["benchmarks", "show"],
        ["presets", "show"],
        ["data", "info"],
        ["data", "verify"],
        ["data", "pull"],
        ["data", "publish"],
        ["data", "digest"],
        [],
    )
    options = [f"--{name.replace('_', '-')}" for name in ExperimentConfig.setting_names()]
    options += ["--preset", "--config", "--tasks", "--workers", "--schedule", "--help", "--x", "--"]
    place = str(around.folder / "nothing")
    here = around.folder / "here"
    here.mkdir()
    words = st.one_of(
        st.sampled_from(options),
        st.sampled_from([place, str(around.store.root), "iirc_cifar10", "0-99999999999", "cpu"]),
        st.sampled_from(["x" * 300, "9" * 5000, "nosuch://a", "a::b", "\udcff", "[bold]", "-"]),
        scalars.map(str).map(lambda text: text.replace("\0", "")),
    )
    lines = st.tuples(st.sampled_from(commands), st.lists(words, max_size=5))

    def use(line: tuple[list[str], list[str]]) -> None:
        arguments = [*line[0], *line[1]]
        # one invalid word keeps a run from starting
        if line[0][:1] == ["train"]:
            arguments += ["--method", "none"]
        out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", kind) for kind in STREAM_ERRORS)
        status = 0
        with (
            mock.patch("sys.argv", ["iirc", *arguments]),
            chdir(here),
            redirect_stdout(out),
            redirect_stderr(errors),
        ):
            try:
                main()
            except SystemExit as error:
                status = error.code or 0
        told = b"".join(stream.flush() or stream.buffer.getvalue() for stream in (out, errors))
        assert b"Traceback" not in told
        assert status in (0, 1, 2), status
        if status:
            assert told.strip(), "an error that says nothing"
            raise RefusedError

    return Target(lines, use, (RefusedError,))


STREAM_ERRORS = ("strict", "backslashreplace")  # what Python gives stdout and stderr

TARGETS = {
    "manifest": manifest_target,
    "benchmark": benchmark_target,
    "sample table": table_target,
    "tar of a source": source_tar_target,
    "shard": shard_target,
    "CIFAR pickle": pickle_target,
    "image": image_target,
    "checkpoint": checkpoint_target,
    "buffer": buffer_target,
    "configuration": configuration_target,
    "command line": command_line_target,
}
