"""Checkpoints: the state that a run resumes from, one file of tensors and plain values."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

import torch

from iirc_data.errors import CheckpointError, IIRCError
from iirc_data.files import write_atomically

FORMAT = "iirc-checkpoint"
VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, replacing an existing file only once the new one is on disk.

    Args:
        path: The file.
        state: Tensors and plain values.

    Raises:
        CheckpointError: The file cannot be written, or the state contains something other than
            tensors and plain values; the message says where.
    """
    for name, value in state.items():
        _check_plain(value, name)
    content = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **state}, content)
    try:
        with write_atomically(path) as file:
            file.write(content.getbuffer())
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; fix this, then resume the run"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are ever constructed from it.

    Args:
        path: The file. Its tensors are loaded onto the CPU.

    Raises:
        CheckpointError: The file cannot be read, or is not a checkpoint of this version.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        state = _load(file, str(path))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of a run")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {state.get('version')!r}, expected {VERSION}: resume "
            "the run with the release that wrote it"
        )
    return state


@contextmanager
def taking_over(path: Path) -> Iterator[None]:
    """Turn the errors that a malformed state causes into a :class:`CheckpointError`.

    Args:
        path: The checkpoint that the state comes from.
    """
    try:
        yield
    except IIRCError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not contain the state of a run: {type(error).__name__}: {error}"
        ) from error


def _load(source: BinaryIO, name: str) -> Any:
    try:
        _check_sums(source)
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name} is damaged, or contains more than tensors and plain values: {error}"
        ) from error
    except Exception as error:  # PyTorch raises many exception types on damaged files
        raise CheckpointError(f"{name} is damaged: {error}") from error


def _check_sums(source: BinaryIO) -> None:
    """Verify the checksums of the file's members, which PyTorch does not.

    Raises:
        ValueError: A member was altered, or is compressed and so could expand without limit.
        BadZipFile: The file is damaged.
    """
    with ZipFile(source) as archive:
        if any(part.compress_type != ZIP_STORED for part in archive.infolist()):
            raise ValueError("a member of it is compressed")
        if altered := archive.testzip():
            raise ValueError(f"{altered} does not match its checksum")
    source.seek(0)


def _check_plain(value: Any, where: str) -> None:
    # compare exact types: NumPy's float64 is a subclass of float that weights_only does not load
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return
    if type(value) in (torch.Tensor, torch.nn.Parameter, torch.device, torch.dtype, torch.Size):
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple, set):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]")
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise CheckpointError(
            f"{where} is a {kind}, which a checkpoint cannot contain: only tensors, numbers, text, "
            "lists, tuples, sets and dictionaries can be saved; convert an array to a tensor, a "
            "NumPy number with .item()"
        )
