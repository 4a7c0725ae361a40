"""Copying datasets between addresses: shards first, sample table and manifest last."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from shlex import quote

from iirc_data.definitions import PathLike
from iirc_data.errors import ShardError
from iirc_data.files import sync_folder, write_atomically
from iirc_data.masking import masked
from iirc_data.shards.addresses import local_path, split_pin
from iirc_data.shards.blocks import BLOCKS_NAME
from iirc_data.shards.card import Card
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME, Manifest, Shard
from iirc_data.shards.parallel import BytesDone, TotalProgress, for_each, no_progress
from iirc_data.shards.partial_copy import absent_in_words
from iirc_data.shards.publication import MARKER_NAME, Publication, check_same
from iirc_data.shards.remote import RemoteDataset, has_size, writing_alone
from iirc_data.shards.store import read_manifest
from iirc_data.shards.versions import VERSIONS_FOLDER
from iirc_data.spelling import with_known_spelling

DEFAULT_WORKERS = 8

__all__ = ["DEFAULT_WORKERS", "MARKER_NAME", "publish", "pull"]


def pull(
    address: PathLike,
    out: PathLike,
    *,
    classes: Collection[str] | None = None,
    update: bool = False,
    workers: int = DEFAULT_WORKERS,
    progress: TotalProgress = no_progress,
) -> Manifest:
    """Copy a dataset, or some classes of it, into a local folder.

    A copy of some classes has the whole manifest and sample table, and therefore the digest and
    the sample ids of the dataset; only shards are missing, and a later pull adds them. Calling
    this function again resumes an interrupted pull: shards that are already there stay, after
    their digests are checked.

    Args:
        address: URL or path of a shard folder; ``ADDRESS@sha256:DIGEST`` pins the digest of the
            dataset.
        out: Folder to copy to; may contain the same dataset, whole or in part.
        classes: Leaf classes to copy; by default all.
        update: Replace another version of the dataset in ``out``: fetch the shards that differ,
            and remove those that the new version does not have. ``taxonomy.json`` becomes that of
            the new version; if that has none, it is removed. Without ``update``, the
            ``taxonomy.json`` of a dataset in ``out`` stays as it is.
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
    is_dataset = (out / MANIFEST_NAME).exists()
    before = read_manifest(out) if is_dataset else manifest
    if not update:
        check_same(before, manifest, str(out), "give another folder, or replace it with --update")
    wanted = set(manifest.classes if classes is None else classes)
    if missing := sorted(wanted - set(manifest.classes)):
        raise ShardError(
            f"{masked(str(address))} lacks {len(missing)} of the classes: "
            f"{with_known_spelling(missing, manifest.classes)}"
        )
    shards = [shard for shard in manifest.shards if shard.class_name in wanted]
    to_copy = [shard for shard in shards if not has_size(out / shard.path, shard.bytes)]
    _check_present(dataset, to_copy, "pull")
    _, table_text = dataset.read_table()
    checksums = dataset.read_checksums()
    taxonomy = dataset.read_taxonomy()
    _check_free_space(out, shards)

    now = {shard.path: shard.sha256 for shard in manifest.shards}
    stale = [s for s in before.shards if now.get(s.path, s.sha256) != s.sha256]
    for shard in stale:  # first: without them, the other version is a partial copy
        _remove(out / shard.path)
    if stale:  # a mixture of two versions is not a finished dataset
        _forget_version(out)

    def bring(shard: Shard, advance: BytesDone) -> None:
        dataset.fetch(shard, out, advance, recheck=True)

    total = sum(shard.bytes for shard in shards)
    for_each(bring, shards, workers=workers, total=total, progress=progress)
    if before != manifest or not is_dataset:
        _forget_version(out)  # it does not belong to the table that is written next
    if checksums is None:
        _remove(out / BLOCKS_NAME)
    path = out / TAXONOMY_NAME
    if taxonomy is not None and (update or not path.exists()):
        with writing_alone(path), write_atomically(path) as file:
            file.write(taxonomy)
    dataset.save_description(out, table_text, None if checksums is None else checksums[1])
    if not (out / VERSIONS_FOLDER).exists():  # earlier versions, which use all shards
        for shard in before.shards:
            if shard.path not in now:
                _remove(out / shard.path)
    return manifest


def _forget_version(out: Path) -> None:
    """Remove the manifest of a version, and then the taxonomy that belongs to it."""
    _remove(out / MANIFEST_NAME)
    _remove(out / TAXONOMY_NAME)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:  # the folder is not there either
        return
    except OSError as error:
        raise ShardError(f"cannot remove {path}: {error.strerror or error}") from error


def publish(
    root: PathLike,
    address: PathLike,
    *,
    new_version: bool = False,
    card: Card | None = None,
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
        new_version: Publish beside the versions of the dataset that are at the address; they can
            still be read by their digests. Only shards that differ are copied. If a shard has the
            name of another one there, it is renamed in ``root`` too, which changes the digest.
        card: Content of a page that describes the dataset to readers, written as ``README.md``
            and ``index.html``; None for no page. Pages of other origin are left alone.
        workers: Number of files to copy at the same time.
        progress: Called with the bytes copied or found in place so far, and their total number.

    Returns:
        The dataset's manifest.

    Raises:
        ShardError: ``root`` is incomplete or damaged; the address cannot be written, or contains
            another dataset, whole or in part.
    """
    if split_pin(address)[1] is not None:
        raise ShardError("cannot publish to a pinned digest: leave @sha256:… out")
    source = RemoteDataset.open(root)
    _check_present(source, source.manifest.shards, "publish")
    folder = local_path(address)
    publication = Publication(Path(root), str(address if folder is None else folder), folder)
    if folder is None or (new_version and publication.meets_another_version()):
        manifest = publication.run(workers, progress, new_version=new_version)
    else:
        manifest = pull(root, folder, workers=workers, progress=progress)
        publication.write_taxonomy()
    if card is not None:
        publication.write_card(card, manifest)
    return manifest


def _check_present(dataset: RemoteDataset, shards: Sequence[Shard], verb: str) -> None:
    """Check, before anything is copied, that a local folder has the shards to copy.

    Raises:
        ShardError: Some are missing: the folder is a partial copy.
    """
    root = local_path(dataset.address)
    if root is None:
        return
    absent = [shard for shard in shards if not (root / shard.path).exists()]
    if absent:
        raise ShardError(
            f"{root} is a partial copy, which lacks {absent_in_words(absent, dataset.manifest)}; "
            f"fetch them with iirc data pull ADDRESS {quote(str(root))}, or {verb} from a complete "
            "folder"
        )


def _check_free_space(out: Path, shards: Sequence[Shard]) -> None:
    needed = sum(shard.bytes for shard in shards if not has_size(out / shard.path, shard.bytes))
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(existing).free) < needed:
        raise ShardError(
            f"{out} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: choose another "
            "folder, or fewer tasks"
        )
