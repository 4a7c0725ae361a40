"""The published ``save_model`` and ``load_model``: the state of an experiment in one file."""

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
    """Save the state of an experiment. Read it with ``torch.load(save_file, weights_only=True)``.

    An existing file is replaced only after the new one is on disk.

    Args:
        save_file: The file.
        config: The experiment's configuration, typed or a plain mapping.
        metadata: The experiment's metadata.
        model: The method to save.
        buffer: The buffer to save: its state says which memories are in use. The memories
            themselves stay in its ``buffer_dir``.
        datasets: The datasets to save, by split.
        **kwargs: Further values to save, by name.

    Raises:
        CheckpointError: A value is neither a tensor nor plain (the message says which), a name in
            ``kwargs`` is reserved, or the file cannot be written.
    """
    for name in RESERVED:
        if name in kwargs:
            raise CheckpointError(f"the file format reserves the name {name!r}: choose another one")
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
    """Load the states of a method, a buffer and datasets.

    Args:
        checkpoint: The result of ``torch.load`` for a file from :func:`save_model`.
        model: A new method, created with the same arguments as the saved one.
        buffer: A buffer with the ``buffer_dir`` of the saved one.
        datasets: Datasets with the samples and tasks of the saved ones, by split.

    Raises:
        CheckpointError: The checkpoint lacks a requested state (nothing is loaded then), or the
            state does not fit the method.
        BufferStorageError: Memories are missing from the buffer's folder.
        BenchmarkError: The state of a dataset belongs to other samples or tasks.
    """
    wanted = {"model": model, "buffer": buffer, "datasets": datasets}
    missing = [name for name, part in wanted.items() if part is not None and name not in checkpoint]
    if datasets is not None and not missing:
        saved = checkpoint["datasets"]
        missing = [f"dataset {split!r}" for split in datasets if split not in saved]
    if missing:
        raise CheckpointError(
            f"the checkpoint has no state of {', '.join(missing)}: it contains "
            f"{', '.join(map(str, checkpoint))}"
        )
    if model is not None:
        model.load_method_state_dict(checkpoint["model"])
    if buffer is not None:
        buffer.load_buffer_state_dict(checkpoint["buffer"])
    for split, dataset in (datasets or {}).items():
        dataset.load_dataset_state_dict(checkpoint["datasets"][split])
