"""HCV: the hierarchy that a method discovers, and what it corrects with it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from iirc_data.errors import ConfigurationError
from iirc_data.loader.batch import Batch
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS
from iirc_train.methods.hierarchy import (
    consistent,
    find_superclasses,
    grown,
    singletons,
    with_superclasses,
)
from iirc_train.methods.icarl_cnn import Model as ICaRL
from iirc_train.runtime.distributed import rank
from iirc_train.runtime.process_group import process_group
from iirc_train.testing import check_never_waits
from iirc_train.testing.made_up import CLASS_NAMES_TO_IDX, TASKS, MadeUpSamples
from tests.ranks import run_ranks

# thing, plant; animal < thing; dog, cat < animal; oak < plant; car < thing
PARENTS = {2: 0, 3: 2, 4: 2, 5: 1, 6: 0}
N_CLASSES = 7


def ancestors(label: int) -> set[int]:
    """Return a class and its ancestors."""
    return {label} | (ancestors(PARENTS[label]) if label in PARENTS else set())


@pytest.fixture
def hierarchy() -> torch.Tensor:
    found = grown(singletons(2), torch.tensor([PARENTS[2]]))
    return grown(found, torch.tensor([PARENTS[label] for label in range(3, N_CLASSES)]))


def indicator(*rows: set[int]) -> torch.Tensor:
    return torch.tensor([[label in row for label in range(N_CLASSES)] for row in rows])


def test_a_hierarchy_holds_each_class_and_its_superclasses(hierarchy):
    rows = hierarchy.tolist()
    assert [{label for label in row if label >= 0} for row in rows] == [
        ancestors(label) for label in range(N_CLASSES)
    ]
    assert rows[3] == [3, 2, 0]
    assert grown(singletons(2), torch.tensor([-1, -1])).tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("choice", "fractions", "expected"),
    [
        ("highest", [0.0, 0.6, 0.0], -1),  # the threshold itself is not enough
        ("highest", [0.0, 0.61, 0.0], 1),
        ("highest", [0.9, 0.1, 0.8], 0),
        ("deepest", [0.9, 0.1, 0.8], 2),
        ("highest", [0.9, 0.9, 0.9], 2),  # equal: the deepest
        ("deepest", [0.7, 0.8, 0.1], 1),  # equally deep: the most frequent
        ("deepest", [0.7, 0.7, 0.1], 0),
    ],
)
def test_the_superclass_is_an_earlier_class_that_is_predicted_often(choice, fractions, expected):
    found = grown(singletons(2), torch.tensor([0]))  # 2 < 0
    given = torch.tensor([fractions, [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert find_superclasses(given, found, 0.6, choice).tolist() == [expected, -1]


def test_a_label_is_joined_by_all_of_its_superclasses(hierarchy):
    labels = [{3}, {5}, {0}, {4, 5}, set(), {0, 1}]
    expected = [set().union(*map(ancestors, row)) for row in labels]
    found = with_superclasses(indicator(*labels).float(), hierarchy)
    assert torch.equal(found, indicator(*expected).float())


def nearest(prediction: set[int], scores: list[float]) -> set[int]:
    """As described: fewest differences, then own class predicted, then depth, then score."""

    def order(label: int) -> tuple[float, ...]:
        different = len(prediction ^ ancestors(label))
        return different, label not in prediction, -len(ancestors(label)), -scores[label]

    return ancestors(min(range(N_CLASSES), key=order))


def test_a_prediction_becomes_the_nearest_one_that_the_hierarchy_allows(hierarchy):
    every = [{i for i in range(N_CLASSES) if number >> i & 1} for number in range(2**N_CLASSES)]
    scores = torch.from_numpy(np.random.default_rng(0).standard_normal((len(every), N_CLASSES)))
    found = consistent(indicator(*every), scores, hierarchy)
    expected = [nearest(row, score.tolist()) for row, score in zip(every, scores, strict=True)]
    assert torch.equal(found, indicator(*expected))
    assert torch.equal(consistent(found, scores, hierarchy), found)
    allowed = indicator(*map(ancestors, range(N_CLASSES)))
    assert torch.equal(consistent(allowed, scores[:N_CLASSES], hierarchy), allowed)


def test_a_dog_is_an_animal_even_if_scores_are_infinite(hierarchy):
    scores = torch.full((2, N_CLASSES), -torch.inf)
    found = consistent(indicator({3}, set()), scores, hierarchy)
    assert torch.equal(found, indicator({3, 2, 0}, {0}))


class Colours(MadeUpSamples):
    """Images whose first pixel states the labels that a network of colours predicts."""

    def __init__(self, task: int, predicted: dict[str, list[tuple[str, ...]]]) -> None:
        super().__init__(TASKS[task], task, torch.device("cpu"))
        self.labels = [name for name, rows in predicted.items() for _ in rows]
        self.shown = [row for rows in predicted.values() for row in rows]

    def loader(self, indices, batch_size):
        for start in range(0, len(indices), batch_size):
            rows = indices[start : start + batch_size]
            images, targets = torch.zeros(len(rows), 3, 8, 8), torch.zeros(len(rows), 7)
            for row, index in enumerate(rows):
                for name in self.shown[index]:
                    images[row, 0].view(-1)[CLASS_NAMES_TO_IDX[name]] = 1
                targets[row, CLASS_NAMES_TO_IDX[self.labels[index]]] = 1
            yield Batch(images, targets, torch.zeros(len(rows), dtype=torch.bool), torch.empty(0))


class Reader(torch.nn.Module):
    """Predicts what the first pixels of an image say."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.output_layer = torch.nn.Linear(7, 7)
        torch.nn.init.eye_(self.model.output_layer.weight)
        torch.nn.init.constant_(self.model.output_layer.bias, -0.5)

    def forward(self, images):
        latent = images[:, 0].flatten(1)[:, :7]
        return self.model.output_layer(latent), latent


