"""Record what methods of PyCIL do on the toy problem.

    python -m tests.golden.references.record_pycil CHECKOUT [NAME ...]

Their code runs as it is. Exchanged are what it takes from outside: the network, the data, the
loader (which shuffles by its own seed), and the constants at the head of each file.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from tests.golden.references.recorder import Recorder, State, save, versions
from tests.toy_problem import CLASSES_PER_TASK, LATENT, N_TRAIN, ToyTrunk, toy_images

REPOSITORY = "https://github.com/LAMDA-CL/PyCIL"
COMMIT = "f3509b8ca3f20660ce4aa13f19d5283de81b4b35"
FOLDER = Path(__file__).parent
MEMORIES, EPOCHS, BATCH_SIZE, LR, WEIGHT_DECAY, TEMPERATURE = 12, 2, 8, 0.05, 5e-4, 2


class Convnet(ToyTrunk):
    """The toy network, with the interface of PyCIL's networks."""

    out_dim = LATENT

    def forward(self, images: torch.Tensor) -> dict[str, Any]:  # type: ignore[override]
        maps = self.feature_maps(images)
        return {"fmaps": maps, "features": maps[-1].mean(dim=(2, 3))}


class Samples(Dataset):
    """Samples by their ids; test images count on from the training images."""

    def __init__(self, data: np.ndarray, targets: np.ndarray, *_: Any) -> None:
        self.data, self.targets = data.astype(int), targets.astype(int)

    def __len__(self) -> int:
        return len(self.data)


class Loader:
    """Batches of :class:`Samples`, announced to the recorder."""

    recorder: Recorder
    known_classes: Callable[[], int]

    def __init__(self, dataset: Samples, batch_size: int, shuffle: bool, **_: Any) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.n_passes = 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        order = np.arange(len(self.dataset))
        if self.shuffle:
            np.random.RandomState(len(order) + 1000 * self.n_passes).shuffle(order)
            self.n_passes += 1
            self.recorder.begin_pass()
        images = torch.cat([toy_images().train, toy_images().test])
        for rows in np.split(order, range(self.batch_size, len(order), self.batch_size)):
            ids, targets = self.dataset.data[rows], self.dataset.targets[rows]
            if self.shuffle:
                old = targets < self.known_classes()
                flags = np.ones_like(old) if self.recorder.stage == "balanced" else old
                self.recorder.batch(ids.tolist(), flags.astype(int).tolist())
            yield torch.from_numpy(rows), images[ids], torch.from_numpy(targets)


def state_of(net: torch.nn.Module) -> State:
    """Return the state of one of PyCIL's networks, by the names of the README."""
    prefixes = {
        "convnet.": "",
        "convnets.": "branches.",
        "aux_fc.": "auxiliary_head.",
        "fe_fc.": "new_head.",
        "oldfc.": "old_head.",
        "fc.fc1.": "head.1.",
        "fc.fc2.": "head.2.",
        "fc.": "head.",
    }
    state: State = {}
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked") or name.startswith("bias_layers."):
            continue
        prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
        state[prefixes[prefix] + name.removeprefix(prefix)] = value.clone()
    if "head.1.weight" in state:
        parts = [state.pop("head.1.weight"), state.pop("head.2.weight")]
        state["head.weight"] = torch.cat(parts)
    if len(getattr(net, "bias_layers", ())):
        for name in ("alpha", "beta"):
            layers = [getattr(layer, name).detach() for layer in net.bias_layers]
            state[f"bias.{name}"] = torch.cat(layers)
    return state


def data_manager() -> Any:
    """Return PyCIL's own object, with the toy problem in it."""
    module = importlib.import_module("utils.data_manager")
    module.DummyDataset = Samples
    manager = module.DataManager.__new__(module.DataManager)
    manager.aug, manager.use_path, manager._increments = 1, False, list(CLASSES_PER_TASK)
    manager._train_trsf = manager._test_trsf = manager._common_trsf = []
    images = toy_images()
    n = len(images.train)
    manager._train_data, manager._train_targets = np.arange(n), images.labels.numpy()
    manager._test_data = n + np.arange(len(images.test))
    manager._test_targets = images.test_labels.numpy()
    manager.getlen = lambda index: N_TRAIN
    return manager


