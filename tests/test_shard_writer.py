"""Writing shards: reproducible, resumable, and nothing half-written under a final name."""

import errno
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from iirc_data.augment import TransformPreset, Unchanged
from iirc_data.errors import ShardError, SourceError
from iirc_data.files import canonical_json
from iirc_data.loader import make_loader
from iirc_data.shards import ShardStore, load_manifest, write_shards
from iirc_data.shards.dali_index import write_dali_index
from iirc_data.shards.pixel_digest import shard_pixels_sha256
from iirc_data.shards.sharing import pull
from iirc_data.shards.tar_writer import TarWriter
from iirc_data.shards.verify import verify
from iirc_data.sources import Sample, open_cifar, open_folder
from iirc_data.sources.images import read_header
from iirc_data.task_view import TaskView
from tests.conftest import TINY_TREE, encode, noise_image, write_image_folder
from tests.full_disk import file_size_limit, space_left
from tests.made_images import chunk, join_png, png_header
from tests.odd_images import odd_images, pixels_to_show
from tests.raw_datasets import write_cifar100


def contents(root: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# --- the tar ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3, 120])
def test_a_tar_equals_that_of_webdataset(tmp_path, n):
    rng = np.random.default_rng(n)
    members = [(f"{i:05d}", rng.bytes(int(rng.integers(1, 100_000)))) for i in range(n)]
    members += [("é" * 90, b"x" * 512), ("k" * 150, b"")]
    with webdataset.TarWriter(
        str(tmp_path / "reference.tar"), encoder=False, mtime=0, user="", group=""
    ) as reference:
        for key, data in members:
            reference.write({"__key__": key, "jpg": data})
    with (tmp_path / "ours.tar").open("wb") as file, TarWriter(file) as tar:
        offsets = [tar.add(f"{key}.jpg", data) for key, data in members]
    written = (tmp_path / "ours.tar").read_bytes()
    assert written == (tmp_path / "reference.tar").read_bytes()
    assert tar.size == len(written)
    for offset, (_, data) in zip(offsets, members, strict=True):
        assert written[offset : offset + len(data)] == data


class RefusesDirectWriting(io.FileIO):
    """A file of a system that takes the flag for direct writing, but not the data."""

    def write(self, data):
        if fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().write(data)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux writes past its memory")
def test_a_tar_is_the_same_where_writing_past_the_memory_is_refused(tmp_path):
    data = np.random.default_rng(0).bytes(5_000_000)
    for path, kind in (("a.tar", io.FileIO), ("b.tar", RefusesDirectWriting)):
        with kind(tmp_path / path, "wb") as file, TarWriter(file) as tar:
            tar.add("0.jpg", data)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


# --- the same data, the same digest -----------------------------------------------------------


class LastFirst(Executor):
    """Runs what is submitted when the last result is asked for, in reverse order."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._calls = []

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        self._calls.append((future, function, arguments))
        if len(self._calls) == self._n:
            for future, function, arguments in reversed(self._calls):
                future.set_result(function(*arguments))
        return self._calls[-1][0]


def test_files_are_the_same_whatever_runs_the_classes_in_whatever_order(
    tiny_folder, tiny_store, tmp_path
):
    source = open_folder(tiny_folder)
    n_jobs = sum(map(len, TINY_TREE.values()))
    write_shards(source, tmp_path / "two", workers=2)
    write_shards(source, tmp_path / "reversed", executor=LastFirst(n_jobs))
    expected = contents(tiny_store.root)
    assert contents(tmp_path / "two") == expected
    assert contents(tmp_path / "reversed") == expected


@dataclass(frozen=True)
class Drawn:
    """Images that are encoded here, at a level of compression."""

    level: int
    seed: int = 0
    name: str = "drawn"
    encoded_here = True

    def classes(self):
        return {"train": ["a", "b"]}

    def weight(self, split, class_name):
        return 5

    def fingerprint(self, split, class_name):
        return str(self)

    def samples(self, split, class_name):
        for number in range(5):
            file = io.BytesIO()
            image = noise_image(self.seed + number + 10 * (class_name == "b"))
            image.save(file, format="PNG", compress_level=self.level)
            yield Sample(f"{number}", "png", file.getvalue(), f"{class_name}/{number}")


def test_where_images_are_encoded_here_the_pixels_name_the_data(tmp_path):
    first = write_shards(Drawn(level=1), tmp_path / "1")
    other_codec = write_shards(Drawn(level=9), tmp_path / "9")
    other_pixels = write_shards(Drawn(level=1, seed=1), tmp_path / "seed")
    assert first.shards[0].sha256 != other_codec.shards[0].sha256
    assert first.digest == other_codec.digest != other_pixels.digest
    for shard in other_codec.shards:
        assert shard_pixels_sha256(tmp_path / "9" / shard.path) == shard.pixels_sha256
    assert ShardStore.open(tmp_path / "9").digest == first.digest


def test_other_pixels_under_the_digest_of_the_right_ones_are_refused(tmp_path):
    right = write_shards(Drawn(level=1), tmp_path / "right")
    wrong = write_shards(Drawn(level=1, seed=1), tmp_path / "wrong")
    splits = {
        "train": [
            other.model_copy(update={"pixels_sha256": shard.pixels_sha256})
            for shard, other in zip(right.shards, wrong.shards, strict=True)
        ]
    }
    wrong.model_copy(update={"splits": splits, "digest": right.digest}).save(tmp_path / "wrong")
    assert ShardStore.open(tmp_path / "wrong").digest == right.digest
    problems = verify(tmp_path / "wrong").problems
    assert len(problems) == 2
    assert "train/a-000000.tar does not match the pixel digest" in problems[0]
    with pytest.raises(ShardError, match="does not match the pixel digest"):
        pull((tmp_path / "wrong").as_uri(), tmp_path / "pulled")
    assert not list(tmp_path.glob("pulled/**/*.tar"))
    assert verify(tmp_path / "right").problems == []
    pull((tmp_path / "right").as_uri(), tmp_path / "pulled right")


def test_where_bytes_are_copied_the_bytes_name_the_data(tiny_store):
    assert {shard.pixels_sha256 for shard in tiny_store.manifest.shards} == {None}
    shard = tiny_store.manifest.shards[0].model_copy(update={"sha256": "0" * 64})
    splits = {**tiny_store.manifest.splits, "test": [shard]}
    changed = tiny_store.manifest.model_copy(update={"splits": splits})
    assert changed.compute_digest() != tiny_store.digest


@pytest.mark.parametrize("field", ["path", "samples", "pixels_sha256", "class"])
def test_of_encoded_images_all_but_the_bytes_is_digested(tmp_path, field):
    write_shards(Drawn(level=1), tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    shard = content["splits"]["train"][0]
    shard[field] = {"path": "x.tar", "samples": 4, "pixels_sha256": "0" * 64, "class": "b"}[field]
    with pytest.raises(ShardError, match="altered"):
        load_manifest(canonical_json(content), "manifest.json")


def test_cifar_shards_keep_the_order_of_the_pickle(tmp_path):
    source = open_cifar(write_cifar100(tmp_path))
    write_shards(source, tmp_path / "shards", max_shard_size=5_000)
    store = ShardStore.open(tmp_path / "shards")
    expected = [
        sample.data
        for split, names in sorted(source.classes().items())
        for name in names
        for sample in source.samples(split, name)
    ]
    assert [store.read(i).tobytes() for i in range(len(store))] == expected
    assert len(store.manifest.shards) > 12


# --- interrupted and gone on with -------------------------------------------------------------


class Killed(BaseException):
    """Stands for any end of a run."""


def interrupt_after(n: int):
    done = []

    def progress(job, result):
        done.append(job)
        if len(done) == n:
            raise Killed

    return progress


def interrupted(source, out, n=4, **options):
    with pytest.raises(Killed):
        write_shards(source, out, progress=interrupt_after(n), **options)


def run_again(source, out, **options) -> list[str]:
    """Finish a run; return the classes that were kept."""
    kept = []
    write_shards(
        source,
        out,
        progress=lambda job, result: (
            kept.append(f"{job.split}/{job.class_name}") if result.is_kept else None
        ),
        **options,
    )
    return kept


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_goes_on_where_an_interrupted_one_stopped(tiny_folder, tiny_store, tmp_path, workers):
    source = open_folder(tiny_folder)
    interrupted(source, tmp_path / "out", workers=workers)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert len(run_again(source, tmp_path / "out")) >= 4
    assert contents(tmp_path / "out") == contents(tiny_store.root)


def test_finished_classes_are_kept_only_where_their_digest_fits(tiny_folder, tiny_store, tmp_path):
    source = open_folder(tiny_folder)
    interrupted(source, tmp_path)
    shards = sorted((tmp_path / "test").glob("*.tar"))
    data = bytearray(shards[0].read_bytes())
    data[1000] ^= 1
    shards[0].write_bytes(data)
    os.truncate(shards[1], 512)
    shards[2].unlink()
    assert run_again(source, tmp_path) == [f"test/{shards[3].name.split('-')[0]}"]
    assert contents(tmp_path) == contents(tiny_store.root)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"fingerprint": 1'])
def test_a_damaged_receipt_is_no_receipt(tiny_folder, tiny_store, tmp_path, damage):
    source = open_folder(tiny_folder)
    interrupted(source, tmp_path)
    receipts = list((tmp_path / ".receipts").rglob("*.json"))
    receipts[0].write_bytes(damage)
    assert len(run_again(source, tmp_path)) == len(receipts) - 1
    assert contents(tmp_path) == contents(tiny_store.root)


def test_a_class_that_changed_since_is_written_again(tmp_path):
    root = write_image_folder(tmp_path / "images", TINY_TREE)
    interrupted(open_folder(root), tmp_path / "out")
    (root / "test" / "bear" / "0000.jpg").write_bytes(encode(noise_image(7777)))
    assert run_again(open_folder(root), tmp_path / "out") == [
        f"test/{name}" for name in ("bus", "cat", "dog")
    ]
    write_shards(open_folder(root), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_other_settings_and_fewer_classes_leave_nothing_of_the_first_try(tmp_path):
    root = write_image_folder(tmp_path / "images", TINY_TREE)
    interrupted(open_folder(root), tmp_path / "out", n=9, max_shard_size=3_000)
    shutil.rmtree(root / "train" / "bear")
    assert run_again(open_folder(root), tmp_path / "out") == []
    write_shards(open_folder(root), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_failed_class_can_be_mended_and_the_others_are_kept(tmp_path):
    root = write_image_folder(tmp_path / "images", TINY_TREE)
    damaged = root / "train" / "cat" / "0003.jpg"
    damaged.write_bytes(b"")
    with pytest.raises(SourceError, match=r"train/cat/0003\.jpg is empty"):
        write_shards(open_folder(root), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*cat*partial"))
    assert not (tmp_path / "out" / "train" / "cat-000000.tar").exists()
    damaged.unlink()
    assert len(run_again(open_folder(root), tmp_path / "out")) == 8


def test_a_finished_folder_is_never_written_to(tiny_folder, tmp_path):
    write_shards(open_folder(tiny_folder), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ShardError, match="already holds a finished dataset"):
        write_shards(open_folder(tiny_folder), tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_with_tars_of_unknown_origin_is_refused(tiny_folder, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "dog-000000.tar").write_bytes(b"precious")
    with pytest.raises(
        ShardError, match=r"contains train/dog-000000\.tar, which is not from an unf"
    ):
        write_shards(open_folder(tiny_folder), tmp_path)
    assert contents(tmp_path) == {"train/dog-000000.tar": b"precious"}


HOLD = """
import sys, time
from pathlib import Path
from iirc_data.shards.unfinished import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_into_one_folder_is_refused_until_the_first_is_gone(tiny_folder, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ShardError, match=f"is in use by process {holder.pid} on "):
            write_shards(open_folder(tiny_folder), tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert (tmp_path / ".lock").exists()
    write_shards(open_folder(tiny_folder), tmp_path)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("space", [0, 1_000, 30_000, 100_000, 136_000])
def test_a_disk_that_fills_up_is_an_error_that_names_the_file(
    tiny_folder, tiny_store, tmp_path, space
):
    with (
        space_left(tmp_path, space),
        pytest.raises(ShardError, match=f"cannot write {tmp_path}.*No space left on device"),
    ):
        write_shards(open_folder(tiny_folder), tmp_path / "out")
    check_that_final_names_hold_whole_files(tmp_path / "out", contents(tiny_store.root))
    run_again(open_folder(tiny_folder), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_store.root)


def test_a_disk_that_fills_up_under_workers_is_an_error_that_names_the_file(
    tiny_folder, tiny_store, tmp_path
):
    with (
        file_size_limit(20_000),
        pytest.raises(ShardError, match=r"cannot write .*/train/\w+-000000\.tar: File too large"),
    ):
        write_shards(open_folder(tiny_folder), tmp_path, workers=2)
    check_that_final_names_hold_whole_files(tmp_path, contents(tiny_store.root))


def check_that_final_names_hold_whole_files(out: Path, expected: dict[str, bytes]) -> None:
    left = {name: data for name, data in contents(out).items() if not name.startswith(".receipts")}
    assert left == {name: expected[name] for name in left}
    assert "manifest.json" not in left


def test_a_disk_that_fills_up_leaves_no_half_index_file(tiny_store, tmp_path):
    root = shutil.copytree(tiny_store.root, tmp_path / "shards")
    with (
        space_left(root, 1_500),
        pytest.raises(ShardError, match=r"cannot write .*\.idx: No space.*run iirc data index"),
    ):
        write_dali_index(root, tiny_store.manifest)
    half = {path.name for path in root.rglob("*.partial")}
    written = list(root.rglob("*.idx"))
    assert not half and 0 < len(written) < 12
    before = {path: path.read_bytes() for path in written}
    write_dali_index(root, tiny_store.manifest)
    assert {path: path.read_bytes() for path in written} == before


def test_a_place_that_cannot_be_written_is_named(tiny_folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ShardError, match=r"cannot write .*file/out: Not a directory"):
        write_shards(open_folder(tiny_folder), tmp_path / "file" / "out")


# --- wrong images and names -------------------------------------------------------------------

LONG_COMMENT = join_png(
    png_header(1, 1, 8, 0), chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(3 << 20)))
)


