"""Record what methods of Mammoth do on the toy problem.

    python -m tests.golden.references.record_mammoth CHECKOUT [NAME ...]

Their code runs as it is. Exchanged are what it takes from outside: the network, the dataset object,
the loader (which shuffles by its own seed), and the loss, an argument of each model there. The loss
that Mammoth's datasets pass covers "all" classes of the benchmark from the first task on. Here, it
covers the classes "seen" so far unless the name of the file ends in ``all_classes``; for A-GEM, it
covers the classes of the task for its samples, and those of earlier tasks for memories ("own").
"""

import importlib
import sys
import types
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.references.recorder import Recorder, State, sample_ids, save, versions
from tests.toy_problem import CLASSES_PER_TASK, LATENT, N_CLASSES, ToyTrunk, toy_images

REPOSITORY = "https://github.com/aimagelab/mammoth"
COMMIT = "e75a491c69fd729edeb01431afb753d9157d9a81"
FOLDER = Path(__file__).parent
EPOCHS, BATCH_SIZE, MINIBATCH_SIZE, BUFFER_SIZE, LR = 2, 8, 6, 12, 0.05


class Run(NamedTuple):
    """A recording: our method, Mammoth's file and class, flags, and what differs from the rest."""

    method: str
    file: str
    class_name: str
    flags: dict[str, Any]
    loss_covers: str = "seen"
    seen_softmax: bool = False
    batch_norm: bool = True
    epochs: int = EPOCHS
    buffer_size: int = BUFFER_SIZE


DERPP = {"alpha": 0.5, "beta": 0.7}
ACE = {"task_free": False, "use_custom_classifier": False}
GDUMB = {"maxlr": 0.05, "minlr": 0.0005, "fitting_epochs": 5, "cutmix_alpha": None}
LUCIR = {
    "lamda_base": 5.0,
    "lamda_mr": 1.0,
    "k_mr": 2,
    "mr_margin": 0.5,
    "fitting_epochs": 0,
    "lr_finetune": 0.01,
    "imprint_weights": 1,
}
EWC = {"e_lambda": 20.0, "gamma": 0.9}
RUNS = {
    "er-mammoth": Run("er", "er", "Er", {}),
    "er-mammoth-all_classes": Run("er", "er", "Er", {}, loss_covers="all"),
    "der-mammoth": Run("der", "der", "Der", {"alpha": 0.5}),
    "der-mammoth-all_classes": Run("der", "der", "Der", {"alpha": 0.5}, loss_covers="all"),
    "der_plus_plus-mammoth": Run("der_plus_plus", "derpp", "Derpp", DERPP),
    "der_plus_plus-mammoth-all_classes": Run(
        "der_plus_plus", "derpp", "Derpp", DERPP, loss_covers="all"
    ),
    "er_ace-mammoth": Run("er_ace", "er_ace", "ErACE", ACE),
    "er_ace-mammoth-task_free": Run("er_ace", "er_ace", "ErACE", {**ACE, "task_free": True}),
    "er_ace-mammoth-cosine": Run(
        "er_ace", "er_ace", "ErACE", {**ACE, "use_custom_classifier": True}
    ),
    "ewc_online-mammoth": Run("ewc_online", "ewc_on", "EwcOn", EWC, batch_norm=False),
    "ewc_online-mammoth-seen_softmax": Run(
        "ewc_online", "ewc_on", "EwcOn", EWC, batch_norm=False, seen_softmax=True
    ),
    "si-mammoth": Run("si", "si", "SI", {"c": 50.0, "xi": 0.1}, batch_norm=False),
    "si-mammoth-clipped": Run("si", "si", "SI", {"c": 4000.0, "xi": 0.1}, batch_norm=False),
    "lwf-mammoth": Run("lwf", "lwf", "Lwf", {"alpha": 0.5, "softmax_temp": 2.0}),
    "lwf_mc-mammoth": Run("lwf_mc", "lwf_mc", "LwFMC", {"wd_reg": 0.0}),
    "gdumb-mammoth": Run("gdumb", "gdumb", "GDumb", GDUMB, epochs=1),
    "lucir-mammoth": Run("lucir", "lucir", "Lucir", LUCIR),
    "agem-mammoth": Run("agem", "agem", "AGem", {}, loss_covers="own", buffer_size=24),
}


