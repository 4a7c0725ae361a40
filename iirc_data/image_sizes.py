"""The check, before training starts, that an image preset gives all images one size."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment import Transform, TransformPreset
from iirc_data.definitions import TRAIN
from iirc_data.errors import BenchmarkError

Sizes = NDArray[np.int32]


def check_image_sizes(
    transforms: TransformPreset,
    sizes: Mapping[str, Sizes],
    name: Callable[[str, int], str] = lambda split, number: f"image {number} of {split}",
) -> None:
    """Check that a preset gives all images of a dataset one size, in training and evaluation.

    The evaluation transform is checked on the images of every split, ``"train"`` included: herding
    and class means use training images without augmentation.

    Args:
        transforms: The transforms of the preset.
        sizes: Height and width in pixels of each split's images, int32 (N, 2).
        name: Returns the name of an image for error messages, given its split and its number.

    Raises:
        BenchmarkError: Images would have different sizes, or training images another size than
            evaluated ones.
    """
    splits = {split: of_split for split, of_split in sizes.items() if len(of_split)}
    if not splits:
        return
    everything = np.concatenate(list(splits.values()))
    owner = np.repeat(list(splits), [len(of_split) for of_split in splits.values()])
    first = {split: int(np.flatnonzero(owner == split)[0]) for split in splits}

    def image(row: int) -> str:
        split = str(owner[row])
        return f"{name(split, row - first[split])} ({_text(everything[row])} pixels)"

    evaluated = shown_sizes(transforms.evaluate, everything)
    usual, odd = _usual_and_odd(evaluated)
    if odd is not None:
        raise BenchmarkError(
            f"{image(odd)} differs in size from other images, such as {image(usual)}, and the "
            f"image preset does not resize: {_remedy(transforms, everything)}"
        )
    if TRAIN not in splits:
        return
    rows = np.flatnonzero(owner == TRAIN)
    trained = shown_sizes(transforms.train, everything[rows])
    different = np.flatnonzero((trained != evaluated[rows]).any(axis=1))
    if len(different):
        row = different[0]
        raise BenchmarkError(
            f"{image(int(rows[row]))} would be trained on at {_text(trained[row])} and evaluated "
            f"at {_text(evaluated[rows[row]])} pixels: {_remedy(transforms, everything)}"
        )


def shown_sizes(transform: Transform, sizes: Sizes) -> Sizes:
    """Return the sizes of transformed images.

    Args:
        transform: The transform; the sizes of its results must not depend on random numbers.
        sizes: int32 (N, 2), height and width in pixels.

    Returns:
        int32 (N, 2).
    """
    distinct, which = np.unique(sizes, axis=0, return_inverse=True)
    heights, widths = distinct.T
    shown = transform.parameters(heights, widths, np.zeros((len(distinct), transform.n_random)))
    return shown.shown_sizes(heights, widths)[which.reshape(-1)]


def _usual_and_odd(sizes: Sizes) -> tuple[int, int | None]:
    """Return the first row of the most frequent size and that of the rarest other size, if any."""
    _, first, counts = np.unique(sizes, axis=0, return_index=True, return_counts=True)
    usual = int(np.argmax(counts))
    counts[usual] = len(sizes) + 1
    rarest = int(np.argmin(counts))
    return int(first[usual]), None if rarest == usual else int(first[rarest])


def _remedy(transforms: TransformPreset, sizes: Sizes) -> str:
    remedy = 'write "transforms": "imagenet" or an image preset of your own in the benchmark file'
    trained = shown_sizes(transforms.train, sizes[:1])
    side = int(trained.max())
    becomes_square = (sizes[:, 0] == sizes[:, 1]).all() and sizes.min() >= side == trained.min()
    if becomes_square and (shown_sizes(transforms.evaluate, trained) == side).all():
        return f"{remedy}, or make the shards again with --resize {side}"
    return remedy


def _text(size: Sizes) -> str:
    height, width = size.tolist()
    return f"{height} x {width}"
