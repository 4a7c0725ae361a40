"""Encodes samples as memories."""

from PIL import Image

from iirc_data.definitions import Labels
from iirc_data.errors import ConfigurationError
from iirc_data.loader.decoder import encode_rgb_png
from iirc_train.buffer.class_arrays import Memory
from iirc_train.buffer.samples import HoldsEncoded, HoldsImages, KnowsDataset, TaskSamples


def memory_of(samples: TaskSamples, index: int) -> Memory:
    """Convert a sample to a memory for the replay buffer.

    Raises:
        ConfigurationError: The dataset does not provide untransformed images.
    """
    if isinstance(samples, HoldsEncoded):  # keep the dataset's own bytes
        encoded, (height, width) = samples.encoded(index)
        dataset = samples.dataset_number(index) if isinstance(samples, KnowsDataset) else 0
        return Memory(bytes(encoded.data), samples.get_labels(index), height, width, dataset)
    if not isinstance(samples, HoldsImages):
        raise ConfigurationError(
            f"{type(samples).__name__} has neither encoded(index) nor get_item(index): add one, "
            "because a buffer keeps untransformed images"
        )
    image, *labels = samples.get_item(index)
    return encoded_memory(image, tuple(labels))


def encoded_memory(image: Image.Image, labels: Labels) -> Memory:
    """Return an image, losslessly encoded as PNG, as a memory."""
    return Memory(encode_rgb_png(image).tobytes(), labels, image.height, image.width)
