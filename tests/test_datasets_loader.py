"""Compares the four splits of a benchmark, read from every layout, with the published loader."""

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import fsspec
import iirc.datasets_loader as published
import numpy as np
import pytest
import torch

from iirc_data.benchmarks import load_benchmark
from iirc_data.datasets_loader import get_lifelong_datasets
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, PYTORCH, TENSORFLOW
from iirc_data.errors import BenchmarkError, LoaderError, ShardError, SourceError
from iirc_data.lifelong_dataset import tensorflow_dataset, torch_dataset
from iirc_data.task_sequence import TaskSequence
from tests.conftest import encode, noise_image
from tests.processes import wait_for
from tests.raw_datasets import write_cifar100

pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to 0")

SPLITS = ["train", "intask_valid", "posttask_valid", "test"]


def write_all_cifar100(root: Path, train_per_class: int = 20, test_per_class: int = 5) -> Path:
    """Write ``root/cifar-100-python`` with all 100 classes."""
    names = sorted(load_benchmark("incremental_cifar100").other_classes)
    return write_cifar100(root, train_per_class * 100, test_per_class * 100, names).parent


def write_imagenet(root: Path) -> Path:
    """Write ``root/train`` and ``root/val`` with all 1,000 classes, in different sizes."""
    rng = np.random.default_rng(0)
    root.mkdir()
    image = root / "image"
    image.write_bytes(encode(noise_image(0, 2, 2)))
    for name in load_benchmark("incremental_imagenet_full").other_classes:
        for split, number in (("train", int(rng.integers(1, 26))), ("val", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for file in range(number):
                os.link(image, folder / f"{name}_{file}.JPEG")
    return root


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory):
    return write_all_cifar100(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return write_imagenet(tmp_path_factory.mktemp("imagenet") / "root")


@pytest.fixture(scope="module")
def tiny_json(tiny_benchmark, tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    path.write_text(tiny_benchmark.model_dump_json())
    return path


def pixels(samples):
    return [np.asarray(image).tobytes() for image, _ in samples]


def labels(samples):
    return [labels for _, labels in samples]


# -- against the published loader --------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    "name, setup",
    [
        ("iirc_cifar100", IIRC_SETUP),
        ("incremental_cifar100", CIL_SETUP),
        ("incremental_cifar100", IIRC_SETUP),  # a mismatch that the published loader allows
    ],
)
def test_cifar_splits_equal_the_published_ones_sample_for_sample(cifar100, name, setup, joint):
    arguments = (name, str(cifar100), setup, PYTORCH, 3)
    theirs, their_tasks, their_classes = published.get_lifelong_datasets(*arguments, joint=joint)
    ours, tasks, classes = get_lifelong_datasets(*arguments, joint=joint)
    assert tasks == their_tasks
    assert classes == their_classes
    assert list(ours) == list(theirs) == SPLITS
    for split, reference in theirs.items():
        dataset = ours[split]
        assert pixels(dataset.dataset) == pixels(reference.dataset)
        assert labels(dataset.dataset) == labels(reference.dataset)
        assert dataset.task_id_to_data_idx == reference.task_id_to_data_idx
        assert dataset.test_mode == reference.test_mode
        if setup == IIRC_SETUP:
            assert dataset.complete_information_mode == reference.complete_information_mode
    image, *shown = ours["test"][7]
    expected, *expected_labels = theirs["test"][7]
    assert torch.equal(image, expected)
    assert set(shown) == set(expected_labels)


@pytest.mark.parametrize("name", ["iirc_imagenet_lite", "incremental_imagenet_full"])
def test_imagenet_splits_equal_the_published_ones_though_classes_differ_in_size(imagenet, name):
    arguments = (name, str(imagenet), load_benchmark(name).setup, PYTORCH, 1)
    theirs, their_tasks, their_classes = published.get_lifelong_datasets(*arguments)
    ours, tasks, classes = get_lifelong_datasets(*arguments)
    assert tasks == their_tasks
    assert classes == their_classes
    for split, reference in theirs.items():
        assert list(ours[split].dataset) == reference.dataset  # paths and labels
    image, *shown = ours["test"].get_item(0)
    expected, *expected_labels = theirs["test"].get_item(0)
    assert image.tobytes() == expected.tobytes()
    assert set(shown) == set(expected_labels)


# -- all layouts are equivalent ---------------------------------------------------------------


def test_shards_and_image_folders_give_the_same_datasets(tiny_json, tiny_store, tiny_folder):
    from_shards, tasks, classes = get_lifelong_datasets(tiny_json, tiny_store.root)
    from_folder, *same = get_lifelong_datasets(str(tiny_json), str(tiny_folder))
    assert same == [tasks, classes]
    for split in SPLITS:
        ours, other = from_shards[split], from_folder[split]
        assert other.using_image_path
        assert labels(ours.dataset) == labels(other.dataset)
        assert ours.task_id_to_data_idx == other.task_id_to_data_idx
        for task in range(len(tasks)):
            ours.choose_task(task)
            other.choose_task(task)
            for index in range(0, len(ours), 7):
                assert ours.get_item(index) == other.get_item(index)


def test_a_task_shows_the_samples_of_its_task_view(tiny_json, tiny_benchmark, tiny_store):
    datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root, tasks_configuration_id=1)
    for split, dataset in datasets.items():
        sequence = TaskSequence.from_table(
            tiny_benchmark, tiny_store.manifest, tiny_store.table, split, schedule=1
        )
        samples = dataset.dataset
        sample_ids = np.array(samples.images.sample_ids)[samples.image_numbers]
        for task in range(len(sequence)):
            dataset.choose_task(task)
            view = sequence.view(task)
            assert sorted(sample_ids[dataset.cur_task_data_ids]) == view.sample_ids.tolist()
            assert dataset.seen_classes == list(view.seen_class_names)


def test_samples_stand_in_the_order_of_the_taxonomy(tiny_json, tiny_store):
    datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root)
    order = list(dict.fromkeys(labels(datasets["train"].dataset)))
    assert [names[-1] for names in order] == ["bear", "cat", "dog", "bus", "truck", "tulip"]


