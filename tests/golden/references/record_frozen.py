"""Record what classifiers of frozen features do on the toy problem.

    python -m tests.golden.references.record_frozen FOLDER [NAME ...]

FOLDER holds checkouts of the repositories of :data:`RUNS`. Their code runs as it is. Exchanged are
what it takes from outside: the network, the data and the loader; the GPU, by the CPU; and the
package timm, which only provides pretrained networks.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import torch

from tests.golden.references.record_pycil import Samples, data_manager
from tests.golden.references.recorder import State, save, versions
from tests.toy_problem import (
    CLASSES_PER_TASK,
    LATENT,
    N_CLASSES,
    N_TRAIN,
    ToyTrunk,
    toy_images,
)

FOLDER = Path(__file__).parent
BATCH_SIZE, LR, FEATURES = 8, 0.05, 24
HUB = "https://github.com"
PILOT = f"{HUB}/sun-hailong/LAMDA-PILOT", "264745534fc2233f5a50b020e50a3472c47eb756"
RANPAC = f"{HUB}/RanPAC/RanPAC", "012927f86e8d95dc9e7c6015a5e1048e6604c8b6"
FECAM = f"{HUB}/dipamgoswami/FeCAM", "d2479b7bc9c3e704b0835ccd5928a2d7e0df5a09"
SLDA = f"{HUB}/tyler-hayes/Deep_SLDA", "bc1579799b5925d2e4299c2f45b426d2d4219da5"

Task = dict[str, Any]


class Run(NamedTuple):
    """A recording: our method, the repository and its commit, file, class and flags."""

    method: str
    reference: tuple[str, str]
    file: str
    class_name: str
    flags: dict[str, Any] = {}  # noqa: RUF012
    dtype: torch.dtype = torch.float64


COVARIANCES = {"full_cov": True, "per_class": True, "shrink": True, "norm_cov": True}
FECAM_FLAGS = {**COVARIANCES, "diagonal": False, "ncm": False, "alpha1": 1, "alpha2": 1}
RANPAC_FLAGS = {"use_RP": True, "M": FEATURES}
RUNS = {
    "simplecil-pilot": Run("simplecil", PILOT, "models/simplecil.py", "Learner"),
    "ranpac-pilot": Run("ranpac", PILOT, "models/ranpac.py", "Learner", RANPAC_FLAGS),
    "ranpac-authors": Run("ranpac", RANPAC, "RanPAC.py", "Learner", RANPAC_FLAGS),
    "fecam-authors": Run(
        "fecam",
        FECAM,
        "models/fecam.py",
        "FeCAM",
        {**FECAM_FLAGS, "tukey": True, "beta": 0.5},
        torch.float32,  # their distance casts to it
    ),
    "fecam-authors-no_tukey": Run(
        "fecam",
        FECAM,
        "models/fecam.py",
        "FeCAM",
        {**FECAM_FLAGS, "tukey": False, "beta": 1},
        torch.float32,
    ),
    "slda-authors": Run("slda", SLDA, "SLDA_Model.py", "StreamingLDA", {"shrinkage_param": 1e-4}),
}


class Trunk(ToyTrunk):
    """The toy network in evaluation mode, with the interfaces of the references' networks.

    It computes in float32, and what follows in the default type.
    """

    out_dim = LATENT
    as_maps = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            if name.startswith("conv"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
        self.float().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Trunk":
        return super().train(False)

    def forward(self, images: torch.Tensor) -> Any:
        latents = super().forward(images).to(torch.get_default_dtype())
        return {"features": latents} if self.as_maps else latents


class Labelled(Samples):
    """Samples with the attribute of PILOT's datasets."""

    @property
    def labels(self) -> np.ndarray:
        return self.targets


