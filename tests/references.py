"""Replays recordings of reference implementations through the methods here.

``python -m tests.references`` prints the table of docs/verified.md.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from iirc_data.definitions import NO_LABEL_PLACEHOLDER
from iirc_data.loader import Batch
from iirc_data.loader import batch as batches
from iirc_train.methods import METHODS
from iirc_train.methods.base_method import BaseMethod
from tests.recordings import CASES, NAMES, State, load
from tests.toy_problem import CLASSES_PER_TASK, N_CLASSES, ToyNetwork, toy_images


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
        self._logits: dict[int, torch.Tensor] = {}  # of the memories, by slot

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
        unknown = config.keys() - model.Config.model_fields
        assert not unknown, f"{model} has no settings {unknown}"
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
        self._before = self.recording["tasks"][number - 1]["after_task"] if number else {}
        self._check(self._before, f"before {where}", self.case.kept(method))
        method.prepare_model_for_new_task(
            data, buffer=Samples(self._memories), memory_batches=self._draws(main)
        )
        if number in self.case.skipped:
            self._load(task["after_task"])
            self._memories = task.get("memories", [])
            return
        if "warm_up" not in task["stage_starts"]:
            self._start(task["start"], where)
        self._slots = iter(task.get("slots", ()))
        for stage, steps in groupby(task["steps"], key=lambda step: step["stage"]):
            self._train(stage, list(steps), task, where)
        self._choose(data, task, where)
        method.consolidate_task_knowledge(
            buffer=Samples(self._memories) if self._memories else None
        )
        self._check(task["after_task"], f"after {where}", self.case.kept(method))
        if "trained" in task["extra"]:  # the network that predicts is not the one that is kept
            self._check(task["extra"]["trained"], f"after {where}, trained")
        self._check_statistics(task["extra"], where)
        self._predict(task, where)

    def _classes(self, number: int) -> range:
        first = sum(CLASSES_PER_TASK[:number])
        return range(first, first + CLASSES_PER_TASK[number])

    def _train(self, stage: str, steps: list[dict], task: dict[str, Any], where: str) -> None:
        method = self.method
        is_stage = stage not in ("warm_up", "main", "fit")
        if is_stage:
            method.prepare_stage()
        if stage in task["stage_starts"]:
            self._start(task["stage_starts"][stage], f"{where}, {stage}")
        for epoch, of_epoch in groupby(steps, key=lambda step: step["epoch"]):
            method.train()
            for number, step in enumerate(of_epoch):
                here = f"{where}, {stage}, epoch {epoch}, step {number}"
                batch = self._batch(step)
                lr = method.opt.param_groups[0]["lr"]
                self.differences.compare("learning rate", here, lr, step["lr"][0])
                _, loss = method.training_step(batch)
                self.differences.compare("loss", here, loss, step["loss"] + step.get("penalty", 0))
                if "after" in step:
                    self._check(step["after"], f"after {here}")
                self._keep(step)
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

    def _keep(self, step: dict[str, Any]) -> None:
        """Put the logits of a step where the reference's reservoir put its samples."""
        columns = getattr(self.method, "columns_of_step", {})
        if "logits" in columns:
            for row in range(len(step["samples"])):
                self._logits[next(self._slots)] = columns["logits"][row]

    def _choose(self, data: Samples, task: dict[str, Any], where: str) -> None:
        self._memories = task.get("memories", [])
        if "memory_logits" in task:
            found = torch.stack([self._logits[slot] for slot in range(len(self._memories))])
            self.differences.compare("kept logits", where, found, task["memory_logits"])
        if task.get("slots"):  # a reservoir, whose random numbers differ
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
    def _start(self, state: State, where: str) -> None:
        """Compare what is known at the start of a stage, and take over what is random."""
        for name, parts, tensor in self._shared(state):
            own = torch.cat(parts)[: len(tensor)]
            if self.case.starts_anew or name.startswith(("auxiliary_head.", "new_head.")):
                continue
            if name.startswith("head.") and not self.case.imprints:
                known = tuple(slice(n) for n in self._before.get(name, tensor[:0]).shape)
                own, tensor = own[known], tensor[known]
            if own.numel():
                self.differences.compare(
                    "parameters", f"at the start of {where}, {name}", own, tensor
                )
        self._load(state)

    @torch.no_grad()
    def _load(self, state: State) -> None:
        for _, parts, rest in self._shared(state):
            for part in parts:
                n = min(len(part), len(rest))
                part[:n], rest = rest[:n], rest[n:]


def cases() -> list[str]:
    """Return the names of the recordings whose method is registered."""
    return [name for name in CASES if name.partition("-")[0] in METHODS]


def row(name: str, difference: float | None = None) -> str:
    """Return a row of the table in docs/verified.md; without a difference, its beginning."""
    reference, settings = load(name)["reference"], CASES[name].settings
    flags, ours = (
        ", ".join(f"{key} {_shown(value)}" for key, value in each.items()) or "—"
        for each in (reference["flags"], settings)
    )
    start = f"| `{name}` | `{reference['file']}`: {flags} | {ours} |"
    return start if difference is None else f"{start} {upper_bound(difference)} |"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def upper_bound(difference: float) -> str:
    """Return a difference with one digit, rounded up."""
    if not difference or not np.isfinite(difference):
        return f"{difference:g}"
    exponent = int(np.floor(np.log10(difference)))
    return f"{int(np.ceil(difference / 10.0**exponent))}e{exponent}"


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or cases():
        found = Replay(name).run()
        print(row(name, found.all))
        if found.first:
            print(f"{name}: {found.first}; {found.largest}", file=sys.stderr)


if __name__ == "__main__":
    main()
