"""Frozen parts of a network: no gradients, and batch normalisation keeps its statistics.

Modules carry the mark themselves, so that copies of a network, such as teachers and branches, are
frozen in the same parts.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.config.settings import nearest_name
from iirc_train.models.prompts import prompts_of
from iirc_train.models.trunk import head_modules, trunk_of

Frozen = Literal["whole", "parameters"]
"""``"parameters"`` marks a module that contains a frozen stage, but also parts that are trained."""

_MARK = "_frozen_part"
MOST_NAMES = 40  # in an error message


def freeze_trunk(net: nn.Module) -> None:
    """Freeze all layers of a network before its output layer.

    Args:
        net: The network; modified in place. Its output layer may be replaced afterwards.
    """
    head = head_modules(net)
    _mark((module for module in net.modules() if id(module) not in head), "whole")
    keep_frozen(net)


def freeze_until(net: nn.Module, stage: str, name: str) -> None:
    """Freeze a network up to and with a stage.

    The order is that in which the network registers its modules. Parameters that a module around
    the stage holds itself, such as position embeddings, are frozen too.

    Args:
        net: The network; modified in place.
        stage: Name of a submodule of the network's trunk, such as ``layer3`` or ``blocks.8``.
        name: Name of the network, in error messages.

    Raises:
        ConfigurationError: The network has no such stage.
    """
    trunk = trunk_of(net) or net
    head = head_modules(net)
    found = dict(trunk.named_modules())
    if not stage or stage not in found or id(found[stage]) in head:
        names = stages_of(net)
        shown = names[:MOST_NAMES]
        more = ["…"] if len(names) > len(shown) else []
        raise ConfigurationError(
            f"frozen_until: network {name} has no stage {stage!r}: choose "
            f"{', '.join(shown + more)}{nearest_name(stage, names)}"
        )
    last = id(list(found[stage].modules())[-1])
    around = {id(found[path]) for path in _paths_around(stage)}
    for module in trunk.modules():
        if id(module) not in head:
            _mark([module], "parameters" if id(module) in around else "whole")
        if id(module) == last:
            break
    keep_frozen(net)


def stages_of(net: nn.Module) -> list[str]:
    """Return the names of a network's stages, for ``frozen_until``, in their order.

    They are the parts of its trunk, and the elements of those that are lists or sequences of
    modules. Deeper submodules serve as well, but are not listed.
    """
    head, names = head_modules(net), []
    for name, part in (trunk_of(net) or net).named_children():
        own = (module for module in part.modules() if id(module) not in head)
        if all(next(module.parameters(recurse=False), None) is None for module in own):
            continue
        is_list = isinstance(part, (nn.Sequential, nn.ModuleList))
        inner = [f"{name}.{number}" for number in range(len(part))] if is_list else []  # type: ignore[arg-type]
        names += [*inner, name]
    return names


def frozen_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the frozen parts of a network."""
    return [
        parameter
        for module in net.modules()
        if hasattr(module, _MARK)
        for parameter in module.parameters(recurse=False)
    ]


def keep_frozen(module: nn.Module) -> None:
    """Put the frozen parts of a module back into evaluation mode, without gradients.

    Call after :meth:`torch.nn.Module.train` and after gradients were switched on.
    """
    for part in module.modules():
        mark = getattr(part, _MARK, None)
        if mark is None:
            continue
        if mark == "whole":
            part.training = False
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad_(False)


def is_wholly_frozen(net: nn.Module) -> bool:
    """Return whether all layers before the output layer are frozen, as :func:`freeze_trunk` does.

    The latent of an image is then the same throughout a run. It is not if the network has prompts.
    """
    return getattr(net, _MARK, None) == "whole" and not prompts_of(net)


def _mark(modules: Iterable[nn.Module], mark: Frozen) -> None:
    for module in modules:
        setattr(module, _MARK, mark)


def _paths_around(path: str) -> Iterator[str]:
    """Iterate over the paths of the modules that contain one: ``""``, ``"a"`` for ``"a.b"``."""
    parts = path.split(".")
    for n in range(len(parts)):
        yield ".".join(parts[:n])
