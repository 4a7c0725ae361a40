"""Raw datasets: their own order, the same samples from every form, and damage that is named."""

import gzip
import io
import os
import pickle
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iirc_data.errors import SourceError
from iirc_data.shards import write_shards
from iirc_data.shards.verify import verify
from iirc_data.sources import (
    ClassSubset,
    FolderSource,
    ReencodedSource,
    open_cifar,
    open_folder,
    open_imagenet,
    open_imagenet_tars,
)
from iirc_data.sources import tar as tar_reader
from iirc_data.sources.tar import list_members, read_compressed
from tests.conftest import TINY_TREE, encode, noise_image, write_image_folder
from tests.faults.limits import memory_limit, time_limit
from tests.raw_datasets import (
    WORDNET_IDS,
    add_member,
    cifar_pixels,
    dump_cifar,
    imagenet_images,
    tar_gz_of_folder,
    tar_of,
    write_cifar10,
    write_cifar100,
    write_imagenet_tars,
    write_imagenet_tree,
)


def everything(source) -> dict:
    return {
        (split, name): list(source.samples(split, name))
        for split, names in source.classes().items()
        for name in names
    }


def decoded(sample) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample.data)))


# --- CIFAR ------------------------------------------------------------------------------------


def test_cifar_gives_each_class_in_the_order_of_the_pickle(tmp_path):
    folder = write_cifar100(tmp_path)
    source = open_cifar(folder)
    assert source.classes() == {s: ["apple", "bee", "crab"] for s in ("test", "train")}
    for split in ("train", "test"):
        content = pickle.loads((folder / split).read_bytes())
        labels = np.array(content[b"fine_labels"])
        for number, name in enumerate(("apple", "bee", "crab")):
            rows = np.argwhere(labels == number).squeeze(1)
            samples = list(source.samples(split, name))
            assert [int(sample.key) for sample in samples] == rows.tolist()
            assert source.weight(split, name) == len(rows)
            expected = content[b"data"][rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            assert np.array_equal(np.stack([decoded(sample) for sample in samples]), expected)


def test_cifar10_continues_from_batch_to_batch(tmp_path):
    source = open_cifar(write_cifar10(tmp_path))
    assert source.classes()["train"] == ["ant", "cat"]
    rows = [int(sample.key) for sample in source.samples("train", "ant")]
    assert rows == sorted(rows)
    assert len(rows) == 25
    assert rows[-1] > 40
    batch_4 = cifar_pixels(10, seed=4)
    last = list(source.samples("train", "ant"))[-1]
    pixels = batch_4[rows[-1] - 40].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(decoded(last), pixels)


@pytest.mark.parametrize("write", [write_cifar10, write_cifar100])
def test_cifar_folder_parent_and_archive_give_the_same_shards(tmp_path, write):
    folder = write(tmp_path / "raw")
    name = "cifar-10-python.tar.gz" if "10-" in folder.name[:9] else "cifar-100-python.tar.gz"
    (tmp_path / "packed").mkdir()
    archive = tar_gz_of_folder(folder, tmp_path / "packed" / name)
    digests = {
        write_shards(open_cifar(path), tmp_path / f"shards-{number}").digest
        for number, path in enumerate([folder, folder.parent, archive, archive.parent])
    }
    assert len(digests) == 1


def test_where_both_cifars_are_the_one_to_take_must_be_named(tmp_path):
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    with pytest.raises(SourceError, match="holds both"):
        open_cifar(tmp_path)
    assert open_cifar(tmp_path, "cifar10").name == "cifar10"
    assert open_cifar(tmp_path, "cifar100").name == "cifar100"


def test_a_folder_without_cifar_is_refused(tmp_path):
    with pytest.raises(SourceError, match="is not recognised as CIFAR"):
        open_cifar(tmp_path)


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({b"data": _Hostile()}, r"train.*names the global .*system"),
        ({b"data": [1, 2]}, r"train has no uint8 matrix 'data'"),
        ({b"data": np.zeros((60, 3000), np.uint8)}, "train has images of 3000 bytes"),
        ({b"fine_labels": [0] * 59}, "train has no class number for each of its 60 images"),
        ({b"fine_labels": [0.5] * 60}, "train has no class number"),
        ({b"fine_labels": [-1] * 60}, "train has no class number"),
        ({b"fine_labels": [3] * 60}, "class number 3 in split 'train', but meta names 3 classes"),
    ],
)
def test_a_wrong_pickle_is_an_error_that_names_it(tmp_path, monkeypatch, change, problem):
    monkeypatch.chdir(tmp_path)
    folder = write_cifar100(tmp_path)
    content = {b"fine_labels": [0] * 60, b"data": cifar_pixels(60, 0)}
    dump_cifar(folder / "train", content | change)
    with pytest.raises(SourceError, match=problem):
        write_shards(open_cifar(folder), tmp_path / "shards")
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("names", [7, [b"a", b"a"], [1, 2, 3]])
def test_wrong_class_names_are_an_error_that_names_the_file(tmp_path, names):
    folder = write_cifar100(tmp_path)
    dump_cifar(folder / "meta", {b"fine_label_names": names})
    with pytest.raises(
        SourceError, match=r"meta (has no class names|gives two classes the same name)"
    ):
        open_cifar(folder).classes()


