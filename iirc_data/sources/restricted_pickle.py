"""Reading CIFAR's pickles with an unpickler that can only build data."""

import pickle
import pickletools
import reprlib
from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iirc_data.definitions import PathLike
from iirc_data.errors import SourceError
from iirc_data.reading import read_regular

Scalar: TypeAlias = str | bytes | int | float | None
Value: TypeAlias = Scalar | list[Scalar] | NDArray[Any]

_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def load_cifar_pickle(path: PathLike) -> dict[bytes, Value]:
    """Read one file of ``cifar-100-python`` or ``cifar-10-batches-py``.

    The pickle can only build data. Of the globals that a pickle may name, only those that
    represent numpy arrays and byte strings are accepted, and stand-ins from this module replace
    them. The file cannot call a function of numpy or of any other module.

    Args:
        path: A pickle of Python 2 or 3, any protocol.

    Returns:
        Keys and text of Python 2 as bytes (``b"data"``, ``b"fine_labels"``); values are numbers,
        bytes, str, lists of these, and numeric arrays.

    Raises:
        SourceError: The file is missing or damaged, names another global, or contains other
            values; the message names the file and the global.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return parse_cifar_pickle(data, str(path))


def parse_cifar_pickle(data: bytes, where: str) -> dict[bytes, Value]:
    """Parse the content of a pickle; see :func:`load_cifar_pickle`. Errors start with ``where``."""
    try:
        _check_memo(data)
        content = _RestrictedUnpickler(BytesIO(data), encoding="bytes").load()
        if type(content) is not dict:
            raise SourceError(f"a {type(content).__name__} where CIFAR has a dict")
        return {_key(key): _value(value) for key, value in content.items()}
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error
    except Exception as error:  # a damaged pickle can raise almost any type
        raise SourceError(
            f"{where} is not a readable pickle of CIFAR ({type(error).__name__}: {error}): "
            "download it again"
        ) from error


def _check_memo(data: bytes) -> None:
    """Refuse memo indices beyond the number of opcodes, for which memory would be reserved."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in _MEMO_OPCODES and argument is not None and int(argument) > count:
            raise SourceError(f"memo entry {argument} after {count} opcodes: not a valid pickle")


def _key(key: Any) -> bytes:
    if type(key) not in (bytes, str):
        raise SourceError(f"a {type(key).__name__} as a key, expected text")
    return key.encode() if isinstance(key, str) else key


def _value(value: Any) -> Value:
    if isinstance(value, _PickledArray):
        return value.array
    scalars = value if type(value) in (list, tuple) else [value]
    for scalar in scalars:
        if type(scalar) not in (str, bytes, int, float, bool, type(None)):
            raise SourceError(f"a {type(scalar).__name__} where CIFAR has numbers and text")
    return list(value) if scalars is value else value


class _StandIn:
    """Replaces a global. A class, because BUILD would change the attributes of a function."""

    def __setstate__(self, state: Any) -> None:
        raise SourceError(f"state {reprlib.repr(state)} for an object that has none")


class _PickledDtype(_StandIn):
    """Replaces ``numpy.dtype``; accepts numeric dtypes only."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
        if self.dtype.kind not in "biuf":
            raise SourceError(f"an array of dtype {self.dtype}, expected numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Ndarray(_StandIn):
    """Replaces ``numpy.ndarray``, which a pickle may name but not call."""

    def __init__(self, *_: Any) -> None:
        raise SourceError("an array made by calling numpy.ndarray")


class _PickledArray(_StandIn):
    """Replaces ``numpy.core.multiarray._reconstruct``: an array whose content follows later."""

    def __init__(self, array_type: Any, *_: Any) -> None:
        if array_type is not _Ndarray:
            raise SourceError(
                f"an array of type {reprlib.repr(array_type)}, expected numpy.ndarray"
            )
        self.array: NDArray[Any] = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self._fill(data, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(data, bytes | bytearray) or type(dtype) is not _PickledDtype:
            raise SourceError(f"an array of {type(data).__name__} and {reprlib.repr(dtype)}")
        if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
            raise SourceError(f"an array of shape {reprlib.repr(shape)}")
        if prod(shape) * dtype.dtype.itemsize != len(data):
            raise SourceError(f"an array of shape {shape} and {dtype.dtype} in {len(data)} bytes")
        flat = np.frombuffer(bytes(data), dtype.dtype)
        self.array = flat.reshape(shape, order="F" if order in ("F", b"F") else "C").copy()


class _PickledArrayFromBuffer(_PickledArray):
    """Replaces ``numpy.core.numeric._frombuffer``, which represents arrays in protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> None:
        self._fill(data, dtype, shape, order)

    def __setstate__(self, state: Any) -> NoReturn:
        raise SourceError("an array with two contents")


class _EncodedText(_StandIn):
    """Replaces ``_codecs.encode``, which represents bytes of Python 3 in protocols up to 2."""

    def __new__(cls, text: str, encoding: str | bytes) -> Any:
        if encoding not in ("latin1", b"latin1"):
            raise SourceError(f"text in encoding {reprlib.repr(encoding)}, expected latin1")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.numeric", "_frombuffer"): _PickledArrayFromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _PickledArrayFromBuffer,
    ("_codecs", "encode"): _EncodedText,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise SourceError(
                f"names the global {module}.{name}, which no CIFAR file needs: do not trust it"
            ) from None
