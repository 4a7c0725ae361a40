"""Index files, with which DALI's own ``fn.readers.webdataset`` reads plain tars."""

from pathlib import Path

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically
from iirc_data.shards.manifest import Manifest
from iirc_data.sources.tar import TarMember, list_members

_VERSION = "v1.2"


def write_dali_index(root: Path, manifest: Manifest) -> list[Path]:
    """Write an index ``x.idx`` beside each shard ``x.tar``, as DALI's ``wds2idx`` does.

    Args:
        root: Shard folder.
        manifest: The folder's manifest.

    Returns:
        The index files, in the order of the manifest's shards.

    Raises:
        SourceError: A shard is missing or damaged.
        ShardError: An index cannot be written.
    """
    paths = []
    for shard in manifest.shards:
        members = list_members(root / shard.path)
        path = (root / shard.path).with_suffix(".idx")
        try:
            with write_atomically(path) as file:
                file.write(f"{_VERSION} {len(members)}\n".encode())
                file.writelines(_line(member) for member in members)
        except OSError as error:
            raise ShardError(
                f"cannot write {path}: {error.strerror or error}; fix that, then run "
                f"iirc data index {root}: the shards are finished"
            ) from error
        paths.append(path)
    return paths


def _line(member: TarMember) -> bytes:
    extension = member.name.rpartition(".")[2]
    name = "_".join(member.name.split())  # DALI splits at blanks, and uses the name only in errors
    return f"{extension} {member.offset} {member.size} {name}\n".encode(errors="surrogateescape")
