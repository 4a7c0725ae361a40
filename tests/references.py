"""Recordings of reference implementations, and replaying them through the methods here.

``python -m tests.references`` prints the table of docs/verified.md.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.loader import Batch
from iirc_data.loader import batch as batches
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from tests.toy_problem import CLASSES_PER_TASK, N_CLASSES, ToyNetwork, toy_images

FOLDER = Path(__file__).parent / "golden" / "references"
NAMES = {f"c{number}": number for number in range(N_CLASSES)}

Recording = dict[str, Any]
State = dict[str, torch.Tensor]


def load(name: str) -> Recording:
    """Return a recording: plain values and tensors, as the README beside the files describes."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        tree, values = json.loads(arrays["meta"].tobytes()), torch.from_numpy(arrays["values"])

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(value) for value in node]
        if not isinstance(node, dict):
            return node
        if list(node) == ["tensor"]:
            offset, *shape = node["tensor"]
            n = int(np.prod(shape))
            return values[offset : offset + n].view(shape).clone()
        return {key: filled(value) for key, value in node.items()}

    found: Recording = filled(tree)
    return found


class Case(NamedTuple):
    """How a method here does what a recording does.

    Attributes:
        settings: Settings of the method besides those that all recordings name.
        names: Maps the name of a tensor of the method's network to its name in the recording.
        nearest_mean: Whether scores are distances to class means.
        optional: Beginnings of the names of tensors that the method's network has only while it
            uses them; the reference keeps them.
        kept: The network that is kept after a task, where it is not the one that predicts.
        tensors: More tensors of the method, by their names in the recording.
    """

    settings: Mapping[str, Any] = MappingProxyType({})
    names: Callable[[str], str] = lambda name: name
    nearest_mean: bool = False
    optional: tuple[str, ...] = ()
    kept: Callable[[BaseMethod], nn.Module] = lambda method: method.net
    tensors: Callable[[BaseMethod], State] = lambda method: {}


EWC = {"ewc_lambda": 40.0, "ewc_gamma": 0.9, "ewc_fisher": "data_weighted"}
FOSTER = {
    "lr_cosine": True,
    "alignment": "reference",
    "compression_epochs": 2,
    "compression_weight_decay": 0.0,
    "evaluated": "reference",
}


def name_of_branch(name: str) -> str:
    return name.replace(".model.", ".").replace("enhancement_head", "new_head")


def student_or_net(method: BaseMethod) -> nn.Module:
    """Return FOSTER's compressed network, which the reference keeps but does not evaluate."""
    return method.net if method.old_net is None else method.old_net


def bias_of_tasks(method: BaseMethod) -> State:
    """Return BiC's correction of each task."""
    layer: Any = method.net.model.output_layer
    firsts = np.cumsum([0, *CLASSES_PER_TASK[:-1]])
    both = (("alpha", layer.alpha, layer.fixed_alpha), ("beta", layer.beta, layer.fixed_beta))
    return {
        f"bias.{name}": torch.where(layer.is_current, fitted, fixed)[firsts].detach()
        for name, fitted, fixed in both
    }