def test_a_missing_pickle_is_named(tmp_path):
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(SourceError, match="data_batch_4"):
        open_cifar(folder).classes()


@pytest.mark.parametrize("keep", [100, 10_000])
def test_a_truncated_archive_is_named(tmp_path, keep):
    archive = tar_gz_of_folder(write_cifar100(tmp_path), tmp_path / "cifar-100-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"cifar-100-python\.tar\.gz is damaged"):
        open_cifar(archive).classes()


# --- ImageNet ---------------------------------------------------------------------------------


def test_imagenet_tars_and_tree_give_the_same_samples_in_the_same_order(tmp_path):
    tree = open_imagenet(write_imagenet_tree(tmp_path / "tree"))
    tars = open_imagenet(write_imagenet_tars(tmp_path / "tars"))
    assert type(tree) is not type(tars)
    for split, classes in imagenet_images().items():
        for wordnet_id, files in classes.items():
            for source in (tree, tars):
                samples = list(source.samples(split, wordnet_id))
                assert [f"{sample.key}.JPEG" for sample in samples] == sorted(files)
                assert [sample.data for sample in samples] == [files[k] for k in sorted(files)]
    digests = {
        write_shards(source, tmp_path / f"{number}").digest
        for number, source in enumerate([tree, tars, ClassSubset.of(tars, frozenset(WORDNET_IDS))])
    }
    assert len(digests) == 1


TRAIN, VAL, DEVKIT = (
    f"ILSVRC2012_{name}" for name in ("img_train.tar", "img_val.tar", "devkit_t12.tar.gz")
)


def test_the_original_tars_may_lie_apart(tmp_path):
    root = write_imagenet_tars(tmp_path / "tars")
    moved = [(root / name).rename(tmp_path / f"{i}") for i, name in enumerate((TRAIN, VAL, DEVKIT))]
    source = open_imagenet_tars(*moved)
    assert source.classes() == dict.fromkeys(("train", "val"), sorted(WORDNET_IDS))


def replace_member(path, name, data):
    with tarfile.open(path) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]
    content = tar_of([(n, data if n == name else d) for n, d in members])
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


DATA = "ILSVRC2012_devkit_t12/data"


