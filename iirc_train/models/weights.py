"""Weights of a network's trunk: read from a file, checked, loaded, and named by a digest."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iirc_data.errors import ConfigurationError
from iirc_train.models.branches import BranchedNetwork
from iirc_train.models.trunk import head_modules, trunk_of

WRAPPERS = ("state_dict", "model", "experiment", "method", "modules")
"""Keys under which files hold a state dict: of timm, of other libraries, of a run's checkpoint."""

PREFIXES = ("", "module.", "_orig_mod.", "net.", "net.model.", "backbone.", "model.")
HEADS = ("fc.", "_fc.", "head.", "heads.", "classifier.", "output_layer.", "model.output_layer.")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, in training only
MOST_NAMES = 3

State = Mapping[str, torch.Tensor]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; only tensors and plain values are ever constructed from the file.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote (``.pth``, ``.pt``, …).

    Raises:
        ConfigurationError: The file cannot be read, or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read weights {path}: {error.strerror or error}"
        ) from error
    except ConfigurationError:
        raise
    except pickle.UnpicklingError as error:
        raise ConfigurationError(
            f"weights {path}: the file is damaged, or contains more than tensors and plain values; "
            "save only the model's state_dict()"
        ) from error
    except Exception as error:  # both libraries raise many exception types on damaged files
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"weights {path}: the file is damaged: {reason}") from error
    while isinstance(found, Mapping):
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
        inner = [found[k] for k in WRAPPERS if isinstance(found.get(k), Mapping)]
        if not inner:
            if not tensors:
                break
            return {str(name): value for name, value in tensors.items()}
        found = inner[0]
    raise ConfigurationError(
        f"weights {path}: the file holds no state dict, a mapping of names to tensors"
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigurationError(
            f"weights {path} needs safetensors: pip install 'iirc-pipeline[timm]' ({error})"
        ) from error
    with path.open("rb"):  # an unreadable file is an OSError with a reason
        pass
    return dict(load_file(path))


@torch.no_grad()
def load_weights(net: nn.Module, state: State, source: str) -> None:
    """Load weights into all layers of a network before its output layer, which is left as it is.

    Names may be those of the network, of its trunk, or of the library that the network is from,
    with a prefix such as ``module.``; an output layer among them is ignored.

    Args:
        net: The network; modified in place.
        state: Names to tensors.
        source: Where the weights are from, and the network's name, for the error.

    Raises:
        ConfigurationError: A layer is missing, is unknown to the network, or has another shape;
            nothing is loaded.
    """
    attempts = []
    for target in (trunk_of(net) or net, net):
        ours = _without_head(net, target)
        for prefix in PREFIXES:
            named = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            attempts.append((len(ours.keys() & named.keys()), ours, named))
    _, ours, theirs = max(attempts, key=lambda attempt: attempt[0])  # the first of equal ones
    missing = [k for k in ours if k not in theirs and not k.endswith("num_batches_tracked")]
    heads = (*HEADS, *AUXILIARY, f"{getattr(net, 'head_path', 'fc')}.")
    unexpected = [k for k in theirs if k not in ours and not k.startswith(heads)]
    shaped = [
        f"{k} ({tuple(theirs[k].shape)}, expected {tuple(ours[k].shape)})"
        for k in ours
        if k in theirs and theirs[k].shape != ours[k].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
    said = [f"{what}: {_first_of(names)}" for what, names in problems.items() if names]
    if said:
        raise ConfigurationError(f"{source}: the weights do not fit; {'; '.join(said)}")
    for name, value in ours.items():
        if name in theirs:
            value.copy_(theirs[name])


def trunk_digest(net: nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of all layers before the output layer.

    Networks with the same digest compute the same latents. The digest does not depend on the file
    that the weights came from, nor on the number of classes.

    Args:
        net: The network.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_without_head(net, trunk_of(net) or net).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()


def remember_digest(net: nn.Module) -> None:
    """Note on a network the digest of the weights that were loaded into it."""
    net.weights_digest = trunk_digest(net)  # type: ignore[assignment]


def remembered_digest(net: nn.Module) -> str | None:
    """Return the digest of the weights that were loaded into a network; None if none were."""
    first = net.branches[0] if isinstance(net, BranchedNetwork) else net
    found: Any = getattr(first, "weights_digest", None)
    return found if isinstance(found, str) else None


def _without_head(net: nn.Module, target: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a part of a network, without the output layer."""
    head = head_modules(net)
    paths = [path for path, module in target.named_modules() if id(module) in head]
    prefixes = tuple(f"{path}." for path in paths)
    return {k: v for k, v in target.state_dict().items() if not k.startswith(prefixes)}


def _first_of(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown}, … ({len(names)} in all)" if len(names) > MOST_NAMES else shown