def test_a_shard_folder_is_found_under_its_datasets_name(tiny_json, tiny_store, tmp_path):
    (tmp_path / "tiny").symlink_to(tiny_store.root)
    datasets, *_ = get_lifelong_datasets(tiny_json, tmp_path)
    assert len(datasets["test"].dataset) == 28


def test_shards_at_an_address_are_fetched_when_read(tiny_json, tiny_store, tmp_path, monkeypatch):
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path))
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(tiny_store.root), "/bucket", recursive=True)
    datasets, *_ = get_lifelong_datasets(tiny_json, "memory://bucket")
    expected, *_ = get_lifelong_datasets(tiny_json, tiny_store.root)
    assert not list(tmp_path.rglob("*.tar"))
    assert datasets["test"].get_item(0) == expected["test"].get_item(0)
    wait_for(lambda: [path.name for path in tmp_path.rglob("*.tar")] == ["bear-000000.tar"])
    filesystem.rm("/bucket", recursive=True)


def test_cifar_is_taken_for_benchmarks_of_its_classes_beside_other_images(
    tiny_json, cifar100, tiny_folder, tmp_path
):
    (tmp_path / "cifar-100-python").symlink_to(cifar100 / "cifar-100-python")
    (tmp_path / "train").symlink_to(tiny_folder / "train")
    (tmp_path / "test").symlink_to(tiny_folder / "test")
    assert len(get_lifelong_datasets("iirc_cifar100", tmp_path)[0]["test"].dataset) == 500
    assert len(get_lifelong_datasets(tiny_json, tmp_path)[0]["test"].dataset) == 28


# -- arguments ---------------------------------------------------------------------------------