@pytest.mark.parametrize(
    "name, data, problem",
    [
        ("x.jpg", b"", r"x\.jpg is empty \(0 bytes\)"),
        ("x.JPEG", b"plain text", r"x\.JPEG is not a JPEG or PNG image"),
        ("x.png", LONG_COMMENT, r"x\.png has longer comments than Pillow reads"),
        ("x.png", b"GIF89a", r"x\.png is not a JPEG or PNG image, whatever its name says"),
        ("0001.png", encode(noise_image(1), "PNG"), r"0001\.png and .*0001\.jpg share the key"),
        (
            "x.jpg",
            encode(noise_image(1, 300, 300))[:-200],
            r"x\.jpg is damaged and cannot be decoded",
        ),
    ],
)
def test_a_wrong_image_is_an_error_that_names_it(tmp_path, name, data, problem):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 3, "b": 2}})
    (root / "train" / "a" / name).write_bytes(data)
    with pytest.raises(SourceError, match=problem):
        write_shards(open_folder(root), tmp_path / "out", check_decode=True)
    assert not [path for path in contents(tmp_path / "out") if "a-0" in path or "manifest" in path]


def test_too_large_an_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    with pytest.raises(SourceError, match=r"0000\.jpg is too large an image: 32 x 32 pixels"):
        write_shards(open_folder(root), tmp_path / "out")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (root / "train" / "a" / "0000.jpg").write_bytes(encode(noise_image(0), "PNG"))
    with pytest.raises(SourceError, match=r"0000\.jpg is too large an image"):
        write_shards(open_folder(root), tmp_path / "other")


