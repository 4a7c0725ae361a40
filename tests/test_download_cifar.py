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


def make_archive(path, name="cifar-100-python/meta"):
    with tarfile.open(path, "w:gz") as tar:
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
    with pytest.raises(SourceError, match=r"cifar-100-python\.tar\.gz is not the file"):
        download_extract_cifar100(tmp_path)
    assert not (tmp_path / "cifar-100-python").exists()
