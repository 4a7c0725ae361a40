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
from iirc_data.sources.base import FileStamp, Sample, file_stamp
from iirc_data.sources.restricted_pickle import Value, load_cifar_pickle, parse_cifar_pickle
from iirc_data.sources.tar import read_compressed

_SIDE = 32


@dataclass(frozen=True)
class CifarLayout:
    """The published form of one of the two datasets.

    Attributes:
        name: Name of the dataset.
        folder: Name of the folder of the pickles.
        files: Each split with the names of its pickles, in order.
        names_file: The pickle with the class names.
        names_key: Key of the class names in that pickle.
        labels_key: Key of the class numbers in the other pickles.
        url: Address of the ``.tar.gz``.
        sha256: SHA-256 of the ``.tar.gz``.
    """

    name: str
    folder: str
    files: tuple[tuple[str, tuple[str, ...]], ...]
    names_file: str
    names_key: bytes
    labels_key: bytes
    url: str
    sha256: str

    @property
    def archive(self) -> str:
        """File name of the ``.tar.gz``."""
        return self.url.rpartition("/")[2]


CIFAR10 = CifarLayout(
    name="cifar10",
    folder="cifar-10-batches-py",
    files=(("test", ("test_batch",)), ("train", tuple(f"data_batch_{n}" for n in range(1, 6)))),
    names_file="batches.meta",
    names_key=b"label_names",
    labels_key=b"labels",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = CifarLayout(
    name="cifar100",
    folder="cifar-100-python",
    files=(("test", ("test",)), ("train", ("train",))),
    names_file="meta",
    names_key=b"fine_label_names",
    labels_key=b"fine_labels",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
CIFAR_LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


@dataclass(frozen=True)
class CifarImages:
    """The images of one split.

    Attributes:
        pixels: uint8 (N, 3072), channel after channel, row after row.
        labels: int64 (N,), class numbers.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


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
    if not found or len({source.layout for source in found}) > 1:
        wanted = " or ".join(f"{layout.folder} or {layout.archive}" for layout in layouts)
        raise SourceError(
            f"{path} holds both CIFAR-10 and CIFAR-100: say which, with --dataset"
            if found
            else f"{path} neither is nor holds {wanted}"
        )
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
        return _load_names(self.path, self.layout, self._stamps(None))

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
    pixels, labels = [], []
    for where, content in _load(path, layout, dict(layout.files)[split]):
        data, numbers = content.get(b"data"), content.get(layout.labels_key)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
            raise SourceError(f"{where} has no uint8 matrix 'data': not a pickle of {layout.name}")
        if data.shape[1] != 3 * _SIDE**2:
            raise SourceError(f"{where} has images of {data.shape[1]} bytes, expected 3072")
        if (
            not isinstance(numbers, list)
            or len(numbers) != len(data)
            or not all(type(number) is int and number >= 0 for number in numbers)
        ):
            raise SourceError(
                f"{where} has no class number for each of its {len(data)} images in "
                f"{layout.labels_key.decode()!r}: not a pickle of {layout.name}"
            )
        pixels.append(data)
        labels.append(np.array(numbers, np.int64))
    return CifarImages(np.concatenate(pixels), np.concatenate(labels))


@lru_cache(maxsize=2)
def _load_names(path: Path, layout: CifarLayout, stamps: tuple[FileStamp, ...]) -> tuple[str, ...]:
    ((where, content),) = _load(path, layout, (layout.names_file,))
    names = content.get(layout.names_key)
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
