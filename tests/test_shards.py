"""Shard folders: what is read is what was sharded, and damage is found and named."""

import hashlib
import io
import json
import os
import re
import resource
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from iirc_data.errors import ShardError
from iirc_data.shards import SampleTable, ShardStore, write_shards
from iirc_data.shards.manifest import Manifest, Shard, load_manifest
from iirc_data.shards.remote import RemoteDataset
from iirc_data.shards.sharing import pull
from iirc_data.shards.table import IMAGE_MODES
from iirc_data.shards.table_columns import COLUMN_DTYPES
from iirc_data.shards.verify import verify
from iirc_data.sources import open_folder
from iirc_data.sources.drawn import DrawnSource
from tests.conftest import TINY_TREE, encode, noise_image, write_image_folder
from tests.odd_images import odd_images


@pytest.fixture
def shards(tiny_store, tmp_path) -> Path:
    """A copy of the tiny dataset's shard folder."""
    return shutil.copytree(tiny_store.root, tmp_path / "shards")


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def sign(root: Path, manifest: Manifest, table: SampleTable) -> None:
    """Save a manifest and a table with digests that fit, whatever they say."""
    table.save(root)
    manifest = manifest.model_copy(update={"table_sha256": table.digest()})
    manifest.model_copy(update={"digest": manifest.compute_digest()}).save(root)


def with_changed_rows(table: SampleTable, column: str, change) -> SampleTable:
    columns = {name: np.array(getattr(table, name)) for name in table.__dataclass_fields__}
    columns[column][3:5] = change(columns[column][3:5])
    return SampleTable.from_columns(columns)


def shard_images(folder: Path, keys: list[str], **options: int) -> list[bytes]:
    """Shard tiny images of one class into ``folder / "shards"``; return them in their order."""
    images = folder / "images" / "train" / "thing"
    images.mkdir(parents=True)
    for number, key in enumerate(keys):
        (images / f"{key}.png").write_bytes(encode(noise_image(number, 4, 4), "PNG"))
    write_shards(open_folder(folder / "images"), folder / "shards", **options)
    return [path.read_bytes() for path in sorted(images.iterdir(), key=lambda path: path.name)]


# --- what was sharded is what is read ---------------------------------------------------------


def test_every_sample_has_exactly_the_bytes_of_its_source(tiny_folder, tiny_store):
    sample_id = 0
    for split in tiny_store.manifest.splits:
        for class_name in sorted(TINY_TREE[split]):
            for path in sorted((tiny_folder / split / class_name).iterdir()):
                assert tiny_store.read(sample_id).tobytes() == path.read_bytes()
                class_id = tiny_store.table.class_id[sample_id]
                assert tiny_store.manifest.classes[class_id] == class_name
                assert sample_id in tiny_store.manifest.split_rows(split)
                sample_id += 1
    assert sample_id == len(tiny_store)


def test_samples_are_read_together_as_they_are_one_by_one(tiny_store):
    ids = np.random.default_rng(0).permutation(len(tiny_store))[:30]
    together = tiny_store.read_many(ids)
    assert [image.tobytes() for image in together] == [tiny_store.read(i).tobytes() for i in ids]
    assert not any(image.flags.writeable for image in together)
    assert tiny_store.read_many(ids[:0]) == []


def test_plain_webdataset_reads_the_same_samples(tiny_store):
    for number, shard in enumerate(tiny_store.manifest.shards):
        url = str(tiny_store.root / shard.path)
        rows = np.flatnonzero(tiny_store.table.shard == number)
        samples = list(webdataset.WebDataset(url, shardshuffle=False))
        assert [s["jpg"] for s in samples] == [tiny_store.read(i).tobytes() for i in rows]
        assert [s["__key__"] for s in samples] == [f"{i:04d}" for i in range(len(rows))]


ODD_NAMES = ["{a..b}", "{a,b}", "a::b", "a?b#c;d", "50%", "pipe:cat", "-x", "a b@[c]", "chêne"]


