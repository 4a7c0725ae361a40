"""Copying datasets between addresses: shards first, sample table and manifest last."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import get_protocol

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.files import file_sha256
from iirc_data.masking import masked
from iirc_data.shards.addresses import WEB_PROTOCOLS, filesystem_at, local_path
from iirc_data.shards.blocks import BLOCKS_NAME
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, Shard, load_manifest
from iirc_data.shards.parallel import BytesDone, TotalProgress, for_each, no_progress
from iirc_data.shards.remote import RemoteDataset, has_size
from iirc_data.shards.store import read_manifest
from iirc_data.shards.table import TABLE_NAME
from iirc_data.spelling import with_known_spelling

DEFAULT_WORKERS = 8

MARKER_NAME = "manifest.unfinished.json"
"""Present during an upload: the manifest of the dataset that is being published."""


def pull(
    address: PathLike,
    out: PathLike,
    *,
    classes: Collection[str] | None = None,
    workers: int = DEFAULT_WORKERS,
    progress: TotalProgress = no_progress,
) -> Manifest:
    """Copy a dataset, or some classes of it, into a local folder.

    A copy of some classes has the whole manifest and sample table, and therefore the digest and
    the sample ids of the dataset; only shards are missing, and a later pull adds them. Calling
    this function again resumes an interrupted pull: shards that are already there stay, after
    their digests are checked.

    Args:
        address: URL or path of a shard folder.
        out: Folder to copy to; may contain the same dataset, whole or in part.
        classes: Leaf classes to copy; by default all.
        workers: Number of files to copy at the same time.
        progress: Called with the bytes copied or checked so far, and their total number.

    Returns:
        The dataset's manifest.

    Raises:
        ShardError: There is no finished dataset at the address, or it lacks some of the classes;
            a file there does not match the manifest; ``out`` contains another dataset or cannot
            be written.
    """
    out = Path(out)
    dataset = RemoteDataset.open(address)
    manifest = dataset.manifest
    if (out / MANIFEST_NAME).exists():
        _check_same(read_manifest(out), manifest, str(out))
    wanted = set(manifest.classes if classes is None else classes)
    if missing := sorted(wanted - set(manifest.classes)):
        raise ShardError(
            f"{masked(str(address))} lacks {len(missing)} of the classes: "
            f"{with_known_spelling(missing, manifest.classes)}"
        )
    shards = [shard for shard in manifest.shards if shard.class_name in wanted]
    _, table_text = dataset.read_table()
    checksums = dataset.read_checksums()
    _check_free_space(out, shards)

    def bring(shard: Shard, advance: BytesDone) -> None:
        dataset.fetch(shard, out, advance, recheck=True)

    total = sum(shard.bytes for shard in shards)
    for_each(bring, shards, workers=workers, total=total, progress=progress)
    dataset.save_description(out, table_text, None if checksums is None else checksums[1])
    return manifest


def publish(
    root: PathLike,
    address: PathLike,
    *,
    workers: int = DEFAULT_WORKERS,
    progress: TotalProgress = no_progress,
) -> Manifest:
    """Copy a dataset to an address from which others can pull it.

    The manifest is written last, so a partial upload is not readable as a dataset. Calling this
    function again resumes an interrupted upload. At a local address, files stay after their
    digests are checked. At a remote address, files of the right size stay if a marker file records
    that an upload of the same manifest put them there.

    Args:
        root: A complete local shard folder.
        address: URL or path to copy to; any address that fsspec can write.
        workers: Number of files to copy at the same time.
        progress: Called with the bytes copied or found in place so far, and their total number.

    Returns:
        The dataset's manifest.

    Raises:
        ShardError: ``root`` is incomplete or damaged; the address cannot be written, or contains
            another dataset, whole or in part.
    """
    folder = local_path(address)
    if folder is not None:
        return pull(root, folder, workers=workers, progress=progress)
    return _Publication(Path(root), str(address)).run(workers, progress)


class _Publication:
    """The upload of a dataset to a remote address."""

    def __init__(self, root: Path, address: str) -> None:
        if get_protocol(address) in WEB_PROTOCOLS:
            raise ShardError(
                "cannot publish to a web server: publish to the folder that serves "
                f"{masked(address)}"
            )
        self._root = root
        self._source = RemoteDataset.open(root)
        self._address = address.rstrip("/")
        self._filesystem, self._folder = filesystem_at(self._address)

    def run(self, workers: int, progress: TotalProgress) -> Manifest:
        """Copy the files that are not there yet."""
        manifest = self._source.manifest
        texts = {TABLE_NAME: self._source.read_table()[1]}  # raises if the table is damaged
        if (checksums := self._source.read_checksums()) is not None:
            texts[BLOCKS_NAME] = checksums[1]
        texts[MANIFEST_NAME] = self._source.manifest_text  # last: it makes the dataset complete
        sizes = self._sizes_in_place()

        def bring(shard: Shard, advance: BytesDone) -> None:
            if sizes.get(shard.path) == shard.bytes:
                advance(shard.bytes)
            else:
                self._put_shard(shard, advance)

        total = sum(shard.bytes for shard in manifest.shards)
        for_each(bring, manifest.shards, workers=workers, total=total, progress=progress)
        for name, text in texts.items():
            if sizes.get(name) != len(text):
                self._put(name, name)
        with self._explained(MARKER_NAME), suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self._folder}/{MARKER_NAME}")
        return manifest

    def _sizes_in_place(self) -> dict[str, int]:
        """Return path and size of the files that an upload of this manifest has put there."""
        self._filesystem.invalidate_cache()
        for name in (MANIFEST_NAME, MARKER_NAME):
            text = self._read(name)
            if text is None or self._is_half_written(text):
                continue
            there = load_manifest(text, f"{masked(self._address)}/{name}")
            _check_same(there, self._source.manifest, self._address)
            with self._explained(name):
                found = self._filesystem.find(self._folder, detail=True)
            start = len(self._folder) + 1
            return {path[start:]: details["size"] for path, details in found.items()}
        self._put(MANIFEST_NAME, MARKER_NAME)
        return {}

    def _is_half_written(self, text: bytes) -> bool:
        """Return whether a text is the start of this manifest, from an interrupted upload."""
        whole = self._source.manifest_text
        return len(text) < len(whole) and whole.startswith(text)

    def _put_shard(self, shard: Shard, advance: BytesDone) -> None:
        path = self._root / shard.path
        if not has_size(path, shard.bytes) or file_sha256(path) != shard.sha256:
            raise ShardError(f"{path} is missing or damaged: run iirc data verify {self._root}")
        callback = _Advance(advance)
        self._put(shard.path, shard.path, callback)
        advance(shard.bytes - callback.value)

    def _put(self, path: str, name: str, callback: Callback = DEFAULT_CALLBACK) -> None:
        target = f"{self._folder}/{name}"
        with self._explained(name):
            try:
                # unlike pipe_file, this creates missing folders, and no bucket
                self._filesystem.put_file(str(self._root / path), target, callback=callback)
            except BaseException:
                with suppress(Exception):  # in an object store there is nothing to remove
                    self._filesystem.rm_file(target)
                raise

    def _read(self, name: str) -> bytes | None:
        with self._explained(name), suppress(FileNotFoundError):
            text: bytes = self._filesystem.cat_file(f"{self._folder}/{name}")
            return text
        return None

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except CancelledError:
            raise
        except Exception as error:  # each filesystem raises its own types
            raise ShardError(
                f"cannot publish {masked(self._address)}/{name}: {type(error).__name__}: "
                f"{masked(str(error))}"
            ) from error


class _Advance(Callback):  # type: ignore[misc]  # fsspec has no types
    """Forwards the byte counts that fsspec reports."""

    def __init__(self, advance: BytesDone) -> None:
        super().__init__()
        self._advance = advance

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._advance(inc)


def _check_same(there: Manifest, wanted: Manifest, where: str) -> None:
    if there == wanted:
        return
    other = "another dataset"
    if there.digest == wanted.digest:
        other = "a version of this dataset whose files are named or encoded differently"
    raise ShardError(f"{masked(where)} already holds {other}: give another address, or remove it")


def _check_free_space(out: Path, shards: Sequence[Shard]) -> None:
    needed = sum(shard.bytes for shard in shards if not has_size(out / shard.path, shard.bytes))
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(existing).free) < needed:
        raise ShardError(
            f"{out} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: choose another "
            "folder, or fewer tasks"
        )
