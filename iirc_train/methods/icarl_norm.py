"""iCaRL-norm: iCaRL-CNN with a cosine output layer."""

from typing import Any

from torch import nn

from iirc_train.buffer import HerdingBuffer
from iirc_train.methods import icarl_cnn
from iirc_train.models.cosine_linear import grow_cosine_layer, with_cosine_layer

Buffer = HerdingBuffer


class Model(icarl_cnn.Model):
    """Learns as :class:`icarl_cnn.Model` does; the layer grows with each task.

    Abdelsalam et al., "IIRC: Incremental implicitly-refined classification" (CVPR 2021),
    section 5. At a new task the layer splits in earlier and new classes, and its scale begins
    at 1 again.
    """

    def _with_first_head(self, net: nn.Module) -> nn.Module:
        return with_cosine_layer(net, self.n_cla_per_tsk[0])

    def _prepare_model_for_new_task(self, *args: Any, **kwargs: Any) -> None:
        super()._prepare_model_for_new_task(*args, **kwargs)  # copies the teacher
        if self.cur_task_id > 0:
            grow_cosine_layer(self.net, self.n_cla_per_tsk[self.cur_task_id])