CASES = {
    "icarl-pycil": Case({"distillation_temperature": 2.0}, nearest_mean=True),
    "agem-mammoth": Case(),
    "er-mammoth": Case(),
    "er-mammoth-all_classes": Case({"output_classes": "all"}),
    "der-mammoth": Case({"der_alpha": 0.5, "logit_distance": "reference"}),
    "der-mammoth-all_classes": Case(
        {"der_alpha": 0.5, "logit_distance": "reference", "output_classes": "all"}
    ),
    "der_plus_plus-mammoth": Case(
        {"der_alpha": 0.5, "der_beta": 0.7, "logit_distance": "reference"}
    ),
    "der_plus_plus-mammoth-all_classes": Case(
        {
            "der_alpha": 0.5,
            "der_beta": 0.7,
            "logit_distance": "reference",
            "output_classes": "all",
        }
    ),
    "er_ace-mammoth": Case(),
    "lwf-pycil": Case({"lwf_lambda": 3.0, "lwf_distillation": "joint"}),
    "lwf-mammoth": Case(
        {
            "lwf_lambda": 0.5,
            "lwf_distillation": "joint",
            "lwf_classes": "seen",
            "lwf_warmup": 2,
            "epochs_per_task": 4,
        }
    ),
    "lwf_mc-mammoth": Case({"loss": "bce"}),
    "ewc_online-mammoth": Case({**EWC, "ewc_fisher_classes": "all"}),
    "ewc_online-mammoth-seen_softmax": Case(EWC),
    "ewc_online-pycil": Case(
        {
            "ewc_lambda": 1000.0,
            "ewc_fisher": "batches",
            "ewc_fisher_batch_size": 24,
            "ewc_fisher_max": 0.01,
            "ewc_merge": "average",
            "ewc_classes": "new",
        }
    ),
    "si-mammoth": Case({"si_c": 50.0, "si_xi": 0.1, "si_clip": 1.0, "si_negative": "keep"}),
    "si-mammoth-clipped": Case(
        {"si_c": 10000.0, "si_xi": 0.1, "si_clip": 1.0, "si_negative": "keep"}
    ),
    "wa-pycil": Case(),
    "podnet-pycil": Case(
        {
            "pod_spatial": 5.0,
            "podnet_form": "reference",
            "old_proxies_lr_factor": 0.0,
            "lr_cosine": True,
            "finetuning_epochs": 2,
            "finetuning_lr": 0.005,
        }
    ),
    "bic-pycil": Case(
        {"bic_form": "reference", "correction_weight_decay": 5e-4}, tensors=bias_of_tasks
    ),
    "der_expandable-pycil": Case(
        {"classifier": "reference"}, names=name_of_branch, optional=("auxiliary_head.",)
    ),
    "foster-pycil": Case(
        {**FOSTER, "new_class_weights": "reference"},
        names=name_of_branch,
        optional=("new_head.", "old_head."),
        kept=student_or_net,
    ),
    "foster-pycil-aligned": Case(
        {**FOSTER, "weight_alignment": True},
        names=name_of_branch,
        optional=("new_head.", "old_head."),
        kept=student_or_net,
    ),
}


class Samples:
    """Training images by their ids, with the attributes of a task's data and of memories."""

    def __init__(self, ids: list[int], task: int = 0) -> None:
        self.ids, self.cur_task_id = np.array(ids, np.int64), task
        first = sum(CLASSES_PER_TASK[:task])
        self.cur_task = list(NAMES)[first : first + CLASSES_PER_TASK[task]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> np.ndarray:
        return toy_images().labels.numpy()[self.ids]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str, str]:
        name = list(NAMES)[self.labels[index]]
        return toy_images().train[self.ids[index]], name, NO_LABEL_PLACEHOLDER

    def get_image_indices_by_cla(
        self, name: str, num_samples: int = -1, shuffle: bool = True
    ) -> np.ndarray:
        return np.flatnonzero(self.labels == NAMES[name])

    get_image_indices_by_class = get_image_indices_by_cla

    @property
    def n_memories_per_class(self) -> dict[str, int]:
        counts = {name: int((self.labels == number).sum()) for name, number in NAMES.items()}
        return {name: n for name, n in counts.items() if n}

    @contextmanager
    def disable_augmentations(self) -> Iterator[None]:
        yield


class Differences:
    """The largest difference of each kind of number, and where it first exceeds the tolerance."""

    TOLERANCE = 1e-5

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}
        self.first: str | None = None

    def compare(self, kind: str, where: str, found: Any, expected: Any) -> None:
        found, expected = torch.as_tensor(found), torch.as_tensor(expected)
        if found.shape != expected.shape:
            size = torch.inf
        else:
            size = float((found.double() - expected.double()).abs().max())
        self.largest[kind] = max(self.largest.get(kind, 0.0), size)
        if self.first is None and not size <= self.TOLERANCE:
            self.first = f"{kind} {where}: {size:.2g}"

    @property
    def all(self) -> float:
        return max(self.largest.values())