@pytest.mark.parametrize(
    "damage, problem",
    [
        (lambda r: (r / VAL).unlink(), f"{VAL} missing"),
        (lambda r: os.truncate(r / TRAIN, 5000), "img_train.tar is (truncated|damaged)"),
        (lambda r: os.truncate(r / VAL, 2048), "img_val.tar is (truncated|damaged)"),
        (lambda r: (r / TRAIN).write_bytes(tar_of([("a.txt", b"x")])), "expected a tar per class"),
        (lambda r: (r / VAL).write_bytes(tar_of([("a/b.JPEG", b"x")])), "images without folders"),
        (lambda r: (r / VAL).write_bytes(tar_of([("b.JPEG", b"x")])), "holds 1 images, .* knows 6"),
        (lambda r: replace_member(r / DEVKIT, f"{DATA}/meta.mat", b"x"), "devkit.* is damaged"),
        (lambda r: os.truncate(r / DEVKIT, 99), "devkit.* is damaged"),
        (
            lambda r: (r / DEVKIT).write_bytes(gzip.compress(tar_of([]))),
            "devkit.* lacks .*meta.mat",
        ),
        (
            lambda r: (r / TRAIN).write_bytes(tar_of([("n9.tar", b"")])),
            "'n9' in train is not a WordNet",
        ),
        (
            lambda r: (r / TRAIN).write_bytes(tar_of([(f"{WORDNET_IDS[0]}.tar", b"")])),
            "2 classes are in only one of train and val: n01443537, n02102040",
        ),
        (
            lambda r: replace_member(r / TRAIN, f"{WORDNET_IDS[1]}.tar", b"no tar" * 200),
            r"img_train\.tar is damaged or truncated",
        ),
        (
            lambda r: replace_member(r / TRAIN, f"{WORDNET_IDS[1]}.tar", tar_of([])),
            "class n01443537 has no images",
        ),
        (
            lambda r: replace_member(r / TRAIN, f"{WORDNET_IDS[1]}.tar", tar_of([("a.txt", b"x")])),
            r"img_train\.tar:a\.txt does not have the name of an image",
        ),
    ],
)
def test_damaged_imagenet_files_are_named(tmp_path, damage, problem):
    root = write_imagenet_tars(tmp_path / "tars")
    damage(root)
    with pytest.raises(SourceError, match=problem):
        everything(open_imagenet(root))


def test_an_imagenet_tree_must_have_wordnet_ids_in_both_splits(tmp_path):
    root = write_imagenet_tree(tmp_path / "tree")
    (root / "ILSVRC2012_img_val.tar").write_bytes(b"beside the folders")
    assert set(open_imagenet(root).classes()) == {"train", "val"}
    (root / "val" / "tench").mkdir()
    with pytest.raises(SourceError, match="'tench' in val is not a WordNet id"):
        open_imagenet(root)
    assert "tench" not in WORDNET_IDS
    assert open_imagenet(root, WORDNET_IDS).classes()["val"] == [*sorted(WORDNET_IDS), "tench"]
    (root / "val" / "tench").rename(root / "val" / "n09999999")
    with pytest.raises(SourceError, match="1 classes are in only one of train and val: n09999999"):
        open_imagenet(root)


def test_validation_images_without_class_folders_are_refused(tmp_path):
    root = write_imagenet_tree(tmp_path / "tree")
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(SourceError, match=r"val_00000001\.JPEG is not a folder"):
        open_imagenet(root)


# --- folders and tars of them -----------------------------------------------------------------


def test_hidden_files_are_left_out_and_other_files_are_named(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2}})
    (root / "train" / "a" / ".DS_Store").write_bytes(b"")
    (root / "train" / ".thumbnails").mkdir()
    (root / "train" / "a" / "Thumbs.db").write_bytes(b"")
    (root / "train" / "desktop.ini").write_bytes(b"")
    (root / "__MACOSX" / "train").mkdir(parents=True)
    source = open_folder(root)
    assert source.classes() == {"train": ["a"]}
    assert [sample.key for sample in source.samples("train", "a")] == ["0000", "0001"]
    (root / "train" / "a" / "notes.txt").write_bytes(b"")
    with pytest.raises(SourceError, match=r"notes\.txt does not have the name of an image"):
        source.weight("train", "a")


@pytest.mark.parametrize(
    "make, problem",
    [
        (lambda root: (root / "train" / "empty").mkdir(), "train/empty holds no images"),
        (lambda root: (root / "train" / "a" / "x.jpg").mkdir(), r"x\.jpg is a folder, not an"),
        (lambda root: (root / "train" / "readme.txt").touch(), r"readme\.txt is not a folder"),
        (lambda root: (root / "labels.csv").touch(), r"labels\.csv is not a folder"),
        (lambda root: (root / "test").mkdir(), "test holds no classes: remove the folder or fill"),
    ],
)
def test_what_is_no_image_folder_is_named(tmp_path, make, problem):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2}})
    make(root)
    with pytest.raises(SourceError, match=problem):
        everything(open_folder(root))