def test_the_framework_chooses_the_flavour(tiny_json, tiny_store):
    for framework, module in ((PYTORCH, torch_dataset), (TENSORFLOW, tensorflow_dataset)):
        datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root, framework=framework)
        assert all(type(dataset) is module.Dataset for dataset in datasets.values())
    image, *_ = datasets["train"][0]
    assert isinstance(image, np.ndarray)
    assert image.shape == (32, 32, 3)


def test_only_training_images_are_augmented(tiny_json, tiny_store):
    datasets, *_ = get_lifelong_datasets(
        tiny_json,
        tiny_store.root,
        essential_transforms_fn=lambda image: "essential",
        augmentation_transforms_fn=lambda image: "augmented",
    )
    found = {split: dataset[0][0] for split, dataset in datasets.items()}
    assert found == dict.fromkeys(SPLITS, "essential") | {"train": "augmented"}


def test_training_like_splits_show_incomplete_information_and_test_like_ones_all(
    tiny_json, tiny_store
):
    datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root)
    for split, dataset in datasets.items():
        dataset.choose_task(1)
        assert dataset.complete_information_mode == (split in ("posttask_valid", "test"))
    assert ("animal", "dog") in {
        datasets["test"].get_labels(index) for index in range(len(datasets["test"]))
    }


def test_joint_puts_all_classes_into_one_task(tiny_json, tiny_store):
    _, separate, classes = get_lifelong_datasets(tiny_json, tiny_store.root)
    datasets, tasks, same_classes = get_lifelong_datasets(tiny_json, tiny_store.root, joint=True)
    assert tasks == [[name for task in separate for name in task]]
    assert same_classes == classes
    assert len(datasets["test"]) == 28


def test_cached_images_are_decoded_once(tiny_json, tiny_store):
    datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root, cache_images=True)
    test = datasets["test"]
    assert test.get_item(0)[0] is test.get_item(0)[0]
    datasets, *_ = get_lifelong_datasets(tiny_json, tiny_store.root)
    assert datasets["test"].get_item(0)[0] is not datasets["test"].get_item(0)[0]


def test_the_published_messages_are_printed_and_logged(tiny_json, tiny_store, capsys, caplog):
    with caplog.at_level("INFO"):
        get_lifelong_datasets(tiny_json, tiny_store.root)
    messages = f"Creating {tiny_json}\nSetup used: IIRC\nUsing PyTorch\nDataset created\n"
    assert capsys.readouterr().out == messages
    assert "\n".join(caplog.messages) + "\n" == messages


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, match",
    [
        ({"dataset_name": "iirc_cifar"}, "did you mean 'iirc_cifar100?'"),
        ({"setup": "iirc"}, "setup is 'iirc', expected IIRC_SETUP"),
        ({"framework": "JAX"}, "framework is 'JAX', expected PYTORCH"),
        ({"tasks_configuration_id": 10}, "schedules 0 to 9, got 10"),
        ({"tasks_configuration_id": -1}, "schedules 0 to 9, got -1"),
    ],
)
def test_a_wrong_argument_is_named(cifar100, options, match):
    with pytest.raises(BenchmarkError, match=match):
        get_lifelong_datasets(
            **{"dataset_name": "iirc_cifar100", "dataset_root": cifar100} | options
        )


def test_a_root_without_data_tells_what_is_expected(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceError, match=r"expected shards .* cifar-100-python, .*train and"):
            get_lifelong_datasets("iirc_cifar100", root)


def test_a_dataset_without_test_images_is_refused(tiny_json, tiny_folder, tmp_path):
    (tmp_path / "train").symlink_to(tiny_folder / "train")
    with pytest.raises(BenchmarkError, match=r"has the splits \['train'\]; 'test' needs test or"):
        get_lifelong_datasets(tiny_json, tmp_path)


