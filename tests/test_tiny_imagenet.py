"""Tiny ImageNet in the layout that it is unpacked to: right, and damaged in every way."""

import json
import re
import shutil

import pytest
import typer
from typer.testing import CliRunner

from iirc_data.commands.shard.tiny_imagenet import shard_tiny_imagenet
from iirc_data.errors import SourceError
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import FolderSource, open_tiny_imagenet
from tests.raw_datasets import WORDNET_IDS, write_tiny_imagenet
from tools import shard_tiny_imagenet as tool

ANNOTATIONS = "val/val_annotations.txt"
FIRST = sorted(WORDNET_IDS)[0]


@pytest.fixture
def tree(tmp_path):
    return write_tiny_imagenet(tmp_path / "raw")


def test_every_image_is_under_its_class_with_its_bytes(tree):
    source = open_tiny_imagenet(tree)
    assert source.classes() == dict.fromkeys(("train", "val"), sorted(WORDNET_IDS))
    for row, wordnet_id in enumerate(WORDNET_IDS):
        train = list(source.samples("train", wordnet_id))
        assert [sample.key for sample in train] == [f"{wordnet_id}_{n}" for n in range(3)]
        folder = tree / "train" / wordnet_id / "images"
        assert [s.data for s in train] == [p.read_bytes() for p in sorted(folder.iterdir())]
        keys = sorted(f"val_{number}" for number in range(row, 12, 3))
        val = list(source.samples("val", wordnet_id))
        assert [sample.key for sample in val] == keys  # by name: val_10 comes before val_4
        folder = tree / "val" / "images"
        assert [s.data for s in val] == [(folder / f"{key}.JPEG").read_bytes() for key in keys]
        assert source.weight("train", wordnet_id) == 3 and source.weight("val", wordnet_id) == 4


def test_the_folder_and_its_parent_give_the_shards_of_the_same_images_in_class_folders(
    tree, tmp_path
):
    plain = tmp_path / "tiny_imagenet"
    for split in ("train", "val"):
        for wordnet_id in WORDNET_IDS:
            (plain / split / wordnet_id).mkdir(parents=True)
            for sample in open_tiny_imagenet(tree).samples(split, wordnet_id):
                (plain / split / wordnet_id / f"{sample.key}.JPEG").write_bytes(sample.data)
    sources = open_tiny_imagenet(tree), open_tiny_imagenet(tree.parent), FolderSource(plain)
    manifests = [write_shards(s, tmp_path / f"{n}") for n, s in enumerate(sources)]
    assert len({manifest.digest for manifest in manifests}) == 1


def test_a_changed_image_or_label_changes_the_fingerprint_of_its_class(tree):
    source = open_tiny_imagenet(tree)

    def fingerprints():
        return {
            (s, c): source.fingerprint(s, c) for s, names in source.classes().items() for c in names
        }

    before = fingerprints()
    assert fingerprints() == before and len(set(before.values())) == 6
    (tree / "train" / FIRST / "images" / f"{FIRST}_0.JPEG").write_bytes(b"other")
    after = fingerprints()
    assert {key for key in before if before[key] != after[key]} == {("train", FIRST)}
    lines = (tree / ANNOTATIONS).read_text().splitlines(keepends=True)
    lines[0] = lines[0].replace(WORDNET_IDS[0], WORDNET_IDS[1])
    (tree / ANNOTATIONS).write_text("".join(lines) + "\n")
    relabelled = fingerprints()
    assert {key for key in after if after[key] != relabelled[key]} == {
        ("val", name) for name in WORDNET_IDS[:2]
    }


def edit(old: str, new: str):
    """Return damage that replaces the first occurrence of a text in the annotations."""

    def damage(root):
        path = root / ANNOTATIONS
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda r: shutil.rmtree(r / "train"), "has no folder train/: unpack tiny-imagenet-200"),
        (lambda r: shutil.rmtree(r / "val"), r"cannot read .*val_annotations\.txt: No such file"),
        (lambda r: shutil.rmtree(r / "val/images"), "val has no folder images/ of all validation"),
        (lambda r: (r / ANNOTATIONS).unlink(), r"cannot read .*val_annotations\.txt: No such file"),
        (lambda r: (r / ANNOTATIONS).write_bytes(b"\0\1"), r"val_annotations\.txt is not a text"),
        (lambda r: (r / ANNOTATIONS).write_text(""), r"val_0\.JPEG is not in .*val_annotations"),
        (edit("\t0\t32\t44\t62", ""), "line 1: expected an image, its class and four numbers, got"),
        (edit("val_1.JPEG", "val_0.JPEG"), r"line 2: val_0\.JPEG occurs twice"),
        (edit(WORDNET_IDS[0], "n00000001"), r"names 1 classes that train lacks \(n00000001\)"),
        (edit("val_2.JPEG", "val_99.JPEG"), r"images/val_2\.JPEG is not in .*val_annotations"),
        (lambda r: (r / "val/images/val_3.JPEG").unlink(), r"lacks 1 images .*\(val_3\.JPEG\)"),
        (
            lambda r: (r / "val/images/notes.txt").touch(),
            r"notes\.txt does not have the name of an image",
        ),
        (lambda r: (r / "train/notes.txt").touch(), r"'notes\.txt' in train is not a WordNet id"),
        (lambda r: (r / "train/n00000001").mkdir(), "1 classes are in only one of train and val"),
        (
            lambda r: shutil.rmtree(r / f"train/{FIRST}/images"),
            f"train/{FIRST} has no folder images/: unpack .*; .* iirc data shard folder",
        ),
        (
            lambda r: [path.unlink() for path in (r / f"train/{FIRST}/images").iterdir()],
            f"train/{FIRST}/images holds no images",
        ),
    ],
)
def test_a_damaged_layout_is_named_with_a_remedy_in_one_line(tree, damage, problem):
    damage(tree)
    with pytest.raises(SourceError, match=problem) as caught:
        source = open_tiny_imagenet(tree)
        for split, names in source.classes().items():
            for name in names:
                source.weight(split, name)
    assert "\n" not in str(caught.value)


def run(*arguments):
    app = typer.Typer()
    app.command()(shard_tiny_imagenet)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_shards_and_compares_them_with_what_is_distributed(tree, tmp_path):
    content = {"name": "b", "dataset": "tiny_imagenet", "setup": "CIL", "transforms": "cifar"}
    content |= {"other_classes": list(WORDNET_IDS), "schedules": [[[n] for n in WORDNET_IDS]]}
    content["splits"] = {"intask_valid_ratio": 0.0, "posttask_valid_ratio": 0.0}
    (tmp_path / "b.json").write_text(json.dumps(content))
    result = run(tree, tmp_path / "out", "--benchmark", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"val .* 12 .* 150 differs", result.output)
    assert "all 3 leaf classes are here; train 9, intask_valid 0, posttask_valid 0, test 12" in (
        result.output
    )
    assert ShardStore.open(tmp_path / "out").manifest.dataset == "tiny_imagenet"
    assert tool.main is shard_tiny_imagenet


def test_shards_are_not_written_into_the_folders_that_are_read(tree):
    result = run(tree, tree / "val" / "shards")
    assert result.exit_code == 1
    assert "lies inside" in result.stderr