@pytest.mark.parametrize("empty", ["train/empty", "test/empty", "test"])
def test_an_empty_folder_of_a_tar_is_named_a_class_when_it_is_read(tmp_path, empty):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2}})
    (root / ".hidden").mkdir()
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        tar.add(root, ".")
    assert open_folder(tmp_path / "whole.tar").classes() == {"train": ["a"]}
    (root / empty).mkdir(parents=True)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(root, ".")
    source = open_folder(tmp_path / "images.tar")
    if empty.endswith("/empty"):
        split, name = empty.split("/")
        assert name in source.classes()[split]
        assert len(list(source.samples("train", "a"))) == 2
        reads = (source.weight, source.samples)
    else:
        split, name = "train", "a"
        reads = (lambda *_: source.classes(),)
    for read in reads:
        with pytest.raises(SourceError, match=f"the folder '{empty}' holds no images: remove"):
            read(split, name)


@pytest.mark.parametrize("nested", ["deeper/0.jpg", "deeper/x/0.jpg", "deeper/", "deeper/x/"])
@pytest.mark.parametrize("is_tar", [False, True])
def test_a_folder_within_a_class_is_named_when_the_class_is_read(tmp_path, nested, is_tar):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2, "b": 1}})
    inner = root / "train" / "b" / nested
    (inner if nested.endswith("/") else inner.parent).mkdir(parents=True)
    if not nested.endswith("/"):
        inner.write_bytes(IMAGE)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(root, ".")
    source = open_folder(tmp_path / "images.tar" if is_tar else root)
    assert source.classes() == {"train": ["a", "b"]}
    assert len(list(source.samples("train", "a"))) == 2
    for read in (source.weight, lambda *of: list(source.samples(*of))):
        with pytest.raises(SourceError, match="train/b/deeper"):
            read("train", "b")


def test_a_fingerprint_changes_with_the_images(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2, "b": 2}})
    source = open_folder(root)
    a, b = source.fingerprint("train", "a"), source.fingerprint("train", "b")
    (root / "train" / "a" / "0001.jpg").write_bytes(encode(noise_image(9)))
    assert source.fingerprint("train", "a") != a
    assert source.fingerprint("train", "b") == b


IMAGE = encode(noise_image(0))


