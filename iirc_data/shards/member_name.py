"""The name of a tar member, read from the blocks before its content."""

import tarfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from tarfile import BLOCKSIZE, LENGTH_NAME, XHDTYPE, TarError, TarInfo

from iirc_data.errors import ShardError

_MOST_EXTENDED_BLOCKS = 4  # of an extended header, which holds one path and a size


def member_name(read: Callable[[int, int], bytes], start: int) -> str:
    """Return the name of the tar member whose content begins at ``start``.

    Args:
        read: Returns bytes of the tar, given the offset of the first and their number.
        start: Offset of the content in bytes.

    Returns:
        The name. If it was shortened or transliterated for the plain header, the whole name is in
        an extended header before it.

    Raises:
        ShardError: The tar cannot be read.
        TarError: There is no header before ``start``.
    """
    name = _header(read, start - BLOCKSIZE).name
    if "?" not in name and len(name) < LENGTH_NAME:
        return name
    for n_blocks in range(1, _MOST_EXTENDED_BLOCKS + 1):
        first = start - (n_blocks + 2) * BLOCKSIZE
        with suppress(ShardError, TarError):
            header = _header(read, first)
            if header.type == XHDTYPE and -(-header.size // BLOCKSIZE) == n_blocks:
                headers = BytesIO(read(first, start - first))
                with tarfile.open(fileobj=headers, mode="r:") as archive:
                    member = archive.next()  # reads no further; the content is not there
                    return name if member is None else member.name
    return name


def _header(read: Callable[[int, int], bytes], offset: int) -> TarInfo:
    if offset < 0:
        raise tarfile.ReadError("there is no header before the start of a tar")
    return TarInfo.frombuf(read(offset, BLOCKSIZE), "utf-8", "surrogateescape")
