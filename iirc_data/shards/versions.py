"""Versions of a dataset at one address, and digests that pin one of them.

The current version is described by ``manifest.json`` and ``index.npz``, as in every shard folder.
``versions/<digest>.json`` and ``versions/<digest>.npz`` describe a version for those who pin its
digest. All versions use the same tars: a tar that differs from an earlier version's has another
name.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from iirc_data.errors import ShardError
from iirc_data.files import file_sha256, sync_folder, write_atomically
from iirc_data.reading import open_regular, read_regular
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, load_manifest

VERSIONS_FOLDER = "versions"

_SHORT = 12  # hexadecimal digits of a tar's digest that its name repeats
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_DIGEST_AT_END = re.compile(rf"-[0-9a-f]{{{_SHORT}}}(?:[0-9a-f]{{{64 - _SHORT}}})?$")


def version_file(digest: str, ending: str) -> str:
    """Return the path of a version's manifest (``"json"``) or sample table (``"npz"``)."""
    return f"{VERSIONS_FOLDER}/{digest}.{ending}"


def with_names_of_its_own(manifest: Manifest, others: Iterable[Manifest]) -> Manifest:
    """Give the shards of a new version names under which no other version has another tar.

    Args:
        manifest: The new version.
        others: The versions that exist.

    Returns:
        The new version with its new digest. A shard that has to be renamed ends in the first
        digits of its SHA-256; equal shards therefore get equal names.
    """
    taken: dict[str, str] = {}
    for other in others:
        taken.update((shard.path, shard.sha256) for shard in other.shards)

    def own_name(path: str, sha256: str) -> str:
        plain = PurePosixPath(path)
        stem = _DIGEST_AT_END.sub("", plain.stem)
        ends = sha256[:_SHORT], sha256
        names = [path, *(str(plain.with_name(f"{stem}-{end}.tar")) for end in ends)]
        return next(name for name in names if taken.get(name, sha256) == sha256)

    splits = {
        split: [
            shard.model_copy(update={"path": own_name(shard.path, shard.sha256)})
            for shard in shards
        ]
        for split, shards in manifest.splits.items()
    }
    fields = {name: getattr(manifest, name) for name in Manifest.model_fields}
    renamed = Manifest.model_validate(fields | {"splits": splits, "digest": ""})
    return renamed.model_copy(update={"digest": renamed.compute_digest()})


def rename_shards(root: Path, renamed: Manifest) -> None:
    """Rename the shards of a local folder as another manifest of the same data names them.

    The folder is complete at every moment; calling this again finishes an interrupted call.

    Args:
        root: The shard folder.
        renamed: What :func:`with_names_of_its_own` returned for the folder's manifest.

    Raises:
        ShardError: A shard is missing, or the folder cannot be written.
    """
    before = load_manifest(read_regular(root / MANIFEST_NAME), str(root / MANIFEST_NAME))
    moves = [
        (root / old.path, root / new.path)
        for old, new in zip(before.shards, renamed.shards, strict=True)
        if old.path != new.path
    ]
    try:
        for old, new in moves:
            _link(old, new)
        for folder in {new.parent for _, new in moves}:
            sync_folder(folder)
        if renamed != before:
            renamed.save(root)
        kept = {root / shard.path for shard in renamed.shards}
        for old in {old for old, _ in moves} - kept:
            old.unlink(missing_ok=True)
        for shard in renamed.shards:  # from an interrupted call
            path = root / shard.path
            old = path.with_name(_DIGEST_AT_END.sub("", path.stem) + path.suffix)
            if old not in kept and old.exists() and file_sha256(old) == shard.sha256:
                old.unlink()
    except OSError as error:
        raise ShardError(
            f"cannot rename shards in {root}: {error.strerror or error}: {error.filename}"
        ) from error


def _link(old: Path, new: Path) -> None:
    if new.exists():  # from an interrupted call
        new.unlink()
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with write_atomically(new) as file, open_regular(old) as source:
            shutil.copyfileobj(source, file, 1 << 20)
