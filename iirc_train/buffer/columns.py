"""Columns: tensors that a buffer keeps for each memory beside its image, such as logits."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from iirc_train.runtime.distributed import rank, world_size

DTYPES = {"float16": np.float16, "float32": np.float32}


class Column(NamedTuple):
    """A column that a method declares.

    Attributes:
        name: Its name, under which a draw delivers it.
        width: Largest number of values of a memory, such as the number of all classes.
        dtype: ``"float32"`` or ``"float16"``.
    """

    name: str
    width: int
    dtype: str = "float32"


class ColumnTables:
    """The columns of all memories, on the training device.

    A memory may have fewer values than a column is wide; those that it lacks are NaN. So logits are
    kept as they were when the memory was chosen, and classes that appeared later are NaN.

    Args:
        columns: The columns.
        n_slots: Number of slots.
        device: Where the tables are.
    """

    def __init__(self, columns: Sequence[Column], n_slots: int, device: torch.device) -> None:
        self._device = device
        self._tables = {
            column.name: torch.full(
                # the last row takes the values of samples that are not kept
                (n_slots + 1, column.width),
                torch.nan,
                dtype=getattr(torch, column.dtype),
                device=device,
            )
            for column in columns
        }

    def __bool__(self) -> bool:
        return bool(self._tables)

    def at(self, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the columns of memories, each (M, width).

        Args:
            slots: int64 (M,), on the device.
        """
        return {name: table.index_select(0, slots) for name, table in self._tables.items()}

    def put(
        self, slots: torch.Tensor, values: Mapping[str, torch.Tensor], sizes: Sequence[int]
    ) -> None:
        """Store the columns of a step's samples, without waiting for the device.

        Args:
            slots: int64 (B,), on the device: the slot of each sample of all processes; the number
                of slots for samples that are not kept.
            values: Of each column the values of this process's samples, (N, up to width).
            sizes: Number of samples of each process.
        """
        for name, table in self._tables.items():
            rows = _padded(values[name].detach().to(table.dtype), table.shape[1])
            table.index_copy_(0, slots, _of_all(rows, sizes))

    def read(self, slots: NDArray[np.int64]) -> dict[str, NDArray[np.floating]]:
        """Return the columns of memories on the host, each (N, width of the widest)."""
        index = torch.from_numpy(slots).to(self._device)
        found = {name: values.cpu().numpy() for name, values in self.at(index).items()}
        return {name: values[:, : _width(values)] for name, values in found.items()}

    def write(self, slots: NDArray[np.int64], values: Mapping[str, NDArray[np.floating]]) -> None:
        """Store columns that :meth:`read` returned.

        Raises:
            ValueError: They are not the columns of this table.
        """
        if values.keys() != self._tables.keys():
            raise ValueError(f"the columns are {sorted(values)}, expected {sorted(self._tables)}")
        index = torch.from_numpy(slots).to(self._device)
        for name, table in self._tables.items():
            rows = torch.from_numpy(values[name])
            if rows.dtype != table.dtype or rows.shape[1] > table.shape[1]:
                raise ValueError(
                    f"column {name} is {rows.dtype} {tuple(rows.shape)}, expected {table.dtype} "
                    f"with up to {table.shape[1]} values"
                )
            table.index_copy_(0, index, _padded(rows.to(self._device), table.shape[1]))


def _padded(rows: torch.Tensor, width: int) -> torch.Tensor:
    if rows.shape[1] == width:
        return rows
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=torch.nan)


def _width(values: NDArray[np.floating]) -> int:
    """Return the number of columns up to the last one that is not NaN everywhere."""
    used = np.flatnonzero(~np.isnan(values).all(axis=0))
    return int(used[-1]) + 1 if len(used) else 0


def _of_all(rows: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the rows of all processes, in order of rank."""
    if world_size() == 1:
        return rows
    most = max(sizes)
    own = torch.nn.functional.pad(rows, (0, 0, 0, most - sizes[rank()]))
    received = [torch.empty_like(own) for _ in sizes]
    torch.distributed.all_gather(received, own)
    return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)])
