"""Unpacking ImageNet's original files; a folder of images stands for them."""

import pytest

from iirc_data.errors import SourceError
from iirc_data.sources import FolderSource
from iirc_data.utils import prepare_imagenet as module
from iirc_data.utils.prepare_imagenet import prepare_imagenet
from tests.conftest import write_image_folder

TREE = {"train": {"n01440764": 3, "n01443537": 2}, "val": {"n01440764": 1, "n01443537": 1}}


@pytest.fixture
def originals(tmp_path, monkeypatch):
    """Return the folder of the images that ``open_imagenet_tars`` gives."""
    root = write_image_folder(tmp_path / "original", TREE)
    monkeypatch.setattr(module, "open_imagenet_tars", lambda *files: FolderSource(root))
    return root


def contents(root):
    return {
        str(path.relative_to(root).with_suffix("")): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_every_image_goes_byte_for_byte_into_its_class_folder(originals, tmp_path):
    target = tmp_path / "prepared"
    prepare_imagenet(tmp_path, target)
    assert contents(target) == contents(originals)
    assert {path.suffix for path in target.rglob("*.*")} == {".JPG"}


def test_an_interrupted_run_is_gone_on_with(originals, tmp_path, monkeypatch):
    target = tmp_path / "prepared"
    damaged = originals / "train" / "n01443537" / "0001.jpg"
    image = damaged.read_bytes()
    damaged.unlink()
    damaged.mkdir()  # cannot be read as a file
    with pytest.raises(SourceError, match=r"0001\.jpg"):
        prepare_imagenet(tmp_path, target)
    assert (target / "train" / "n01440764").is_dir()
    assert not (target / "train" / "n01443537").exists()
    damaged.rmdir()
    damaged.write_bytes(image)
    kept = (target / "train" / "n01440764").stat().st_mtime_ns
    prepare_imagenet(tmp_path, target)
    assert contents(target) == contents(originals)
    assert (target / "train" / "n01440764").stat().st_mtime_ns == kept


def test_missing_original_files_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train\.tar"):
        prepare_imagenet(tmp_path, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_a_target_that_cannot_be_written_is_named(originals, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SourceError, match="cannot write"):
        prepare_imagenet(tmp_path, tmp_path / "file")
