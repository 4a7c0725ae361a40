"""Decoding one image at a time with DALI, to find those that it refuses."""

from contextlib import suppress

import torch
from torch.utils.dlpack import from_dlpack

from iirc_data.augment import Augmentation
from iirc_data.loader.dali_graph import ON_CPU, Decoding, Steps
from iirc_data.loader.dali_pipeline import DaliError, DaliPipeline, copied_on_gpu
from iirc_data.loader.decoder import DecodeRequest


class SingleDecoder:
    """Decodes images one by one, to find those that DALI refuses.

    Args:
        device: Device that decodes.
        has_window: Decode only the window of each image.
        decoding: Where and how to decode.
    """

    def __init__(
        self, device: torch.device, has_window: bool = False, decoding: Decoding = ON_CPU
    ) -> None:
        self._device = device
        self._steps = Steps(has_window, None, None, leaves_size=True, decoding=decoding)
        self._pipeline: DaliPipeline | None = None

    def decode(self, request: DecodeRequest) -> torch.Tensor | None:
        """Return the image of a batch of one, uint8 (H, W, 3), or None if DALI refuses it."""
        pipeline = self._pipeline or DaliPipeline(self._steps, 1, 1, self._device)
        self._pipeline = None  # a pipeline that fails is not used again
        with suppress(DaliError):
            pipeline.submit(request)
            with pipeline.outputs() as decoded:
                if self._device.type == "cuda":
                    image = copied_on_gpu(decoded, self._device)[0]
                else:
                    image = from_dlpack(decoded[0]).clone()
            self._pipeline = pipeline
            return image
        return None


def part_of(request: DecodeRequest, number: int) -> DecodeRequest:
    """Return a request that only decodes one image of a batch."""
    window, part = request.augmentation.window, slice(number, number + 1)
    augmentation = Augmentation(
        None if window is None else window[part],
        None,
        None,
        None,
        request.augmentation.flip[part],
    )
    return DecodeRequest(request.encoded[part], augmentation, lambda _: request.names(number))
