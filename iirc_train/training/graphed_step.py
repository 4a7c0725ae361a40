"""The training step as a graph: captured once, then replayed, so that Python launches no kernel."""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Batch
from iirc_train.methods.base_method import BaseMethod

Outputs = tuple[torch.Tensor, torch.Tensor]
"""Predictions and loss of a step."""

TrainingStep = Callable[[Batch], Outputs]
"""Learns from a batch; see :meth:`~iirc_train.methods.base_method.BaseMethod.training_step`."""

WARM_UP_STEPS = 3
"""Steps before a capture: they create optimizer state and workspaces, and time convolutions."""


class Capture(Protocol):
    """A way to capture a step, which takes no arguments and always uses the same tensors."""

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        """Run the step as it will be captured, but without capturing it."""

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Capture the step, which is not executed.

        Returns:
            A function that executes the captured kernels. It returns the same tensors each time,
            and overwrites their values.
        """


class CudaCapture:
    """Captures a step in a CUDA graph.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        """Run the step on the stream of the capture, for which libraries create workspaces."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = step()
        current.wait_stream(self._stream)
        return outputs

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Capture the step; threads that decode or write meanwhile do not disturb it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            outputs = step()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay


class GraphedStep:
    """A method's training step, captured for full batches.

    Each batch is copied into the tensors that the graph reads. The first :data:`WARM_UP_STEPS`
    full batches are learned step by step, on these tensors; then the step is captured. It is
    captured again when something changes that the graph contains: the task, the branches that the
    step takes, the learning rate or another value of the optimizer, the networks, or the place of a
    parameter. Batches of another size, such as the last one of an epoch, are learned step by step;
    they train the same parameters.

    Args:
        method: The method, on the device of the batches.
        batch_size: Number of samples of a full batch.
        capture: Captures steps.
    """

    def __init__(self, method: BaseMethod, batch_size: int, capture: Capture) -> None:
        self._method = method
        self._batch_size = batch_size
        self._capture = capture
        self.release()

    def release(self) -> None:
        """Free the graph and its memory; the next step starts over."""
        self._replay: Callable[[], Outputs] | None = None
        self._inputs: Batch | None = None
        self._contained: list[Any] = []
        self._n_warm_ups = 0

    def __call__(self, batch: Batch) -> Outputs:
        """Learn from a batch; see :meth:`BaseMethod.training_step`.

        Raises:
            ConfigurationError: The step cannot be captured.
        """
        if len(batch) != self._batch_size:
            return self._method.training_step(batch)
        contained = _contained(self._method, batch)
        if self._inputs is None or contained != self._contained:
            self.release()  # the former graph's memory is free before the next one needs its own
            self._contained = contained
            self._inputs = _static(batch)
        _copy(batch, self._inputs)
        outputs = self._run()
        return outputs[0].clone(), outputs[1].clone()  # the next replay overwrites them

    def _run(self) -> Outputs:
        if self._n_warm_ups < WARM_UP_STEPS:
            self._n_warm_ups += 1
            return self._capture.warm_up(self._step)
        if self._replay is None:
            try:
                self._replay = self._capture.record(self._step)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                cause = str(error).partition("\n")[0]
                raise ConfigurationError(
                    f"the training step of {type(self._method).__module__} cannot be captured in a "
                    f"CUDA graph ({cause}): give --graph off"
                ) from error
        return self._replay()

    def _step(self) -> Outputs:
        assert self._inputs is not None
        return self._method.training_step(self._inputs)


def _contained(method: BaseMethod, batch: Batch) -> list[Any]:
    """Return everything that a captured step contains and that may change between two steps."""
    groups = method.opt.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    return [
        [(t.shape, t.stride(), t.dtype) for t in (batch.images, batch.targets, batch.in_buffer)],
        (batch.share, method.cur_task_id, method.n_seen_classes, method.training),
        method.step_variant,
        method.autocast_dtype,
        [method.opt, *method.modules_of_step],
        [[(name, v) for name, v in group.items() if name != "params"] for group in groups],
        [(parameter.data_ptr(), parameter.requires_grad) for parameter in parameters],
    ]


def _static(batch: Batch) -> Batch:
    return Batch(
        torch.empty_like(batch.images),
        torch.empty_like(batch.targets),
        torch.empty_like(batch.in_buffer),
        batch.sample_ids,
        batch.share,
    )


def _copy(batch: Batch, target: Batch) -> None:
    target.images.copy_(batch.images)
    target.targets.copy_(batch.targets)
    target.in_buffer.copy_(batch.in_buffer)
