"""A source that decodes each image as training will, so that bad images fail when sharding."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iirc_data.augment import Unchanged
from iirc_data.errors import SourceError
from iirc_data.loader.decoder import DecodeRequest
from iirc_data.loader.fallback import warn_of_refusal
from iirc_data.loader.make import make_decoder
from iirc_data.sources.base import Sample
from iirc_data.sources.derived import DerivedSource
from iirc_data.sources.images import decode_rgb, look_at, read_header

if TYPE_CHECKING:
    from iirc_data.loader.single_decoder import SingleDecoder

_LARGEST_MEAN_DIFFERENCE = 2.0  # of 255 levels; JPEG decoders may round differently


@dataclass(frozen=True)
class CheckedSource(DerivedSource):
    """Yields only images that Pillow decodes and that DALI, if it is installed, decodes alike.

    DALI may refuse an image: a warning names it, and Pillow decodes it, here and in training.

    Attributes:
        source: The original.
    """

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the original's fingerprint, followed by the decoders that check the images."""
        checked_by = "Pillow" if _dali_decoder() is None else "Pillow and DALI"
        return f"{self.source.fingerprint(split, class_name)} checked by {checked_by}"

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images, each one after decoding it.

        Raises:
            SourceError: The original raises it, an image is damaged, or the decoders return
                different pixels for it.
        """
        for sample in self.source.samples(split, class_name):
            _check(sample)
            yield sample


@cache
def _dali_decoder() -> "SingleDecoder | None":
    decoder = make_decoder("auto", "cpu", threads=1)
    decoder.close()
    if decoder.name != "dali":
        return None
    import torch

    from iirc_data.loader.single_decoder import SingleDecoder

    return SingleDecoder(torch.device("cpu"))


def _check(sample: Sample) -> None:
    read_header(sample.data, sample.origin)  # refuses huge images before they are decoded
    pixels = decode_rgb(sample)
    encoded = np.frombuffer(sample.data, np.uint8)
    decoder, look = _dali_decoder(), look_at(encoded, sample.origin)
    if decoder is None or not look.is_plain:
        if decoder is not None and not look.is_regular:
            warn_of_refusal(sample.origin)
        return
    as_it_is = Unchanged().parameters(np.zeros(1, np.int32), np.zeros(1, np.int32), np.empty(0))
    shown = decoder.decode(DecodeRequest([encoded], as_it_is, lambda _: sample.origin))
    if shown is None:
        warn_of_refusal(sample.origin)
    elif _differ(pixels, shown.numpy()):
        raise SourceError(
            f"{sample.origin} looks different decoded by DALI and by Pillow: it is damaged or has "
            "a rare format; encode it again, for example with --quality 95"
        )


def _differ(pixels: Image.Image, shown: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bool:
    expected = np.asarray(pixels)
    if expected.shape != shown.shape:
        return True
    if np.array_equal(expected, shown):
        return False
    difference = np.abs(expected.astype(np.int16) - shown)
    return bool(difference.mean() > _LARGEST_MEAN_DIFFERENCE)
