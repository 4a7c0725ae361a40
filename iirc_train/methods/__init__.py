"""The methods. Adding one takes a file here and a line in :data:`NAMES`."""

from importlib import import_module
from typing import NamedTuple

from iirc_train.buffer import BufferBase
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.own_settings import check_method
from iirc_train.methods.base_method import BaseMethod


class MethodParts(NamedTuple):
    """The parts of a method: its model, and the buffer that chooses its memories."""

    model: type[BaseMethod]
    buffer: type[BufferBase]

    @property
    def config(self) -> type[MethodConfig]:
        """The class of the method's settings."""
        return self.model.Config


NAMES = (
    "agem",
    "bic",
    "der",
    "der_expandable",
    "der_plus_plus",
    "er",
    "er_ace",
    "ewc_online",
    "fecam",
    "finetune",
    "foster",
    "gdumb",
    "icarl",
    "icarl_cnn",
    "icarl_norm",
    "knn",
    "linear_probe",
    "lucir",
    "lwf",
    "lwf_mc",
    "mask_seen_classes",
    "mtkd",
    "pl_fms",
    "podnet",
    "ranpac",
    "si",
    "simplecil",
    "slda",
    "wa",
)
"""The methods, each named after its module."""


def _parts(name: str) -> MethodParts:
    module = import_module(f"{__name__}.{name}")
    return MethodParts(module.Model, module.Buffer)


METHODS = {name: _parts(name) for name in NAMES}
"""The parts of each method by its name. Scripts can add methods of their own."""


def get_method(name: str) -> MethodParts:
    """Return a method by name.

    Raises:
        ConfigurationError: No method has this name.
    """
    check_method(name, METHODS)
    return METHODS[name]