class Run(NamedTuple):
    """A recording: our method, PyCIL's file and class, and its own constants and flags."""

    method: str
    file: str
    class_name: str
    constants: dict[str, Any] = {}  # noqa: RUF012
    flags: dict[str, Any] = {}  # noqa: RUF012
    stages: dict[str, list[str]] = {}  # noqa: RUF012


PODNET = {"lambda_c_base": 5, "lambda_f_base": 1, "nb_proxy": 10, "ft_epochs": EPOCHS}
FOSTER = {"beta1": 0.96, "beta2": 0.97, "lambda_okd": 1, "wa_value": 1}
ALIGNED = {"is_teacher_wa": True, "is_student_wa": True, "oofc": "az"}
NOT_ALIGNED = {"is_teacher_wa": False, "is_student_wa": False, "oofc": "ft"}
EWC = {"lamda": 1000, "fishermax": 0.01, "batch_size": 24, "epochs": 6, "init_epoch": 6}
COMPRESSION = {"_feature_compression": ["compression"]}
RUNS = {
    "icarl-pycil": Run("icarl", "icarl", "iCaRL"),
    "lwf-pycil": Run("lwf", "lwf", "LwF", {"lamda": 3}),
    "wa-pycil": Run("wa", "wa", "WA"),
    "bic-pycil": Run(
        "bic",
        "bic",
        "BiC",
        {"split_ratio": 0.34},
        stages={"_stage2_bias_correction": ["bias_correction"]},
    ),
    "podnet-pycil": Run(
        "podnet",
        "podnet",
        "PODNet",
        {**PODNET, "ft_lrate": 0.005},
        stages={"_run": ["main", "balanced"]},
    ),
    "der_expandable-pycil": Run("der_expandable", "der", "DER"),
    "foster-pycil": Run(
        "foster", "foster", "FOSTER", flags={**FOSTER, **NOT_ALIGNED}, stages=COMPRESSION
    ),
    "foster-pycil-aligned": Run(
        "foster", "foster", "FOSTER", flags={**FOSTER, **ALIGNED}, stages=COMPRESSION
    ),
    "ewc_online-pycil": Run("ewc_online", "ewc", "EWC", EWC),
}
COMMON = {
    "init_epoch": EPOCHS,
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "init_lr": LR,
    "lrate": LR,
    "init_weight_decay": WEIGHT_DECAY,
    "weight_decay": WEIGHT_DECAY,
    "init_milestones": [],
    "milestones": [],
    "num_workers": 0,
    "T": TEMPERATURE,
}
ARGUMENTS = {
    "memory_size": MEMORIES,
    "convnet_type": "toy",
    "dataset": "toy",
    "init_epochs": EPOCHS,
    "boosting_epochs": EPOCHS,
    "compression_epochs": EPOCHS,
    "init_lr": LR,
    "lr": LR,
    "init_weight_decay": WEIGHT_DECAY,
    "weight_decay": WEIGHT_DECAY,
    "batch_size": BATCH_SIZE,
    "num_workers": 0,
    "T": TEMPERATURE,
}


def in_stages(recorder: Recorder, learner: Any, names: dict[str, list[str]]) -> None:
    """Announce the stage whenever the learner calls one of its methods.

    Args:
        recorder: Is told.
        learner: The object.
        names: For each of its methods, the stage of the first, second, ... call in a task.
    """
    for name, stages in names.items():
        method = getattr(learner, name)

        def staged(
            *args: Any, method: Any = method, stages: list[str] = stages, **kwargs: Any
        ) -> Any:
            calls = recorder.__dict__.setdefault("calls", {})
            number = calls[method] = calls.get(method, -1) + 1
            before, recorder.stage = recorder.stage, stages[min(number, len(stages) - 1)]
            try:
                return method(*args, **kwargs)
            finally:
                recorder.stage = before

        setattr(learner, name, staged)


