"""Slots: the numbers of memories."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Slots:
    """Numbers memories class after class; within a class, the most important memory comes first.

    Args:
        counts: Number of memories of each class, in the order of the classes.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._names = list(counts)
        self._numbers = {name: number for number, name in enumerate(counts)}
        self._ends = np.cumsum([0, *counts.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def class_number(self, class_name: str) -> int:
        """Return the number of a class, counted from 0.

        Raises:
            KeyError: The class does not exist.
        """
        return self._numbers[class_name]

    def of_class(self, class_name: str) -> NDArray[np.int64]:
        """Return the slots of a class, int64.

        Raises:
            KeyError: The class does not exist.
        """
        number = self._numbers[class_name]
        return np.arange(self._ends[number], self._ends[number + 1])

    def locate(self, slot: int) -> tuple[str, int]:
        """Return the class of a slot, and the number of the memory within the class.

        Raises:
            IndexError: The slot does not exist.
        """
        if not 0 <= slot < len(self):
            raise IndexError(f"there is no memory {slot}: the buffer has {len(self)}")
        number = int(np.searchsorted(self._ends, slot, side="right")) - 1
        return self._names[number], slot - int(self._ends[number])
