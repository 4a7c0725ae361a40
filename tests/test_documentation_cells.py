# ruff: noqa: E501 - the cells are quoted from the published documentation
"""Runs every code cell of the two published tutorials, and compares the printed output.

Only the package name is changed.
"""

import ast
import hashlib
import re
import sys
import tarfile
from dataclasses import replace

import pytest
import torch
from PIL import Image

from iirc_data.benchmarks import load_benchmark
from iirc_data.lifelong_dataset.torch_dataset import Dataset
from iirc_data.sources.cifar import CIFAR100
from iirc_data.utils import download_cifar
from tests.test_datasets_loader import write_all_cifar100

TUTORIAL_WITH_PYTORCH = {
    1: """\
import numpy as np
from PIL import Image

from iirc_data.lifelong_dataset.torch_dataset import Dataset
from iirc_data.definitions import IIRC_SETUP, CIL_SETUP, NO_LABEL_PLACEHOLDER""",
    2: """\
n = 120
n_per_y = 30
x = np.random.rand(n,32,32,3)
y = ["A"] * n_per_y + ["B"] * n_per_y + ["C"] * n_per_y + ["D"] * n_per_y""",
    3: """\
x = np.uint8(x*255)
mock_dataset = [(Image.fromarray(x[i], 'RGB'), (y[i],)) for i in range(n)]""",
    4: """\
tasks = [["A", "B"], ["C", "D"]]""",
    5: """\
import torchvision.transforms as transforms

essential_transforms_fn = transforms.ToTensor()
augmentation_transforms_fn = transforms.Compose([
    transforms.RandomCrop(32, padding=4),
    transforms.RandomHorizontalFlip(),
    transforms.ToTensor()
])""",
    6: """\
cil_dataset = Dataset(dataset=mock_dataset, tasks=tasks, setup=CIL_SETUP,
                              essential_transforms_fn=essential_transforms_fn,
                              augmentation_transforms_fn=augmentation_transforms_fn)""",
    7: """\
cil_dataset.choose_task(0)""",
    8: """\
print(len(cil_dataset))""",
    9: """\
cil_dataset[0]""",
    10: """\
cil_dataset.reset()
cil_dataset.choose_task(0)
print(f"Task {cil_dataset.cur_task_id}, current task: {cil_dataset.cur_task}, dataset length: {len(cil_dataset)}, classes seen: {cil_dataset.seen_classes}")
cil_dataset.choose_task(1)
print(f"Task {cil_dataset.cur_task_id}, current task: {cil_dataset.cur_task}, dataset length: {len(cil_dataset)}, classes seen: {cil_dataset.seen_classes}")""",
    11: """\
cil_dataset.load_tasks_up_to(1)
print(f"current task: {cil_dataset.cur_task}, dataset length: {len(cil_dataset)}")""",
    12: """\
cil_dataset.get_item(0)""",
    13: """\
cil_dataset.get_image_indices_by_cla("A")""",
    14: """\
with cil_dataset.disable_augmentations():
    # any samples loaded here will have the essential transformations function applied to them
    pass""",
    15: """\
from torch.utils.data import DataLoader
cil_dataset.choose_task(0)
train_loader = DataLoader(cil_dataset, batch_size=2, shuffle=True)
next(iter(train_loader))""",
    16: """\
y_iirc = []
for i, label in enumerate(y):
    if label == "A" and (i % 2) == 0:
        y_iirc.append(("A", "Aa"))
    elif label == "A":
        y_iirc.append(("A", "Ab"))
    elif label == "B" and (i % 2) == 0:
        y_iirc.append(("B", "Ba"))
    elif label == "B":
        y_iirc.append(("B", "Bb"))
    else:
        y_iirc.append((label,))
print(y_iirc)""",
    17: """\
mock_dataset_iirc = [(Image.fromarray(x[i], 'RGB'), y_iirc[i]) for i in range(n)]""",
    18: """\
mock_dataset_iirc[0]""",
    19: """\
tasks_iirc = [["A", "B", "C"], ["Aa", "Ba", "D"], ["Ab", "Bb"]]""",
    20: """\
iirc_dataset_train = Dataset(dataset=mock_dataset_iirc, tasks=tasks_iirc, setup=IIRC_SETUP, test_mode=False,
                                     essential_transforms_fn=essential_transforms_fn,
                                     augmentation_transforms_fn=augmentation_transforms_fn,
                                     superclass_data_pct=0.6, subclass_data_pct=0.8)

iirc_dataset_test = Dataset(dataset=mock_dataset_iirc, tasks=tasks_iirc, setup=IIRC_SETUP, test_mode=True,
                                     essential_transforms_fn=essential_transforms_fn,
                                     augmentation_transforms_fn=augmentation_transforms_fn)

iirc_dataset_train.choose_task(0)
iirc_dataset_test.choose_task(0)

print(f"Length of task 0 training data: {len(iirc_dataset_train)}, number of samples for class A: {len(iirc_dataset_train.get_image_indices_by_cla('A'))}")
print(f"Length of task 0 training data: {len(iirc_dataset_train)}, number of samples for class A: {len(iirc_dataset_test.get_image_indices_by_cla('A'))}")""",
    21: """\
labels_ = ["A", "Aa", "Ab"]
iirc_dataset_train.reset()
iirc_dataset_test.reset()
for task_id, label in enumerate(labels_):
    iirc_dataset_train.choose_task(task_id)
    iirc_dataset_test.choose_task(task_id)
    train_sample, train_label1, train_label2 = \\
        iirc_dataset_train[iirc_dataset_train.get_image_indices_by_cla(label, num_samples=1)[0]]
    test_sample, test_label1, test_label2 = \\
        iirc_dataset_test[iirc_dataset_test.get_image_indices_by_cla(label, num_samples=1)[0]]

    print(f"task {task_id}:\\ntraining sample label: {(train_label1, train_label2)}")
    print(f"test sample label: {test_label1, test_label2}\\n")""",
}