def test_plain_webdataset_opens_shards_of_classes_with_any_name(tmp_path):
    names = [*ODD_NAMES, "}{", "=7Ba..b=7D", "\\x", "${HOME}", "*", "~"]
    root = write_image_folder(tmp_path / "images", {"train": dict.fromkeys(names, 1)})
    out = tmp_path / "shards"
    manifest = write_shards(open_folder(root), out)
    assert manifest.classes == sorted(names)
    for number, shard in enumerate(manifest.shards):
        (sample,) = webdataset.WebDataset(str(out / shard.path), shardshuffle=False)
        assert sample["jpg"] == (root / "train" / shard.class_name / "0000.jpg").read_bytes()
        assert sample["jpg"] == ShardStore.open(out).read(number).tobytes()
    assert not verify(out).problems
    paths = {shard.class_name: shard.path for shard in manifest.shards}
    assert paths["a b@[c]"] == "train/a b@[c]-000000.tar"
    assert paths["{a..b}"] == "train/=7Ba..b=7D-000000.tar"


def test_shards_whose_names_are_not_escaped_are_read(tiny_store, tmp_path):
    name, path = "{cat}", "train/{cat}-000000.tar"
    source = json.loads((tiny_store.root / "manifest.json").read_text())
    text = json.dumps(source).replace('"cat"', f'"{name}"').replace("train/cat-000000.tar", path)
    manifest = Manifest.model_validate({**json.loads(text), "digest": ""})
    manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
    shutil.copytree(tiny_store.root, tmp_path / "old")
    (tmp_path / "old/train/cat-000000.tar").rename(tmp_path / "old" / path)
    manifest.save(tmp_path / "old")
    store = ShardStore.open(tmp_path / "old")
    shard = [one.path for one in store.manifest.shards].index(path)
    row = int(np.flatnonzero(store.table.shard == shard)[0])
    assert store.read(row).tobytes() == tiny_store.read(row).tobytes()


def test_the_same_input_gives_the_same_digest(tiny_folder, tiny_store, tmp_path):
    again = write_shards(open_folder(tiny_folder), tmp_path / "again")
    with tarfile.open(tmp_path / "tree.tar", "w") as archive:
        archive.add(tiny_folder, arcname=".")
    from_tar = write_shards(open_folder(tmp_path / "tree.tar"), tmp_path / "from_tar")
    assert again.digest == from_tar.digest == tiny_store.digest


def test_another_input_gives_another_digest(tiny_store, tmp_path):
    smaller = {**TINY_TREE, "test": {**TINY_TREE["test"], "tulip": 2}}
    write_image_folder(tmp_path / "images", smaller)
    other = write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    assert other.digest != tiny_store.digest


def test_a_name_tells_shard_and_member(tiny_store):
    last_dog = np.flatnonzero(
        tiny_store.table.class_id == tiny_store.manifest.classes.index("dog")
    )[-1]
    expected = tiny_store.root / "train" / "dog-000000.tar"
    assert tiny_store.name(int(last_dog)) == f"{expected}:0029.jpg"


