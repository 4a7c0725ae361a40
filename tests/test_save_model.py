"""``save_model`` and ``load_model``: an experiment continues from a file of plain values."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from iirc_data.definitions import IIRC_SETUP
from iirc_data.errors import BufferStorageError, CheckpointError
from iirc_data.lifelong_dataset.torch_dataset import Dataset
from iirc_train.buffer import RandomBuffer, ReferenceBuffer
from iirc_train.config import ExperimentConfig
from iirc_train.config.compose import compose
from iirc_train.methods import METHODS, get_method
from iirc_train.utils import load_model, save_model

TASKS = [["A", "B"], ["Aa", "Ba"]]
CLASS_NAMES_TO_IDX = {name: i for i, name in enumerate(name for task in TASKS for name in task)}
CONFIG = {"n_layers": 8, "lr": 0.1, "n_memories_per_class": 2, "dataset": "iirc_cifar100"}
METADATA = {"class_names_to_idx": CLASS_NAMES_TO_IDX, "tasks": TASKS}


def parts(name, folder):
    """Make a method, a buffer and the datasets of an experiment."""
    method, make_buffer = get_method(name)
    if issubclass(make_buffer, ReferenceBuffer):  # which refers to the shards of a run
        make_buffer = RandomBuffer
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    samples = [(Image.fromarray(image), ("AB"[i % 2],)) for i, image in enumerate(pixels)]
    samples += [(image, (label, f"{label}a")) for image, (label,) in samples]
    to_tensor = transforms.ToTensor()
    dataset = Dataset(samples, TASKS, setup=IIRC_SETUP, essential_transforms_fn=to_tensor)
    model = method([len(task) for task in TASKS], CLASS_NAMES_TO_IDX, CONFIG)
    return model, make_buffer(CONFIG, folder, essential_transforms_fn=to_tensor), {"train": dataset}


def learn_step(model):
    """Take one step on a fixed batch; return the loss."""
    model.train()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 32, 32, generator=generator)
    targets = torch.eye(len(model.seen_classes))[:2].repeat(2, 1)
    return model.observe(images, targets)[1]


@pytest.mark.parametrize("name", METHODS)
def test_an_experiment_continues_from_the_file(name, tmp_path):
    torch.manual_seed(0)
    model, buffer, datasets = parts(name, tmp_path / "buffer.zarr")
    for task_id in range(2):
        datasets["train"].choose_task(task_id)
        model.prepare_model_for_new_task(datasets["train"], buffer=buffer, batch_size=8)
        learn_step(model)
        buffer.update_buffer_new_task(datasets["train"], method=model, batch_size=8)
        model.consolidate_task_knowledge(buffer=buffer, device=model.device, batch_size=8)
    save_model(tmp_path / "last.pt", CONFIG, METADATA, model, buffer, datasets, epoch=3)

    checkpoint = torch.load(tmp_path / "last.pt", weights_only=True)
    assert checkpoint["config"] == CONFIG
    assert checkpoint["metadata"] == METADATA
    assert checkpoint["epoch"] == 3
    again = parts(name, tmp_path / "buffer.zarr")
    load_model(checkpoint, *again)
    assert again[0].seen_classes == model.seen_classes
    assert again[1].n_memories_per_class == buffer.n_memories_per_class != {}
    assert again[2]["train"].cur_task == TASKS[1]
    state = again[0].state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    if name != "agem":  # its stream of memories is not part of the state
        assert [learn_step(again[0]) for _ in range(3)] == [learn_step(model) for _ in range(3)]


def test_parts_can_be_left_out(tmp_path):
    model, buffer, datasets = parts("finetune", None)
    save_model(str(tmp_path / "model.pt"), CONFIG, METADATA, model=model)
    checkpoint = torch.load(tmp_path / "model.pt", weights_only=True)
    load_model(checkpoint, model=parts("finetune", None)[0])
    with pytest.raises(CheckpointError, match=r"no state of buffer, datasets: it contains .*model"):
        load_model(checkpoint, model, buffer, datasets)
    save_model(tmp_path / "data.pt", CONFIG, METADATA, datasets=datasets)
    with pytest.raises(CheckpointError, match="no state of dataset 'test'"):
        load_model(torch.load(tmp_path / "data.pt"), datasets={"test": datasets["train"]})


def test_a_typed_configuration_can_be_parsed_again(tmp_path):
    config = compose("cifar100-icarl_cnn-20", overrides={"data": "here"})
    save_model(tmp_path / "model.pt", config, {})
    checkpoint = torch.load(tmp_path / "model.pt", weights_only=True)
    assert ExperimentConfig.parse(checkpoint["config"]) == config


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"history": [1.0, np.float64(2)]}, r"history\[1\] is a numpy.float64"),
        ({"best": {"weights": np.zeros(3)}}, r"best\['weights'\] is a numpy.ndarray"),
        ({"seen": {("A", 1): Counter("A")}}, r"seen\[\('A', 1\)\] is a collections.Counter"),
        ({"names": {np.int64(3): "A"}}, r"a key of names is a numpy.int64"),
        ({"log": print}, r"log is a builtins.builtin_function_or_method"),
        ({"version": 3}, "reserves the name 'version'"),
    ],
)
def test_values_that_could_not_be_loaded_are_not_saved(tmp_path, extra, message):
    path = tmp_path / "model.pt"
    save_model(path, CONFIG, METADATA)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        save_model(path, CONFIG, METADATA, **extra)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_plain_values_and_tensors_are_loaded_unchanged(tmp_path):
    values = {"a": [1, 2.5, True, None, "x", b"y"], "b": (torch.arange(3), {4}), "c": {5: {}}}
    save_model(tmp_path / "model.pt", CONFIG, METADATA, **values)
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.equal(loaded["b"][0], values["b"][0])
    assert (loaded["a"], loaded["b"][1], loaded["c"]) == (values["a"], {4}, {5: {}})


def test_a_buffer_without_its_memories_is_refused(tmp_path):
    model, buffer, datasets = parts("finetune", tmp_path / "buffer.zarr")
    datasets["train"].choose_task(0)
    model.prepare_model_for_new_task(datasets["train"])
    buffer.update_buffer_new_task(datasets["train"], method=model, batch_size=8)
    save_model(tmp_path / "model.pt", CONFIG, METADATA, buffer=buffer)
    with pytest.raises(BufferStorageError):
        load_model(torch.load(tmp_path / "model.pt"), buffer=parts("finetune", None)[1])
