"""Images that a preset cannot show in one size are refused before anything is trained."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.augment import (
    TRANSFORM_PRESETS,
    RandomCrop,
    RandomCropFlip,
    RandomResizedCropFlip,
    ResizeCenterCrop,
    TransformPreset,
    Unchanged,
    uniform,
)
from iirc_data.errors import BenchmarkError
from iirc_data.image_sizes import check_image_sizes, shown_sizes
from iirc_data.loader import make_loader
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import open_folder
from iirc_train.config import ExperimentConfig
from iirc_train.training.components import Experiment
from tests.conftest import encode, noise_image, write_image_folder
from tests.test_loader import everything

CIFAR, IMAGENET = TRANSFORM_PRESETS["cifar"], TRANSFORM_PRESETS["imagenet"]


def sizes(*of_images):
    return np.array(of_images, np.int32).reshape(-1, 2)


USUAL = (32, 32)


@pytest.mark.parametrize(
    ("train", "test", "problem"),
    [
        ([USUAL] * 3, [USUAL, (40, 32), USUAL], r"image 1 of test \(40 x 32 pixels\) differs"),
        ([USUAL, (64, 64), USUAL], [USUAL], r"image 1 of train \(64 x 64 pixels\) differs"),
        ([USUAL] * 2, [(64, 64)], r"image 0 of test .* such as image 0 of train \(32 x 32 pixels"),
        ([(64, 64)] * 3, [(64, 64)], r"trained on at 32 x 32 and evaluated at 64 x 64 pixels"),
        ([(28, 28)] * 3, [], r"trained on at 32 x 32 and evaluated at 28 x 28 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_image_that_is_odd(train, test, problem):
    with pytest.raises(BenchmarkError, match=problem):
        check_image_sizes(CIFAR, {"train": sizes(*train), "test": sizes(*test)})
    check_image_sizes(IMAGENET, {"train": sizes(*train), "test": sizes(*test)})


def test_images_of_the_presets_size_pass_and_so_does_nothing_at_all():
    check_image_sizes(CIFAR, {"train": sizes(USUAL, USUAL), "test": sizes(USUAL)})
    check_image_sizes(CIFAR, {"train": sizes(), "test": sizes()})
    check_image_sizes(CIFAR, {})
    check_image_sizes(CIFAR, {"test": sizes((64, 64), (64, 64))})  # shown whole, never trained on


@pytest.mark.parametrize(
    ("side", "resize", "warns"), [(64, None, False), (65, None, True), (500, 36, False)]
)
def test_cutting_small_parts_out_of_large_images_is_warned_of(side, resize, warns):
    evaluate = ResizeCenterCrop(resize=resize, size=32)
    preset = TransformPreset(RandomCrop(32, 4, resize), evaluate, (0.5,) * 3, (0.5,) * 3)
    of_splits = {"train": sizes((40, 40), (side, side)), "test": sizes((40, 40))}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_image_sizes(preset, of_splits)
    found = [str(warning.message) for warning in caught]
    assert len(found) == warns
    if warns:
        assert "image 1 of train (65 x 65 pixels): the image preset cuts 32 x 32" in found[0]


@pytest.mark.parametrize(
    ("size", "helps"),
    [((64, 64), True), ((28, 28), False), ((64, 48), False)],
)
def test_resizing_shards_is_proposed_only_where_it_helps(size, helps):
    with pytest.raises(BenchmarkError, match='write "transforms": "imagenet"') as caught:
        check_image_sizes(CIFAR, {"train": sizes(size)})
    assert ("--resize 32" in str(caught.value)) == helps


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=8),
    st.sampled_from(
        [
            Unchanged(),
            RandomCropFlip(),
            RandomCropFlip(size=20, padding=0),
            RandomResizedCropFlip(size=24),
            ResizeCenterCrop(resize=40, size=30),
        ]
    ),
    st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_the_size_of_what_is_shown_does_not_depend_on_chance(of_images, transform, seed):
    given_sizes = sizes(*of_images)
    random = uniform(seed, 0, 0, len(given_sizes), transform.n_random)
    drawn = transform.parameters(*given_sizes.T, random)
    if drawn.output_size is not None:
        expected = [drawn.output_size] * len(given_sizes)
    else:
        expected = of_images
    assert shown_sizes(transform, given_sizes).tolist() == [list(size) for size in expected]


def test_shown_sizes_of_a_window_and_of_a_resize():
    class Shown:
        n_random = 0

        def __init__(self, resizes):
            self.resizes = resizes

        def parameters(self, heights, widths, random):
            n = len(heights)
            plain = Unchanged().parameters(heights, widths, random)
            window = np.tile(np.array([0, 0, 5, 6], np.int32), (n, 1))
            resize = np.tile(np.array([7, 8], np.int32), (n, 1)) if self.resizes else None
            return type(plain)(window, resize, None, None, plain.flip)

    given_sizes = sizes((10, 20), (30, 40))
    assert shown_sizes(Shown(False), given_sizes).tolist() == [[5, 6]] * 2
    assert shown_sizes(Shown(True), given_sizes).tolist() == [[7, 8]] * 2


def test_an_experiment_refuses_them_before_it_begins(tmp_path, tiny_settings):
    tree = {
        split: dict.fromkeys(("bear", "bus", "cat", "dog", "truck", "tulip"), 3)
        for split in ("train", "test")
    }
    folder = write_image_folder(tmp_path / "images", tree)
    (folder / "test" / "cat" / "0001.jpg").write_bytes(encode(noise_image(0, 40, 32)))
    write_shards(open_folder(folder), tmp_path / "shards")
    config = ExperimentConfig(
        **tiny_settings | {"method": "finetune", "data": str(tmp_path / "shards")}
    )
    with pytest.raises(
        BenchmarkError, match=r"test/cat-000000\.tar:0001\.jpg \(40 x 32 pixels\) differs"
    ):
        Experiment(config)


def test_a_loader_alone_takes_any_preset_and_warns_where_training_shows_another_size(tmp_path):
    folder = write_image_folder(tmp_path / "images", {"train": {"cat": 3}}, height=48, width=48)
    write_shards(open_folder(folder), tmp_path / "shards")
    store = ShardStore.open(tmp_path / "shards")
    preset = TransformPreset(RandomCropFlip(), Unchanged(), CIFAR.mean, CIFAR.std)
    with pytest.warns(UserWarning, match="trained on at 32 x 32 and evaluated at 48 x 48 pixels"):
        training = make_loader(everything(store), store, transforms=preset, train=True)
    with warnings.catch_warnings(action="error"):
        evaluation = make_loader(everything(store), store, transforms=preset, train=False)
        make_loader(everything(store), store, transforms=IMAGENET, train=True)
    for loader, side in ((training, 32), (evaluation, 48)):
        (batch,) = loader
        assert batch.images.shape == (3, 3, side, side)