def test_many_more_shards_than_open_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of them take seconds
    images = shard_images(tmp_path, [f"{i:04d}" for i in range(560)], max_shard_size=1)
    store = ShardStore.open(tmp_path / "shards")
    assert len(store.manifest.shards) == 560
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 530, hard))
    try:
        first = store.read(0)
        for _ in range(2):
            assert all(store.read(i).tobytes() == images[i] for i in range(560))
        assert first.tobytes() == images[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_views_outlive_the_store(shards, tiny_store):
    store = ShardStore.open(shards)
    views = [store.read(i) for i in range(5)]
    store.close()
    del store
    assert [v.tobytes() for v in views] == [tiny_store.read(i).tobytes() for i in range(5)]
    with pytest.raises(ValueError, match="read-only"):
        views[0][0] = 0


# --- verify -----------------------------------------------------------------------------------


def test_an_intact_folder_has_no_problems(shards):
    calls = []
    found = verify(shards, workers=2, progress=lambda done, total: calls.append((done, total)))
    total = sum(shard.bytes for shard in found.manifest.shards)
    assert (found.problems, found.absent) == ([], [])
    assert calls[-1] == (total, total)


@pytest.mark.parametrize("position", [0, 130, 600, 20_000, -1])
def test_a_flipped_bit_in_a_shard_is_found_and_the_shard_named(shards, position):
    flip_bit(shards / "train" / "cat-000000.tar", position)
    found = verify(shards)
    assert len(found.problems) == 1
    assert str(shards / "train" / "cat-000000.tar") in found.problems[0]
    assert "digest" in found.problems[0]


def test_all_problems_are_reported_not_only_the_first(shards):
    flip_bit(shards / "train" / "cat-000000.tar", 600)
    flip_bit(shards / "test" / "dog-000000.tar", 600)
    (shards / "index.npz").write_bytes(b"no table")
    os.truncate(shards / "train" / "bus-000000.tar", 10_240)
    (shards / "train" / "tulip-000000.tar").unlink()
    found = verify(shards)
    assert found.absent == ["train/tulip-000000.tar"]
    assert len(found.problems) == 4
    for name in ("cat-000000.tar", "dog-000000.tar", "index.npz", "bus-000000.tar"):
        assert sum(name in problem for problem in found.problems) == 1


def test_a_truncated_shard_is_refused(shards):
    path = shards / "train" / "bear-000000.tar"
    os.truncate(path, path.stat().st_size - 512)
    store = ShardStore.open(shards)
    first = store.manifest.split_rows("train").start
    with pytest.raises(ShardError, match=r"bear-000000\.tar has \d+ bytes, the manifest says"):
        store.read(first)
    assert store.name(first).endswith(f"bear-000000.tar:sample {first}")


def test_a_shard_of_another_dataset_is_found(shards, tmp_path):
    write_image_folder(tmp_path / "images", TINY_TREE, height=31)
    other = tmp_path / "other"
    write_shards(open_folder(tmp_path / "images"), other)
    for split in ("train", "test"):
        exchanged = Path(split, "dog-000000.tar")
        shutil.copy(other / exchanged, shards / exchanged)
        assert any(str(exchanged) in problem for problem in verify(shards).problems)


# a tar by hand, so that its members can be wrong while all digests fit


def shard_by_hand(
    root: Path, members: list[tuple[tarfile.TarInfo, bytes]], n_rows=None, **options
) -> None:
    """Write a dataset of one tar; the first ``n_rows`` members are the rows of the table."""
    path = root / "train" / "thing-000000.tar"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w", **options) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as archive:
        rows = [(m.offset_data, m.size) for m in archive][:n_rows]
    data = path.read_bytes()
    n = len(rows)
    columns = {"shard": [0] * n, "class_id": [0] * n, "mode": [0] * n, "height": [4] * n}
    columns |= {"width": [4] * n, "offset": [r[0] for r in rows], "size": [r[1] for r in rows]}
    shard = Shard(
        path="train/thing-000000.tar",
        class_name="thing",
        samples=n,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    manifest = Manifest(
        dataset="hand",
        image_formats=["png"],
        classes=["thing"],
        splits={"train": [shard]},
        table_sha256="0" * 64,
    )
    sign(root, manifest, SampleTable.from_columns(columns))


TINY_IMAGE = encode(noise_image(0, 4, 4), "PNG")


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "elsewhere" if kind == tarfile.SYMTYPE else ""
    return info, TINY_IMAGE if kind == tarfile.REGTYPE else b""


def test_a_tar_written_by_hand_passes(tmp_path):
    shard_by_hand(tmp_path, [member("a.png"), member("b.png")])
    assert verify(tmp_path).problems == []


@pytest.mark.parametrize(
    "members, n_rows, problem",
    [
        ([member("a.png"), member("b.jpg")], None, r"'b\.jpg', expected <key>\.<png>"),
        ([member("a.png"), member("b")], None, "'b', expected"),
        ([member("a.png"), member("b.c.png")], None, r"'b\.c\.png', expected"),
        ([member("a.png"), member("../b.png")], None, r"'\.\./b\.png', expected"),
        ([member("a.png"), member("/b.png")], None, r"'/b\.png', expected"),
        ([member("a.png"), member("b.png"), member("a.png")], None, "'a' more than once"),
        ([member("a.png"), member("b.png")], 1, r"'b\.png' does not match its row"),
        ([member("a.png"), member("d", tarfile.DIRTYPE)], 1, "'d' does not match its row"),
        ([member("a.png"), member("l.png", tarfile.SYMTYPE)], 1, r"'l\.png' does not match"),
        ([member("x" * 120 + ".png"), member("b.jpg")], None, r"'b\.jpg', expected"),
        ([member("x" * 120 + ".png"), member("b.png")], 1, r"'b\.png' does not match its row"),
    ],
)
def test_members_that_are_no_rows_of_the_table_are_found(tmp_path, members, n_rows, problem):
    shard_by_hand(tmp_path, members, n_rows)
    (found,) = verify(tmp_path).problems
    assert "thing-000000.tar" in found
    assert re.search(problem, found)


def test_rows_that_point_elsewhere_in_their_shard_are_found(shards):
    store = ShardStore.open(shards)
    for column, change in [("size", lambda x: x - 1), ("offset", lambda x: x + 512)]:
        sign(shards, store.manifest, with_changed_rows(store.table, column, change))
        problems = verify(shards).problems
        assert len(problems) == 1 and "test/bear-000000.tar" in problems[0], problems


@pytest.mark.parametrize(
    "column, change, problem",
    [
        ("height", lambda x: x + 1, "height 32, width 32, mode RGB, but row 3 .* says height 33,"),
        ("width", lambda x: x - 1, "height 32, width 32, mode RGB, but row 3 .* width 31,"),
        ("mode", lambda x: x + 1, "height 32, width 32, mode RGB, but row 3 .* mode L "),
    ],
)
def test_rows_that_describe_other_images_are_found(shards, column, change, problem):
    store = ShardStore.open(shards)
    sign(shards, store.manifest, with_changed_rows(store.table, column, change))
    assert len(ShardStore.open(shards)) == len(store)  # only a look at the images tells
    (found,) = verify(shards).problems
    assert re.search(rf"test/bear-000000\.tar contains '0003\.jpg' with {problem}", found)
    assert "(2 such images)" in found


def test_rows_are_compared_with_images_of_every_pixel_format(tmp_path):
    folder = tmp_path / "images" / "train" / "odd"
    folder.mkdir(parents=True)
    for name, data in odd_images().items():
        (folder / name).write_bytes(data)
    write_shards(open_folder(tmp_path / "images"), tmp_path / "shards")
    assert verify(tmp_path / "shards").problems == []
    table = ShardStore.open(tmp_path / "shards").table
    modes = dict(zip(sorted(odd_images()), (IMAGE_MODES[mode] for mode in table.mode), strict=True))
    assert modes["cmyk.jpg"] == "CMYK"
    # Pillow's own names of these two tell too little, or depend on its version
    assert modes["rgb of 16 bits.png"] == "RGB;16B"
    assert modes["gray of 16 bits.png"] == "I;16B"


def test_a_member_that_is_no_image_is_found(tmp_path):
    shard_by_hand(tmp_path, [(member("a.png")[0], b"plain text")])
    (found,) = verify(tmp_path).problems
    assert "thing-000000.tar contains a non-image member" in found


def rewrite_shard(root: Path, change) -> None:
    """Change the bytes of a dataset's one shard and make its manifest fit."""
    store = ShardStore.open(root)
    (shard,) = store.manifest.shards
    data = bytearray((root / shard.path).read_bytes())
    change(data)
    (root / shard.path).write_bytes(data)
    shard = shard.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    content = {**store.manifest.model_dump(), "splits": {"train": [shard]}}
    sign(root, Manifest(**content), store.table)


def hide_data(data: bytearray) -> None:
    data[-1] = 1


def break_checksum(data: bytearray) -> None:
    data[150] ^= 1


def make_it_a_folder(data: bytearray) -> None:
    assert data[156:157] == tarfile.REGTYPE
    data[156:157] = tarfile.DIRTYPE
    data[148:156] = b"%06o\0 " % (int(data[148:154], 8) + 5)  # types are digits


@pytest.mark.parametrize("name", ["a.png", "ü.png"])  # the latter has an extended header
@pytest.mark.parametrize(
    "change, problem",
    [
        (hide_data, "data follow the last member"),
        (break_checksum, "not the tar that the sample table describes"),
    ],
)
def test_a_tar_that_is_not_as_its_rows_say_is_found(tmp_path, name, change, problem):
    shard_by_hand(tmp_path, [member(name)])
    rewrite_shard(tmp_path, change)
    (found,) = verify(tmp_path).problems
    assert problem in found


def test_a_folder_in_place_of_an_image_is_found(tmp_path):
    shard_by_hand(tmp_path, [member("a.png")])
    rewrite_shard(tmp_path, make_it_a_folder)
    assert "does not match its row" in verify(tmp_path).problems[0]


def test_a_path_that_spans_both_name_fields_is_found(tmp_path):
    shard_by_hand(
        tmp_path, [member("d" * 60 + "/" + "x" * 60 + ".png")], format=tarfile.USTAR_FORMAT
    )
    assert "expected <key>.<png>" in verify(tmp_path).problems[0]


def test_keys_that_need_extended_headers_are_sound(tmp_path):
    keys = sorted(["日本語", "what?", *("xüé%."[: n + 1] * 25 for n in range(5))])
    images = shard_images(tmp_path, keys)
    assert verify(tmp_path / "shards").problems == []
    store = ShardStore.open(tmp_path / "shards")
    assert [store.read(i).tobytes() for i in range(len(keys))] == images
    names = [store.name(i).rpartition(":")[2] for i in range(len(keys))]
    escaped = [key.replace("%", "%25").replace(".", "%2E") for key in keys]
    assert names == [f"{key}.png" for key in escaped]


def test_files_that_claim_the_digest_of_other_pixels_are_found_out(tmp_path):
    claimed = write_shards(DrawnSource(train=2, test=1), tmp_path / "claimed")
    assert verify(tmp_path / "claimed").problems == []
    given = write_shards(DrawnSource(train=2, test=1, seed=1), tmp_path / "given")
    content = given.model_dump(by_alias=True)
    for split, shards in claimed.splits.items():
        for entry, shard in zip(content["splits"][split], shards, strict=True):
            entry["pixels_sha256"] = shard.pixels_sha256
    forged = Manifest.model_validate({**content, "digest": claimed.digest})
    forged.save(tmp_path / "given")
    assert ShardStore.open(tmp_path / "given").digest == claimed.digest
    problems = verify(tmp_path / "given").problems
    assert len(problems) == len(forged.shards)
    assert all("does not match the pixel digest" in problem for problem in problems)


# --- manifest and table -----------------------------------------------------------------------


def test_any_flipped_bit_in_the_manifest_is_refused_or_harmless(shards):
    path = shards / "manifest.json"
    original = path.read_bytes()
    manifest = load_manifest(original, "")
    start = original.index(b'"dataset"')
    name = range(start + 10, original.index(b"\n", start))
    for position in {*range(0, len(original), 37), *range(start, start + 30)}:
        path.write_bytes(original)
        flip_bit(path, position)
        try:
            changed = ShardStore.open(shards).manifest
        except ShardError as error:
            assert "manifest.json" in str(error)
        else:
            assert position in name
            assert changed.model_copy(update={"dataset": manifest.dataset}) == manifest


def test_any_flipped_bit_in_the_table_is_refused_or_harmless(shards, tiny_store):
    path = shards / "index.npz"
    original = path.read_bytes()
    refused = 0
    for position in range(0, len(original), 59):
        path.write_bytes(original)
        flip_bit(path, position)
        try:
            store = ShardStore.open(shards)
        except ShardError as error:
            assert "index.npz" in str(error) or "sample table" in str(error)
            refused += 1
        else:
            assert store.table.digest() == tiny_store.table.digest()
    assert refused > 100


def test_a_manifest_of_a_newer_schema_says_to_upgrade(shards):
    path = shards / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 2, "new_field": 1}))
    with pytest.raises(ShardError, match=r"manifest\.json has schema_version 2, .* 1: upgrade"):
        ShardStore.open(shards)