def record(name: str) -> None:
    run = RUNS[name]
    module = importlib.import_module(f"models.{run.file}")
    base = importlib.import_module("models.base")
    networks = importlib.import_module("utils.inc_net")
    networks.get_convnet = lambda *_: Convnet()
    used = {key: value for key, value in COMMON.items() if hasattr(module, key)} | run.constants
    for key, value in used.items():
        setattr(module, key, value)
    module.DataLoader = base.DataLoader = Loader
    module.tqdm = lambda items: _Silent(items)

    torch.manual_seed(0)
    np.random.seed(0)
    arguments = ARGUMENTS | run.flags
    learner = getattr(module, run.class_name)({**arguments, "device": [torch.device("cpu")]})
    learner.topk = 2  # the first task has no five classes
    learner._evaluate = lambda *_: {"top1": None, "top5": None}
    recorder = Recorder(
        lambda: state_of(learner._snet if recorder.stage == "compression" else learner._network)
    )
    in_stages(recorder, learner, run.stages)
    Loader.recorder, Loader.known_classes = recorder, staticmethod(lambda: learner._known_classes)
    manager = data_manager()
    tasks = []
    initial: State | None = None
    for _ in CLASSES_PER_TASK:
        recorder.begin_task()
        recorder.__dict__.pop("calls", None)
        with recorder.listening():
            learner.incremental_train(manager)
        extra: dict[str, Any] = {}
        scores, classes = predictions(learner, learner._network)
        if getattr(learner, "_snet", None) is not None:
            extra["trained"] = state_of(learner._network)  # two branches, after alignment
            extra["compressed_test_scores"] = predictions(learner, learner._snet)[0]
        if getattr(learner, "_class_means", None) is not None:
            extra["class_means"] = torch.tensor(learner._class_means)
        if getattr(learner, "fisher", None) is not None:
            extra["fisher"] = {canonical(n): v.clone() for n, v in learner.fisher.items()}
            extra["fisher_batches"] = recorder.without_step
        learner.after_task()
        kept = getattr(learner, "_snet", None) or learner._network
        task = recorder.task(
            after_task=state_of(kept),
            memories=learner._data_memory.astype(int).tolist(),
            memory_labels=learner._targets_memory.astype(int).tolist(),
            extra=extra,
            test_scores=scores,
            test_classes=classes,
        )
        if "class_means" in extra:
            every = Loader(Samples(manager._test_data, manager._test_targets), 64, shuffle=False)
            nearest, _ = learner._eval_nme(every, learner._class_means)
            task["test_classes_nme"] = nearest[:, 0].tolist()
        initial = initial or task["start"]
        tasks.append(task)
    settings = {
        "n_classes_per_task": CLASSES_PER_TASK,
        "batch_norm": True,
        "lr": LR,
        "momentum": 0.9,
        "weight_decay": WEIGHT_DECAY,
        "epochs": used.get("epochs", EPOCHS),
        "batch_size": used.get("batch_size", BATCH_SIZE),
        "temperature": TEMPERATURE,
        "total_n_mems": MEMORIES,
    }
    reference = {
        "repository": REPOSITORY,
        "commit": COMMIT,
        "file": f"models/{run.file}.py",
        "class": run.class_name,
        "flags": run.constants | run.flags,
        "constants": used,
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


@torch.no_grad()
def predictions(learner: Any, net: torch.nn.Module) -> tuple[torch.Tensor, list[int]]:
    """Return logits and classes of all test images in evaluation mode."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    logits = net(toy_images().test)["logits"]
    for module, mode in modes.items():
        module.training = mode
    return logits, logits.argmax(dim=1).tolist()


def canonical(name: str) -> str:
    return name.removeprefix("convnet.").replace("fc.", "head.")


class _Silent:
    """Stands for a progress bar."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def set_description(self, *_: Any) -> None:
        pass


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    torch.set_num_threads(1)
    for name in sys.argv[2:] or RUNS:
        record(name)
        print(name, (FOLDER / f"{name}.npz").stat().st_size)


if __name__ == "__main__":
    main()
