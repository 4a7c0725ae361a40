"""The methods. A new one is a file here and a line in :data:`METHODS`."""

from typing import NamedTuple

from iirc_data.errors import ConfigurationError
from iirc_train.buffer import BufferBase
from iirc_train.methods import finetune, icarl_cnn
from iirc_train.methods.base_method import BaseMethod


class MethodParts(NamedTuple):
    """What makes up a method: its model, and the buffer that chooses its memories."""

    model: type[BaseMethod]
    buffer: type[BufferBase]


METHODS = {
    "finetune": MethodParts(finetune.Model, finetune.Buffer),
    "icarl_cnn": MethodParts(icarl_cnn.Model, icarl_cnn.Buffer),
}


def get_method(name: str) -> MethodParts:
    """Return a method by name.

    Raises:
        ConfigurationError: There is no such method.
    """
    if name not in METHODS:
        raise ConfigurationError(f"there is no method {name!r}: choose {', '.join(METHODS)}")
    return METHODS[name]