def headers_agree(data: bytes) -> bool:
    """Whether our header is Pillow's; whether there is one."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except Exception:  # whatever Pillow raises
        with pytest.raises(SourceError, match="here is"):
            read_header(data, "here")
        return False
    expected = (image.height, image.width, image.mode)
    assert read_header(data, "here") == read_header(memoryview(data), "here") == expected
    return True


def test_headers_are_read_as_pillow_reads_them(shared_file):
    source = open_folder(shared_file("data/imagenet_sample_500.tar"))
    for name in source.classes()["train"]:
        assert all(headers_agree(sample.data) for sample in source.samples("train", name))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xda" * 9}])
def test_headers_of_cut_and_damaged_jpegs_are_read_as_pillow_reads_them(mode, options):
    file = io.BytesIO()
    noise_image(0, 20, 30, mode).save(file, "JPEG", **options)
    data = file.getvalue()
    start_of_scan = data.rindex(b"\xff\xda\x00")
    found = [headers_agree(data[:size]) for size in range(1, start_of_scan + 40)]
    assert found[-1]
    assert not found[10]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(2, start_of_scan)] = rng.integers(0, 256)
        headers_agree(bytes(damaged))


@pytest.mark.parametrize(
    "name, problem",
    [
        ("a\nb", r"a class is named 'a\\nb', which is not printable: rename it"),
        ("{" * 90, r"too long for a shard's name: shorten it by 26 bytes"),
        (os.fsdecode(b"ch\xeane"), r"a class is named b'ch\\xeane', which is not UTF-8: rename it"),
    ],
)
def test_a_class_name_that_cannot_be_written_down_is_refused_at_once(tmp_path, name, problem):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1, name: 1}})
    with pytest.raises(SourceError, match=problem):
        write_shards(open_folder(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_named_like_a_file_beside_the_shards_is_refused_at_once(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}, "manifest.json": {"a": 1}})
    with pytest.raises(SourceError, match=r"a split is named 'manifest\.json'"):
        write_shards(open_folder(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_than_one_worker_is_refused(tiny_folder, tmp_path):
    with pytest.raises(ShardError, match="workers must be at least 1, got 0"):
        write_shards(open_folder(tiny_folder), tmp_path / "out", workers=0)


# --- read by others ---------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["pillow", "dali"])
def test_odd_images_show_the_pixels_of_pillows_conversion(tmp_path, decoder):
    folder = tmp_path / "images" / "train" / "odd"
    folder.mkdir(parents=True)
    for name, data in odd_images().items():
        (folder / name).write_bytes(data)
    write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    n = len(store)
    assert n == len(odd_images())
    labels = np.tile(np.array([[0, -1]], np.int32), (n, 1))
    view = TaskView(("odd",), (0,), 0, 1, (0,), np.arange(n), labels)
    as_is = TransformPreset(Unchanged(), Unchanged(), mean=(0.0,) * 3, std=(1.0,) * 3)
    batches = make_loader(
        view, store, transforms=as_is, train=False, batch_size=1, normalize=False, decoder=decoder
    )
    for batch, name in zip(batches, sorted(odd_images()), strict=True):
        expected = pixels_to_show(Image.open(folder / name))
        assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), expected), name


def test_dali_index_files_are_those_of_wds2idx(tmp_path):
    wds2idx = pytest.importorskip("wds2idx")
    root = write_image_folder(tmp_path / "images", {"train": {"a": 5, "b": 3}})
    (root / "train" / "a" / "0003.jpg").rename(root / "train" / "a" / "0003.v2.JPEG")
    manifest = write_shards(open_folder(root), tmp_path / "out", max_shard_size=2_500)
    paths = write_dali_index(tmp_path / "out", manifest)
    assert len(paths) == len(manifest.shards) > 2
    for path in paths:
        reference = tmp_path / "reference.idx"
        tar = str(path.with_suffix(".tar"))
        with wds2idx.IndexCreator(tar, str(reference), verbose=False) as creator:
            creator.create_index()
        assert path.read_text() == reference.read_text()


def test_dalis_own_reader_finds_every_image_by_the_index_files(tmp_path):
    dali = pytest.importorskip("nvidia.dali")
    root = write_image_folder(tmp_path / "images", {"train": {"a": 4, "b": 3}})
    (root / "train" / "a" / "0001.jpg").rename(root / "train" / "a" / "with a blank.jpg")
    manifest = write_shards(open_folder(root), tmp_path / "out")
    indices = [str(path) for path in write_dali_index(tmp_path / "out", manifest)]
    store = ShardStore.open(tmp_path / "out")
    pipeline = dali.Pipeline(batch_size=len(store), num_threads=1, device_id=None)
    with pipeline:
        tars = [str(tmp_path / "out" / shard.path) for shard in manifest.shards]
        pipeline.set_outputs(
            dali.fn.readers.webdataset(paths=tars, index_paths=indices, ext=["jpg"])
        )
    pipeline.build()
    (images,) = pipeline.run()
    for i in range(len(store)):
        assert np.array_equal(images.at(i), store.read(i))