def hostile_tar(**attributes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        add_member(archive, "train/a/0.jpg", IMAGE)
        add_member(archive, attributes.pop("name", "train/a/1.jpg"), b"", **attributes)
    return file.getvalue()


@pytest.mark.parametrize(
    "data, problem",
    [
        (hostile_tar(name="train/../../1.jpg"), "a name that leads outside"),
        (hostile_tar(name="/train/a/1.jpg"), "a name that leads outside"),
        (hostile_tar(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "which is a symbolic link"),
        (hostile_tar(type=tarfile.LNKTYPE, linkname="train/a/0.jpg"), "which is a hard link"),
        (hostile_tar(type=tarfile.CHRTYPE), "which is a device"),
        (hostile_tar(type=tarfile.FIFOTYPE), "which is a named pipe"),
        (hostile_tar(name="train/a/0.jpg"), "holds train/a/0.jpg twice"),
        (hostile_tar(name="1.jpg"), "expected <split>/<class>/<image>"),
        (tar_of([]), "holds no images"),
        (gzip.compress(tar_of([("train/a/0.jpg", IMAGE)])), "not a readable, uncompressed tar"),
        (b"no tar" * 999, "not a readable, uncompressed tar"),
        (b"", "not a readable, uncompressed tar"),
    ],
)
def test_hostile_and_wrong_tars_are_refused(tmp_path, data, problem):
    path = tmp_path / "images.tar"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=problem) as caught:
        open_folder(path).classes()
    assert str(path) in str(caught.value)


def tar_with_header(**fields: tuple[int, bytes]) -> bytes:
    """Return a tar of one image whose header has other bytes at some places, and a fitting sum."""
    tar = bytearray(tar_of([("train/a/0.jpg", IMAGE)]))
    for at, value in fields.values():
        tar[at : at + len(value)] = value
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return bytes(tar)


NEGATIVE, GIGANTIC = b"\xff" * 10 + b"\xfe\x00", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7


@pytest.mark.parametrize(
    "data, problem",
    [
        (tar_with_header(size=(124, NEGATIVE)), "has -512 bytes"),
        (tar_with_header(size=(124, GIGANTIC)), "is truncated within"),
        (tar_with_header(size=(124, GIGANTIC), kind=(156, b"x")), "a header of"),
        (tar_with_header(size=(124, GIGANTIC), kind=(156, b"L")), "a header of"),
        (tar_with_header(size=(124, NEGATIVE), kind=(156, b"L")), "a header of"),
        (tar_with_header(size=(124, b"%011o" % 0), kind=(156, b"L"))[:512] * 3000, "recursion"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_sizes_that_would_hang_or_fill_the_memory_are_refused(tmp_path, data, problem, kind):
    path = tmp_path / "images.tar"
    path.write_bytes(data if kind == "plain" else gzip.compress(data))
    read = list_members if kind == "plain" else partial(read_compressed, wanted=["train/a/1.jpg"])
    with (
        memory_limit(1 << 28),
        time_limit(10),
        pytest.raises(SourceError, match=problem if kind == "plain" else r"images\.tar is damaged"),
    ):
        read(path)


def test_what_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_reader, "_LARGEST_UNPACKED", 1 << 22)
    path = tmp_path / "cifar.tar.gz"
    for wanted in ("other", "bomb"):
        path.write_bytes(gzip.compress(tar_of([("bomb", bytes(1 << 23)), ("other", b"x")])))
        with pytest.raises(SourceError, match="more than 4,194,304 bytes when unpacked"):
            read_compressed(path, [wanted])


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    whole = tar_of([(f"train/a/{number}.jpg", IMAGE) for number in range(3)])
    content_end = 3 * (512 + -(-len(IMAGE) // 512) * 512)
    path = tmp_path / "images.tar"
    for size in [1, 100, *range(512, content_end + 1, 256), content_end - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"images\.tar is (truncated|damaged|not a readable)"):
            open_folder(path).classes()


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    whole = bytearray(tar_of([(f"train/a/{number}.jpg", IMAGE) for number in range(3)]))
    second = 512 + -(-len(IMAGE) // 512) * 512
    whole[second + 5] ^= 1
    path = tmp_path / "images.tar"
    path.write_bytes(whole)
    with pytest.raises(SourceError, match=f"damaged or truncated at byte {second:,}"):
        open_folder(path).classes()


def test_a_sparse_member_is_refused(tmp_path):
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        add_member(archive, "train/a/0.jpg", b"", type=tarfile.GNUTYPE_SPARSE)
    with pytest.raises(SourceError, match="a sparse file"):
        open_folder(path).classes()


def test_zeros_may_follow_a_tar_but_nothing_else(tmp_path):
    one, other = (tar_of([(f"train/a/{number}.jpg", IMAGE)]) for number in range(2))
    path = tmp_path / "images.tar"
    path.write_bytes(one + bytes(1 << 21))
    assert open_folder(path).classes() == {"train": ["a"]}
    for more in (other, b"x", bytes(1 << 20) + b"x", bytes(511) + other):
        path.write_bytes(one + more)
        with pytest.raises(SourceError, match=r"^\S+images\.tar has data after the tar's end"):
            open_folder(path).classes()


def test_a_tar_inside_a_tar_ends_where_the_outer_one_says(tmp_path):
    inner = tar_of([(f"{number}.jpg", IMAGE) for number in range(2)])
    content = 2 * (512 + -(-len(IMAGE) // 512) * 512)
    path = tmp_path / "outer.tar"
    for size, problem in ((content, "truncated"), (content // 2, "truncated")):
        path.write_bytes(tar_of([("a.tar", inner[:size])]))
        (member,) = list_members(path)
        with pytest.raises(SourceError, match=problem):
            list_members(path, member.offset, member.size)


@pytest.mark.parametrize(
    "make, problem",
    [
        (os.mkfifo, "x is a named pipe, not an image: remove it"),
        (lambda path: path.symlink_to("/dev/zero"), "x is a device, not an image: remove it"),
        (lambda path: path.symlink_to("nowhere"), "x is a broken link, not an image"),
        (lambda path: path.symlink_to(path.name), "x is a broken link, not an image"),
        (os.mkdir, r"x is a folder, not an image: .*; move its images up into .*train/a$"),
    ],
)
def test_what_is_no_file_in_a_class_folder_is_named_at_once(tmp_path, make, problem):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    for name in ("x", "x.jpg"):
        make(root / "train" / "a" / name)
        with time_limit(10), pytest.raises(SourceError, match=problem.replace("x ", f"{name} ")):
            everything(open_folder(root))
        path = root / "train" / "a" / name
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_link_to_an_image_is_an_image(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    (root / "train" / "a" / "1.jpg").symlink_to("0000.jpg")
    assert open_folder(root).weight("train", "a") == 2


def test_a_source_that_is_neither_folder_nor_tar_is_called_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        with time_limit(10), pytest.raises(SourceError, match=f"{path} is {kind}: give an image"):
            open_folder(path)


def test_file_names_that_are_not_utf8_give_the_same_shards_from_folder_and_tar(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 2}})
    (root / "train/a/0001.jpg").rename(root / "train/a" / os.fsdecode(b"ch\xeane.jpg"))
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(root, arcname=".")
    sources = [open_folder(root), open_folder(tmp_path / "images.tar")]
    for kind, made in (("", sources), ("-small", [ReencodedSource(one, 16) for one in sources])):
        folders = [tmp_path / f"{number}{kind}" for number in range(2)]
        digests = {write_shards(*one).digest for one in zip(made, folders, strict=True)}
        assert len(digests) == 1
        assert not verify(tmp_path / f"0{kind}").problems


# --- sources made of others -------------------------------------------------------------------


def test_a_subset_keeps_its_classes_and_names_missing_ones(tiny_folder):
    source = ClassSubset.of(open_folder(tiny_folder), frozenset({"dog", "cat"}))
    assert source.classes() == {"test": ["cat", "dog"], "train": ["cat", "dog"]}
    assert len(list(source.samples("train", "dog"))) == TINY_TREE["train"]["dog"]
    with pytest.raises(SourceError, match="split 'test' of images lacks 1 of 2 classes: unicorn"):
        ClassSubset.of(open_folder(tiny_folder), frozenset({"dog", "unicorn"}))


def test_a_chosen_class_must_be_in_every_split(tmp_path):
    root = write_image_folder(tmp_path / "images", {"test": {"a": 1}, "train": {"a": 1, "b": 1}})
    assert ClassSubset.of(open_folder(root), frozenset({"a"})).classes()["train"] == ["a"]
    with pytest.raises(SourceError, match="split 'test' of images lacks 1 of 2 classes: b"):
        ClassSubset.of(open_folder(root), frozenset({"a", "b"}))


def test_images_are_shrunk_by_their_shorter_side_and_never_enlarged(tmp_path):
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    sizes = {"wide": (40, 120), "tall": (100, 41), "small": (10, 30)}
    for name, (height, width) in sizes.items():
        image = noise_image(1, height, width, mode="CMYK" if name == "tall" else "RGB")
        (folder / f"{name}.jpeg").write_bytes(encode(image))
    source = ReencodedSource(FolderSource(tmp_path / "images"), shorter_side=20, quality=80)
    found = {sample.key: decoded(sample).shape for sample in source.samples("train", "a")}
    assert found == {"wide": (20, 60, 3), "tall": (49, 20, 3), "small": (10, 30, 3)}
    manifest = write_shards(source, tmp_path / "shards")
    assert manifest.dataset == "images-20px-q80"
    assert manifest.image_formats == ["jpg"]


def test_another_quality_is_another_fingerprint(tiny_folder):
    source = open_folder(tiny_folder)
    prints = {
        made.fingerprint("train", "dog")
        for made in (source, *(ReencodedSource(source, 16, quality) for quality in (80, 90)))
    }
    assert len(prints) == 3