def install_stand_ins() -> None:
    """Stand in for Mammoth's package of datasets, which would download models when imported."""
    datasets = types.ModuleType("datasets")
    datasets.get_dataset = lambda *_: Dataset.current  # type: ignore[attr-defined]
    datasets.get_dataset_names = list  # type: ignore[attr-defined]
    datasets.get_dataset_config_names = list  # type: ignore[attr-defined]
    sys.modules["datasets"] = datasets


class ToySamples:
    """The training set of a task, with the attributes of Mammoth's datasets."""

    def __init__(self, data: torch.Tensor, targets: np.ndarray) -> None:
        self.data, self.targets = data, targets
        self.extra_return_fields: tuple[str, ...] = ()
        self.logits: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, torch.Tensor]:
        return self.data[index], int(self.targets[index]), self.data[index]


class Loader:
    """Batches of :class:`ToySamples`, shuffled and announced to the recorder."""

    recorder: Recorder

    def __init__(self, dataset: ToySamples, n_old: int) -> None:
        self.dataset, self.n_old, self.n_passes = dataset, n_old, 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // BATCH_SIZE)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        order = np.arange(len(self.dataset))
        np.random.RandomState(len(order) + 1000 * self.n_passes).shuffle(order)
        self.n_passes += 1
        self.recorder.begin_pass()
        for rows in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE)):
            images, targets = self.dataset.data[rows], self.dataset.targets[rows]
            labels = torch.from_numpy(targets)
            fields = [
                getattr(self.dataset, name)[rows] for name in self.dataset.extra_return_fields
            ]
            extra = dict(zip(self.dataset.extra_return_fields, fields, strict=True))
            is_old = (targets < self.n_old).astype(int).tolist()
            self.recorder.batch(sample_ids(images), is_old, **extra)
            yield images, labels, images.clone(), *fields


class Dataset:
    """A benchmark, as Mammoth's models see it."""

    SETTING, N_TASKS, N_CLASSES = "class-il", len(CLASSES_PER_TASK), N_CLASSES
    N_CLASSES_PER_TASK = CLASSES_PER_TASK[0]
    current: "Dataset"

    def __init__(self, args: Namespace) -> None:
        self.args, self.task = args, 0
        Dataset.current = self

    def start(self, task: int) -> None:
        n_old, n_seen = self.get_offsets(task)
        images = toy_images()
        own = (images.labels >= n_old) & (images.labels < n_seen)
        samples = ToySamples(images.train[own], images.labels[own].numpy())
        self.task = task
        self.train_loader = Loader(samples, n_old)

    def get_offsets(self, task: int) -> tuple[int, int]:
        return sum(CLASSES_PER_TASK[:task]), sum(CLASSES_PER_TASK[: task + 1])

    def get_normalization_transform(self) -> None:
        return None

    def evaluate(self, *_: Any) -> None:
        """Mammoth logs an evaluation within some methods."""


def backbone_class() -> type[nn.Module]:
    base = importlib.import_module("backbone").MammothBackbone

    class Backbone(base):  # type: ignore[misc, valid-type]
        """The toy network, with the interface of Mammoth's networks."""

        def __init__(self, batch_norm: bool = True) -> None:
            super().__init__()
            self.trunk = ToyTrunk(batch_norm)
            self.classifier = nn.Linear(LATENT, N_CLASSES)

        def forward(self, images: torch.Tensor, returnt: str = "out") -> Any:
            latent = self.trunk(images)
            if returnt == "features":
                return latent
            output = self.classifier(latent)
            return output if returnt == "out" else (output, latent)

    return Backbone


