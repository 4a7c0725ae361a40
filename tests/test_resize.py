"""Resizing, cropping and mirroring beside Pillow."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from iirc_data.augment import TRANSFORM_PRESETS, Augmentation, RandomResizedCropFlip, uniform
from iirc_data.errors import LoaderError
from iirc_data.loader import finish, make_decoder, resize
from iirc_data.loader.collected import CollectedImages
from iirc_data.loader.decoder import DecodeRequest, encode_rgb_png
from iirc_data.loader.fallback import with_finished
from iirc_data.loader.normalization import Normalization
from iirc_data.loader.resize import decode_and_augment, far_larger, resize_and_crop
from iirc_data.loader.threads import image_threads, submit_parts
from tests.test_loader import DECODERS

sides = st.integers(1, 60)
edges = st.integers(-70, 70)


def drawn(height, width):
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


interpolations = st.sampled_from(["bilinear", "bicubic"])


def augmentation(resize=None, crop=None, output_size=None, flip=(False,), interpolation="bilinear"):
    rows = partial(np.array, dtype=np.int32)
    return Augmentation(
        None,
        None if resize is None else rows([resize]),
        None if crop is None else rows([crop]),
        output_size,
        np.array(flip),
        interpolation=interpolation,
    )


def resized_by_pillow(image, height, width, interpolation):
    """Resize one axis after the other: in one call, Pillow chooses their order by the sizes."""
    resampling = Image.Resampling[interpolation.upper()]
    wide = Image.fromarray(image).resize((width, image.shape[0]), resampling)
    return wide.resize((width, height), resampling)


@given(sides, sides, sides, sides, interpolations)
def test_resizing_is_pillows_up_to_rounding(height, width, new_height, new_width, interpolation):
    image = drawn(height, width)
    expected = resized_by_pillow(image, new_height, new_width, interpolation)
    asked = augmentation(resize=(new_height, new_width), interpolation=interpolation)
    found = resize_and_crop(torch.from_numpy(image), asked, 0).numpy()
    assert found.shape == (new_height, new_width, 3)
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 2  # a rounding per axis


@given(sides, sides, edges, edges, sides, sides)
def test_crops_reach_outside_into_black_as_pillows_do(
    height, width, top, left, crop_height, crop_width
):
    image = drawn(height, width)
    box = (left, top, left + crop_width, top + crop_height)
    crop = augmentation(crop=(top, left), output_size=(crop_height, crop_width))
    found = resize_and_crop(torch.from_numpy(image), crop, 0)
    assert np.array_equal(found.numpy(), np.asarray(Image.fromarray(image).crop(box)))


def collected(images, request):
    found = CollectedImages(request)
    for number, image in enumerate(images):
        found.put([number], [torch.from_numpy(image)])
    return found.batch()


def test_batches_mirror_the_images_that_are_asked_for():
    images = [drawn(5, 7), drawn(5, 7)[::-1].copy()]
    request = DecodeRequest([], augmentation(flip=(True, False)), str)
    batch = collected(images, request)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    assert np.array_equal(batch[0].numpy(), np.asarray(ImageOps.mirror(Image.fromarray(images[0]))))
    assert np.array_equal(batch[1].numpy(), images[1])


@pytest.mark.parametrize("function", [finish.finish, finish.finish_in_python])
@given(sides, sides, sides, sides, edges, edges, st.booleans(), st.booleans(), interpolations)
def test_an_image_is_resized_cropped_mirrored_and_normalised_in_this_order(
    function, height, width, tall, wide, top, left, mirrored, normalised, interpolation
):
    """For crops inside and outside, scripted or not, as the steps one by one."""
    image = drawn(height, width)
    size = (min(tall, 9), min(wide, 7))
    asked = augmentation((tall, wide), (top, left), size, (mirrored,), interpolation)
    normalization = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)) if normalised else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iirc_data.loader.collected.finish", function)
        found = collected([image], DecodeRequest([], asked, str, normalization=normalization))
    expected = resize_and_crop(torch.from_numpy(image), asked, 0)
    expected = (expected.flip(1) if mirrored else expected).unsqueeze(0)
    if normalization is not None:
        mean, std = (torch.tensor(x) * 255 for x in (normalization.mean, normalization.std))
        expected = (expected.float() - mean) * std.reciprocal()
    assert found.is_contiguous()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 100])
def test_the_threads_of_a_decoder_share_a_batch_and_take_no_threads_from_torch(n):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with image_threads(2, "test") as pool:
            seen = []
            for task in submit_parts(
                pool, n, 2, lambda part: seen.append((*part, torch.get_num_threads()))
            ):
                task.result()
            assert torch.get_num_threads() == 2
        assert all(threads == 1 for *_, threads in seen)
        assert sorted(number for *part, _ in seen for number in part) == list(range(n))
        assert len(seen) >= min(n, 2)
    finally:
        torch.set_num_threads(before)


def test_images_of_different_sizes_are_no_batch():
    request = DecodeRequest([], augmentation(flip=(False, False)), "image {}".format)
    with pytest.raises(LoaderError, match=r"differ in size.*image 0"):
        collected([drawn(2, 2), drawn(2, 3)], request)


# --- images that are resized to far more than is shown of them --------------------------------


@given(
    sides,
    sides,
    st.integers(1, 200),
    st.integers(1, 200),
    edges,
    edges,
    sides,
    sides,
    interpolations,
)
def test_only_what_is_shown_may_be_resized(
    height, width, tall, wide, top, left, rows, columns, interpolation
):
    image = drawn(height, width)
    resized = resized_by_pillow(image, tall, wide, interpolation)
    expected = np.asarray(resized.crop((left, top, left + columns, top + rows)))
    asked = augmentation(
        (tall, wide), (top, left), output_size=(rows, columns), interpolation=interpolation
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "_LARGE", 0)
        patch.setattr(resize, "_FAR_LARGER", 0)
        found = resize_and_crop(torch.from_numpy(image), asked, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_photographs_are_resized_as_a_whole():
    shapes = np.array([(375, 500), (100, 6000), (6000, 100), (9000, 9900), (1, 1), (2000, 33)])
    asked = evaluated(*shapes.T.astype(np.int32))
    assert far_larger(asked) == frozenset()
    long = np.array([(1, 20_000), (20_000, 1), (30, 3000)], np.int32)
    assert far_larger(evaluated(*long.T)) == {0, 1, 2}


def evaluated(heights, widths):
    return TRANSFORM_PRESETS["imagenet"].evaluate.parameters(heights, widths, np.zeros((1, 0)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [20_000, 1_200_000])
@pytest.mark.parametrize("is_tall", [True, False], ids=["tall", "wide"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_line_of_pixels_is_evaluated_at_the_cost_of_what_is_shown(decoder, is_tall, length):
    shape = (length, 1) if is_tall else (1, length)
    image = drawn(*shape)
    asked = evaluated(*(np.array([side], np.int32) for side in shape))
    assert asked.resize.tolist() == [[256 * side for side in shape]]
    data = encode_rgb_png(Image.fromarray(image))
    odd = frozenset([0] if length > 1_000_000 else [])  # as a look at the image reports
    request = DecodeRequest([data], asked, str, odd)
    (shown,) = next(iter(make_decoder(decoder, threads=1).images([request])))
    start, stop = length // 2 - 5, length // 2 + 5
    part = image[start:stop] if is_tall else image[:, start:stop]
    whole = Image.fromarray(part).resize(
        [256 * side for side in part.shape[1::-1]], Image.Resampling.BILINEAR
    )
    top, left = asked.crop[0] - (256 * start, 0) if is_tall else asked.crop[0] - (0, 256 * start)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)))
    assert np.abs(shown.numpy().astype(int) - expected).max() <= 1


def test_what_pillow_finished_is_shown_by_dali_as_it_is():
    """As on a GPU, where DALI would resize all of such an image."""
    shapes = np.array([(1, 20_000), (40, 50), (20_000, 1)], np.int32)
    asked = evaluated(*shapes.T)
    asked.flip[2] = True
    data = [encode_rgb_png(Image.fromarray(drawn(*shape))) for shape in shapes.tolist()]
    request = DecodeRequest(data, asked, str)
    shown = {number: decode_and_augment(request, number) for number in far_larger(asked)}
    finished = with_finished(request, shown)
    assert shown.keys() == {0, 2}
    assert finished.augmentation.resize.max() <= 320
    for decoder in DECODERS:
        decoder = make_decoder(decoder, threads=1)
        batches = [next(iter(decoder.images([asked]))) for asked in (request, finished)]
        assert torch.equal(*batches), decoder


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 89_000_000)),
    st.booleans(),
    st.sampled_from([(3 / 4, 4 / 3), (0.1, 0.4), (3.0, 9.0), (1.0, 1.0)]),
)
def test_windows_of_any_shape_lie_inside_and_have_pixels(sides, is_tall, ratio):
    height, width = sides[::-1] if is_tall else sides
    transform = RandomResizedCropFlip(ratio=ratio)
    heights, widths = np.full(20, height, np.int32), np.full(20, width, np.int32)
    random = uniform(0, 0, 0, 20, transform.n_random)
    top, left, rows, columns = transform.parameters(heights, widths, random).window.T
    assert min(top.min(), left.min()) >= 0
    assert min(rows.min(), columns.min()) >= 1
    assert (top + rows <= height).all() and (left + columns <= width).all()


def test_places_in_the_largest_images_do_not_overflow():
    found = evaluated(np.array([9_000_000, 89_000_000], np.int32), np.ones(2, np.int32))
    assert found.resize[:, 0].tolist() == [256 * 9_000_000, 256 * 89_000_000]
    assert found.crop[:, 0].tolist() == [128 * 9_000_000 - 112, 128 * 89_000_000 - 112]
