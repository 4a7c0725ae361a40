"""Classes that have no image to train or to test on, as the tools and training see them."""

import warnings

import pytest

from iirc_data.benchmarks import Benchmark
from iirc_data.commands.shard.summary import gaps
from iirc_data.dataset_checks import check_images, classes_without_images
from iirc_data.errors import BenchmarkError
from iirc_data.shards import write_shards
from iirc_data.sources import open_folder
from iirc_train.config import ExperimentConfig
from iirc_train.training.components import Experiment
from tests.conftest import write_image_folder


@pytest.fixture
def sharded(tmp_path):
    """Return a function that shards a folder with these classes, and one that has a benchmark."""

    def shard(train, test, name="images"):
        counts = {"train": dict.fromkeys(train, 4), "test": dict.fromkeys(test, 1)}
        root = write_image_folder(tmp_path / name, {k: v for k, v in counts.items() if v})
        return write_shards(open_folder(root), tmp_path / f"{name}-shards")

    return shard


def benchmark(*tasks, superclasses=None):
    listed = [name for names in (superclasses or {}).values() for name in names]
    named = {name for task in tasks for name in task} - {*listed, *(superclasses or {})}
    return Benchmark(
        name="b",
        dataset="d",
        superclasses=superclasses or {},
        other_classes=sorted(named),
        schedules=[[list(task) for task in tasks]],
    )


def test_gaps_are_named_with_the_spelling_of_the_other_split(sharded):
    assert gaps(sharded(["a", "b"], ["a", "b"], "whole")) == []
    manifest = sharded(["oak_tree", "rose"], ["oak-tree", "rose"], "two")
    assert gaps(manifest) == [
        "split test has no image of 1 of 3 classes: 'oak_tree' (there is 'oak-tree')",
        "split train has no image of 1 of 3 classes: 'oak-tree' (there is 'oak_tree')",
    ]
    assert gaps(sharded(["a"], [], "half")) == [
        "testing reads the split test or val; the dataset has train"
    ]


def test_a_class_without_training_images_is_refused_with_its_other_spelling(sharded):
    manifest = sharded(["a", "Oak tree"], ["a", "oak_tree"])
    mine = benchmark(["a"], ["oak_tree"])
    assert classes_without_images(mine, manifest, mine.tasks(), "train") == ["oak_tree"]
    with pytest.raises(
        BenchmarkError,
        match=r"no training image of 1 classes: 'oak_tree' \(there is 'Oak tree'\)",
    ):
        check_images(mine, manifest, mine.tasks())


def test_a_class_without_test_images_is_a_warning_but_a_task_an_error(sharded):
    manifest = sharded(["a", "b", "c"], ["a"])
    with pytest.warns(UserWarning, match="no test image of 2 classes, .*: b, c"):
        check_images(benchmark(["a", "b", "c"]), manifest, [["a", "b", "c"]])
    with pytest.raises(BenchmarkError, match=r"no test image of task 1 \(b, c\)"):
        check_images(benchmark(["a"], ["b", "c"]), manifest, [["a"], ["b", "c"]])


def test_a_superclass_counts_its_subclasses_scheduled_or_not(sharded):
    manifest = sharded(["a", "b"], ["b"])
    tasks = [["s"], ["b"]]
    with pytest.warns(UserWarning, match="no test image of 1 classes, .*: a"):
        check_images(benchmark(*tasks, superclasses={"s": ["a", "b"]}), manifest, tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_images(benchmark(["b"]), manifest, [["b"]])


def test_training_tells_before_its_first_step(sharded, tmp_path):
    sharded(["a", "b"], ["a"])
    path = tmp_path / "b.json"
    settings = {"data": str(tmp_path / "images-shards"), "method": "finetune", "n_layers": 8}
    settings |= {"benchmark": str(path), "device": "cpu", "epochs_per_task": 1, "batch_size": 2}
    path.write_text(benchmark(["a", "b"]).model_dump_json())
    with pytest.warns(UserWarning, match="no test image of 1 classes"):
        Experiment(ExperimentConfig.parse(settings), buffer_dir=tmp_path / "buffer")
    path.write_text(benchmark(["a"], ["b"]).model_dump_json())
    with pytest.raises(BenchmarkError, match=r"no test image of task 1 \(b\)"):
        Experiment(ExperimentConfig.parse(settings), buffer_dir=tmp_path / "buffer")
