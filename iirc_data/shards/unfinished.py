"""The state of an unfinished shard folder: its writer, and the classes that are done."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from iirc_data.errors import InUseError, ShardError
from iirc_data.files import file_sha256, remove_partial_files, write_atomically
from iirc_data.locks import sole_user
from iirc_data.reading import read_regular
from iirc_data.shards.class_writer import ShardedClass, writing
from iirc_data.shards.manifest import Sha256, Shard
from iirc_data.shards.shard_names import escaped

_RECEIPTS = ".receipts"


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


def begin(out: Path) -> None:
    """Mark a folder as unfinished, or remove the partial files of an earlier, killed run.

    Raises:
        ShardError: The folder contains tars that are not from an unfinished run.
    """
    if (out / _RECEIPTS).is_dir():
        remove_partial_files(out)
        return
    if strange := next(out.rglob("*.tar"), None):
        raise ShardError(
            f"{out} contains {strange.relative_to(out)}, which is not from an unfinished run of "
            "this command: give an empty folder"
        )
    with writing(out / _RECEIPTS):
        (out / _RECEIPTS).mkdir()


@contextmanager
def clearing_partial_files(out: Path) -> Iterator[None]:
    """Remove the partial files of killed writers at the end of the block, however it ends."""
    try:
        yield
    finally:
        remove_partial_files(out)


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
