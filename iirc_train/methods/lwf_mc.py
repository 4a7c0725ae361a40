"""LwF-MC: the multi-class baseline of iCaRL's paper, distillation without exemplars."""

from iirc_train.buffer import RandomBuffer
from iirc_train.config.experiment import MethodConfig
from iirc_train.methods import icarl_cnn

Buffer = RandomBuffer


class Model(icarl_cnn.Model):
    """Learns with iCaRL's loss, and predicts by the output layer.

    Rebuffi et al., "iCaRL: Incremental classifier and representation learning" (CVPR 2017),
    section 4, where it is the multi-class form of Li and Hoiem's "Learning without forgetting": the
    binary cross-entropy of algorithm 3, with the sigmoid outputs of the network before the task as
    targets of the earlier classes, but without exemplars. In the paper, the loss is a sum over
    classes; here it is their mean, as in the authors' program and in Mammoth.

    The loss is binary, so several labels per sample work. It has no form ``ce``: that of
    :mod:`~iirc_train.methods.lwf` is one. With memories, which are chosen at random, it learns them
    like samples of the task, as :mod:`~iirc_train.methods.icarl_cnn` does.
    """

    class Config(MethodConfig):
        """LwF-MC has no settings of its own."""

    config: Config  # type: ignore[assignment]
    capturable = True
    losses = ("bce",)
