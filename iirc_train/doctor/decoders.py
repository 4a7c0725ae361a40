"""Decoders, each tried on a small image."""

import io
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from iirc_train.doctor.finding import Finding, said
from iirc_train.doctor.gpus import examined, may_have_gpu

if TYPE_CHECKING:
    import torch

_WORKS = "works"
_DALI_ON_GPU = "DALI on GPU"
COLOUR = (200, 120, 40)
_SIZE = 32
_LARGEST_DIFFERENCE = 8  # of 255 levels: JPEG, with chroma of half the resolution
_REINSTALL = "reinstall Pillow: pip install --force-reinstall pillow"
_PILLOW = "train with --decoder pillow until then"


def small_image(image_format: str) -> bytes:
    """Return an encoded image of 32 x 32 pixels and one colour; a JPEG is 4:2:0."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (_SIZE, _SIZE), COLOUR).save(file, format=image_format)
    return file.getvalue()


def pillow() -> Iterator[Finding]:
    """Yield whether Pillow decodes each format."""
    from PIL import features

    for image_format in ("JPEG", "PNG"):
        try:
            difference = _difference_of_pillow(small_image(image_format))
        except Exception as error:
            yield Finding("decoders", f"Pillow, {image_format}", said(error), "broken", _REINSTALL)
            continue
        yield _judged("decoders", f"Pillow, {image_format}", difference, _REINSTALL)
    for name in ("WebP", "AVIF"):
        value = _WORKS if features.check(name.lower()) else "not in this build of Pillow"
        yield Finding("decoders", f"Pillow, {name}", f"{value} (shards hold JPEG and PNG)")


def dali() -> Iterator[Finding]:
    """Yield whether DALI decodes on the CPU, and on each GPU."""
    import torch

    yield dali_on(torch.device("cpu"))
    if may_have_gpu():
        yield from (finding for finding in examined() if finding.section == "decoders")


def dali_on(device: "torch.device") -> Finding:
    """Return whether DALI decodes a small JPEG on a device.

    Args:
        device: The device that receives the image.
    """
    import numpy as np

    from iirc_data.augment import Augmentation
    from iirc_data.errors import LoaderError
    from iirc_data.loader import make_decoder
    from iirc_data.loader.decoder import DecodeRequest

    name = "DALI on the CPU" if device.type == "cpu" else f"{_DALI_ON_GPU} {device.index}"
    if not _has_dali():
        return _without_dali(name)
    plain = Augmentation(None, None, None, None, np.zeros(1, dtype=bool))
    encoded = np.frombuffer(small_image("JPEG"), np.uint8)
    try:
        decoder = make_decoder("dali", device, 1)
        try:
            request = DecodeRequest([encoded], plain, lambda _: "a small image")
            (images,) = decoder.images([request])
            found = images.cpu().numpy().astype(np.int64)
        finally:
            decoder.close()
    except LoaderError as error:
        return Finding("decoders", name, said(error), "broken", _PILLOW)
    return _judged("decoders", name, int(np.abs(found - np.array(COLOUR)).max()), _PILLOW)


def windows() -> Iterator[Finding]:
    """Yield whether DALI decodes windows of images on each GPU on which it works."""
    found = examined() if may_have_gpu() else ()
    working = {finding.name for finding in found if finding.value == _WORKS}
    numbers = [n for n in range(len(found)) if f"{_DALI_ON_GPU} {n}" in working]
    if not numbers:
        return
    import torch

    try:
        probe = import_module("iirc_data.loader.window_probe")
    except ModuleNotFoundError:
        return
    for number in numbers:
        works, reason = probe.window_decoding(torch.device("cuda", number))
        name = f"windows on GPU {number}"
        if works:
            yield Finding("decoders", name, f"decoded without the rest of the image ({reason})")
        else:
            value = f"cut out of whole images ({reason})"
            remedy = "slower, but right; another version of nvidia-nvimgcodec may decode windows"
            yield Finding("decoders", name, value, "warning", remedy)


def _has_dali() -> bool:
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # no package of NVIDIA at all
        return False


def _without_dali(name: str) -> Finding:
    if not sys.platform.startswith("linux"):
        value = f"not installed: there is no DALI for {sys.platform}; Pillow decodes"
        return Finding("decoders", name, value)
    remedy = "Pillow decodes, which is slower: pip install nvidia-dali-cuda130"
    return Finding("decoders", name, "not installed", "warning", remedy)


def _difference_of_pillow(encoded: bytes) -> int:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), np.int64)
    return int(np.abs(pixels - np.array(COLOUR)).max())


def _judged(section: str, name: str, difference: int, remedy: str) -> Finding:
    if difference <= _LARGEST_DIFFERENCE:
        return Finding(section, name, _WORKS)
    value = f"wrong pixels: a small image differs by {difference} of 255 levels"
    return Finding(section, name, value, "broken", remedy)
