"""Checks of methods, for tests. None needs data or a GPU."""

from iirc_train.testing.made_up import N_CLASSES, MadeUpRun
from iirc_train.testing.waiting import WaitsForDeviceError, check_never_waits

__all__ = ["N_CLASSES", "MadeUpRun", "WaitsForDeviceError", "check_never_waits"]
