"""The commands that write shards, as they are typed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from iirc_data.benchmarks import benchmark_text, load_benchmark
from iirc_data.commands.index import index_shards
from iirc_data.commands.shard.aircraft import shard_aircraft
from iirc_data.commands.shard.cifar import shard_cifar
from iirc_data.commands.shard.folder import shard_folder
from iirc_data.commands.shard.imagenet import shard_imagenet
from iirc_data.commands.shard.inaturalist import shard_inaturalist
from iirc_data.commands.shard.pets import shard_pets
from iirc_data.commands.shard.selection import read_class_list
from iirc_data.commands.shard.tiny_imagenet import shard_tiny_imagenet
from iirc_data.errors import ShardError, SourceError
from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.workers import for_worker_processes
from iirc_data.sources import ReencodedSource, open_folder
from tests.conftest import TINY_TREE, write_image_folder
from tests.full_disk import space_left
from tests.processes import hear_ctrl_c
from tests.raw_datasets import (
    WORDNET_IDS,
    tar_gz_of_folder,
    write_cifar10,
    write_cifar100,
    write_imagenet_tars,
    write_imagenet_tree,
)
from tools import dali_index
from tools import shard_cifar as cifar_tool
from tools import shard_folder as folder_tool
from tools import shard_imagenet as imagenet_tool

ROOT = Path(__file__).parents[1]


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_well(command, *arguments) -> str:
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def words_of_row(output: str, split: str) -> list[str]:
    row = next(line for line in output.splitlines() if f" {split} " in line and "│" in line)
    return [cell.strip() for cell in row.strip("│").split("│")]


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_sharded_and_summarised(tiny_folder, tiny_store, tmp_path):
    output = run_well(shard_folder, tiny_folder, tmp_path / "out", "--check-decode")
    assert f"digest {tiny_store.digest}" in output
    assert words_of_row(output, "train") == ["train", "6", "6", "130", ""]
    assert words_of_row(output, "test") == ["test", "6", "6", "28", ""]


def test_only_the_classes_of_a_benchmark_are_taken_and_counted(
    tiny_folder, tiny_benchmark, tmp_path
):
    file = tmp_path / "mine.json"
    smaller = {"superclasses": {"animal": ["bear", "cat"]}, "other_classes": []}
    content = tiny_benchmark.model_dump() | smaller | {"schedules": [[["animal"], ["cat"]]]}
    file.write_text(json.dumps(content))
    output = run_well(shard_folder, tiny_folder, tmp_path / "out", "--benchmark", file)
    assert ShardStore.open(tmp_path / "out").manifest.classes == ["bear", "cat"]
    counts = "all 2 leaf classes are here; train 37, intask_valid 4, posttask_valid 4, test 10"
    assert f"benchmark tiny: {counts}" in output


def test_a_dataset_that_does_not_fit_its_benchmark_is_told(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"cat": 3, "dog": 3}})
    content = {"name": "pets", "dataset": "pets", "other_classes": ["cat", "dog"]}
    (tmp_path / "pets.json").write_text(json.dumps(content | {"schedules": [[["cat", "dog"]]]}))
    output = run_well(shard_folder, root, tmp_path / "out", "--benchmark", tmp_path / "pets.json")
    assert "benchmark pets: does not fit: " in output
    assert "'test' needs test or" in output


@pytest.mark.parametrize("as_file", [True, False])
def test_chosen_classes_are_taken_from_a_list_or_a_file(tiny_folder, tmp_path, as_file):
    (tmp_path / "list.txt").write_text("dog\n\n cat \n")
    chosen = tmp_path / "list.txt" if as_file else "dog, cat"
    run_well(shard_folder, tiny_folder, tmp_path / "out", "--classes", chosen)
    assert ShardStore.open(tmp_path / "out").manifest.classes == ["cat", "dog"]


def test_a_list_of_classes_may_be_long_and_a_file_anything_that_text_is(tmp_path, monkeypatch):
    names = [f"n{10_000_000 + number}" for number in range(60)]
    assert read_class_list(",".join(names)) == names
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    assert read_class_list(str(tmp_path / "list")) == names
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog").mkdir()
    assert read_class_list("dog") == ["dog"]
    with pytest.raises(SourceError, match="cannot read the list of classes /dev/zero: it is a dev"):
        read_class_list("/dev/zero")


def test_a_chosen_class_that_is_spelt_otherwise_is_named_as_it_is_there(tiny_folder, tmp_path):
    result = run(shard_folder, tiny_folder, tmp_path / "out", "--classes", "Dog")
    message = " ".join(result.stderr.split())
    assert "split 'test' of images lacks 1 of 1 classes: 'Dog' (there is 'dog')" in message


@pytest.mark.parametrize("names", [("oak", "Oak"), ("oak", "oak "), ("ch\xeane", "che\u0302ne")])
def test_a_class_that_is_spelt_in_two_ways_is_refused_before_anything_is_written(tmp_path, names):
    trees = [
        {"train": {names[0]: 1, "a": 1}, "test": {names[1]: 1, "a": 1}},
        {"train": {names[0]: 1, names[1]: 1}},
    ]
    for number, tree in enumerate(trees):
        root = write_image_folder(tmp_path / str(number), tree)
        (tmp_path / "taxonomy.json").write_text(json.dumps({"s": ["a"]}))
        result = run(shard_folder, root, tmp_path / "out", "--taxonomy", tmp_path / "taxonomy.json")
        assert result.exit_code == 1
        message = " ".join(result.stderr.split())
        shown = map(ascii, names) if "\xea" in names[0] else map(repr, names)
        assert all(name in message for name in shown)
        assert "differ only in case, accents or blanks: rename one" in message
        assert not (tmp_path / "out").exists()


def test_classes_that_a_split_lacks_are_named_in_the_summary(tmp_path, tiny_benchmark):
    root = write_image_folder(
        tmp_path / "images", {"train": {"a": 1, "oak_tree": 4}, "test": {"a": 1, "oak-tree": 1}}
    )
    content = {"name": "b", "dataset": "d", "other_classes": ["a", "oak_tree"]}
    (tmp_path / "b.json").write_text(json.dumps(content | {"schedules": [[["a", "oak_tree"]]]}))
    (tmp_path / "t.json").write_text("{}")
    output = run_well(shard_folder, root, tmp_path / "out", "--taxonomy", tmp_path / "t.json")
    assert "warning: split test has no image of 1 of 3 classes: 'oak_tree' (there is" in output
    assert "warning: split train has no image of 1 of 3 classes: 'oak-tree' (there is" in output
    assert "no train image of" in output
    assert "leaf classes are here" not in output


@pytest.mark.parametrize(
    "out, relation",
    [
        ("images", "is"),
        ("images/shards", "lies inside"),
        ("images/train/a/b/c", "lies inside"),
        (".", "contains"),
        ("link/shards", "lies inside"),
        ("elsewhere/dog/shards", "lies inside"),
    ],
)
def test_shards_are_not_written_into_what_they_are_made_of(tmp_path, out, relation):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}, "test": {"a": 1}})
    write_image_folder(tmp_path, {"elsewhere": {"dog": 1}})
    (root / "train" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "link").symlink_to(root)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "t.json").write_text("{}")
    result = run(shard_folder, root, tmp_path / out, "--taxonomy", tmp_path / "t.json")
    assert result.exit_code == 1
    assert f" {relation} " in " ".join(result.stderr.split())
    message = " ".join(result.stderr.split())
    assert "which the dataset is read from: give a separate folder" in message
    with pytest.raises(ShardError, match="which the dataset is read from"):
        write_shards(ReencodedSource(open_folder(root)), tmp_path / out)
    (tmp_path / "t.json").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_original_files_may_lie_around_the_shards(tmp_path):
    tars = write_imagenet_tars(tmp_path / "tars")
    tree = write_imagenet_tree(tmp_path / "tree")
    write_cifar10(tmp_path / "cifar")
    for tool, source in (
        (shard_imagenet, tars),
        (shard_imagenet, tree),
        (shard_cifar, tmp_path / "cifar"),
    ):
        for _ in range(2):  # the second time, the shards of the first lie there
            run(tool, source, source / "shards")
            assert (source / "shards" / "manifest.json").exists()
        result = run(tool, source, source)
        assert result.exit_code == 1
        assert " contains " in " ".join(result.stderr.split())


def test_resized_shards_are_smaller_and_named_by_their_pixels(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 3}}, height=50, width=80)
    run_well(shard_folder, root, tmp_path / "out", "--resize", 20, "--quality", 70)
    store = ShardStore.open(tmp_path / "out")
    assert set(store.table.height) == {20}
    assert set(store.table.width) == {32}
    assert all(shard.pixels_sha256 for shard in store.manifest.shards)


def test_index_files_are_written_with_the_shards_or_later(tiny_folder, tmp_path):
    run_well(shard_folder, tiny_folder, tmp_path / "with", "--dali-index")
    run_well(shard_folder, tiny_folder, tmp_path / "later")
    assert "12 index files" in run_well(index_shards, tmp_path / "later")
    for path in (tmp_path / "with").rglob("*.idx"):
        later = tmp_path / "later" / path.relative_to(tmp_path / "with")
        assert later.read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "with").rglob("*.idx"))) == 12


def test_a_taxonomy_gives_a_benchmark_to_start_from(tiny_folder, tmp_path):
    taxonomy = {"animal": ["bear", "cat", "dog"], "vehicle": ["bus"]}
    (tmp_path / "taxonomy.json").write_text(json.dumps(taxonomy))
    output = run_well(
        shard_folder, tiny_folder, tmp_path / "out", "--taxonomy", tmp_path / "taxonomy.json"
    )
    benchmark = load_benchmark(tmp_path / "out" / "benchmark.json")
    assert benchmark.superclasses == taxonomy
    assert json.loads((tmp_path / "out" / "taxonomy.json").read_text()) == taxonomy
    assert benchmark.other_classes == ["truck", "tulip"]
    assert benchmark.tasks(0) == [
        ["animal", "vehicle"],
        ["bear", "bus", "truck", "cat", "tulip"],
        ["dog"],
    ]
    assert "all 6 leaf classes are here" in output


def test_a_taxonomy_may_name_classes_that_are_not_taken(tiny_folder, tmp_path):
    taxonomy = {"animal": ["bear", "cat", "dog"], "vehicle": ["bus"]}
    (tmp_path / "all.json").write_text(json.dumps(taxonomy))
    out, named = tmp_path / "out", tmp_path / "named.json"
    command = (shard_folder, tiny_folder, out, "--taxonomy", tmp_path / "all.json")
    output = run_well(*command, "--classes", "cat,dog,tulip")
    assert json.loads((out / "taxonomy.json").read_text()) == {"animal": ["cat", "dog"]}
    benchmark = load_benchmark(out / "benchmark.json")
    assert benchmark.superclasses == {"animal": ["cat", "dog"]}
    assert benchmark.other_classes == ["tulip"]
    assert "benchmark images: all 3 leaf classes" in output
    named.write_text(benchmark_text(benchmark.model_copy(update={"name": "named"})))
    out = tmp_path / "again"
    command = (shard_folder, tiny_folder, out, "--taxonomy", tmp_path / "all.json")
    assert "benchmark named: all 3 leaf classes" in run_well(*command, "--benchmark", named)
    assert load_benchmark(out / "benchmark.json").superclasses == {"animal": ["cat", "dog"]}


def test_a_superclass_may_have_the_name_of_a_class_that_is_not_taken(tiny_folder, tmp_path):
    (tmp_path / "t.json").write_text('{"bear": ["cat", "dog"]}')
    command = (shard_folder, tiny_folder, tmp_path / "out", "--taxonomy", tmp_path / "t.json")
    assert "'bear' is a superclass" in run(*command).stderr.replace("\n", " ")
    assert "all 2 leaf classes" in run_well(*command, "--classes", "cat,dog")


def test_a_superclass_that_a_taxonomy_gives_twice_is_refused(tiny_folder, tmp_path):
    (tmp_path / "t.json").write_text('{"animal": ["cat"], "animal": ["dog"]}')
    result = run(shard_folder, tiny_folder, tmp_path / "out", "--taxonomy", tmp_path / "t.json")
    assert result.exit_code == 1
    assert "'animal' occurs 2 times in one object" in result.stderr.replace("\n", " ")


def test_a_disk_that_fills_up_is_said_in_one_line_and_the_command_gone_on_with(
    tiny_folder, tiny_store, tmp_path
):
    (tmp_path / "taxonomy.json").write_text('{"animal": ["dog"]}')
    out = tmp_path / "out"
    command = (shard_folder, tiny_folder, out, "--taxonomy", tmp_path / "taxonomy.json")
    for space, file in ((100, "benchmark.json"), (30_000, "test/cat-000000.tar")):
        with space_left(out, space):
            result = run(*command)
        assert result.exit_code == 1
        message = "".join(result.stderr.split("\n"))
        assert f"error: cannot write {out / file}: No space left on device" in message
    assert f"digest {tiny_store.digest}" in run_well(*command)
    benchmark = out / "benchmark.json"
    benchmark.write_text("edited")
    assert run(*command).exit_code == 1  # there is a dataset already
    assert benchmark.read_text() == "edited"


@pytest.mark.parametrize(
    "taxonomy, problem",
    [
        ('{"animal": ["dog", "unicorn"]}', "1 classes that the dataset lacks: unicorn"),
        ('{"animal": "dog"}', "is not a taxonomy {superclass: [subclasses]}: animal:"),
        ("[", "is not valid JSON"),
        ("[]", "is not a taxonomy"),
        ('{"a": ["dog"], "b": ["dog"]}', "class 'dog' is already in superclasses.a"),
        ('{"cat": ["dog"]}', "'cat' is a superclass, expected leaf classes"),
    ],
)
def test_a_wrong_taxonomy_is_refused_before_anything_is_written(
    tiny_folder, tmp_path, taxonomy, problem
):
    (tmp_path / "taxonomy.json").write_text(taxonomy)
    result = run(
        shard_folder, tiny_folder, tmp_path / "out", "--taxonomy", tmp_path / "taxonomy.json"
    )
    assert result.exit_code == 1
    assert problem in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["nowhere"], "nowhere does not exist: give an image folder or a tar of one"),
        (
            ["images", "--classes", "unicorn"],
            "split 'train' of images lacks 1 of 1 classes: unicorn",
        ),
        (["images", "--classes", " , "], "names no class"),
        (["images", "--classes", "./no.txt"], "the list of classes ./no.txt: No such file"),
        (["images", "--benchmark", "iirc"], "no benchmark is named 'iirc'"),
        (
            ["images", "--benchmark", "iirc_cifar10"],
            "split 'train' of images lacks 10 of 10 classes: airplane",
        ),
        (["images", "--scheduler", "tcp://127.0.0.1:9"], "start one with: dask scheduler"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, arguments, problem):
    monkeypatch.setattr("iirc_data.cluster.connection._CONNECT_SECONDS", 0.2)
    write_image_folder(tmp_path / "images", {"train": {"a[b]": 1}})
    monkeypatch.chdir(tmp_path)
    result = run(shard_folder, arguments[0], "out", *arguments[1:])
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert message.startswith("error: ")
    assert problem in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command, given",
    [
        (shard_cifar, "give cifar-10-python.tar.gz or cifar-100-python.tar.gz"),
        (shard_imagenet, "give a folder with train/ and val/"),
        (shard_tiny_imagenet, "unpack tiny-imagenet-200.zip"),
        (shard_aircraft, "unpack fgvc-aircraft-2013b.tar.gz"),
        (shard_inaturalist, "unpack annotations and images of iNaturalist"),
        (shard_pets, "unpack images.tar.gz and annotations.tar.gz"),
    ],
)
def test_a_path_that_does_not_exist_is_said_not_to_with_what_to_give(tmp_path, command, given):
    result = run(command, tmp_path / "nowhere", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"error: {tmp_path / 'nowhere'} does not exist: {given}" in line


def test_brackets_in_names_are_shown_as_they_are(tmp_path):
    root = write_image_folder(tmp_path / "images", {"train": {"a[b]": 1}})
    (root / "train" / "a[b]" / "0000.jpg").write_bytes(b"")
    result = run(shard_folder, root, tmp_path / "out")
    assert "/a[b]/0000.jpg is empty" in "".join(result.stderr.split("\n"))


def test_classes_are_written_by_a_dask_cluster(tiny_folder, tiny_store, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        output = run_well(
            shard_folder, tiny_folder, tmp_path, "--scheduler", cluster.scheduler_address
        )
    assert f"digest {tiny_store.digest}" in output


def test_a_cluster_without_dask_says_what_to_install(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = run(shard_folder, tiny_folder, tmp_path / "out", "--scheduler", "tcp://here:8786")
    assert result.exit_code == 1
    assert "pip install 'iirc-pipeline[cluster]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_scripts_in_tools_are_the_commands():
    assert folder_tool.main is shard_folder
    assert cifar_tool.main is shard_cifar
    assert imagenet_tool.main is shard_imagenet
    assert dali_index.main is index_shards


# --- CIFAR and ImageNet -----------------------------------------------------------------------


def test_cifar_is_compared_with_what_was_published(tmp_path):
    write_cifar100(tmp_path)
    output = run_well(shard_cifar, tmp_path, tmp_path / "out", "--classes", "bee")
    assert words_of_row(output, "train")[3:] == ["20", "16,667 differs"]
    store = ShardStore.open(tmp_path / "out")
    assert store.manifest.dataset == "cifar100"
    assert store.manifest.image_formats == ["png"]


def test_cifar_is_downloaded_where_asked(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path / "server")
    archive = tar_gz_of_folder(folder, tmp_path / "server" / "cifar-10-python.tar.gz")
    calls = []

    def download(url, path, sha256, progress):
        calls.append((url, sha256[:8]))
        progress(1, 2)
        path.parent.mkdir()
        path.write_bytes(archive.read_bytes())

    monkeypatch.setattr("iirc_data.commands.shard.cifar.download", download)
    raw = tmp_path / "raw"
    run_well(shard_cifar, raw, tmp_path / "out", "--download", "--dataset", "cifar10")
    assert calls == [("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "6d958be0")]
    assert len(ShardStore.open(tmp_path / "out")) == 60
    result = run(shard_cifar, raw, tmp_path / "other", "--download")
    assert result.exit_code == 2
    assert "--dataset" in result.stderr


def test_imagenet_from_tars_and_from_folders_gives_one_digest(tmp_path):
    tars = write_imagenet_tars(tmp_path / "tars")
    tree = write_imagenet_tree(tmp_path / "tree")
    (tmp_path / "val.tar").write_bytes((tars / "ILSVRC2012_img_val.tar").read_bytes())
    (tars / "ILSVRC2012_img_val.tar").unlink()
    outputs = [
        run_well(shard_imagenet, tree, tmp_path / "1"),
        run_well(shard_imagenet, tars, tmp_path / "2", "--val-tar", tmp_path / "val.tar"),
    ]
    assert len({output.split("digest ")[1] for output in outputs}) == 1
    assert words_of_row(outputs[0], "val") == ["val", "3", "3", "6", "150 differs"]


def test_splits_of_imagenet_are_compared_once_classes_are_chosen(tmp_path):
    tree = write_imagenet_tree(tmp_path / "tree")
    for split, name in (("val", "n09999999"), ("train", "extra")):
        (tree / split / name).mkdir()
    result = run(shard_imagenet, tree, tmp_path / "out")
    assert "'extra' in train is not a WordNet id" in " ".join(result.stderr.split())
    names = ",".join(WORDNET_IDS[:2])
    run_well(shard_imagenet, tree, tmp_path / "out", "--classes", names)
    assert ShardStore.open(tmp_path / "out").manifest.classes == sorted(WORDNET_IDS[:2])


def test_a_benchmarks_missing_classes_are_named(tmp_path, tiny_benchmark):
    tree = write_imagenet_tree(tmp_path / "tree")
    content = tiny_benchmark.model_dump()
    content["superclasses"] = {"fish": [*WORDNET_IDS[:2], "n01484850"]}
    content |= {"other_classes": [], "schedules": [[["fish"]]]}
    (tmp_path / "b.json").write_text(json.dumps(content))
    result = run(shard_imagenet, tree, tmp_path / "out", "--benchmark", tmp_path / "b.json")
    assert result.exit_code == 1
    assert "lacks 1 of 3 classes: n01484850" in " ".join(result.stderr.split())


# --- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start, number, workers",
    [
        (["-m", "iirc_train", "data", "shard", "folder"], signal.SIGINT, 1),
        (["tools/shard_folder.py"], signal.SIGTERM, 2),
    ],
)
def test_an_interrupted_command_ends_promptly_and_prints_how_to_resume(
    tmp_path, start, number, workers
):
    root = tmp_path / "images"
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    for name in ("a", "b", "c"):  # compressing takes some seconds a class
        (root / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(root / "train" / name / "0.png", compress_level=0)
        for i in range(1, 60):
            os.link(root / "train" / name / "0.png", root / "train" / name / f"{i}.png")
    arguments = [root, tmp_path / "out", "--resize", 590, "--workers", workers]
    typed = ["python", *start, *map(str, arguments)]
    process = subprocess.Popen(
        [sys.executable, *typed[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    while not list(tmp_path.glob("out/train/.*.partial")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert len(list(tmp_path.glob("out/train/*.tar"))) < 3  # it did not wait for all classes
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == (
        f"interrupted: finished classes are kept; to resume, run again: {shlex.join(typed)}"
    )
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in left if "manifest" in name or "partial" in name or "lock" in name]


def test_killed_worker_processes_are_told_and_replaced_by_the_next_run(tmp_path):
    root = write_image_folder(tmp_path / "images", TINY_TREE)
    program = (
        "import os, signal, sys\n"
        "from multiprocessing import active_children\n"
        "from pathlib import Path\n"
        "from iirc_data.shards import write_shards\n"
        "from iirc_data.sources import open_folder\n"
        "def kill(*_):\n"
        "    for child in active_children():\n"
        "        os.kill(child.pid, signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    write_shards(open_folder(Path(sys.argv[1])), Path(sys.argv[2]), workers=2,\n"
        "                 progress=kill)\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = subprocess.run(
        [sys.executable, tmp_path / "program.py", root, tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ShardError: a worker process was killed" in process.stderr
    write_shards(open_folder(root), tmp_path / "out")


NOTEBOOK = """
from dataclasses import dataclass
from pathlib import Path
from sys import argv
from iirc_data.shards import write_shards
from iirc_data.sources import ClassSubset, open_folder

