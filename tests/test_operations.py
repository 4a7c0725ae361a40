"""Colour jitter and AutoAugment, against torchvision, and the same in every decoder and batch."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugmentPolicy, v2

from iirc_data.augment import AutoAugment, ColorJitter, ImagePreset, ImageSteps, Operation, uniform
from iirc_data.augment.auto_augment import POLICIES
from iirc_data.loader import make_loader
from iirc_data.loader.operations import changed
from tests.test_loader import DECODERS, Memories, everything, noise_image

JITTER = ColorJitter(brightness=0.4, contrast=0.5, saturation=1.2, hue=0.1)
TRAIN = ImageSteps(crop="random", padding=4, flip=True, color_jitter=JITTER, auto_augment="cifar10")
PRESET = ImagePreset(size=32, train=TRAIN, mean=(0.5,) * 3, std=(0.2,) * 3)
N = 400


def random_images(n: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def drawn(change, n: int, height: int, width: int):
    sizes = np.tile(np.array([height, width], np.int32), (n, 1))
    random = uniform(3, 0, 0, n, change.n_random)
    return random, change.operations(sizes, random)


@pytest.mark.parametrize("policy", list(POLICIES))
def test_autoaugment_shows_what_torchvisions_does_with_the_same_numbers(policy, monkeypatch):
    images = random_images(N, 20, 37)
    random, operations = drawn(AutoAugment(policy), N, 20, 37)
    ours = changed(images, operations)
    theirs = v2.AutoAugment(AutoAugmentPolicy(policy))
    used = set()
    for numbers, image, found, ops in zip(random, images, ours, operations, strict=True):
        pair = theirs._policies[int(numbers[0] * 25)]
        used |= {operation.name for operation in ops}
        given = []  # torch.rand in the order in which it asks
        for step, (name, probability, _) in enumerate(pair):
            given.append(numbers[1 + step])
            if numbers[1 + step] < probability and theirs._AUGMENTATION_SPACE[name][1]:
                given.append(numbers[3 + step])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_: given.pop(0))  # noqa: B023
            patch.setattr(torch, "randint", lambda *_: int(numbers[0] * 25))  # noqa: B023
            expected = theirs(image.permute(2, 0, 1)).permute(1, 2, 0)
        assert not given
        assert torch.equal(found, expected), ops
    assert used == {name for pair in POLICIES[policy] for name, p, _ in pair if p}


def test_every_pair_of_a_policy_is_drawn_equally_often():
    random = uniform(0, 0, 0, 25_000, 5)
    counts = np.bincount((random[:, 0] * 25).astype(int), minlength=25)
    assert len(counts) == 25 and abs(counts - 1000).max() < 5 * 1000**0.5


def test_colour_jitter_shows_what_torchvisions_does_with_the_same_factors():
    images = random_images(N, 15, 18)
    _, operations = drawn(JITTER, N, 15, 18)
    names = ["brightness", "contrast", "saturation", "hue"]
    theirs = v2.ColorJitter(**JITTER.model_dump())
    for image, found, ops in zip(images, changed(images, operations), operations, strict=True):
        values = {f"{operation.name}_factor": operation.value for operation in ops}
        order = torch.tensor([names.index(operation.name) for operation in ops])
        expected = theirs.transform(image.permute(2, 0, 1), {"fn_idx": order, **values})
        assert torch.equal(found, expected.permute(1, 2, 0))


def test_colour_jitter_draws_uniform_factors_in_every_order():
    _, operations = drawn(JITTER, 4000, 9, 9)
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.5, 1.5), "saturation": (0, 2.2)}
    for name, (low, high) in (ranges | {"hue": (-0.1, 0.1)}).items():
        values = np.sort([op.value for ops in operations for op in ops if op.name == name])
        even = np.linspace(low, high, len(values))
        assert len(values) == 4000 and abs(values - even).max() < 0.05 * (high - low)
    orders = [tuple(op.name for op in ops) for ops in operations]
    assert len(set(orders)) == 24 and min(orders.count(order) for order in set(orders)) > 100
    assert drawn(ColorJitter(hue=0.2), 5, 9, 9)[1] == [
        [operation] for (operation,) in drawn(ColorJitter(hue=0.2), 5, 9, 9)[1]
    ]


def test_crop_and_flip_are_drawn_before_and_shown_first():
    sizes = np.full(50, 32, np.int32)
    transform, plain = (
        ImagePreset(size=32, train=steps, mean=(0.5,) * 3, std=(0.2,) * 3).transforms.train
        for steps in (TRAIN, ImageSteps(crop="random", padding=4, flip=True))
    )
    random = uniform(0, 0, 0, 50, transform.n_random)
    found = transform.parameters(sizes, sizes, random)
    expected = plain.parameters(sizes, sizes, random[:, : plain.n_random])
    assert np.array_equal(found.crop, expected.crop) and np.array_equal(found.flip, expected.flip)
    assert expected.operations is None and len(found.operations) == 50


def epoch(store, *, batch_size=8, n=None, **options):
    memories = Memories([noise_image(900 + i) for i in range(5)], [[0, -1]] * 5)
    loader = make_loader(
        everything(store),
        store,
        memories,
        transforms=PRESET,
        train=True,
        normalize=False,
        batch_size=batch_size,
        **options,
    )
    shown = {}
    for batch in loader:
        shown |= dict(zip(batch.sample_ids.tolist(), batch.images, strict=True))
    return shown


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[sample], expected[sample]) for sample in expected)


@pytest.fixture(scope="module")
def streamed(tiny_store):
    return epoch(tiny_store, decoder="pillow", resident=False)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("batch_size", "resident"), [(1, False), (13, False), (8, True), (50, True)]
)
def test_images_depend_on_neither_decoder_nor_batch_nor_residence(
    tiny_store, streamed, decoder, batch_size, resident
):
    found = epoch(tiny_store, batch_size=batch_size, decoder=decoder, resident=resident)
    assert_same(found, streamed)


def test_two_ranks_show_what_one_process_does(tiny_store, streamed):
    parts = [
        epoch(tiny_store, batch_size=4, decoder="pillow", resident=False, rank=r, world_size=2)
        for r in range(2)
    ]
    assert not parts[0].keys() & parts[1].keys()
    assert_same(parts[0] | parts[1], streamed)


def test_epochs_and_seeds_differ(tiny_store, streamed):
    other = epoch(tiny_store, decoder="pillow", resident=False, seed=1)
    assert sum(torch.equal(other[sample], streamed[sample]) for sample in streamed) < 3


def test_images_without_operations_stay_as_they_are():
    images = random_images(3, 8, 8)
    assert changed(images, None) is images
    found = changed(images, [(), (Operation("invert"),), ()])
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert torch.equal(found[1], 255 - images[1])


def test_torchvision_is_imported_only_where_an_operation_is_used():
    program = (
        "import sys, torch; from iirc_data.augment import *; import iirc_data.loader;"
        "from iirc_data.loader.operations import changed;"
        "images = torch.zeros(1, 4, 4, 3, dtype=torch.uint8); changed(images, None);"
        "print('torchvision' in sys.modules); changed(images, [(Operation('invert'),)]);"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split() == ["False", "True"]


def test_magnitudes_are_torchvisions_for_images_of_any_size():
    space = v2.AutoAugment._AUGMENTATION_SPACE
    for side in (1, 7, 32, 224, 331, 662):
        shifts = [int(m) for m in space["TranslateX"][0](10, side, side).tolist()]
        ours = []
        for level in range(10):
            numbers = np.array([[0.0, 0.0, 0.0, 0.9, 0.9]])
            pairs = [(("translate_x", 1.0, level), ("invert", 0.0, 0))]
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(POLICIES, "cifar10", pairs)
                sizes = np.array([[side, side]], np.int32)
                ((operation,),) = AutoAugment("cifar10").operations(sizes, numbers)
            ours.append(operation.value)
        assert ours == shifts
        assert all(low <= high for low, high in pairwise(ours))
