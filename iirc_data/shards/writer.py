"""Writing shards: one class per tar, reproducible, finished files only under final names."""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from webdataset import TarWriter

from iirc_data.errors import ShardError, SourceError
from iirc_data.files import write_atomically
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, Shard
from iirc_data.shards.table import IMAGE_MODES, SampleTable
from iirc_data.sources.base import Sample, Source

DEFAULT_MAX_SHARD_SIZE = 1 << 30
_TAR_BLOCK = 512

Progress = Callable[[int, int], None]
"""Called with the images and bytes that were written since the last call."""


@dataclass(frozen=True)
class ShardedClass:
    """What writing one class gave: its shards, and its rows of the sample table.

    Attributes:
        shards: The tars, in order.
        rows: int64 (N, 6): shard number within the class, offset, size, height, width, mode.
        image_formats: Extensions that occur.
    """

    shards: list[Shard]
    rows: np.ndarray[Any, np.dtype[np.int64]]
    image_formats: frozenset[str]


def write_shards(
    source: Source,
    out: Path,
    *,
    workers: int = 1,
    max_shard_size: int = DEFAULT_MAX_SHARD_SIZE,
    progress: Progress = lambda images, size: None,
) -> Manifest:
    """Write a dataset as per-class tar shards with sample table and manifest.

    The manifest is written last: a folder without one is no dataset, and the command can be run
    again. The same input gives the same files, whatever ``workers``.

    Args:
        source: The raw dataset.
        out: Shard folder; must not hold a finished dataset yet.
        workers: Number of processes that write classes side by side.
        max_shard_size: Size in bytes of image data after which a class goes on in a further tar.
        progress: Told of every finished class.

    Returns:
        The manifest that was written.

    Raises:
        SourceError: An input file is no image, or two share a key; the file is named.
        ShardError: ``out`` holds a dataset already.
    """
    if (out / MANIFEST_NAME).exists():
        raise ShardError(
            f"{out} already holds a finished dataset: give another folder or remove it"
        )
    found = source.classes()
    classes = sorted({name for names in found.values() for name in names})
    jobs = [(split, name) for split, names in sorted(found.items()) for name in names]
    results: dict[tuple[str, str], ShardedClass] = {}
    with _executor(workers) as executor:
        futures = {
            executor.submit(write_class, source, out, split, name, max_shard_size): (split, name)
            for split, name in jobs
        }
        try:
            for future in as_completed(futures):
                result = results[futures[future]] = future.result()
                progress(len(result.rows), sum(shard.bytes for shard in result.shards))
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return _finish(source.name, out, classes, {job: results[job] for job in jobs})


def write_class(
    source: Source, out: Path, split: str, class_name: str, max_shard_size: int
) -> ShardedClass:
    """Write the tars of one class of one split.

    Args:
        source: The raw dataset.
        out: Shard folder.
        split: Name of the split.
        class_name: Name of the leaf class.
        max_shard_size: See :func:`write_shards`.

    Returns:
        The shards and the class's rows of the sample table.

    Raises:
        SourceError: The class has no image, an input file is no image, or two share a key.
    """
    shards: list[Shard] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    formats: set[str] = set()
    origins: dict[str, str] = {}
    samples = source.samples(split, class_name)
    sample = next(samples, None)
    if sample is None:
        raise SourceError(f"class {class_name!r} of split {split!r} has no images: remove it")
    while sample is not None:
        path = f"{split}/{class_name}-{len(shards):06d}.tar"
        first_row, data_size = len(rows), 0
        with (
            _hashing_file(out / path) as file,
            TarWriter(file, encoder=False, mtime=0, user="", group="") as tar,
        ):
            while sample is not None and (
                data_size == 0 or data_size + len(sample.data) <= max_shard_size
            ):
                key = escape_key(sample.key)
                if key in origins:
                    raise SourceError(
                        f"{sample.origin} and {origins[key]} share the key {sample.key!r}: "
                        "rename one"
                    )
                origins[key] = sample.origin
                height, width, mode = read_image_header(sample)
                tar.write({"__key__": key, sample.extension: sample.data})
                size = len(sample.data)
                offset = tar.tarstream.offset - -(-size // _TAR_BLOCK) * _TAR_BLOCK
                rows.append((len(shards), offset, size, height, width, mode))
                formats.add(sample.extension)
                data_size += size
                sample = next(samples, None)
        shards.append(
            Shard(
                path=path,
                class_name=class_name,
                samples=len(rows) - first_row,
                bytes=file.size,
                sha256=file.digest.hexdigest(),
            )
        )
    return ShardedClass(shards, np.array(rows, dtype=np.int64), frozenset(formats))


def escape_key(key: str) -> str:
    """Escape dots in a key, for WebDataset splits a member's name at the first one."""
    return key.replace("%", "%25").replace(".", "%2E")


def read_image_header(sample: Sample) -> tuple[int, int, int]:
    """Return an image's height, width and mode number without decoding it.

    Raises:
        SourceError: The data is no image, or of a pixel format that is not supported.
    """
    if not sample.data:
        raise SourceError(f"{sample.origin} is empty (0 bytes): it is no image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(sample.data), formats=("JPEG", "PNG"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SourceError(f"{sample.origin} is too large an image: {error}") from error
    except Exception as error:  # Pillow raises many types on broken headers
        raise SourceError(f"{sample.origin} is no JPEG or PNG image: {error}") from error
    if image.mode not in IMAGE_MODES:
        raise SourceError(f"{sample.origin} has the unsupported pixel format {image.mode!r}")
    return image.height, image.width, IMAGE_MODES.index(image.mode)


def _finish(
    dataset: str, out: Path, classes: list[str], results: dict[tuple[str, str], ShardedClass]
) -> Manifest:
    splits: dict[str, list[Shard]] = {}
    blocks = []
    n_shards = 0
    for (split, class_name), result in results.items():
        splits.setdefault(split, []).extend(result.shards)
        class_id = np.full((len(result.rows), 1), classes.index(class_name))
        blocks.append(np.hstack([class_id, result.rows]))
        blocks[-1][:, 1] += n_shards
        n_shards += len(result.shards)
    names = ("class_id", "shard", "offset", "size", "height", "width", "mode")
    table = SampleTable.from_columns(dict(zip(names, np.concatenate(blocks).T, strict=True)))
    table.save(out)
    manifest = Manifest(
        dataset=dataset,
        image_formats=sorted(set().union(*(result.image_formats for result in results.values()))),
        classes=classes,
        splits=splits,
        table_sha256=table.digest(),
    )
    manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
    manifest.save(out)
    return manifest


class _HashingFile(io.RawIOBase):
    """Passes writes on, counting and digesting them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


@contextmanager
def _hashing_file(path: Path) -> Iterator[_HashingFile]:
    with write_atomically(path) as file:
        yield _HashingFile(file)


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    if workers < 1:
        raise ShardError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        with ThreadPoolExecutor(1) as executor:
            yield executor
        return
    # spawned, not forked: a forked child may inherit another thread's held lock
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor
