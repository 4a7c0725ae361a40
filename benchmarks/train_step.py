"""Training speed on the CPU, compared with a loop in the published style in the same run.

    python -m benchmarks.train_step SHARDS

SHARDS is a shard folder of CIFAR-10. The published style: PIL images, torchvision's transforms, a
DataLoader with 2 workers, conversion of label names to vectors sample by sample, float32 in the
contiguous layout, and loss and metrics fetched at every step. Both train the same method on the
second task, after choosing the memories of the first task, which is timed too. Runs alternate, and
medians are compared.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from benchmarks.timing import interleaved
from iirc_data.augment import TRANSFORM_PRESETS
from iirc_data.console import run_tool
from iirc_data.definitions import TRAIN, Item
from iirc_train.buffer.merged import TaskDataMergedWithBuffer
from iirc_train.config import ExperimentConfig
from iirc_train.metrics import jaccard_sim, modified_jaccard_sim
from iirc_train.runtime.progress import TrainingProgress
from iirc_train.training.components import Experiment
from iirc_train.training.epoch import train_epoch
from iirc_train.training.task_data import TaskData
from iirc_train.training.trainer import HERDING_BATCH_SIZE
from iirc_train.utils import transform_labels_names_to_vector

METHODS = ("finetune", "icarl_cnn")
N_WORKERS = 2
MEMORIES_PER_CLASS = 20


class PILDataset(Dataset[Item]):
    """Decoded images with the names of their labels."""

    def __init__(self, samples: list[Item], augment: bool) -> None:
        preset = TRANSFORM_PRESETS["cifar"]
        augmentation = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self.samples = samples
        self.transform = transforms.Compose(
            [
                *(augmentation if augment else []),
                transforms.ToTensor(),
                transforms.Normalize(preset.mean, preset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        image, *labels = self.samples[index]
        return self.transform(image), *labels

    def disable_augmentations(self) -> AbstractContextManager[None]:
        """Return a context that changes nothing: augmentation is chosen for each dataset."""
        return nullcontext()


def samples_of(data: TaskData) -> list[Item]:
    """Decode the samples of a task in advance."""
    return [data.get_item(index) for index in range(len(data))]


class Ours:
    """This project's loop."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.experiment = Experiment(config)
        self.progress = TrainingProgress(Console(quiet=True), "", 2)
        self.epoch = 0
        self.data = self.experiment.task_data
        self.begin_task(0)
        self.train_epoch()  # so that memories are chosen with a trained network

    def choose_memories(self) -> list[np.ndarray]:
        """Choose the memories of the first task, and return their indices."""
        experiment = self.experiment
        experiment.buffer.load_buffer_state_dict({"generation": 0, "counts": {}})
        data = self.data(0)
        chosen: list[np.ndarray] = []
        choose = experiment.buffer._choose
        experiment.buffer._choose = lambda *args, **kwargs: (  # type: ignore[method-assign]
            chosen.append(choose(*args, **kwargs)) or chosen[-1]  # type: ignore[func-returns-value]
        )
        experiment.buffer.update_buffer_new_task(
            data, method=experiment.method, batch_size=HERDING_BATCH_SIZE
        )
        experiment.buffer._choose = choose  # type: ignore[method-assign]
        return chosen

    def begin_task(self, task_id: int) -> None:
        """Prepare the method for a task."""
        self.experiment.method.prepare_model_for_new_task(self.data(task_id))
        self.loader = self.experiment.training_loader(self.experiment.view(TRAIN, task_id))

    def train_epoch(self) -> int:
        """Train one epoch, and return its number of images."""
        self.epoch += 1
        self.loader.set_epoch(self.epoch)
        train_epoch(self.experiment, self.loader, self.progress)
        return self.loader.n_samples


