"""The procedure of the published "Lifelong Learning Methods Guide", over the published dataset."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from iirc_data.definitions import IIRC_SETUP
from iirc_data.errors import ConfigurationError
from iirc_data.lifelong_dataset.torch_dataset import Dataset
from iirc_train.buffer import ReferenceBuffer
from iirc_train.methods import METHODS, get_method
from iirc_train.utils import transform_labels_names_to_vector

TASKS = [["A", "B"], ["Aa", "Ba"], ["Ab", "Bb"]]
CLASS_NAMES_TO_IDX = {name: i for i, name in enumerate(name for task in TASKS for name in task)}
CONFIG = {"n_layers": 8, "lr": 0.1, "n_memories_per_class": 2, "dataset": "iirc_cifar100"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    labels = [("A", "Aa"), ("A", "Ab"), ("B", "Ba"), ("B", "Bb")]
    samples = [(Image.fromarray(image), labels[i % 4]) for i, image in enumerate(pixels)]
    return Dataset(samples, TASKS, setup=IIRC_SETUP, essential_transforms_fn=transforms.ToTensor())


def indicator(label_1, label_2, n_seen: int) -> torch.Tensor:
    return torch.stack(
        [
            transform_labels_names_to_vector(names, n_seen, CLASS_NAMES_TO_IDX)
            for names in zip(label_1, label_2, strict=True)
        ]
    )


@pytest.mark.parametrize("name", list(METHODS))
def test_the_guides_procedure_runs_with_every_method(name, dataset):
    method, make_buffer = get_method(name)
    model = method([len(task) for task in TASKS], CLASS_NAMES_TO_IDX, CONFIG)
    buffer = make_buffer(CONFIG, essential_transforms_fn=transforms.ToTensor())
    dataset.reset()
    for task_id in range(len(TASKS)):
        dataset.choose_task(task_id)
        model.prepare_model_for_new_task(dataset, buffer=buffer, batch_size=8)
        for _ in range(2):
            for images, label_1, label_2 in DataLoader(dataset, batch_size=8, shuffle=True):
                targets = indicator(label_1, label_2, len(model.seen_classes))
                predictions, loss = model.observe(images, targets)
                assert predictions.shape == targets.shape
                assert np.isfinite(loss)
            model.consolidate_epoch_knowledge()
        if issubclass(make_buffer, ReferenceBuffer):
            with pytest.raises(ConfigurationError, match=r"refers to the samples of a run"):
                buffer.update_buffer_new_task(dataset, method=model, batch_size=8)
            return
        buffer.update_buffer_new_task(dataset, method=model, batch_size=8)
        model.consolidate_task_knowledge(buffer=buffer, device=model.device, batch_size=8)
        model.eval()
        with torch.no_grad():
            inferred = model(images)
        assert inferred.shape == (len(images), len(model.seen_classes))
        assert inferred.dtype == torch.bool
        assert buffer.n_memories_per_class == dict.fromkeys(model.seen_classes, 2)
        model.train()
