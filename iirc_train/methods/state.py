"""The state of a method, for checkpoints: saving and loading."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from iirc_data.errors import CheckpointError
from iirc_train.methods.step_warmup import StepWarmup


class Learner(Protocol):
    """A method, as far as its state is concerned: a module, its optimizer and its scheduler."""

    method_variables: tuple[str, ...]
    opt: optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau
    warmup: StepWarmup
    cur_task_id: int
    stages_run: list[list[int]]

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""

    def prepare_model_for_new_task(self) -> None:
        """Start the next task."""

    def repeat_stages(self, prepared: int, finished: int) -> None:
        """Prepare and finish stages of the current task without data."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return parameters and buffers."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> object:
        """Load parameters and buffers."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Iterate over the module and all modules in it."""


def method_state(method: Learner) -> dict[str, Any]:
    """Return the state of a method as plain values and tensors, which are not copied."""
    state = {
        "cur_task_id": method.cur_task_id,
        "modules": method.state_dict(),
        "optimizer": method.opt.state_dict(),
        "scheduler": _plain(method.scheduler.state_dict()),
        "variables": {name: getattr(method, name) for name in method.method_variables},
    }
    if any(map(any, method.stages_run)):  # other methods write what earlier releases read
        state["stages"] = [list(run) for run in method.stages_run]
    if method.warmup.n_steps:
        state["warmup_steps"] = method.warmup.n_done
    return state


def load_method_state(method: Learner, state: dict[str, Any]) -> None:
    """Load a state.

    Starting the same tasks and their stages again creates the teacher, the grown heads and the
    frozen parameters; then every value is overwritten.

    Args:
        method: A new method, created with the same arguments as the saved one.
        state: A state from :func:`method_state`. Between tasks, ``optimizer`` may be None: the
            next task starts with a new one anyway.

    Raises:
        CheckpointError: The method has already learned, or the state does not fit it.
    """
    if method.cur_task_id != -1:
        raise CheckpointError(
            f"the method is already at task {method.cur_task_id}: load a state into a new method"
        )
    try:
        n_tasks = state["cur_task_id"] + 1
        for prepared, finished in state.get("stages", [[0, 0]] * n_tasks):
            method.prepare_model_for_new_task()
            method.repeat_stages(prepared, finished)
        _make_room(method, state["modules"])
        method.load_state_dict(state["modules"])
        if state["optimizer"] is not None:
            method.opt.load_state_dict(state["optimizer"])
            method.scheduler.load_state_dict(state["scheduler"])
            method.warmup.n_done = int(state.get("warmup_steps", 0))
        for name, value in state["variables"].items():
            setattr(method, name, _on(method.device, value))
    except (LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the state does not fit the method, network or number of tasks: {error}"
        ) from error


def _make_room(method: Learner, values: dict[str, torch.Tensor]) -> None:
    """Give buffers that may be None the shapes that they have in a state."""
    for prefix, module in method.named_modules():
        for name in module._buffers.keys() - module._non_persistent_buffers_set:
            value = values.get(f"{prefix}.{name}" if prefix else name)
            if value is not None and (not prefix or module._buffers[name] is None):
                setattr(module, name, torch.empty_like(value, device=method.device))
            elif not prefix:  # the method itself
                setattr(module, name, None)


def _on(device: torch.device, value: Any) -> Any:
    """Return a plain value with all tensors in it moved to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on(device, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(device, item) for item in value)
    return value


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return a scheduler's state with subclasses of dict (a Counter of epochs) as plain dicts."""
    return {
        name: dict(value) if isinstance(value, dict) else value for name, value in state.items()
    }