# printed in the documentation, where seen classes "are unordered"; here they have an order
PRINTED_WITH_PYTORCH = {
    8: "60\n",
    10: (
        "Task 0, current task: ['A', 'B'], dataset length: 60, classes seen: ['A', 'B']\n"
        "Task 1, current task: ['C', 'D'], dataset length: 60, classes seen: ['A', 'B', 'C', 'D']\n"
    ),
    11: "current task: ['A', 'B', 'C', 'D'], dataset length: 120\n",
    16: (
        "["
        + "('A', 'Aa'), ('A', 'Ab'), " * 15
        + "('B', 'Ba'), ('B', 'Bb'), " * 15
        + "('C',), " * 30
        + ", ".join(["('D',)"] * 30)
        + "]\n"
    ),
    20: (
        "Length of task 0 training data: 66, number of samples for class A: 18\n"
        "Length of task 0 training data: 66, number of samples for class A: 30\n"
    ),
    21: (
        "task 0:\ntraining sample label: ('A', 'None')\ntest sample label: ('A', 'None')\n\n"
        "task 1:\ntraining sample label: ('Aa', 'None')\ntest sample label: ('A', 'Aa')\n\n"
        "task 2:\ntraining sample label: ('Ab', 'None')\ntest sample label: ('A', 'Ab')\n\n"
    ),
}

LOADING_DATASETS = {
    1: """\
import sys
sys.path.append("../..")

from iirc_data.datasets_loader import get_lifelong_datasets
from iirc_data.definitions import PYTORCH, IIRC_SETUP
from iirc_data.utils.download_cifar import download_extract_cifar100""",
    2: """\
download_extract_cifar100("../../data")""",
    3: TUTORIAL_WITH_PYTORCH[5],
    4: """\
# The datasets supported are ("incremental_cifar100", "iirc_cifar100", "incremental_imagenet_full", "incremental_imagenet_lite",
# "iirc_imagenet_full", "iirc_imagenet_lite")
lifelong_datasets, tasks, class_names_to_idx = \\
    get_lifelong_datasets(dataset_name = "iirc_cifar100",
                          dataset_root = "../../data", # the imagenet folder (where the train and val folders reside, or the parent directory of cifar-100-python folder
                          setup = IIRC_SETUP,
                          framework = PYTORCH,
                          tasks_configuration_id = 0,
                          essential_transforms_fn = essential_transforms_fn,
                          augmentation_transforms_fn = augmentation_transforms_fn,
                          joint = False
                         )""",
    5: """\
lifelong_datasets # four splits""",
    6: """\
print(tasks[:3])""",
    7: """\
print(class_names_to_idx)""",
}