def state_of(net: nn.Module, task: int) -> State:
    state: State = {}
    if hasattr(net.classifier, "weights"):  # LUCIR: a weight per task
        state["head.weight"] = torch.cat(list(net.classifier.weights)[: task + 1]).detach()
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked") and ".weights." not in name:
            name = name.removeprefix("trunk.").replace("classifier.L.", "head.")
            state[name.replace("classifier.", "head.")] = value.clone()
    return state


def named(vector: torch.Tensor, net: nn.Module) -> State:
    """Split a vector of all parameters by their names."""
    parameters = dict(net.named_parameters())
    parts = vector.split([p.numel() for p in parameters.values()])
    return {
        name.removeprefix("trunk.").replace("classifier.", "head."): part.view_as(p).clone()
        for (name, p), part in zip(parameters.items(), parts, strict=True)
    }


def record(name: str) -> None:
    run = RUNS[name]
    module = importlib.import_module(f"models.{run.file}")
    arguments = {
        "lr": LR,
        "optimizer": "sgd",
        "optim_wd": 0.0,
        "optim_mom": 0.0,
        "optim_nesterov": False,
        "batch_size": BATCH_SIZE,
        "minibatch_size": MINIBATCH_SIZE,
        "buffer_size": run.buffer_size,
        "n_epochs": run.epochs,
        **run.flags,
    }
    args = Namespace(**arguments, label_perc=1, nowand=1, device="cpu", dataset="toy")
    dataset = Dataset(args)
    make = backbone_class()

    def loss(outputs: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        first, (n_old, n_seen) = 0, dataset.get_offsets(dataset.task)
        if run.loss_covers == "all":
            n_seen = N_CLASSES
        elif run.loss_covers == "own":
            is_new = int(labels.min()) >= n_old
            first, n_seen = (n_old, n_seen) if is_new else (0, n_old)
        return F.cross_entropy(outputs[:, first:n_seen], labels - first, **kwargs)

    torch.manual_seed(0)
    np.random.seed(0)
    model = getattr(module, run.class_name)(make(run.batch_norm), loss, args, None, dataset)
    recorder = Recorder(lambda: state_of(model.net, dataset.task))
    Loader.recorder = recorder
    slots = prepare(module, model, recorder, run)
    initial = state_of(model.net, 0)
    tasks = []
    for number in range(len(CLASSES_PER_TASK)):
        recorder.begin_task()
        slots.clear()
        dataset.start(number)
        model.net.train()
        with recorder.listening():
            recorder.stage = "warm_up"
            model.meta_begin_task(dataset)
            recorder.stage = "main"
            train(model, dataset, recorder, run.epochs)
            recorder.stage = "fit"
            model.meta_end_task(dataset)
        seen = dataset.get_offsets(number)[1]
        scores = predictions(model)[:, :seen]
        if run.method != "gdumb":
            recorder.starts.pop("fit", None)  # statistics only, no training
        task = recorder.task(
            after_task=state_of(model.net, number),
            **memories_of(model),
            slots=list(slots),
            extra=statistics_of(model),
            test_scores=scores,
            test_classes=scores.argmax(dim=1).tolist(),
        )
        tasks.append(task)
    settings = {
        "n_classes_per_task": CLASSES_PER_TASK,
        "batch_norm": run.batch_norm,
        "loss_covers": run.loss_covers,
        "lr": LR,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "epochs": run.epochs,
        "batch_size": BATCH_SIZE,
        "minibatch_size": MINIBATCH_SIZE,
        "total_n_mems": run.buffer_size,
    }
    reference = {
        "repository": REPOSITORY,
        "commit": COMMIT,
        "file": f"models/{run.file}.py",
        "class": run.class_name,
        "flags": run.flags,
        "arguments": arguments,
        "versions": versions(),
    }
    save(
        FOLDER / f"{name}.npz",
        {
            "method": run.method,
            "reference": reference,
            "settings": settings,
            "initial": initial,
            "tasks": tasks,
        },
    )


class LogSoftmaxOfSeen(nn.Module):
    """Stands for the log-softmax of all outputs, from which EWC computes its Fisher information."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.n_seen = lambda: model.n_seen_classes

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return output[:, : self.n_seen()].log_softmax(dim=1)


def prepare(module: Any, model: Any, recorder: Recorder, run: Run) -> list[int]:
    """Listen to the model's buffer, and hand it a new network where it asks for one.

    Returns:
        Grows by the slot of each sample that the buffer sees; -1 if it drops the sample.
    """
    slots: list[int] = []
    if hasattr(model, "buffer"):
        get_data = model.buffer.get_data

        def noted(*args: Any, **kwargs: Any) -> Any:
            found = get_data(*args, **kwargs)
            names = model.buffer.used_attributes
            columns = dict(zip(names[1:], found[1:], strict=True))
            if "labels" in columns:
                columns["labels"] = columns["labels"].tolist()
            if recorder.stage == "fit":
                recorder.batches(sample_ids(found[0]), BATCH_SIZE)
            else:
                recorder.draw(samples=sample_ids(found[0]), **columns)
            return found

        select = model.buffer.sample_selection_fn

        def selected(*args: Any, **kwargs: Any) -> int:
            slots.append(int(select(*args, **kwargs)))
            return slots[-1]

        model.buffer.get_data, model.buffer.sample_selection_fn = noted, selected
    if run.seen_softmax:
        model.logsoft = LogSoftmaxOfSeen(model)
    if hasattr(module, "create_seeded_dataloader"):  # LUCIR imprints from the samples of a class
        module.create_seeded_dataloader = lambda _, samples, batch_size, **__: [
            samples.data[i : i + batch_size].split(len(samples))
            for i in range(0, len(samples), batch_size)
        ]
    if hasattr(module, "get_backbone"):
        module.get_backbone = lambda *_: backbone_class()(run.batch_norm)
    return slots


def train(model: Any, dataset: Dataset, recorder: Recorder, epochs: int) -> None:
    for epoch in range(epochs):
        for images, labels, plain, *fields in dataset.train_loader:
            names = dataset.train_loader.dataset.extra_return_fields
            extra = dict(zip(names, fields, strict=True))
            if hasattr(model, "penalty"):
                with torch.no_grad():
                    weight = getattr(model.args, "c", 1.0)  # SI's penalty is without its weight
                    recorder.note(penalty=weight * float(model.penalty()))
            model.meta_observe(images, labels, plain, epoch=epoch, **extra)


def memories_of(model: Any) -> dict[str, Any]:
    buffer = getattr(model, "buffer", None)
    if buffer is None or buffer.is_empty():
        return {}
    n = len(buffer)
    found: dict[str, Any] = {"memories": sample_ids(buffer.examples[:n])}
    if hasattr(buffer, "labels"):
        found["memory_labels"] = buffer.labels[:n].tolist()
    if hasattr(buffer, "logits"):
        found["memory_logits"] = buffer.logits[:n].clone()
    return found


def statistics_of(model: Any) -> dict[str, Any]:
    """Return the statistics that a method keeps, by the names of the parameters."""
    found: dict[str, Any] = {}
    for name, attribute in (("fisher", "fish"), ("omega", "big_omega"), ("anchor", "checkpoint")):
        vector = getattr(model, attribute, None)
        if isinstance(vector, torch.Tensor):
            found[name] = named(vector, model.net)
    return found


@torch.no_grad()
def predictions(model: Any) -> torch.Tensor:
    was_training = model.net.training
    model.net.eval()
    scores = model(toy_images().test).clone()
    model.net.train(was_training)
    return scores


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    install_stand_ins()
    torch.set_num_threads(1)
    for name in sys.argv[2:] or RUNS:
        record(name)
        print(name, (FOLDER / f"{name}.npz").stat().st_size)


if __name__ == "__main__":
    main()
