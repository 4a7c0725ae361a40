"""Checkpoints: what a run needs to go on, in one file of plain tensors and plain values."""

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
    """Write a checkpoint; a file of that name is replaced once the new one is on the disk.

    Args:
        path: The file.
        state: Tensors and plain values.

    Raises:
        CheckpointError: It cannot be written, or holds something that is neither a tensor nor a
            plain value; the message says where.
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
            f"cannot write {path}: {error.strerror or error}; once that is mended, resume the run"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing but tensors and plain values is ever built from it.

    Args:
        path: The file. Its tensors come on the CPU.

    Raises:
        CheckpointError: The file cannot be read, or is no checkpoint of this version.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        state = _load(file, str(path))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of a run")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is of checkpoint version {state.get('version')!r}, expected {VERSION}: "
            "resume it with the release that wrote it"
        )
    return state


@contextmanager
def taking_over(path: Path) -> Iterator[None]:
    """Turn what a state of another form than ours raises into a :class:`CheckpointError`.

    Args:
        path: The checkpoint that the state is from.
    """
    try:
        yield
    except IIRCError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not hold the state of a run: {type(error).__name__}: {error}"
        ) from error


def _load(source: BinaryIO, name: str) -> Any:
    try:
        _check_sums(source)
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name} is damaged, or holds more than tensors and plain values: {error}"
        ) from error
    except Exception as error:  # PyTorch raises many types on damaged files
        raise CheckpointError(f"{name} is damaged: {error}") from error


def _check_sums(source: BinaryIO) -> None:
    """Compare the parts of the file with their checksums, which PyTorch leaves unread.

    Raises:
        ValueError: A part was altered, or is compressed, so that it might blow up.
        BadZipFile: The file is damaged.
    """
    with ZipFile(source) as archive:
        if any(part.compress_type != ZIP_STORED for part in archive.infolist()):
            raise ValueError("a part of it is compressed")
        if altered := archive.testzip():
            raise ValueError(f"{altered} does not fit its checksum")
    source.seek(0)


def _check_plain(value: Any, where: str) -> None:
    # by exact type: NumPy's float64 is a float too, and is not loaded with weights_only
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
            f"{where} is a {kind}, more than tensors and plain values: only tensors, numbers, "
            "text, lists, tuples, sets and dictionaries can be saved; give a tensor for an array, "
            ".item() for a NumPy number"
        )