def test_a_missing_class_folder_is_named(tiny_json, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "train-only", copy_function=os.link)
    shutil.copytree(tiny_folder, tmp_path / "both", copy_function=os.link)
    shutil.rmtree(tmp_path / "train-only" / "test" / "dog")
    with pytest.raises(SourceError, match="test/dog"):
        get_lifelong_datasets(tiny_json, tmp_path / "train-only")
    shutil.rmtree(tmp_path / "both" / "train" / "dog")
    with pytest.raises(BenchmarkError, match=r"needs 1 classes .* does not have: dog"):
        get_lifelong_datasets(tiny_json, tmp_path / "both")


def test_a_file_that_is_no_image_is_named(tiny_json, tiny_folder, tmp_path):
    root = tmp_path / "tiny"
    shutil.copytree(tiny_folder, root)
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"hidden files are left out")
    datasets, *_ = get_lifelong_datasets(tiny_json, root)
    damaged = Path(datasets["test"].dataset[0][0])
    damaged.write_bytes(b"no image")
    with pytest.raises(LoaderError, match=str(damaged)):
        datasets["test"].get_item(0)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(SourceError, match=r"cat/notes\.txt does not have the name of an image"):
        get_lifelong_datasets(tiny_json, root)


def test_a_damaged_image_in_a_shard_is_named(tiny_json, tiny_store, tmp_path):
    root = tmp_path / "tiny"
    shutil.copytree(tiny_store.root, root)
    table = tiny_store.table
    sample_id = int(tiny_store.manifest.split_rows("test")[0])
    shard = root / tiny_store.manifest.shards[table.shard[sample_id]].path
    content = bytearray(shard.read_bytes())
    start = int(table.offset[sample_id])
    content[start : start + 20] = bytes(20)
    shard.write_bytes(content)
    datasets, *_ = get_lifelong_datasets(tiny_json, root)
    with pytest.raises(LoaderError, match=r"test/bear-000000\.tar:0000\.jpg"):
        datasets["test"].get_item(0)
    shard.unlink()
    datasets, *_ = get_lifelong_datasets(tiny_json, root)
    with pytest.raises(ShardError, match=r"bear-000000\.tar"):
        datasets["test"].get_item(0)


@pytest.mark.parametrize(
    "file, change, match",
    [
        ("train", None, "train: No such file"),
        ("meta", None, "meta: No such file"),
        ("train", {b"data": np.zeros((2, 3), np.uint8)}, "train has"),
        ("train", {b"data": [1]}, "train has"),
        ("train", {b"fine_labels": [1]}, "train has"),
        ("train", {b"fine_labels": [100] * 100}, "class number 100"),
        ("meta", {b"fine_label_names": 7}, "meta has no class names"),
    ],
)
def test_cifar_pickles_that_are_not_cifars_are_named(tmp_path, file, change, match):
    path = write_all_cifar100(tmp_path, 1, 1) / "cifar-100-python" / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="bytes") | change))
    with pytest.raises(SourceError, match=match):
        get_lifelong_datasets("iirc_cifar100", tmp_path)


def test_a_subclass_before_its_superclass_is_warned_of_once_for_all_splits(
    tmp_path, tiny_benchmark, tiny_store
):
    path = tmp_path / "mine.json"
    content = tiny_benchmark.model_dump() | {"schedules": [[["dog", "cat"], ["animal"]]]}
    path.write_text(json.dumps(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        datasets, *_ = get_lifelong_datasets(path, tiny_store.root)
    assert len([w for w in caught if "before their superclass: cat, dog" in str(w.message)]) == 1
    datasets["test"].choose_task(1)
    shown = {datasets["test"].get_labels(i) for i in range(len(datasets["test"]))}
    assert shown == {("animal", "dog"), ("animal", "cat"), ("animal", "None")}


def test_a_users_benchmark_with_a_wrong_field_is_named(tmp_path, tiny_benchmark, tiny_store):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tiny_benchmark.model_dump() | {"sampling": {"cap": 3}}))
    with pytest.raises(BenchmarkError, match=r"mine\.json.*sampling\.cap"):
        get_lifelong_datasets(path, tiny_store.root)
