"""The losses of MTKD and PL-FMS against the formulas that their classes state."""

import pytest
import torch

from iirc_data.loader.batch import Batch, batch_with_draws
from iirc_train.methods import METHODS
from iirc_train.testing.made_up import CLASS_NAMES_TO_IDX, TASKS, MadeUpSamples
from tests.toy_problem import ToyNetwork

CLASSES_PER_TASK = [len(task) for task in TASKS]  # 3, 2, 2
SAMPLES = MadeUpSamples(TASKS[2], 2, torch.device("cpu"))  # 4 of them


def in_third_task(name: str, **settings: object):
    """Return a method in its third task; its network has changed in between."""
    torch.manual_seed(0)
    settings = {"lr": 0.1, "epochs_per_task": 2, "first_task_epochs": 2, **settings}
    net = ToyNetwork(7, batch_norm=False)
    method = METHODS[name].model(CLASSES_PER_TASK, CLASS_NAMES_TO_IDX, settings, net=net)
    nets = []
    for task in range(3):
        method.prepare_model_for_new_task(SAMPLES if task == 2 else None)
        nets.append(ToyNetwork(7, batch_norm=False))
        nets[-1].load_state_dict(net.state_dict())
        if task < 2:
            for parameter in net.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    return method.train(), nets


def batch_of(*labels: tuple[int, ...], in_buffer: tuple[bool, ...] = ()) -> Batch:
    n = len(labels)
    targets = torch.tensor([[float(c in row) for c in range(7)] for row in labels])
    in_memory = torch.tensor(in_buffer or (False,) * n)
    return Batch(torch.randn(n, 3, 8, 8), targets, in_memory, torch.arange(n))


def cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    p = logits.double().sigmoid()
    return -(targets * p.log() + (1 - targets) * (1 - p).log())


@torch.no_grad()
def test_mtkd_learns_from_labels_and_two_teachers():
    weights = {"mtkd_general_weight": 0.7, "mtkd_superclass_weight": 0.4}
    method, nets = in_third_task("mtkd", memory_strength=3.0, **weights)
    batch = batch_of((5,), (6,), (0,), in_buffer=(False, False, True))
    logits = method.net(batch.images)[0]
    first, last = (nets[task](batch.images)[0].sigmoid() for task in (1, 2))
    parts = (
        (  # the network of task 1 is that from the end of task 0
            cross_entropies(logits[:, 5:], batch.targets[:, 5:]).sum(dim=1)
            + 0.7 * cross_entropies(logits[:, :5], last[:, :5]).sum(dim=1)
            + 0.4 * cross_entropies(logits[:, :3], first[:, :3]).sum(dim=1)
        )
        / 7
    )
    expected = (parts * torch.tensor([1, 1, 3])).mean()
    with torch.enable_grad():
        _, loss = method.training_step(batch)
    torch.testing.assert_close(loss.double(), expected)


def test_mtkd_without_its_superclass_teacher_learns_as_icarl():
    losses = []
    for name, settings in (("mtkd", {"mtkd_superclass_weight": 0.0}), ("icarl_cnn", {})):
        method, _ = in_third_task(name, **settings)
        torch.manual_seed(1)
        losses.append(method.training_step(batch_of((5,), (6,), (0,)))[1])
    torch.testing.assert_close(*losses)


def test_mtkds_teachers_are_saved_and_never_train():
    method, nets = in_third_task("mtkd")
    assert not method.superclass_net.training and not method.old_net.training
    state = method.method_state_dict()
    again = METHODS["mtkd"].model(
        CLASSES_PER_TASK, CLASS_NAMES_TO_IDX, {}, net=ToyNetwork(7, batch_norm=False)
    )
    again.load_method_state_dict(state)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.superclass_net(images)[0], nets[1](images)[0])


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [1]), (2, [1, 4]), (3, [0, 1, 4]), (99, [0, 1, 4])]
)
def test_mtkd_predicts_no_more_labels_than_asked(k, expected):
    method, _ = in_third_task("mtkd", mtkd_top_k=k)
    scores = torch.tensor([[0.1, 2.0, -1.0, -0.1, 0.5, -2.0, 0.0]])
    assert method.decide(scores)[0].nonzero().flatten().tolist() == expected
    assert not method.decide(-torch.ones(1, 7)).any()


LEVELS = {
    "first_task": [0, 0, 0, 1, 1, 1, 1],
    "task": [0, 0, 0, 1, 1, 2, 2],
    "one": [0] * 7,
}


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("n_presented", [0, 2, 1000])
def test_pl_fms_learns_labels_within_their_level_and_new_ones_step_by_step(levels, n_presented):
    method, _ = in_third_task("pl_fms", pl_fms_levels=levels, memory_strength=2.0)
    method.n_presented = n_presented
    stream = batch_of((5,), (6,))
    draws = [batch_of((0,), (1, 3)), batch_of((4,), ())]
    batch = batch_with_draws(stream, *((memories, {}) for memories in draws))
    with torch.no_grad():
        losses = cross_entropies(method.net(batch.whole.images)[0], batch.whole.targets)
    level = torch.tensor(LEVELS[levels])
    rows = []
    for loss, target in zip(losses, batch.whole.targets, strict=True):
        covered = torch.isin(level, level[target > 0])
        rows.append(loss[covered].mean() if covered.any() else loss.mean())
    # 7 classes seen; 4 samples in 2 epochs of each of 3 tasks
    p = min(1, n_presented * 7 / (4 * 2 * 3))
    weight = torch.tensor([p, p, 1, 1, 1 - p, 1 - p], dtype=torch.float64)
    strength = torch.tensor([1, 1, 2, 2, 2, 2])
    expected = (weight * strength * torch.stack(rows)).sum() / weight.sum()
    _, loss = method.training_step(batch)
    torch.testing.assert_close(loss.double(), expected)
    assert method.n_presented == n_presented + 2


def test_pl_fms_keeps_its_samples_without_memories_and_if_asked():
    plain, _ = in_third_task("pl_fms", pl_fms_sampling=False)
    assert plain.stream_weight == 1
    method, _ = in_third_task("pl_fms")
    assert method.stream_weight == 0
    losses = []
    for each in (method, plain):
        torch.manual_seed(1)
        losses.append(each.training_step(batch_of((5,), (6,)))[1])
    assert losses[0] == losses[1] > 0