class Loader:
    """Batches of samples; those of a shuffled pass are noted."""

    passes: list[list[int]]

    def __init__(self, dataset: Samples, batch_size: int, shuffle: bool, **_: Any) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        order = np.arange(len(self.dataset))
        if self.shuffle:
            np.random.RandomState(len(Loader.passes)).shuffle(order)
            Loader.passes.append(self.dataset.data[order].tolist())
        images = torch.cat([toy_images().train, toy_images().test])
        for rows in np.split(order, range(self.batch_size, len(order), self.batch_size)):
            ids, targets = self.dataset.data[rows], self.dataset.targets[rows]
            yield torch.from_numpy(rows), images[ids], torch.from_numpy(targets)


class WithoutTimm:
    """Finds timm, or a module of it, as a module whose attributes mean nothing."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        is_absent = name.split(".")[0] in ("timm", "continuum", "easydict")
        return ModuleSpec(name, self, is_package=True) if is_absent else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        module = MagicMock(spec_set=None)
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        pass


def on_cpu() -> None:
    """Let code that asks for a GPU get the CPU."""
    to = torch.Tensor.to

    def to_cpu(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        args = tuple("cpu" if isinstance(arg, str) else arg for arg in args)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        return to(tensor, *args, **kwargs)

    torch.Tensor.to = to_cpu  # type: ignore[assignment,method-assign]
    torch.Tensor.cuda = lambda tensor, *_: tensor  # type: ignore[assignment,method-assign]


def manager() -> Any:
    """Return the reference's own object, with the toy problem in it."""
    found = data_manager()
    found._class_order = list(range(N_CLASSES))
    found.get_total_classnum = lambda: N_CLASSES
    module = importlib.import_module("utils.data_manager")
    module.DummyDataset = Labelled
    return found


ARGUMENTS = {
    "memory_size": 0,
    "dataset": "toy",
    "model_name": "ncm",
    "backbone_type": "toy",
    "convnet_type": "toy",
    "nb_classes": N_CLASSES,
    "increment": CLASSES_PER_TASK[0],
    "batch_size": BATCH_SIZE,
    "num_workers": 0,
    "init_epochs": 0,
    "tuned_epoch": 0,
    "init_lr": LR,
    "body_lr": LR,
    "init_weight_decay": 0.0,
    "weight_decay": 0.0,
    "min_lr": 0.0,
    "optimizer": "sgd",
    "device": [torch.device("cpu")],
}


class Result(NamedTuple):
    """What a reference has after a task: scores of the test images, and statistics by name."""

    order: list[int]
    scores: torch.Tensor
    statistics: State
    start: State


def learned(run: Run) -> Iterator[Result]:
    """Let a learner with the interface of PyCIL learn the tasks."""
    module = importlib.import_module(run.file.removesuffix(".py").replace("/", "."))
    trunk = Trunk()
    trunk.as_maps = run.method == "fecam"
    networks = importlib.import_module("inc_net" if run.reference == RANPAC else "utils.inc_net")
    networks.get_convnet = networks.get_backbone = lambda *_: trunk
    module.DataLoader = Loader
    torch.manual_seed(0)
    learner = getattr(module, run.class_name)({**ARGUMENTS, **run.flags})
    data = manager()
    learner._init_train = lambda *_: None  # there are no epochs to report
    if run.method == "fecam":
        maha = importlib.import_module("utils.maha_utils")
        maha.DataLoader = Loader
    if run.reference == RANPAC:
        learner.is_dil = learner.dil_init = False
    n_seen = 0
    for n_new in CLASSES_PER_TASK:
        Loader.passes = []
        learner.incremental_train(data)
        n_seen += n_new
        if run.method == "fecam":
            order = list(range(N_TRAIN * (n_seen - n_new), N_TRAIN * n_seen))
            yield Result(order, distances(learner), fecam_statistics(learner), {})
        else:
            scores = learner._network(toy_images().test)["logits"][:, :n_seen]
            statistics: State = {}
            start: State = {}
            if run.method == "ranpac":
                start = {"projection": learner.W_rand}
                statistics = {"gram": learner.G, "sums": learner.Q.T[:n_seen]}
            else:
                statistics = {"means": learner._network.fc.weight.detach()}
            yield Result(Loader.passes[-1], scores.detach(), statistics, start)
        learner.after_task()


