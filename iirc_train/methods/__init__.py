"""The methods. Adding one takes a file here and a line in :data:`METHODS`."""

from typing import NamedTuple

from iirc_train.buffer import BufferBase
from iirc_train.config.experiment import MethodConfig
from iirc_train.config.own_settings import check_method
from iirc_train.methods import (
    agem,
    bic,
    der,
    der_expandable,
    der_plus_plus,
    er,
    er_ace,
    ewc_online,
    finetune,
    foster,
    gdumb,
    icarl,
    icarl_cnn,
    icarl_norm,
    lucir,
    lwf,
    lwf_mc,
    mask_seen_classes,
    podnet,
    si,
    wa,
)
from iirc_train.methods.base_method import BaseMethod


class MethodParts(NamedTuple):
    """The parts of a method: its model, and the buffer that chooses its memories."""

    model: type[BaseMethod]
    buffer: type[BufferBase]

    @property
    def config(self) -> type[MethodConfig]:
        """The class of the method's settings."""
        return self.model.Config


METHODS = {
    "agem": MethodParts(agem.Model, agem.Buffer),
    "bic": MethodParts(bic.Model, bic.Buffer),
    "der": MethodParts(der.Model, der.Buffer),
    "der_expandable": MethodParts(der_expandable.Model, der_expandable.Buffer),
    "der_plus_plus": MethodParts(der_plus_plus.Model, der_plus_plus.Buffer),
    "er": MethodParts(er.Model, er.Buffer),
    "er_ace": MethodParts(er_ace.Model, er_ace.Buffer),
    "ewc_online": MethodParts(ewc_online.Model, ewc_online.Buffer),
    "finetune": MethodParts(finetune.Model, finetune.Buffer),
    "foster": MethodParts(foster.Model, foster.Buffer),
    "gdumb": MethodParts(gdumb.Model, gdumb.Buffer),
    "icarl": MethodParts(icarl.Model, icarl.Buffer),
    "icarl_cnn": MethodParts(icarl_cnn.Model, icarl_cnn.Buffer),
    "icarl_norm": MethodParts(icarl_norm.Model, icarl_norm.Buffer),
    "lucir": MethodParts(lucir.Model, lucir.Buffer),
    "lwf": MethodParts(lwf.Model, lwf.Buffer),
    "lwf_mc": MethodParts(lwf_mc.Model, lwf_mc.Buffer),
    "mask_seen_classes": MethodParts(mask_seen_classes.Model, mask_seen_classes.Buffer),
    "podnet": MethodParts(podnet.Model, podnet.Buffer),
    "si": MethodParts(si.Model, si.Buffer),
    "wa": MethodParts(wa.Model, wa.Buffer),
}


def get_method(name: str) -> MethodParts:
    """Return a method by name.

    Raises:
        ConfigurationError: No method has this name.
    """
    check_method(name, METHODS)
    return METHODS[name]