@pytest.mark.parametrize(
    "path, problem",
    [
        *(
            (path, "leads out of the shard folder")
            for path in ("../x.tar", "/etc/x.tar", "a/../../x.tar")
        ),
        *((path, "leads out of the shard folder") for path in ("C:\\x.tar", "..\\x.tar", "")),
        ("//host/x.tar", "leads out of the shard folder"),
        ("http://host/x.tar", "leads out of the shard folder"),
        ("train/.ssh/x.tar", "hidden in it"),
        (".receipts/x.tar", "hidden in it"),
        ("train//x.tar", "leads out of the shard folder"),
        ("manifest.json", "does not end in .tar"),
        ("a\0b.tar", "control characters"),
        ("a\x1b[2J.tar", "control characters"),
    ],
)
def test_a_shard_path_that_leaves_the_folder_is_refused(tiny_store, path, problem):
    content = tiny_store.manifest.model_dump(by_alias=True)
    content["splits"]["train"][0]["path"] = path
    with pytest.raises(ShardError, match=problem):
        load_manifest(json.dumps(content), "manifest.json")


@pytest.mark.parametrize("field", ["samples", "bytes"])
def test_numbers_that_no_shard_has_are_refused(tiny_store, field):
    content = tiny_store.manifest.model_dump(by_alias=True)
    content["splits"]["train"][0][field] = 2**62
    with pytest.raises(ShardError, match=f"{field}: Input should be less than"):
        load_manifest(json.dumps(content), "manifest.json")