PRINTED_LOADING_DATASETS = {
    2: "downloading CIFAR 100\ndataset downloaded\nextracting CIFAR 100\ndataset extracted\n",
    4: "Creating iirc_cifar100\nSetup used: IIRC\nUsing PyTorch\nDataset created\n",
    6: (
        "[['flowers', 'small_mammals', 'trees', 'aquatic_mammals', 'fruit_and_vegetables', "
        "'people', 'food_containers', 'vehicles', 'large_carnivores', 'insects'], ['television', "
        "'spider', 'shrew', 'mountain', 'hamster'], ['road', 'poppy', 'household_furniture', "
        "'woman', 'bee']]\n"
    ),
    7: f"{load_benchmark('iirc_cifar100').class_names_to_idx()}\n",
}


@pytest.fixture
def small_cifar100(tmp_path, monkeypatch):
    """Replaces the published archive by one with the same layout and classes but fewer images."""
    archive = tmp_path / "served" / "cifar-100-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(write_all_cifar100(tmp_path / "raw") / "cifar-100-python", "cifar-100-python")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    served = replace(CIFAR100, url=archive.as_uri(), sha256=sha256)
    monkeypatch.setattr(download_cifar, "CIFAR100", served)


def run(cells, printed, capsys):
    """Run cells in one namespace, as a notebook does; return the values that it would display."""
    namespace, values = {}, {}
    for number, code in cells.items():
        *statements, last = ast.parse(code).body
        if not isinstance(last, ast.Expr):
            statements.append(last)
        exec(compile(ast.Module(statements, []), f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            expression = compile(ast.Expression(last.value), f"cell {number}", "eval")
            values[number] = eval(expression, namespace)
        out = capsys.readouterr().out
        if number in printed:
            assert out == printed[number], f"cell {number}"
        else:
            assert out == "", f"cell {number}"
    return namespace, values


def test_the_pytorch_tutorial_runs_and_prints_what_it_says(capsys):
    namespace, values = run(TUTORIAL_WITH_PYTORCH, PRINTED_WITH_PYTORCH, capsys)
    image, *labels = values[9]
    assert image.shape == (3, 32, 32)
    assert labels == ["A", "None"]
    image, *labels = values[12]
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert labels == ["A", "None"]
    assert sorted(values[13].tolist()) == list(range(30)) != values[13].tolist()
    images, first, second = values[15]
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert set(first) <= {"A", "B"}
    assert second == ("None", "None")
    assert values[18][1] == ("A", "Aa")
    assert namespace["NO_LABEL_PLACEHOLDER"] == "None"


@pytest.mark.usefixtures("small_cifar100")
@pytest.mark.filterwarnings("ignore:.*rounds to 0")
def test_the_loading_tutorial_runs_and_prints_what_it_says(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "package" / "docs" / "source"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", list(sys.path))
    namespace, values = run(LOADING_DATASETS, PRINTED_LOADING_DATASETS, capsys)
    assert list(values[5]) == ["train", "intask_valid", "posttask_valid", "test"]
    assert all(type(dataset) is Dataset for dataset in values[5].values())
    assert len(namespace["tasks"]) == 22
    assert len(namespace["class_names_to_idx"]) == 115


@pytest.mark.parametrize(
    "cells, printed",
    [
        (TUTORIAL_WITH_PYTORCH, PRINTED_WITH_PYTORCH),
        (LOADING_DATASETS, PRINTED_LOADING_DATASETS),
    ],
)
def test_cells_and_output_are_the_documentations_own(shared_file, cells, printed):
    text = shared_file("reference/iirc_documentation.txt").read_text()
    for code in cells.values():
        assert re.sub(r"\biirc_data\b", "iirc", code) in text
    ordered = text.replace("seen: ['C', 'A', 'B', 'D']", "seen: ['A', 'B', 'C', 'D']")
    for out in printed.values():
        assert out.strip() in ordered
