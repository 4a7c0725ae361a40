"""Copying cached features between machines: their files, and last an index with digests."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.features.array import NOT_FEATURES, FeatureArray, parse_metadata
from iirc_data.features.chunks import METADATA_NAME, chunk_name, chunk_rows
from iirc_data.features.filling import load
from iirc_data.features.key import FORMAT, VERSION, FeatureKey
from iirc_data.files import canonical_json, file_sha256
from iirc_data.masking import masked
from iirc_data.shards.addresses import local_path, read_whole, split_pin
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.parallel import BytesDone, TotalProgress, for_each, no_progress
from iirc_data.shards.remote import writing_alone
from iirc_data.shards.upload import Advance, Upload

INDEX_NAME = "features.json"
"""The file that lists the others with their SHA-256; written last."""

DEFAULT_WORKERS = 8

_LARGEST_INDEX = 1 << 26
_LARGEST_METADATA = 1 << 20


class _Publication(Upload):
    """The upload of an array of features."""

    def run(
        self, array: FeatureArray, files: Mapping[str, str], workers: int, progress: TotalProgress
    ) -> None:
        """Copy the files that the index at the address does not list alike; then the index."""
        text = self._read(INDEX_NAME)
        there = {} if text is None else _files(text, f"{masked(self._address)}/{INDEX_NAME}")
        if there.get(METADATA_NAME, files[METADATA_NAME]) != files[METADATA_NAME]:
            raise ShardError(
                f"{masked(self._address)} already holds other features: give another address"
            )
        sizes = {name: (array.folder / name).stat().st_size for name in files}

        def bring(name: str, advance: BytesDone) -> None:
            callback = Advance(advance)
            if there.get(name) != files[name]:
                self._put(array.folder / name, name, callback)
            advance(sizes[name] - callback.value)

        total = sum(sizes.values())
        for_each(bring, list(files), workers=workers, total=total, progress=progress)
        self._put_text(INDEX_NAME, _index(files))


def publish_features(
    cache: CacheFolder,
    digest: str,
    address: PathLike,
    *,
    workers: int = DEFAULT_WORKERS,
    progress: TotalProgress = no_progress,
) -> str:
    """Copy features from a cache to an address from which others can pull them.

    Args:
        cache: The cache.
        digest: Digest of the features' key, the name of their folder.
        address: URL or path to copy to; any address that fsspec can write.
        workers: Number of files to copy at the same time.
        progress: Called with the bytes copied or found in place so far, and their total number.

    Returns:
        Digest of the features, which pins them when they are pulled.

    Raises:
        ShardError: The cache does not hold all features of the dataset; the address cannot be
            written, or holds other features.
    """
    if split_pin(address)[1] is not None:
        raise ShardError("cannot publish to a pinned digest: leave @sha256:… out")
    array = FeatureArray.open(cache, digest)
    missing = load(array, np.arange(array.shape[0]))
    if len(missing):
        raise ShardError(
            f"{array.folder} lacks {len(missing):,} of {array.shape[0]:,} features of "
            f"{array.key.dataset}: compute all of them first, with iirc features compute --all"
        )
    names = [METADATA_NAME, *map(chunk_name, range(array.n_chunks))]
    files = {name: file_sha256(array.folder / name) for name in names}
    folder = local_path(address)
    upload = _Publication(str(address if folder is None else folder), folder)
    upload.run(array, files, workers, progress)
    return _digest(files)


def pull_features(
    cache: CacheFolder,
    address: PathLike,
    *,
    workers: int = DEFAULT_WORKERS,
    progress: TotalProgress = no_progress,
) -> tuple[FeatureKey, str]:
    """Copy features from an address into a cache, where runs find them.

    Calling this function again resumes an interrupted pull: files that match their digests stay.

    Args:
        cache: The cache.
        address: URL or path of published features; ``ADDRESS@sha256:DIGEST`` pins their digest.
        workers: Number of files to copy at the same time.
        progress: Called with the bytes copied or checked so far, and their total number.

    Returns:
        The key of the features, and their digest.

    Raises:
        ShardError: There are no features at the address, or none with the pinned digest; a file
            there does not match its digest; the cache cannot be written.
    """
    place, pin = split_pin(address)
    where = masked(f"{place}/{INDEX_NAME}")
    files = _files(read_whole(place, INDEX_NAME, _LARGEST_INDEX), where)
    digest = _digest(files)
    if pin not in (None, digest):
        raise ShardError(
            f"{masked(place)} has features with the digest {digest}, not the pinned {pin}"
        )
    metadata = read_whole(place, METADATA_NAME, _LARGEST_METADATA)
    _check(metadata, files[METADATA_NAME], f"{masked(place)}/{METADATA_NAME}")
    try:
        key, shape = parse_metadata(metadata)
    except NOT_FEATURES as error:
        raise ShardError(f"{masked(place)} does not hold features: {error}") from error
    n_chunks = -(-shape[0] // chunk_rows(shape[1]))
    if files.keys() != {METADATA_NAME, *map(chunk_name, range(n_chunks))}:
        raise ShardError(f"{where} does not list the {n_chunks} chunks of its features")
    folder, size = cache.base / key.digest, 4 * chunk_rows(shape[1]) * shape[1] + 4

    def bring(name: str, advance: BytesDone) -> None:
        path = folder / name
        with writing_alone(path):
            if not path.exists() or file_sha256(path) != files[name]:
                is_metadata = name == METADATA_NAME
                content = metadata if is_metadata else read_whole(place, name, size)
                _check(content, files[name], f"{masked(place)}/{name}")
                with cache.adding(path, len(content)) as file:
                    file.write(content)
        if name != METADATA_NAME:
            advance(size)

    total = size * n_chunks
    for_each(bring, list(files), workers=workers, total=total, progress=progress)
    return key, digest


def _check(content: bytes, sha256: str, where: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ShardError(
            f"{where} does not match its digest in {INDEX_NAME}: it was damaged or altered there"
        )


def _index(files: Mapping[str, str]) -> bytes:
    content = {"format": FORMAT, "version": VERSION, "files": dict(files)}
    return json.dumps(content, indent=1).encode() + b"\n"


def _files(text: bytes, where: str) -> dict[str, str]:
    try:
        content = json.loads(text)
        found = content["format"], content["version"]
        if found != (FORMAT, VERSION):
            raise ValueError(f"it is {found[0]!r} version {found[1]!r}")
        files = {str(name): str(sha256) for name, sha256 in content["files"].items()}
        files[METADATA_NAME]
        return files
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{where} is not an index of {FORMAT} {VERSION}: {error}") from error


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(files))).hexdigest()
