"""The graph of a DALI pipeline: what it does to a batch, and where."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from iirc_data.augment import Augmentation, Interpolation

# an image of so many pixels needs far less than nvJPEG's default of 16 MiB of device memory and
# 2 x 8 MiB of pinned memory for each thread
_SMALL_IMAGE = 1 << 16
_SMALL_PADDING = 1 << 20


class Decoding(NamedTuple):
    """Where and how images are decoded; the steps that follow run where the images are.

    Attributes:
        device: ``"cpu"``, or ``"mixed"``: the GPU decodes with the help of the CPU.
        decodes_windows: Decode only the windows of images. Otherwise decode whole images and cut
            the windows out of them: the same pixels, with more work.
        hw_decoder_load: Fraction, from 0 to 1, of a batch's JPEGs for the GPU's JPEG engine;
            GPUs without one, and the CPU, ignore it.
        has_small_images: Allocate little memory in advance: all images are small.
    """

    device: Literal["cpu", "mixed"] = "cpu"
    decodes_windows: bool = True
    hw_decoder_load: float = 0.0
    has_small_images: bool = False

    @property
    def options(self) -> Mapping[str, Any]:
        """The arguments of DALI's decoder."""
        common = {
            "device": self.device,
            "output_type": types.RGB,
            "adjust_orientation": False,
            "jpeg_fancy_upsampling": True,  # makes the GPU upsample as the CPU and Pillow do
        }
        if self.device == "cpu":
            return common
        padding = {"device_memory_padding": _SMALL_PADDING, "host_memory_padding": _SMALL_PADDING}
        return {
            **common,
            "affine": False,  # processes that pin their threads may pin them to the same processors
            "hw_decoder_load": self.hw_decoder_load,
            **(padding if self.has_small_images else {}),
        }


ON_CPU = Decoding()


def are_small(most_pixels: int | None) -> bool:
    """Return whether images are small, given the pixels of the largest one; None if unknown."""
    return most_pixels is not None and most_pixels <= _SMALL_IMAGE


class Steps(NamedTuple):
    """The steps of a pipeline.

    Attributes:
        has_window: Decode only a window of each image.
        resize: How to resize; None leaves the size.
        output_size: Height and width of the final crop; None for no crop.
        leaves_size: Return the decoded windows; the caller resizes, crops and mirrors them. On the
            CPU, DALI takes longer to resize than to decode.
        decoding: Where and how images are decoded.
    """

    has_window: bool
    resize: Interpolation | None
    output_size: tuple[int, int] | None
    leaves_size: bool
    decoding: Decoding = ON_CPU

    @classmethod
    def of(cls, augmentation: Augmentation, on_gpu: bool, decoding: Decoding | None = None) -> Self:
        """Return the steps that an augmentation needs.

        Args:
            augmentation: Parameters of a batch.
            on_gpu: Use the steps for a GPU, where DALI also resizes.
            decoding: Where and how to decode; by default on the CPU.
        """
        decoding = decoding or ON_CPU
        has_window = augmentation.window is not None
        resize = None if augmentation.resize is None else augmentation.interpolation
        if resize is not None and not on_gpu:
            return cls(has_window, None, None, True, decoding)
        crops = augmentation.crop is not None
        size = augmentation.output_size if crops else None
        return cls(has_window, resize, size, False, decoding)


def images_of(steps: Steps) -> DataNode:
    """Add the steps to the current pipeline and return its output: images, uint8 (H, W, 3)."""
    # parameters are named arguments: DALI reads these on the CPU, wherever the images are
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    decoding = steps.decoding
    if steps.has_window:
        window = {
            "start": fn.external_source(name="window_start", dtype=types.INT32, ndim=1),
            "shape": fn.external_source(name="window_shape", dtype=types.INT32, ndim=1),
            "axes": (0, 1),
        }
        if decoding.decodes_windows:
            images = fn.decoders.image_slice(encoded, **window, **decoding.options)
        else:
            images = fn.slice(fn.decoders.image(encoded, **decoding.options), **window)
    else:
        images = fn.decoders.image(encoded, **decoding.options)
    if steps.resize is not None:
        size = fn.external_source(name="resize", dtype=types.FLOAT, ndim=1)
        kind = types.INTERP_CUBIC if steps.resize == "bicubic" else types.INTERP_LINEAR
        images = fn.resize(images, size=size, interp_type=kind, antialias=True)
    if steps.output_size is not None:
        images = fn.slice(
            images,
            start=fn.external_source(name="crop", dtype=types.INT32, ndim=1),
            shape=list(steps.output_size),
            axes=(0, 1),
            out_of_bounds_policy="pad",
            fill_values=0,
        )
    if not steps.leaves_size:
        flip = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
        images = fn.flip(images, horizontal=flip, vertical=0)
    return images
