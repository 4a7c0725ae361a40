"""The state of an unfinished shard folder: its writer, and the classes that are done."""

import shutil
import socket
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from iirc_data.cluster.attempt import patience, stop_if_abandoned
from iirc_data.errors import InUseError, ShardError
from iirc_data.files import file_sha256, remove_partial_files, write_atomically
from iirc_data.locks import sole_user, sole_writer_of
from iirc_data.reading import read_regular
from iirc_data.shards.class_writer import ShardedClass, writing
from iirc_data.shards.manifest import Sha256, Shard
from iirc_data.shards.shard_names import escaped

_RECEIPTS = ".receipts"
_SESSION = "session"
_PATIENCE = 10.0  # seconds; worker processes of a killed command end soon after it


class _Receipt(BaseModel):
    """Records that a class is finished, until there is a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    shards: list[Shard]
    rows: list[tuple[int, int, int, int, int, int]]
    image_formats: list[str]
    blocks: list[Sha256]


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold a shard folder for this process alone, see :func:`~iirc_data.locks.sole_user`.

    Raises:
        ShardError: Another process holds the folder, or it cannot be created.
    """
    with ExitStack() as stack:
        try:
            with writing(out):
                stack.enter_context(sole_user(out))
        except InUseError as error:
            raise ShardError(str(error)) from None
        yield


def begin(out: Path, splits: Collection[str]) -> str:
    """Mark a folder as unfinished, or remove the partial files of an earlier, killed run.

    Args:
        out: Shard folder.
        splits: Names of the splits to be written.

    Returns:
        A name for this session of writing, see :func:`sole_writer_of_class`.

    Raises:
        ShardError: The folder contains tars that are not from an unfinished run.
    """
    receipts = out / _RECEIPTS
    if receipts.is_dir():
        remove_partial_files(out)
    elif strange := next(out.rglob("*.tar"), None):
        raise ShardError(
            f"{out} contains {strange.relative_to(out)}, which is not from an unfinished run of "
            "this command: give an empty folder"
        )
    session = uuid.uuid4().hex
    with writing(receipts):
        for split in splits:
            (receipts / escaped(split)).mkdir(parents=True, exist_ok=True)
        with write_atomically(receipts / _SESSION, durable=False) as file:
            file.write(session.encode())
    return session


@contextmanager
def sole_writer_of_class(out: Path, split: str, class_name: str, session: str) -> Iterator[None]:
    """Hold a class for this thread alone.

    On a cluster, waits for an earlier writer that the cluster believes to be dead: no two write
    the same class. A writer that comes late, or sees another folder, is refused.

    Args:
        out: Shard folder.
        split: Name of the split.
        class_name: Name of the leaf class.
        session: What :func:`begin` returned.

    Raises:
        ShardError: Another writer keeps the class, the session is over, or ``out`` is not the
            folder that it began in.
        AbandonedError: The cluster no longer waits for this writer.
    """
    path = _receipt_path(out, split, class_name)
    for folder in (out, out / _RECEIPTS):  # so that NFS looks whether its cached names still hold
        with suppress(OSError):
            next(folder.iterdir(), None)
    with ExitStack() as stack:
        try:
            if path.parent.is_dir():
                lock = sole_writer_of(
                    path, patience=max(patience(), _PATIENCE), check=stop_if_abandoned
                )
                stack.enter_context(lock)
        except InUseError as error:
            raise ShardError(str(error)) from None
        try:
            found = read_regular(out / _RECEIPTS / _SESSION).decode(errors="replace")
        except OSError:
            found = ""
        if found != session:
            raise ShardError(
                f"{socket.gethostname()} does not see the folder that is being written as {out}: "
                "give a folder that all machines share"
            )
        yield


@contextmanager
def clearing_partial_files(out: Path) -> Iterator[None]:
    """Remove partial files and locks of killed writers at the end of the block, however it ends."""
    try:
        yield
    finally:
        remove_partial_files(out)
        for lock in (out / _RECEIPTS).glob("*/.*.lock"):
            path = lock.with_name(lock.name[1:].removesuffix(".lock"))
            with suppress(InUseError, OSError), sole_writer_of(path, patience=0.0):
                pass  # the release removes the file


def is_begun(out: Path) -> bool:
    """Return whether a folder has traces of a dataset that is being written or pulled."""
    traces = (_RECEIPTS, "*/*.tar", "*/.*.tar.*")  # the last are partial files and locks
    return any(next(out.glob(trace), None) is not None for trace in traces)


def remove_strays(out: Path, shards: Collection[Shard]) -> None:
    """Remove the tars of earlier runs that are not shards of the dataset."""
    paths = {out / shard.path for shard in shards}
    for path in out.glob("*/*.tar"):
        if path not in paths:
            path.unlink()


def forget(out: Path) -> None:
    """Remove the receipts."""
    shutil.rmtree(out / _RECEIPTS, ignore_errors=True)


def save_receipt(
    out: Path, split: str, class_name: str, fingerprint: str, result: ShardedClass
) -> None:
    """Record that a class is finished.

    Raises:
        ShardError: The receipt cannot be written.
    """
    receipt = _Receipt(
        fingerprint=fingerprint,
        shards=result.shards,
        rows=result.rows.tolist(),
        image_formats=sorted(result.image_formats),
        blocks=[digest.hex() for digest in result.blocks],
    )
    path = _receipt_path(out, split, class_name)
    with writing(path), write_atomically(path, durable=False) as file:
        file.write(receipt.model_dump_json(by_alias=True).encode())


def load_receipt(out: Path, split: str, class_name: str, fingerprint: str) -> ShardedClass | None:
    """Return a class that an earlier run finished.

    Returns:
        The class, or None if it was not finished, if its input or settings have changed, or if
        its tars are not intact.
    """
    try:
        text = read_regular(_receipt_path(out, split, class_name))
        receipt = _Receipt.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    if receipt.fingerprint != fingerprint:
        return None
    if not all(_is_intact(out, shard) for shard in receipt.shards):
        return None
    return ShardedClass(
        shards=receipt.shards,
        rows=np.array(receipt.rows, dtype=np.int64),
        image_formats=frozenset(receipt.image_formats),
        blocks=[bytes.fromhex(digest) for digest in receipt.blocks],
        is_kept=True,
    )


def _receipt_path(out: Path, split: str, class_name: str) -> Path:
    return out / _RECEIPTS / escaped(split) / f"{escaped(class_name)}.json"


def _is_intact(out: Path, shard: Shard) -> bool:
    try:
        return file_sha256(out / shard.path) == shard.sha256
    except OSError:
        return False
