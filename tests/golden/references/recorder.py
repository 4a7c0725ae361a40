"""Records what a reference implementation does in each step, without a change to its code.

It listens to ``Tensor.backward`` (the loss) and to the optimizers (a step). The batch is what the
driver announced last.
"""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.toy_problem import toy_images

State = dict[str, torch.Tensor]


class Recorder:
    """The steps of one task.

    Args:
        state: Returns the state of the network that learns, by the names of the README.

    Attributes:
        stage: Name of the stage that the next steps belong to.
    """

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self.stage = "main"
        self.begin_task()

    def begin_task(self) -> None:
        self.starts: dict[str, State] = {}
        self.steps: list[dict[str, Any]] = []
        self.without_step: list[list[int]] = []
        self._passes = 0
        self._coming: list[list[int]] = []
        self._begin_step()

    def _begin_step(self) -> None:
        self._draws: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._extra: dict[str, Any] = {}

    def begin_pass(self) -> None:
        """Note that a loader starts; passes without a step are not epochs."""
        self._passes += 1

    def batch(self, samples: list[int], in_buffer: list[int], **extra: Any) -> None:
        """Announce a batch of the training loader."""
        if self.stage not in self.starts:
            self.starts[self.stage] = self._state()
        if self._losses:
            self.without_step.append(self._samples)
        self._begin_step()
        self._samples, self._in_buffer, self._extra = samples, in_buffer, extra

    def batches(self, samples: list[int], batch_size: int) -> None:
        """Announce the batches of memories of the next steps."""
        self.starts.setdefault(self.stage, self._state())
        self.begin_pass()
        self._coming = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]

    def note(self, **extra: Any) -> None:
        """Note more about the step of the batch announced last."""
        self._extra.update(extra)

    def draw(self, **draw: Any) -> None:
        """Announce a draw of memories."""
        self._draws.append(draw)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A context in which every optimizer step is recorded."""
        backward = torch.Tensor.backward

        def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            self._losses.append(float(tensor))
            backward(tensor, *args, **kwargs)

        def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            if self._coming:
                self._samples = self._coming.pop(0)
                self._in_buffer = [1] * len(self._samples)
            self.steps.append(
                {
                    "stage": self.stage,
                    "pass": self._passes,
                    "samples": self._samples,
                    "in_buffer": self._in_buffer,
                    "draws": self._draws,
                    "lr": [group["lr"] for group in optimizer.param_groups],
                    "loss": self._losses[0],
                    **({"losses": self._losses} if len(self._losses) > 1 else {}),
                    **self._extra,
                    "after": self._state(),
                }
            )
            self._begin_step()

        hook = register_optimizer_step_post_hook(after_step)
        torch.Tensor.backward = noted  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.Tensor.backward = backward  # type: ignore[assignment]
            hook.remove()

    def task(self, **after: Any) -> dict[str, Any]:
        """Return the task; the state is kept after the first and the last step of each stage."""
        passes = [(step["stage"], step.pop("pass")) for step in self.steps]
        for number, step in enumerate(self.steps):
            of_stage = [n for n, (stage, _) in enumerate(passes) if stage == step["stage"]]
            own = sorted({passes[n][1] for n in of_stage})
            step["epoch"] = own.index(passes[number][1])
            if number not in (of_stage[0], of_stage[-1]):
                del step["after"]
        main = [step for step in self.steps if step["stage"] == "main" and "after" in step]
        training = {"after_training": main[-1]["after"]} if main else {}
        start = self.starts.pop("main")
        return {
            "start": start,
            "steps": self.steps,
            "stage_starts": self.starts,
            **training,
            **after,
        }


def sample_ids(images: torch.Tensor) -> list[int]:
    """Return the row of each image among the training images."""
    train = toy_images().train.flatten(1)
    return [int((train == image).all(dim=1).nonzero()) for image in images.flatten(1)]


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def save(path: Path, recording: dict[str, Any]) -> None:
    """Write a tree of plain values and float tensors; equal tensors are stored once."""
    values: list[np.ndarray] = []
    known: dict[bytes, int] = {}
    size = 0

    def plain(node: Any) -> Any:
        nonlocal size
        if isinstance(node, torch.Tensor):
            array = node.detach().numpy().astype(np.float32).ravel()
            key = array.tobytes()
            if key not in known:
                known[key] = size
                values.append(array)
                size += array.size
            return {"tensor": [known[key], *node.shape]}
        if isinstance(node, dict):
            return {str(key): plain(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [plain(value) for value in node]
        if isinstance(node, np.generic):
            return node.item()
        return node

    meta = json.dumps(plain(recording), separators=(",", ":")).encode()
    np.savez_compressed(path, meta=np.frombuffer(meta, np.uint8), values=np.concatenate(values))
