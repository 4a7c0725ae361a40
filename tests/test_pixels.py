"""Resizing, cropping and mirroring beside Pillow."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from iirc_data.augment import Augmentation
from iirc_data.errors import LoaderError
from iirc_data.loader.engine import DecodeRequest
from iirc_data.loader.pixels import resize_and_crop, stack

sides = st.integers(1, 60)
edges = st.integers(-70, 70)


def drawn(height, width):
    pixels = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3))
    return pixels.astype(np.uint8)


def augmentation(resize=None, crop=None, output_size=None, flip=(False,)):
    rows = partial(np.array, dtype=np.int32)
    return Augmentation(
        None,
        None if resize is None else rows([resize]),
        None if crop is None else rows([crop]),
        output_size,
        np.array(flip),
    )


@given(sides, sides, sides, sides)
def test_resizing_is_pillows_up_to_rounding(height, width, new_height, new_width):
    image = drawn(height, width)
    expected = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    found = resize_and_crop(
        torch.from_numpy(image), augmentation(resize=(new_height, new_width)), 0
    ).numpy()
    assert found.shape == (new_height, new_width, 3)
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


@given(sides, sides, edges, edges, sides, sides)
def test_crops_reach_outside_into_black_as_pillows_do(
    height, width, top, left, crop_height, crop_width
):
    image = drawn(height, width)
    box = (left, top, left + crop_width, top + crop_height)
    crop = augmentation(crop=(top, left), output_size=(crop_height, crop_width))
    found = resize_and_crop(torch.from_numpy(image), crop, 0)
    assert np.array_equal(found.numpy(), np.asarray(Image.fromarray(image).crop(box)))


def test_batches_mirror_the_images_that_are_asked_for():
    images = [drawn(5, 7), drawn(5, 7)[::-1].copy()]
    request = DecodeRequest([], augmentation(flip=(True, False)), str)
    batch = stack([torch.from_numpy(image) for image in images], request)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    assert np.array_equal(batch[0].numpy(), np.asarray(ImageOps.mirror(Image.fromarray(images[0]))))
    assert np.array_equal(batch[1].numpy(), images[1])


def test_images_of_different_sizes_are_no_batch():
    request = DecodeRequest([], augmentation(flip=(False, False)), "image {}".format)
    with pytest.raises(LoaderError, match=r"differ in size.*image 0"):
        stack(
            [torch.zeros(2, 2, 3, dtype=torch.uint8), torch.zeros(2, 3, 3, dtype=torch.uint8)],
            request,
        )
