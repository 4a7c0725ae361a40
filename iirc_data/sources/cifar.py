"""CIFAR-10 and CIFAR-100 from the pickles that their authors publish, encoded as PNG here."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, Sample, check_exists, file_stamp
from iirc_data.sources.cifar_layouts import CIFAR10, CIFAR100, CIFAR_LAYOUTS, CifarLayout
from iirc_data.sources.hierarchy import Superclasses, build_hierarchy
from iirc_data.sources.restricted_pickle import Value, load_cifar_pickle, parse_cifar_pickle
from iirc_data.sources.tar import read_compressed

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CIFAR_LAYOUTS",
    "CifarImages",
    "CifarLayout",
    "CifarSource",
    "as_image",
    "open_cifar",
]

_SIDE = 32


@dataclass(frozen=True)
class CifarImages:
    """The images of one split.

    Attributes:
        pixels: uint8 (N, 3072), channel after channel, row after row.
        labels: int64 (N,), class numbers.
        superclasses: int64 (N,), superclass numbers; None if the pickles have none.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    superclasses: NDArray[np.int64] | None = None


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return the RGB image of one row of a pickle.

    Args:
        pixels: uint8 (3072,), channel after channel, row after row.
    """
    channels_last = pixels.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(channels_last))


def open_cifar(path: Path, dataset: str | None = None) -> "CifarSource":
    """Open CIFAR-10 or CIFAR-100.

    Args:
        path: The folder ``cifar-100-python`` or ``cifar-10-batches-py``, its ``.tar.gz``, or a
            folder that contains one of these.
        dataset: ``"cifar10"`` or ``"cifar100"``; needed if ``path`` contains both.

    Returns:
        The source.

    Raises:
        SourceError: ``path`` contains neither, or both and ``dataset`` is None.
    """
    layouts = [CIFAR_LAYOUTS[dataset]] if dataset else list(CIFAR_LAYOUTS.values())
    found = [
        CifarSource(candidate, layout)
        for layout in layouts
        for candidate in (path, path / layout.folder, path / layout.archive)
        if (candidate / layout.names_file).exists()
        or (candidate.name == layout.archive and candidate.exists() and not candidate.is_dir())
    ]
    if not found:
        archives = " or ".join(layout.archive for layout in layouts)
        wanted = (
            f"give {archives} (under this name), the folder that it unpacks to, or their parent"
        )
        check_exists(path, wanted)
        raise SourceError(f"{path} is not recognised as CIFAR: {wanted}")
    if len({source.layout for source in found}) > 1:
        raise SourceError(f"{path} holds both CIFAR-10 and CIFAR-100: say which, with --dataset")
    return found[0]


@dataclass(frozen=True)
class CifarSource:
    """CIFAR's pickles; the samples of a class are in the order of the pickles.

    The key of a sample is its position in its split, counted over all pickles.

    Attributes:
        path: The folder of the pickles, or the ``.tar.gz``.
        layout: CIFAR-10 or CIFAR-100.
    """

    path: Path
    layout: CifarLayout
    encoded_here = True

    @property
    def name(self) -> str:
        """``"cifar10"`` or ``"cifar100"``."""
        return self.layout.name

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folder of the pickles, or the ``.tar.gz``."""
        return (self.path,)

    def classes(self) -> dict[str, list[str]]:
        """Return the sorted names of the classes with images in each split.

        Raises:
            SourceError: A pickle is missing, damaged, or not from CIFAR.
        """
        names = self.class_names
        return {
            split: sorted(names[number] for number in np.unique(self.images(split).labels))
            for split, _ in self.layout.files
        }

    def weight(self, split: str, class_name: str) -> int:
        """Return the number of images of a class."""
        return len(self._rows(split, class_name))

    def fingerprint(self, split: str, class_name: str) -> str:
        """Return the sizes and modification times of the pickles."""
        return str(self._stamps(split))

    def samples(self, split: str, class_name: str) -> Iterator[Sample]:
        """Yield the images of one class as PNG, in the order of the pickles.

        Raises:
            SourceError: See :meth:`classes`.
        """
        pixels = self.images(split).pixels
        for row in self._rows(split, class_name).tolist():
            file = io.BytesIO()
            as_image(pixels[row]).save(file, format="PNG")
            yield Sample(f"{row:05d}", "png", file.getvalue(), f"{self.path}:{split}:{row}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, in the dataset's order."""
        return _load_names(self.path, self.layout, self.layout.names_key, self._stamps(None))

    def taxonomy(self) -> Superclasses | None:
        """Return CIFAR-100's 20 superclasses, its coarse labels, each with its classes.

        Returns:
            The taxonomy; None for CIFAR-10, and for pickles without coarse labels.

        Raises:
            SourceError: See :meth:`classes`; or a class has images of two superclasses.
        """
        if self.layout.superclasses is None:
            return None
        names_key, numbers_key = self.layout.superclasses
        pairs: set[tuple[int, int]] = set()
        for split, _ in self.layout.files:
            images = self.images(split)
            if images.superclasses is None:
                return None
            pairs |= set(zip(images.superclasses.tolist(), images.labels.tolist(), strict=True))
        superclasses = _load_names(self.path, self.layout, names_key, self._stamps(None))
        if (highest := max((number for number, _ in pairs), default=-1)) >= len(superclasses):
            raise SourceError(
                f"{self.path}: superclass number {highest} in {numbers_key.decode()!r}, but "
                f"{self.layout.names_file} names {len(superclasses)}: download it again"
            )
        if len({label for _, label in pairs}) < len(pairs):
            raise SourceError(
                f"{self.path}: a class has images of two superclasses: download it again"
            )
        lineages = [
            (("superclass", superclasses[number]), ("class", self.class_names[label]))
            for number, label in sorted(pairs)
        ]
        return build_hierarchy(lineages, str(self.path)).taxonomy

    def images(self, split: str) -> CifarImages:
        """Return the images of one split, in the order of the pickles.

        Raises:
            SourceError: See :meth:`classes`.
        """
        images = _load_images(self.path, self.layout, split, self._stamps(split))
        if images.labels.size and images.labels.max() >= len(self.class_names):
            raise SourceError(
                f"{self.path}: class number {images.labels.max()} in split {split!r}, but "
                f"{self.layout.names_file} names {len(self.class_names)} classes"
            )
        return images

    def _rows(self, split: str, class_name: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.images(split).labels == self.class_names.index(class_name))

    def _stamps(self, split: str | None) -> tuple[FileStamp, ...]:
        if not self.path.is_dir():
            return (file_stamp(self.path),)
        files = (self.layout.names_file, *dict(self.layout.files).get(split or "", ()))
        return tuple(file_stamp(self.path / name) for name in files)


# Cached per process, not in the source, which is sent to a process with every class.
@lru_cache(maxsize=2)
def _load_images(
    path: Path, layout: CifarLayout, split: str, stamps: tuple[FileStamp, ...]
) -> CifarImages:
    pixels, labels, superclasses = [], [], []
    for where, content in _load(path, layout, dict(layout.files)[split]):
        data = content.get(b"data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
            raise SourceError(f"{where} has no uint8 matrix 'data': not a pickle of {layout.name}")
        if data.shape[1] != 3 * _SIDE**2:
            raise SourceError(f"{where} has images of {data.shape[1]} bytes, expected 3072")
        pixels.append(data)
        labels.append(_numbers(content, layout.labels_key, len(data), where, layout))
        if layout.superclasses is not None and layout.superclasses[1] in content:
            superclasses.append(_numbers(content, layout.superclasses[1], len(data), where, layout))
    return CifarImages(
        np.concatenate(pixels),
        np.concatenate(labels),
        np.concatenate(superclasses) if superclasses else None,
    )


def _numbers(
    content: dict[bytes, Value], key: bytes, n: int, where: str, layout: CifarLayout
) -> NDArray[np.int64]:
    numbers = content.get(key)
    if (
        not isinstance(numbers, list)
        or len(numbers) != n
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise SourceError(
            f"{where} has no class number for each of its {n} images in "
            f"{key.decode()!r}: not a pickle of {layout.name}"
        )
    return np.array(numbers, np.int64)


@lru_cache(maxsize=4)
def _load_names(
    path: Path, layout: CifarLayout, key: bytes, stamps: tuple[FileStamp, ...]
) -> tuple[str, ...]:
    ((where, content),) = _load(path, layout, (layout.names_file,))
    names = content.get(key)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise SourceError(f"{where} has no class names: not a pickle of {layout.name}")
    decoded = tuple(name.decode() for name in names if isinstance(name, bytes))
    if len(set(decoded)) != len(decoded):
        raise SourceError(f"{where} gives two classes the same name")
    return decoded


def _load(
    path: Path, layout: CifarLayout, files: tuple[str, ...]
) -> Iterator[tuple[str, dict[bytes, Value]]]:
    if path.is_dir():
        for name in files:
            yield str(path / name), load_cifar_pickle(path / name)
        return
    members = [f"{layout.folder}/{name}" for name in files]
    contents = read_compressed(path, members)
    for member in members:
        yield f"{path}:{member}", parse_cifar_pickle(contents[member], f"{path}:{member}")