class Published:
    """A loop in the published style, with the same method and the same images."""

    def __init__(self, ours: Ours) -> None:
        experiment = ours.experiment
        self.class_names_to_idx = experiment.class_names_to_idx
        self.batch_size = experiment.config.batch_size
        self.method = type(experiment.method)(
            experiment.method.n_cla_per_tsk,
            self.class_names_to_idx,
            experiment.config,
        )
        self.method.load_state_dict(experiment.method.state_dict())
        self.method.prepare_model_for_new_task()
        data = ours.data(0)
        self.first_classes = {
            name: data.get_image_indices_by_cla(name, shuffle=False) for name in data.cur_task
        }
        self.first, self.second = samples_of(data), samples_of(ours.data(1))
        self.memories: list[Item] = []

    @torch.no_grad()
    def choose_memories(self) -> list[np.ndarray]:
        """Choose the memories of the first task by herding, and return their indices."""
        self.method.eval()
        self.memories = []
        chosen = []
        for indices in self.first_classes.values():
            part = Subset(PILDataset(self.first, augment=False), indices.tolist())
            latents = []
            for images, *_ in DataLoader(part, self.batch_size, num_workers=N_WORKERS):
                latent = self.method.forward_net(images)[1]
                latents.append(latent / latent.norm(dim=1, keepdim=True))
            features = torch.cat(latents)
            mean = features.mean(dim=0)
            total, left = torch.zeros_like(mean), list(range(len(features)))
            taken: list[int] = []
            for _ in range(min(MEMORIES_PER_CLASS, len(features))):
                distances = [
                    float((mean - (total + features[i]) / (len(taken) + 1)).norm()) for i in left
                ]
                best = left.pop(int(np.argmin(distances)))
                taken.append(best)
                total = total + features[best]
            chosen.append(indices[taken])
            self.memories += [self.first[index] for index in chosen[-1]]
        return chosen

    def begin_task(self, task_id: int) -> None:
        """Prepare the method, which has learnt the first task."""
        self.method.prepare_model_for_new_task()

    def train_epoch(self) -> int:
        """Train one epoch, and return its number of images."""
        self.method.train()
        data = TaskDataMergedWithBuffer(
            PILDataset(self.memories, augment=True), PILDataset(self.second, augment=True)
        )
        losses, scores = [], []
        for images, first, second, in_buffer in DataLoader(
            data, self.batch_size, shuffle=True, num_workers=N_WORKERS
        ):
            targets = torch.stack(
                [
                    transform_labels_names_to_vector(
                        names, self.method.n_seen_classes, self.class_names_to_idx
                    )
                    for names in zip(first, second, strict=True)
                ]
            )
            predictions, loss = self.method.observe(images, targets, in_buffer)
            losses.append(loss)
            scores.append(jaccard_sim(predictions, targets.bool()))
            scores.append(modified_jaccard_sim(predictions, targets.bool()))
        return len(data)


def main(
    shards: Annotated[Path, typer.Argument(help="Shard folder of CIFAR-10.")],
    images: Annotated[int, typer.Option(help="Training images per class.")] = 1000,
    layers: Annotated[int, typer.Option(help="Layers of the ResNet.")] = 32,
    runs: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    compiled: Annotated[bool, typer.Option(help="Time torch.compile too.")] = False,
) -> None:
    """Measure, and print medians."""
    variants: dict[str, dict[str, str | bool]] = {
        "fp32": {"precision": "fp32"},
        "bf16": {"precision": "bf16"},
    }
    if compiled:
        variants |= {
            f"{name}, compiled": {**settings, "compile": True}
            for name, settings in variants.items()
        }
    for method in METHODS:
        ours = {
            name: Ours(
                ExperimentConfig.parse(
                    {
                        "benchmark": "iirc_cifar10",
                        "data": str(shards),
                        "method": method,
                        "n_layers": layers,
                        "n_memories_per_class": MEMORIES_PER_CLASS,
                        "samples_per_class": images,
                        "lr": 0.01,
                        "device": "cpu",
                        **settings,
                    }
                )
            )
            for name, settings in variants.items()
        }
        published = Published(ours["fp32"])
        choosing = interleaved(
            {
                "published": published.choose_memories,
                "ours": ours["fp32"].choose_memories,
            },
            runs if method == "icarl_cnn" else 1,
        )
        if method == "icarl_cnn":
            theirs, chosen = (timing.results[-1] for timing in choosing.values())
            equal = all(np.array_equal(a, b) for a, b in zip(chosen, theirs, strict=True))
            ratio = choosing["published"].median / choosing["ours"].median
            print(
                f"{method}: choosing memories {choosing['published'].median:.2f} s published, "
                f"{choosing['ours'].median:.2f} s ours: {ratio:.2f} times as fast, "
                f"{'the same' if equal else 'OTHER'} exemplars",
                flush=True,
            )
        contenders: dict[str, Published | Ours] = {"published": published, **ours}
        for name, contender in contenders.items():
            if name not in ("published", "fp32"):
                contender.choose_memories()
            contender.begin_task(1)
            contender.train_epoch()  # not timed: compiles the network, starts decoders
        timings = interleaved(
            {name: contender.train_epoch for name, contender in contenders.items()}, runs
        )
        speed = {name: timing.results[-1] / timing.median for name, timing in timings.items()}
        for name, images_per_second in speed.items():
            print(
                f"{method}: {name:15} {images_per_second:6.0f} images/s, "
                f"{images_per_second / speed['published']:.2f} times the published style",
                flush=True,
            )


if __name__ == "__main__":
    run_tool(main)
