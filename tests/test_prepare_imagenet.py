"""Unpacking ImageNet's original files into a folder per class."""

import pytest

from iirc_data.errors import SourceError
from iirc_data.utils.prepare_imagenet import prepare_imagenet
from tests.full_disk import space_left
from tests.raw_datasets import WORDNET_IDS, write_imagenet_tars, write_imagenet_tree


@pytest.fixture
def originals(tmp_path):
    pytest.importorskip("scipy")
    return write_imagenet_tars(tmp_path / "originals")


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_original_files_give_the_published_tree_byte_for_byte(originals, tmp_path):
    prepare_imagenet(originals, tmp_path / "prepared")
    assert contents(tmp_path / "prepared") == contents(write_imagenet_tree(tmp_path / "expected"))


def test_an_interrupted_run_is_gone_on_with(originals, tmp_path):
    target = tmp_path / "prepared"
    in_the_way = target / "train" / f".{WORDNET_IDS[1]}.partial"
    target.joinpath("train").mkdir(parents=True)
    in_the_way.write_text("a file where a folder is to be written")
    with pytest.raises(SourceError, match=f"cannot write .*{WORDNET_IDS[1]}"):
        prepare_imagenet(originals, target)
    done = [path.name for path in (target / "train").iterdir() if path.is_dir()]
    assert 0 < len(done) < len(WORDNET_IDS)
    times = {name: (target / "train" / name).stat().st_mtime_ns for name in done}
    in_the_way.unlink()
    in_the_way.mkdir()  # what a killed run leaves
    (in_the_way / "half.JPEG").write_bytes(b"half")
    prepare_imagenet(originals, target)
    assert contents(target) == contents(write_imagenet_tree(tmp_path / "expected"))
    assert {name: (target / "train" / name).stat().st_mtime_ns for name in done} == times


def test_a_disk_that_fills_up_leaves_no_half_filled_class(originals, tmp_path):
    target = tmp_path / "prepared"
    expected = contents(write_imagenet_tree(tmp_path / "expected"))
    first = min(expected)
    with (
        space_left(target, len(expected[first]) + 10),
        pytest.raises(SourceError, match=r"cannot write .*/train/n\d+: No space left on device"),
    ):
        prepare_imagenet(originals, target)
    assert not [path for path in contents(target) if ".partial" not in str(path.parent)]
    prepare_imagenet(originals, target)
    assert contents(target) == expected


def test_missing_original_files_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train\.tar"):
        prepare_imagenet(tmp_path, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
