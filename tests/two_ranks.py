"""Trains every method, and one on several datasets; interrupts and resumes each.

Alone, or as ranks started by ``torchrun``. SETTINGS.json has the settings of both kinds.

torchrun --nproc-per-node 2 -m tests.two_ranks SETTINGS.json OUTPUT
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.config import ExperimentConfig
from iirc_train.methods import METHODS, MethodParts
from iirc_train.methods.base_method import BaseMethod
from iirc_train.methods.gradients import get_gradient
from iirc_train.methods.step import Step
from iirc_train.metrics import METRICS, Metric
from iirc_train.runtime import distributed
from iirc_train.runtime.distributed import gathered, rank, world_size
from iirc_train.runtime.process_group import process_group
from iirc_train.training import epoch
from iirc_train.training.launch import resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.ce_methods import config_for

QUIET = Console(quiet=True)


class NetworkWithoutBatchStatistics(nn.Module):
    stages = ("model.convolution",)

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.convolution = nn.Conv2d(3, 8, 5, stride=4)
        self.model.output_layer = nn.Linear(8, n_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latent = torch.tanh(self.model.convolution(x)).mean(dim=(2, 3))
        return self.model.output_layer(latent), latent


class OwnNormalisation(BaseMethod):
    """Averages over true labels, weighted by their rarity in the batch.

    The weights and their sum differ between the parts of a batch that two processes have.
    """

    def _loss(self, step: Step) -> torch.Tensor:
        positives = step.total(step.targets.sum(dim=0)).clamp(min=1)
        weight = step.targets / positives
        each = F.binary_cross_entropy_with_logits(step.output, step.targets, reduction="none")
        return step.average((weight * each).sum(), weight.sum())


TOP1 = Metric(
    "top-1",
    torch.mean,
    lambda o: o.targets.gather(1, o.scores.argmax(dim=1, keepdim=True)).squeeze(1).float(),
    needs_scores=True,
)
SEVERAL_DATASETS = "several_datasets"
ALL_METHODS = METHODS | {"own_normalisation": MethodParts(OwnNormalisation, RandomBuffer)}


class BrokenOffError(Exception):
    pass


def train_batch_norm(settings: dict[str, object], output: Path) -> None:
    """Train a network with batch normalisation; note its buffers around each synchronisation.

    A second run, in ``broadcast``, synchronises them at every step.
    """
    config = ExperimentConfig.parse(settings | {"method": "icarl_cnn"})
    synchronise, noted = epoch.broadcast_buffers, []

    def note(net):
        values = torch.cat([buffer.flatten().double() for buffer in net.buffers()])
        noted.append(gathered(values.unsqueeze(0)))

    def synchronise_and_note(net):
        note(net)
        synchronise(net)
        note(net)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(epoch, "broadcast_buffers", synchronise_and_note)
        run_experiment(config, output / "batch_norm", QUIET)
    if rank() == 0:
        torch.save(torch.stack(noted).unflatten(0, (-1, 2)), output / "batch_norm.pt")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distributed, "training_reads_buffers", lambda net: True)
        run_experiment(config, output / "broadcast", QUIET)


def train_all(settings: dict[str, object], several: dict[str, object], output: Path) -> None:
    """Train all methods, and on several datasets; write each run and the gradients of its steps."""
    gradients: list[torch.Tensor] = []
    training_step, save = BaseMethod.training_step, Training._save

    def recorded_step(self, batch):
        result = training_step(self, batch)
        gradients.append(get_gradient(self.net))
        return result

    def save_and_break_off(self, position):
        save(self, position)
        if position == (2, 1, 0):
            raise BrokenOffError

    BaseMethod._make_network = lambda self: NetworkWithoutBatchStatistics(sum(self.n_cla_per_tsk))
    BaseMethod.training_step = recorded_step
    METHODS.update(ALL_METHODS)
    METRICS["top1"] = TOP1
    configs = {method: config_for(method, settings) for method in ALL_METHODS}
    for name, config in (configs | {SEVERAL_DATASETS: ExperimentConfig.parse(several)}).items():
        gradients.clear()
        Training._save = save_and_break_off
        try:
            run_experiment(config, output / name, QUIET)
        except BrokenOffError:
            Training._save = save
            resume_experiment(output / name, QUIET)
        if rank() == 0:
            sizes = torch.tensor([len(gradient) for gradient in gradients])
            torch.save({"values": torch.cat(gradients), "sizes": sizes}, output / f"{name}.pt")


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        settings, several = json.loads(Path(sys.argv[1]).read_text())
        output = Path(sys.argv[2])
        if world_size() > 1:
            train_batch_norm(settings, output)
        train_all(settings, several, output)
