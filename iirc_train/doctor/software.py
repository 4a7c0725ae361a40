"""Versions of Python, of packages, and of the libraries inside them."""

import importlib.metadata
from collections.abc import Iterator

from iirc_train.doctor.finding import Finding, said
from iirc_train.run.machine import RECORDED_PACKAGES, installed_versions

_NEEDED = {"iirc-pipeline", "torch", "torchvision", "numpy", "pillow", "zarr", "webdataset"}
_OF_NVIDIA = ("nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg", "nvidia-cudnn")


def packages() -> Iterator[Finding]:
    """Yield the versions of installed packages, and which needed ones are missing."""
    names = dict.fromkeys((*RECORDED_PACKAGES, "webdataset", *_nvidia_packages()))
    found = installed_versions(names)
    for name, version in found.items():
        yield Finding("versions", name, version)
    for name in sorted(_NEEDED - found.keys()):
        if name == "iirc-pipeline":  # used from its folder, without installation
            yield Finding("versions", name, "not installed; its modules are found on the path")
        else:
            yield Finding("versions", name, "not installed", "broken", f"pip install {name}")


def libraries() -> Iterator[Finding]:
    """Yield the versions of CUDA and cuDNN of torch, and of libjpeg-turbo of Pillow."""
    from PIL import features

    libjpeg = features.version("libjpeg_turbo")
    if libjpeg:
        yield Finding("versions", "libjpeg-turbo of Pillow", str(libjpeg))
    else:
        yield Finding(
            "versions",
            "libjpeg-turbo of Pillow",
            "missing: Pillow decodes JPEGs with another libjpeg",
            "warning",
            "pixels may differ by rounding from other machines: reinstall Pillow from PyPI",
        )
    try:
        import torch
    except Exception as error:
        remedy = "reinstall torch and torchvision together: pip install --force-reinstall"
        yield Finding("versions", "import torch", said(error), "broken", remedy)
        return
    yield Finding("versions", "CUDA of torch", torch.version.cuda or "none: built for the CPU")
    if torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield Finding("versions", "cuDNN of torch", str(version))
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        remedy = "install the release of torchvision that belongs to this torch"
        yield Finding("versions", "import torchvision", said(error), "broken", remedy)


def _nvidia_packages() -> list[str]:
    names = {
        str(distribution.metadata["Name"]).lower()
        for distribution in importlib.metadata.distributions()
    }
    return sorted(name for name in names if name.startswith(_OF_NVIDIA))
