"""iCaRL-norm: iCaRL-CNN with a cosine output layer."""

from typing import Any

from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.methods import icarl_cnn
from iirc_train.models.cosine_linear import grow_cosine_layer, with_cosine_layer

Buffer = HerdingBuffer


class Model(icarl_cnn.Model):
    """Learns like :class:`icarl_cnn.Model`; the cosine layer grows with each task.

    Abdelsalam et al., "IIRC: Incremental implicitly-refined classification" (CVPR 2021),
    section 5. At each new task, the layer is split into earlier and new classes, and its scale is
    reset to 1.
    """

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return with_cosine_layer(net, self.n_cla_per_tsk[0])

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        super()._prepare_model_for_new_task(*args, **kwargs)  # copies the network first
        if self.cur_task_id > 0:
            grow_cosine_layer(self.net, self.n_cla_per_tsk[self.cur_task_id])