def test_a_compressed_sample_table_is_refused(tiny_store):
    file = io.BytesIO()
    np.savez_compressed(file, **{name: getattr(tiny_store.table, name) for name in COLUMN_DTYPES})
    with pytest.raises(ShardError, match="is compressed"):
        SampleTable.load(io.BytesIO(file.getvalue()), "index.npz")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(shards, text):
    (shards / "manifest.json").write_bytes(text)
    with pytest.raises(ShardError, match=r"manifest\.json"):
        ShardStore.open(shards)


@pytest.mark.parametrize("name", ["manifest.json", "index.npz", "train/cat-000000.tar"])
@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_a_file_of_a_dataset_that_would_wait_or_never_end_is_not_opened(shards, name, kind):
    (shards / name).unlink()
    if kind == "a named pipe":
        os.mkfifo(shards / name)
    elif kind == "a device":
        (shards / name).symlink_to("/dev/zero")
    else:
        (shards / name).mkdir()
    with pytest.raises(ShardError, match=f"{name}.* it is {kind}, not a file"):
        store = ShardStore.open(shards)
        store.read(store.manifest.split_rows("train")[40])  # the first cat
    problem = name if name.endswith(".tar") else f"it is {kind}"
    with pytest.raises(ShardError, match=problem):
        pull(shards, shards.with_name("copy"))
    try:
        assert any(name in text for text in verify(shards).problems)
    except ShardError as error:
        assert name in str(error)


