"""Number of operations that a training step issues, for each method and precision.

    python -m benchmarks.operations [METHOD ...]

On a GPU, every operation but a view launches at least one kernel, and a small network is bound by
these launches. The count needs no GPU: it is of a step on the CPU, in the second task, with a
teacher or memories where the method has them. The optimizer updates all parameters at once, as it
does on a GPU. ``tests/test_launches.py`` keeps the totals within a budget.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from iirc_data.console import run_tool
from iirc_data.loader import Batch
from iirc_train.methods import METHODS, get_method
from iirc_train.models import ResNetCIFAR
from iirc_train.testing import N_CLASSES, MadeUpRun

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
STAGES = ("network", "teacher", "backward", "optimizer", "other")
"""Stages of a step; "other" is loss, prediction, metrics, and changes of the gradient."""

_WITHOUT_KERNEL = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "prim.", "profiler.")


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that launch a kernel on a GPU.

    Attributes:
        counts: Number of operations by stage and name.
        stage: The current stage.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[tuple[str, str]] = Counter()
        self.stage = "other"

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count an operation, and run it."""
        if not func.is_view and not str(func).startswith(_WITHOUT_KERNEL):
            self.counts[self.stage, str(func)] += 1
        return func(*args, **(kwargs or {}))

    def in_stage(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose operations belong to a stage."""

        def staged(*args: Any, **kwargs: Any) -> Any:
            before, self.stage = self.stage, stage
            try:
                return function(*args, **kwargs)
            finally:
                self.stage = before

        return staged

    def by_stage(self) -> dict[str, int]:
        """Return the number of operations of each stage."""
        return {
            stage: sum(n for (of, _), n in self.counts.items() if of == stage) for stage in STAGES
        }


def operations_of_steps(method: str, n_layers: int = 32, **settings: Any) -> dict[str, Operations]:
    """Count the operations of a training step of the second task, in each precision.

    Args:
        method: Name of the method.
        n_layers: Layers of the network, a :class:`ResNetCIFAR`.
        **settings: Settings of the method.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of a batch this small only wait for each other
    try:
        net = ResNetCIFAR(N_CLASSES, n_layers)
        run = MadeUpRun(get_method(method).model, net, batch_size=2, **settings)
        run.train(run.begin_task())
        run.end_task()
        batch = run.begin_task()
        for group in run.method.opt.param_groups:
            group["foreach"] = True
        run.train(batch)  # the optimizer gets a state
        return {precision: _operations_of_step(run, batch, precision) for precision in PRECISIONS}
    finally:
        torch.set_num_threads(threads)


def _operations_of_step(run: MadeUpRun, batch: Batch, precision: str) -> Operations:
    learner, counted = run.method, Operations()
    learner.autocast_dtype = PRECISIONS[precision]
    with ExitStack() as stack:
        for owner, name, stage in (
            (learner, "forward_net", "network"),
            (learner, "forward_net_with_maps", "network"),
            (learner, "forward_old_net", "teacher"),
            (learner, "forward_old_net_with_maps", "teacher"),
            (learner, "_backward", "backward"),
            (learner.opt, "step", "optimizer"),
        ):
            staged = counted.in_stage(stage, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, staged))
        stack.enter_context(counted)
        run.train(batch)
    return counted


def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods; by default all.")] = None,
    layers: Annotated[int, typer.Option(help="Layers of the ResNet.")] = 32,
    names: Annotated[bool, typer.Option(help="Print how often each operation is issued.")] = False,
) -> None:
    """Count, and print a table."""
    table = Table(title=f"operations per training step, ResNet-{layers}", box=box.SIMPLE)
    for heading in ("method", "precision", *STAGES, "total"):
        table.add_column(heading, justify="left" if heading in ("method", "precision") else "right")
    for method in methods or METHODS:
        for precision, counted in operations_of_steps(method, layers).items():
            stages = counted.by_stage().values()
            table.add_row(method, precision, *map(str, stages), str(sum(stages)))
            if names:
                for (stage, name), n in sorted(counted.counts.items()):
                    print(f"{method} {precision} {stage:9} {n:4} {name}")
    Console().print(table)


if __name__ == "__main__":
    run_tool(main)