class Replay:
    """A method, and what its reference did.

    Args:
        name: Name of the recording.
    """

    def __init__(self, name: str) -> None:
        self.case, self.recording = CASES[name], load(name)
        self.differences = Differences()
        self.method = self._make_method()
        self._load(self.recording["initial"])  # a method may anchor the first task's parameters
        self._memories: list[int] = []

    def _make_method(self) -> BaseMethod:
        settings = self.recording["settings"]
        config = {
            "loss": "ce",
            "decision": "argmax",
            "optimizer": "sgd",
            "lr": settings["lr"],
            "momentum": settings["momentum"],
            "weight_decay": settings["weight_decay"],
            "epochs_per_task": settings["epochs"],
            "first_task_epochs": settings["epochs"],
            **self.case.settings,
        }
        model = METHODS[self.recording["method"]].model
        net = ToyNetwork(N_CLASSES, settings["batch_norm"])
        return model(CLASSES_PER_TASK, NAMES, config, net=net)

    def run(self) -> Differences:
        """Learn all tasks, comparing on the way."""
        for number, task in enumerate(self.recording["tasks"]):
            self._learn(number, task)
        return self.differences

    def _learn(self, number: int, task: dict[str, Any]) -> None:
        method, where = self.method, f"task {number}"
        main = [step for step in task["steps"] if step["stage"] == "main"]
        own = np.flatnonzero(np.isin(toy_images().labels.numpy(), self._classes(number))).tolist()
        data = Samples(own, number)
        if number:
            before = self.recording["tasks"][number - 1]["after_task"]
            self._check(before, f"before {where}", self.case.kept(method))
        method.prepare_model_for_new_task(
            data, buffer=Samples(self._memories), memory_batches=self._draws(main)
        )
        if "warm_up" in task["stage_starts"]:
            self._load(task["stage_starts"]["warm_up"])
        else:
            self._load(task["start"])
        for stage, steps in groupby(task["steps"], key=lambda step: step["stage"]):
            self._train(stage, list(steps), task, where)
        self._choose(data, task, where)
        method.consolidate_task_knowledge(
            buffer=Samples(self._memories) if self._memories else None
        )
        self._check(task["after_task"], f"after {where}", self.case.kept(method))
        if "trained" in task["extra"]:
            self._check(task["extra"]["trained"], f"after {where}, trained")
        self._check_statistics(task["extra"], where)
        self._predict(task, where)

    def _classes(self, number: int) -> range:
        first = sum(CLASSES_PER_TASK[:number])
        return range(first, first + CLASSES_PER_TASK[number])

    def _train(self, stage: str, steps: list[dict], task: dict[str, Any], where: str) -> None:
        method = self.method
        is_stage = stage not in ("warm_up", "main")
        if is_stage:
            method.prepare_stage()
            self._load(task["stage_starts"].get(stage, {}))
        for epoch, of_epoch in groupby(steps, key=lambda step: step["epoch"]):
            method.train()
            for number, step in enumerate(of_epoch):
                here = f"{where}, {stage}, epoch {epoch}, step {number}"
                batch = self._batch(step)
                _, loss = method.training_step(batch)
                self.differences.compare("loss", here, loss, step["loss"] + step.get("penalty", 0))
                if "after" in step:
                    self._check(step["after"], f"after {here}")
            method.consolidate_epoch_knowledge()
        if is_stage:
            method.finish_stage()

    def _batch(self, step: dict[str, Any]) -> Batch:
        batch = self._plain_batch(step["samples"], step["in_buffer"])
        if not step["draws"] or self.recording["method"] == "agem":
            return batch
        drawn = []
        for draw in step["draws"]:
            columns = {"logits": draw["logits"]} if "logits" in draw else {}
            drawn.append((self._plain_batch(draw["samples"], [1] * len(draw["samples"])), columns))
        return batches.batch_with_draws(batch, *drawn)

    def _plain_batch(self, ids: list[int], in_buffer: list[int]) -> Batch:
        images, labels = toy_images().train[ids], toy_images().labels[ids]
        targets = nn.functional.one_hot(labels, N_CLASSES)[:, : self.method.n_seen_classes]
        flags = torch.tensor(in_buffer, dtype=torch.bool)
        return Batch(images, targets.float(), flags, torch.tensor(ids))

    def _draws(self, steps: list[dict[str, Any]]) -> Iterator[Batch]:
        for step in steps:
            for draw in step["draws"]:
                yield self._plain_batch(draw["samples"], [1] * len(draw["samples"]))

    def _choose(self, data: Samples, task: dict[str, Any], where: str) -> None:
        self._memories = task.get("memories", [])
        if task.get("slots"):
            return
        buffer = METHODS[self.recording["method"]].buffer({"n_memories_per_class": 1})
        for name in data.cur_task if self._memories else []:
            chosen = [i for i in self._memories if toy_images().labels[i] == NAMES[name]]
            found = buffer._choose(data, name, len(chosen), method=self.method, batch_size=64)
            self.differences.compare("memories", where, data.ids[found], chosen)

    def _predict(self, task: dict[str, Any], where: str) -> None:
        self.method.eval()
        with torch.no_grad():
            scores, predictions = self.method.scores_and_predictions(toy_images().test)
            if self.case.nearest_mean:
                logits = self.method.forward_net(toy_images().test)[0]
                scores = logits[:, : self.method.n_seen_classes]
        expected = task["test_classes_nme" if self.case.nearest_mean else "test_classes"]
        self.differences.compare("scores", where, scores, task["test_scores"])
        classes = predictions.int().argmax(dim=1)
        self.differences.compare("predictions", where, classes, expected)

    def _check_statistics(self, extra: dict[str, Any], where: str) -> None:
        for name in ("fisher", "omega"):
            if name in extra:
                names = [name for name, _ in self.method.net.named_parameters()]
                found = dict(
                    zip(names, self.method.statistics.of_parameters("importance"), strict=True)
                )
                for own, tensor in found.items():
                    expected = extra[name][self._recorded_name(own)]
                    self.differences.compare("importance", where, tensor[: len(expected)], expected)

    # ------------------------------------------------------------------ the network's tensors

    def _state(self, net: nn.Module | None = None) -> dict[str, list[torch.Tensor]]:
        """Return the tensors of a network by their names in the recording, in parts by rows."""
        state: dict[str, list[torch.Tensor]] = {}
        for name, tensor in (self.method.net if net is None else net).state_dict().items():
            if not name.endswith("num_batches_tracked"):
                state.setdefault(self._recorded_name(name), []).append(tensor)
        return state

    def _recorded_name(self, name: str) -> str:
        name = name.replace("model.output_layer.", "head.").removeprefix("model.")
        return self.case.names(name.replace("head.fc1.", "head.").replace("head.fc2.", "head."))

    def _shared(
        self, recorded: State, net: nn.Module | None = None
    ) -> Iterator[tuple[str, list[torch.Tensor], torch.Tensor]]:
        """Iterate over names, own tensors (in parts) and recorded ones."""
        state = self._state(net) | {n: [t] for n, t in self.case.tensors(self.method).items()}
        for name, tensor in recorded.items():
            if name in state or not name.startswith(self.case.optional):
                yield name, state[name], tensor

    def _check(self, expected: State, where: str, net: nn.Module | None = None) -> None:
        """Compare a network with a state.

        A head here has the rows of all classes, one in the recording those of the classes seen.
        """
        for name, found, tensor in self._shared(expected, net):
            own = torch.cat(found)[: len(tensor)]
            self.differences.compare("parameters", f"{where}, {name}", own, tensor)

    @torch.no_grad()
    def _load(self, state: State) -> None:
        for _, parts, rest in self._shared(state):
            for part in parts:
                n = min(len(part), len(rest))
                part[:n], rest = rest[:n], rest[n:]


def cases() -> list[str]:
    """Return the names of the recordings whose method is registered."""
    return [name for name in CASES if name.partition("-")[0] in METHODS]


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or cases():
        replay = Replay(name)
        found = replay.run()
        kinds = ", ".join(f"{kind} {size:.1e}" for kind, size in found.largest.items())
        print(f"{name}: {kinds}" + (f" FIRST {found.first}" if found.first else ""))


if __name__ == "__main__":
    main()
