"""Downloading and extracting CIFAR-100 (how files are downloaded is tested on its own)."""

import hashlib
import io
import tarfile
from dataclasses import replace

import pytest

from iirc_data.errors import SourceError
from iirc_data.sources.cifar import CIFAR100
from iirc_data.utils import download_cifar
from iirc_data.utils.download_cifar import download_extract_cifar100
from tests.full_disk import space_left


def make_archive(path, *names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names or ("cifar-100-python/meta",):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"meta"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_cifar100_is_extracted_also_where_its_archive_is_there_already(
    tmp_path, monkeypatch, capsys
):
    sha256 = make_archive(tmp_path / "cifar-100-python.tar.gz")
    monkeypatch.setattr(download_cifar, "CIFAR100", replace(CIFAR100, sha256=sha256))
    download_extract_cifar100(tmp_path)
    assert (tmp_path / "cifar-100-python" / "meta").read_bytes() == b"meta"
    assert "downloading" not in capsys.readouterr().out


def test_a_disk_that_fills_up_leaves_nothing_half_extracted(tmp_path, monkeypatch):
    names = [f"cifar-100-python/{name}" for name in ("meta", "train", "test")]
    sha256 = make_archive(tmp_path / "cifar-100-python.tar.gz", *names)
    monkeypatch.setattr(download_cifar, "CIFAR100", replace(CIFAR100, sha256=sha256))
    with (
        space_left(tmp_path, 6),
        pytest.raises(SourceError, match=r"cannot extract .*python\.tar\.gz: .*No space left"),
    ):
        download_extract_cifar100(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-100-python.tar.gz"]
    download_extract_cifar100(tmp_path)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"meta"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_archive_whose_members_leave_the_folder_is_refused(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    sha256 = make_archive(root / "cifar-100-python.tar.gz", "../outside")
    monkeypatch.setattr(download_cifar, "CIFAR100", replace(CIFAR100, sha256=sha256))
    with pytest.raises(SourceError, match="cannot extract"):
        download_extract_cifar100(root)
    assert not (tmp_path / "outside").exists()


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path):
    make_archive(tmp_path / "cifar-100-python.tar.gz")
    with pytest.raises(SourceError, match=r"cifar-100-python\.tar\.gz is not the published file"):
        download_extract_cifar100(tmp_path)
    assert not (tmp_path / "cifar-100-python").exists()