def method_after_three_tasks(model=ICaRL, **settings):
    """Tasks of a, b, c; of d and e; of f and g: d is in a, and f in d."""
    settings = {"hcv": "both", "hcv_superclass": "deepest", **settings}
    method = model([3, 2, 2], CLASS_NAMES_TO_IDX, settings, net=Reader())
    method.prepare_model_for_new_task(Colours(0, {"a": [("a",)]}))
    shown = {"d": [("a",)] * 3 + [("b",)], "e": [("b",), ("c",)]}
    method.prepare_model_for_new_task(Colours(1, shown), batch_size=3)
    shown = {"f": [("a", "d"), ("a", "d"), ("a", "d", "c")], "g": [(), ("e",)]}
    method.prepare_model_for_new_task(Colours(2, shown), batch_size=2)
    return method


def test_a_method_discovers_three_levels_from_its_own_predictions():
    method = method_after_three_tasks()
    assert method.found_hierarchy.tolist() == [
        [0, -1, -1],
        [1, -1, -1],
        [2, -1, -1],
        [3, 0, -1],
        [4, -1, -1],
        [5, 3, 0],
        [6, -1, -1],
    ]
    assert method.found_superclasses == {"d": "a", "f": "d"}
    strict = method_after_three_tasks(hcv_threshold=0.9)  # d no longer is in a
    assert strict.found_hierarchy[[3, 5]].tolist() == [[3, -1], [5, 0]]


def test_predictions_of_every_kind_of_call_are_consistent():
    method = method_after_three_tasks(hcv="infer")
    images = next(
        Colours(2, {"f": [("f",), ("f", "g"), ("a", "e")]}).loader(np.arange(3), 3)
    ).images
    expected = indicator({5, 3, 0}, {6}, {0})[:2]
    _, predictions = method.scores_and_predictions(images)
    assert torch.equal(predictions[:2], expected)
    assert torch.equal(method(images), predictions)
    plain = method_after_three_tasks(hcv="train")
    assert torch.equal(plain(images), indicator({5}, {5, 6}, {0, 4}))


def loss_of(method, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of a training step on three images, before its update."""
    images = torch.rand(len(targets), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    in_buffer = torch.tensor([False, True, False])[: len(targets)]
    return method.training_step(Batch(images, targets, in_buffer, torch.arange(len(targets))))[1]


def test_pseudo_labels_replace_what_a_teacher_says_of_icarls_samples():
    method = method_after_three_tasks(hcv="train", lr=0.1)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = method.net(images)[0]
        targets = torch.cat((method.old_net(images)[0][:, :5].sigmoid(), torch.zeros(3, 2)), dim=1)
    targets[0] = indicator({5, 3, 0})[0].float()
    targets[1] = indicator({3, 0})[0].float()
    targets[2, 6] = 1  # no superclass was discovered: the teacher is asked
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(loss_of(method, indicator({5}, {3}, {6}).float()), expected)


def test_pseudo_labels_replace_what_both_teachers_say_of_mtkds_samples():
    method = method_after_three_tasks(METHODS["mtkd"].model, hcv="train", lr=0.1)
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = method.net(images)[0].sigmoid()
    targets = indicator({5, 3, 0}).float()
    losses = -(targets * p.log() + (1 - targets) * (1 - p).log())
    expected = (losses.sum() + losses[:, :3].sum()) / 7  # two teachers know the first three
    torch.testing.assert_close(loss_of(method, indicator({5}).float()), expected)


DISTILLING = {"icarl", "icarl_cnn", "icarl_norm", "lwf_mc", "mtkd"}  # see above
LEARNING = [name for name in METHODS if "bce" in METHODS[name].model.losses]


@pytest.mark.parametrize("name", sorted({*LEARNING} - DISTILLING))
def test_every_method_learns_pseudo_labels_as_if_they_were_labels(name):
    """One step with labels alone and ``train``, and one with all labels and without it."""

    def updated(hcv: str, *labels: set[int]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        method = method_after_three_tasks(METHODS[name].model, hcv=hcv, lr=0.1)
        method.found_hierarchy = method_after_three_tasks().found_hierarchy
        loss_of(method, indicator(*labels).float())
        return list(method.net.parameters())

    found = updated("train", {5}, {3}, {6})
    expected = updated("infer", {5, 3, 0}, {3, 0}, {6})
    for parameter, like in zip(found, expected, strict=True):
        assert torch.equal(parameter, like)


def discover_as_rank(folder: Path) -> None:
    with process_group(torch.device("cpu")):
        torch.save(method_after_three_tasks().found_hierarchy, folder / f"{rank()}.pt")


def test_two_processes_discover_the_hierarchy_of_one(tmp_path):
    assert run_ranks(2, discover_as_rank, tmp_path) == [0, 0]
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert torch.equal(found, method_after_three_tasks().found_hierarchy)


class Discovered(ICaRL):
    """Knows a hierarchy of two levels, without a look at values."""

    def _discover(self, task_data, task_id, batch_size):
        own = torch.arange(sum(self.n_cla_per_tsk[: task_id + 1]), device=self.device)
        self.found_hierarchy = torch.stack((own, own - 1), dim=1)


def test_no_correction_waits_for_the_gpu():
    check_never_waits(Discovered, hcv="both")


def test_hcv_is_refused_where_one_label_is_predicted(tiny_settings):
    with pytest.raises(ConfigurationError, match="hcv 'both' needs decision 'threshold'"):
        ICaRL([1], {"a": 0}, {"hcv": "both", "decision": "argmax"}, net=Reader())
    with pytest.raises(ConfigurationError, match="joint has one task"):
        ExperimentConfig.parse({**tiny_settings, "method": "er", "hcv": "infer", "joint": True})