@dataclass(frozen=True)
class Mine(ClassSubset):
    pass

source = open_folder(Path(argv[1]))
if argv[3] == "mine":
    source = Mine(source, frozenset(["a"]))
write_shards(source, Path(argv[2]), workers=2)
"""


@pytest.mark.parametrize(
    "start, source, problem",
    [
        (["-c", NOTEBOOK], "mine", "is defined in a notebook or an interactive session"),
        (["-c", NOTEBOOK], "imported", ""),
        (["-"], "imported", "cannot start from <stdin>, which is not a file"),
        (["program.py"], "imported", "call write_shards under if __name__ == '__main__'"),
    ],
)
def test_workers_that_cannot_start_are_not_said_to_lack_memory(tmp_path, start, source, problem):
    root = write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    (tmp_path / "program.py").write_text(NOTEBOOK)
    process = subprocess.run(
        [sys.executable, *start, root, tmp_path / "out", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        input=NOTEBOOK,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "memory" not in process.stderr
    assert problem in process.stderr
    assert process.returncode == (1 if problem else 0)
    if start != ["program.py"] and problem:
        assert "Process" not in process.stderr  # none was started
        assert not (tmp_path / "out").exists()


def test_a_source_that_cannot_be_sent_or_made_again_is_named():
    with pytest.raises(ShardError, match=r"cannot be sent to worker processes \(.*: define it in"):
        for_worker_processes(lambda item: item)
    call = for_worker_processes(len)
    assert call("abc") == 3
    elsewhere = partial(call.func, call.args[0].replace(b"len", b"lem"))
    with pytest.raises(ShardError, match=r"cannot import the source's class .*AttributeError"):
        elsewhere("abc")
