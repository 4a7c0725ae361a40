"""A stand-in for a CUDA graph on the CPU: it records a step's kernels, and executes them again.

Like a graph, it contains the numbers and the places of the tensors that the step used when it was
recorded, and runs no Python of the step. It refuses what a graph refuses: waiting for a value.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"}


def is_view(function) -> bool:
    """Whether all outputs of an operator are views of its inputs, and it writes nothing."""
    returns = function._schema.returns
    aliases = [r.alias_info for r in returns]
    return bool(returns) and all(alias and not alias.is_write for alias in aliases)


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernels = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        if name in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        outputs = function(*args, **(kwargs or {}))
        if not is_view(function) and not name.startswith("_record_function"):
            # detached, so that the recording keeps no autograd graph
            args, kwargs, kept = tree_map_only(
                torch.Tensor, torch.Tensor.detach, (args, kwargs or {}, outputs)
            )
            self.kernels.append((function, args, kwargs, kept))
        return outputs


class TapeCapture:
    """Counts warm-ups and recordings; the first replay is the step that was recorded."""

    def __init__(self) -> None:
        self.n_warm_ups = self.n_recordings = self.n_replays = 0

    def warm_up(self, step):
        self.n_warm_ups += 1
        return step()

    def record(self, step):
        self.n_recordings += 1
        with Recording() as recording:
            outputs = step()
        is_first = True

        def replay():
            nonlocal is_first
            self.n_replays += 1
            if not is_first:
                execute(recording.kernels)
            is_first = False
            return outputs

        return replay


@torch.no_grad()
def execute(kernels) -> None:
    """Execute kernels again, and write their results to the tensors of the recording."""
    for function, args, kwargs, outputs in kernels:
        found = function(*args, **kwargs)
        for new, old in zip(tree_flatten(found)[0], tree_flatten(outputs)[0], strict=True):
            if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
                old.copy_(new)
