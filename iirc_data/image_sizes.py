"""The check, before training starts, that an image preset gives all images one size."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from iirc_data.augment import Transform, TransformPreset
from iirc_data.definitions import TRAIN
from iirc_data.errors import BenchmarkError
from iirc_data.warning import warn

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

    Training on small parts of large images is allowed, with a warning.

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
    if (difference := training_difference(transforms, splits[TRAIN])) is not None:
        number, said = difference
        raise BenchmarkError(
            f"{image(first[TRAIN] + number)} {said}: {_remedy(transforms, everything)}"
        )
    _warn_of_small_parts(transforms.train, splits[TRAIN], lambda row: image(first[TRAIN] + row))


def check_sizes_of_datasets(
    transforms: Mapping[str, TransformPreset],
    sizes: Mapping[str, Mapping[str, Sizes]],
    name: Callable[[str, str, int], str],
) -> None:
    """Check that the presets of several datasets give all their images one size.

    Args:
        transforms: The transforms of each dataset.
        sizes: The sizes of each dataset's images, see :func:`check_image_sizes`.
        name: Returns the name of an image, given its dataset, its split and its number.

    Raises:
        BenchmarkError: See :func:`check_image_sizes`; or two datasets have different sizes.
    """
    shown: dict[str, tuple[str, Sizes]] = {}
    for dataset, of_splits in sizes.items():
        check_image_sizes(transforms[dataset], of_splits, partial(name, dataset))
        for split, of_split in of_splits.items():
            if len(of_split) and dataset not in shown:
                size = shown_sizes(transforms[dataset].evaluate, of_split[:1])[0]
                shown[dataset] = name(dataset, split, 0), size
    (first, (example, usual)), *others = shown.items() or [("", ("", np.zeros(2, np.int32)))]
    for dataset, (other, size) in others:
        if (size != usual).any():
            raise BenchmarkError(
                f"the images of datasets {first!r} and {dataset!r} differ in size: {example} is "
                f"shown at {_text(usual)} pixels, {other} at {_text(size)}: give the datasets "
                "image presets (transforms) of one size"
            )


def training_difference(transforms: TransformPreset, sizes: Sizes) -> tuple[int, str] | None:
    """Find an image that a preset gives one size in training and another in evaluation.

    Args:
        transforms: The transforms of the preset.
        sizes: int32 (N, 2), height and width in pixels.

    Returns:
        The number of the first such image and both sizes in words; None if there is none.
    """
    trained, evaluated = (shown_sizes(t, sizes) for t in (transforms.train, transforms.evaluate))
    different = np.flatnonzero((trained != evaluated).any(axis=1))
    if not len(different):
        return None
    number = int(different[0])
    said = (
        f"would be trained on at {_text(trained[number])} and evaluated at "
        f"{_text(evaluated[number])} pixels"
    )
    return number, said


def _warn_of_small_parts(train: Transform, sizes: Sizes, image: Callable[[int], str]) -> None:
    """Warn of images more than twice as large as the crop that is cut out of them unresized."""
    largest = int(np.argmax(sizes.min(axis=1)))
    height, width = sizes[largest]
    one = train.parameters(height[None], width[None], np.zeros((1, train.n_random)))
    if one.window is not None or one.resize is not None or one.output_size is None:
        return
    if min(height, width) > 2 * max(one.output_size):
        warn(
            f"{image(largest)}: the image preset cuts {one.output_size[0]} x {one.output_size[1]} "
            "pixels out of it without resizing it, so training shows small parts of images: use "
            '"crop": "random_resized", or add "resize", in the preset'
        )


def shown_sizes(transform: Transform, sizes: Sizes) -> Sizes:
    """Return the sizes of transformed images.

    Args:
        transform: The transform; the sizes of its results must not depend on random numbers.
        sizes: int32 (N, 2), height and width in pixels.

    Returns:
        int32 (N, 2).
    """
    _, first, which = np.unique(_keys(sizes), return_index=True, return_inverse=True)
    distinct = sizes[first]
    heights, widths = distinct.T
    shown = transform.parameters(heights, widths, np.zeros((len(distinct), transform.n_random)))
    return shown.shown_sizes(heights, widths)[which.reshape(-1)]


def _usual_and_odd(sizes: Sizes) -> tuple[int, int | None]:
    """Return the first row of the most frequent size and that of the rarest other size, if any."""
    _, first, counts = np.unique(_keys(sizes), return_index=True, return_counts=True)
    usual = int(np.argmax(counts))
    counts[usual] = len(sizes) + 1
    rarest = int(np.argmin(counts))
    return int(first[usual]), None if rarest == usual else int(first[rarest])


def _keys(sizes: Sizes) -> NDArray[np.int64]:
    """Return a number for each size: sorting numbers takes a tenth of the time of sorting rows."""
    return sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1]


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