def test_a_folder_without_manifest_is_no_dataset(shards):
    (shards / "manifest.json").unlink()
    with pytest.raises(ShardError, match="not a finished shard folder"):
        ShardStore.open(shards)


def test_a_path_that_is_no_shard_folder_is_told_what_it_is(shards, tmp_path):
    images = write_image_folder(tmp_path / "photo graphs", {"train": {"a": 1}})
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    beside = shards.with_name(f"{shards.name}s")
    expected = {
        images: f"holds images, not shards: make shards of them with: iirc data shard folder "
        f"'{images}' SHARDS",
        tmp_path / "file": "is a file, not a shard folder",
        tmp_path / "empty": "is not a shard folder (it has no manifest.json)",
        tmp_path / "nowhere" / "at all": "does not exist: give a shard folder or a URL",
        shards.parent: f"did you mean {shards}?",
        beside: f"{beside} does not exist: did you mean {shards}?",
    }
    for path, text in expected.items():
        for opened in (ShardStore.open, RemoteDataset.open):  # one wording everywhere
            with pytest.raises(ShardError, match=re.escape(text)):
                opened(path)


def test_the_table_of_another_dataset_is_refused(shards, tmp_path):
    shard_images(tmp_path / "other", ["a", "b"])
    shutil.copy(tmp_path / "other" / "shards" / "index.npz", shards)
    with pytest.raises(ShardError, match=r"index\.npz does not match its manifest"):
        ShardStore.open(shards)


def test_a_table_with_pickled_objects_is_refused(shards):
    np.savez(shards / "index.npz", shard=np.array([{}], dtype=object))
    with pytest.raises(ShardError, match="not a readable sample table"):
        ShardStore.open(shards)


@pytest.mark.parametrize(
    "column, change, problem",
    [
        ("shard", lambda x: x + 1, "row 3 is in shard 1"),
        ("shard", lambda x: x * 0 - 1, "row 3 is in shard -1"),
        ("offset", lambda x: x * 0 - 512, "wrong offset"),
        ("offset", lambda x: x + 1, "wrong offset"),
        ("offset", lambda x: x * 0 + 2**62, "wrong size"),
        ("size", lambda x: x * 0, "wrong size"),
        ("size", lambda x: x * 0 + 2**62, "wrong size"),
        ("class_id", lambda x: x + 1, "wrong class"),
        ("class_id", lambda x: x * 0 + 99, "wrong class"),
        ("height", lambda x: x * 0, "wrong height or width"),
        ("mode", lambda x: x * 0 + 200, "wrong mode"),
    ],
)
def test_a_table_that_contradicts_its_manifest_is_refused(shards, column, change, problem):
    store = ShardStore.open(shards)
    sign(shards, store.manifest, with_changed_rows(store.table, column, change))
    with pytest.raises(ShardError, match=problem):
        ShardStore.open(shards)


def test_a_table_with_too_few_rows_is_refused(shards):
    store = ShardStore.open(shards)
    columns = {name: getattr(store.table, name)[:-1] for name in store.table.__dataclass_fields__}
    sign(shards, store.manifest, SampleTable.from_columns(columns))
    with pytest.raises(ShardError, match="rows, the manifest has"):
        ShardStore.open(shards)
