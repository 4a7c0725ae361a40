"""``save_model`` and ``load_model``, as published: an experiment's state in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from iirc_data.errors import CheckpointError
from iirc_data.lifelong_dataset.base_dataset import BaseDataset
from iirc_train.config.settings import Settings
from iirc_train.run.checkpoint import save_checkpoint

RESERVED = ("format", "version")


class _Method(Protocol):
    def method_state_dict(self) -> dict[str, Any]: ...
    def load_method_state_dict(self, state_dicts: dict[str, Any]) -> None: ...


class _Buffer(Protocol):
    def buffer_state_dict(self) -> dict[str, Any]: ...
    def load_buffer_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def save_model(
    save_file: str | Path,
    config: Mapping[str, Any] | Settings,
    metadata: Mapping[str, Any],
    model: _Method | None = None,
    buffer: _Buffer | None = None,
    datasets: Mapping[str, BaseDataset] | None = None,
    **kwargs: Any,
) -> None:
    """Save an experiment's state; ``torch.load(save_file, weights_only=True)`` reads it.

    A file of that name is replaced once the new one is on the disk.

    Args:
        save_file: The file.
        config: The experiment's configuration, typed or a plain mapping.
        metadata: The experiment's metadata.
        model: The method whose state is saved.
        buffer: The buffer whose state is saved: which memories count. The memories themselves
            stay in its ``buffer_dir``.
        datasets: The datasets whose states are saved, by split.
        **kwargs: Whatever else is to be saved, under its name.

    Raises:
        CheckpointError: Something is neither a tensor nor a plain value (the message says where),
            a name in ``kwargs`` is taken, or the file cannot be written.
    """
    for name in RESERVED:
        if name in kwargs:
            raise CheckpointError(f"{name!r} is a name of the file format: choose another one")
    state: dict[str, Any] = {
        "config": config.values() if isinstance(config, Settings) else dict(config),
        "metadata": dict(metadata),
        **kwargs,
    }
    if model is not None:
        state["model"] = model.method_state_dict()
    if buffer is not None:
        state["buffer"] = buffer.buffer_state_dict()
    if datasets is not None:
        state["datasets"] = {
            split: dataset.dataset_state_dict() for split, dataset in datasets.items()
        }
    save_checkpoint(Path(save_file), state)


def load_model(
    checkpoint: Mapping[str, Any],
    model: _Method | None = None,
    buffer: _Buffer | None = None,
    datasets: Mapping[str, BaseDataset] | None = None,
) -> None:
    """Load the states of model, buffer and datasets.

    Args:
        checkpoint: What ``torch.load`` gives for a file of :func:`save_model`.
        model: A new method, made as the saved one was.
        buffer: A buffer over the saved one's ``buffer_dir``.
        datasets: Datasets over the saved ones' samples and tasks, by split.

    Raises:
        CheckpointError: The checkpoint lacks a state that is asked for (nothing is loaded then),
            or the method's state does not fit.
        BufferStorageError: The buffer's folder lacks the memories.
        BenchmarkError: A dataset's state is of other samples or tasks.
    """
    wanted = {"model": model, "buffer": buffer, "datasets": datasets}
    missing = [name for name, part in wanted.items() if part is not None and name not in checkpoint]
    if datasets is not None and not missing:
        saved = checkpoint["datasets"]
        missing = [f"dataset {split!r}" for split in datasets if split not in saved]
    if missing:
        raise CheckpointError(
            f"the checkpoint holds no state of {', '.join(missing)}: it holds "
            f"{', '.join(map(str, checkpoint))}"
        )
    if model is not None:
        model.load_method_state_dict(checkpoint["model"])
    if buffer is not None:
        buffer.load_buffer_state_dict(checkpoint["buffer"])
    for split, dataset in (datasets or {}).items():
        dataset.load_dataset_state_dict(checkpoint["datasets"][split])