def distances(learner: Any) -> torch.Tensor:
    """Return FeCAM's scores; in the first task, too, from its covariances."""
    task, learner._cur_task = learner._cur_task, max(learner._cur_task, 1)
    vectors = Trunk()(toy_images().test).numpy()
    vectors = (vectors.T / (np.linalg.norm(vectors.T, axis=0) + 1e-8)).T
    found = learner._maha_dist(vectors, learner._init_protos, learner._protos)
    learner._cur_task = task
    return -torch.from_numpy(np.array(found)).T


def fecam_statistics(learner: Any) -> State:
    return {
        "means": torch.stack(learner._protos),
        "correlations": torch.stack(list(learner._norm_cov_mat)),
    }


def streamed(run: Run) -> Iterator[Result]:
    """Let SLDA learn the tasks, one sample after another."""
    module = importlib.import_module("SLDA_Model")
    model = module.StreamingLDA(LATENT, N_CLASSES, **run.flags)
    trunk, n_seen = Trunk(), 0
    for task, n_new in enumerate(CLASSES_PER_TASK):
        first = N_TRAIN * n_seen
        order = first + np.random.RandomState(task).permutation(N_TRAIN * n_new)
        for image, label in zip(
            trunk(toy_images().train[order]), toy_images().labels[order], strict=True
        ):
            model.fit(image, label.view(1))
        n_seen += n_new
        scores = model.predict(trunk(toy_images().test))[:, :n_seen]
        statistics = {"means": model.muK[:n_seen], "covariance": model.Sigma}
        yield Result(order.tolist(), scores, statistics, {})


def record(name: str) -> None:
    run = RUNS[name]
    torch.set_default_dtype(run.dtype)
    toy_images.cache_clear()
    learn: Callable[[Run], Iterator[Result]] = streamed if run.method == "slda" else learned
    state = {key: value for key, value in Trunk().state_dict().items() if "num_batches" not in key}
    tasks = []
    for result in learn(run):
        batches = np.split(result.order, range(BATCH_SIZE, len(result.order), BATCH_SIZE))
        steps = [
            {
                "stage": "main",
                "epoch": 0,
                "samples": batch.tolist(),
                "in_buffer": [0] * len(batch),
                "draws": [],
                "lr": [LR],
                "loss": 0.0,
            }
            for batch in batches
        ]
        scores = result.scores.clone()
        tasks.append(
            {
                "start": {**state, **result.start},
                "steps": steps,
                "stage_starts": {},
                "after_task": {**state, **{k: v.clone() for k, v in result.statistics.items()}},
                "extra": {},
                "test_scores": scores,
                "test_classes": scores.argmax(dim=1).tolist(),
            }
        )
    repository, commit = run.reference
    reference = {
        "repository": repository,
        "commit": commit,
        "file": run.file,
        "class": run.class_name,
        "flags": run.flags,
        "arguments": {k: v for k, v in ARGUMENTS.items() if k != "device"},
        "dtype": str(run.dtype),
        "versions": versions(),
    }
    settings = {
        "n_classes_per_task": CLASSES_PER_TASK,
        "batch_norm": True,
        "lr": LR,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "epochs": 1,
        "batch_size": BATCH_SIZE,
    }
    recording = {
        "method": run.method,
        "reference": reference,
        "settings": settings,
        "initial": state,
        "tasks": tasks,
    }
    save(FOLDER / f"{name}.npz", recording)


def main() -> None:
    """Record what the arguments name; one process serves one repository, whose names overlap."""
    folder = Path(sys.argv[1]).resolve()
    torch.set_num_threads(1)
    sys.meta_path.append(WithoutTimm())  # type: ignore[arg-type]
    on_cpu()
    for name in sys.argv[2:]:
        sys.path.insert(0, str(folder / RUNS[name].reference[0].rpartition("/")[2]))
        record(name)
        print(name, (FOLDER / f"{name}.npz").stat().st_size)


if __name__ == "__main__":
    main()
