"""Statistics: tensors that a method keeps beside its network, and that grow with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from iirc_train.models.trunk import head_of

Axis = Literal["D"] | int
"""An axis of a statistic: ``"D"`` is as long as a latent, a number as long as that."""


def trained_parameters(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Iterate over the parameters of a network that require gradients, with their names."""
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def latent_size(net: nn.Module) -> int:
    """Return the number of values of a network's latents."""
    return int(head_of(net).in_features)  # type: ignore[arg-type]


class Statistics(nn.Module):
    """The statistics of a method, all 0 at first.

    They are buffers, so they move with the method to its device, a checkpoint contains them, and
    they count as no parameters. The tensors stay in place unless they grow.

    Args:
        of_parameters: Names of statistics that hold one value per trained parameter of the network,
            such as Fisher information.
        of_classes: Names of statistics that hold one row per seen class, and the axes of a row:
            ``("D",)`` for a mean of latents, ``("D", "D")`` for their covariance, ``()`` for a
            number.
        of_latents: Names of statistics of all latents together, and their axes.
        of_samples: Names of statistics that hold a row per sample; see :meth:`append`.
        dtype: Type of the statistics of classes and of latents.
    """

    def __init__(
        self,
        of_parameters: Sequence[str] = (),
        of_classes: Mapping[str, Sequence[Axis]] = {},
        of_latents: Mapping[str, Sequence[Axis]] = {},
        of_samples: Sequence[str] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self._of_parameters = tuple(of_parameters)
        self._of_classes = {name: tuple(axes) for name, axes in of_classes.items()}
        self._of_latents = {name: tuple(axes) for name, axes in of_latents.items()}
        self._dtype = dtype
        for name in self._of_parameters:
            self.add_module(name, nn.Module())
        for name in (*self._of_classes, *self._of_latents, *of_samples):
            self.register_buffer(name, None)

    def of_parameters(self, name: str) -> list[torch.Tensor]:
        """Return a statistic of the parameters.

        Returns:
            A tensor per parameter of :func:`trained_parameters`, in that order, with its shape and
            layout. Change them in place.
        """
        return list(self.get_submodule(name).buffers())

    def of_classes(self, name: str) -> torch.Tensor:
        """Return a statistic of the classes, (classes seen, ...). Change it in place."""
        return self.get_buffer(name)

    def of_latents(self, name: str) -> torch.Tensor:
        """Return a statistic of all latents. Change it in place."""
        return self.get_buffer(name)

    def of_samples(self, name: str) -> torch.Tensor | None:
        """Return a statistic of the samples, (samples, ...); None before the first."""
        return self._buffers[name]

    def append(self, name: str, rows: torch.Tensor) -> None:
        """Append rows to a statistic of the samples.

        Args:
            name: Its name.
            rows: (N, ...); all rows of a statistic have the same type and shape.
        """
        before = self._buffers[name]
        setattr(self, name, rows.clone() if before is None else torch.cat((before, rows)))

    @property
    def n_bytes(self) -> int:
        """Size of all statistics in bytes."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @torch.no_grad()
    def follow(self, net: nn.Module, n_classes: int) -> None:
        """Grow with the network and the seen classes.

        A parameter is known by its name. Values of new parameters, and of new rows and columns of
        one that has grown, are 0; those of parameters that are no longer trained are dropped.

        Args:
            net: The network, with its output layer for the current task.
            n_classes: Number of classes seen.
        """
        for name in self._of_parameters:
            statistic = self.get_submodule(name)
            before = dict(statistic.named_buffers())
            statistic._buffers.clear()
            for of, parameter in trained_parameters(net):
                key = f"net/{of.replace('.', '/')}"  # the name of a buffer has no dots
                zeros = partial(torch.zeros_like, parameter, requires_grad=False)
                statistic.register_buffer(key, _grown(before.get(key), parameter.shape, zeros))
        if self._of_classes or self._of_latents:
            d = latent_size(net)
            device = next(net.parameters()).device
            shapes = {name: (n_classes, *axes) for name, axes in self._of_classes.items()}
            for name, axes in (shapes | self._of_latents).items():
                shape = torch.Size([d if axis == "D" else axis for axis in axes])
                zeros = partial(torch.zeros, shape, dtype=self._dtype, device=device)
                setattr(self, name, _grown(self._buffers[name], shape, zeros))


def _grown(
    values: torch.Tensor | None, shape: torch.Size, make_zeros: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Return values in a shape, and zeros elsewhere; the values themselves if they have it.

    Args:
        values: The values, None for none.
        shape: The shape.
        make_zeros: Makes zeros of that shape, which may take much memory.
    """
    if values is not None and values.shape == shape:
        return values
    zeros = make_zeros()
    if values is None or values.dim() != zeros.dim():
        return zeros
    common = tuple(slice(min(n, m)) for n, m in zip(values.shape, zeros.shape, strict=True))
    zeros[common] = values[common]
    return zeros
