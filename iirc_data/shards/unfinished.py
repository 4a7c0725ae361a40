"""The state of an unfinished shard folder: who writes it, and which classes are done."""

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
from iirc_data.shards.manifest import Shard
from iirc_data.shards.shard_names import escaped

_RECEIPTS = ".receipts"


class _Receipt(BaseModel):
    """A finished class, until the manifest says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    shards: list[Shard]
    rows: list[tuple[int, int, int, int, int, int]]
    image_formats: list[str]


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold a shard folder for this process alone; the system lets go of it where one is killed.

    Raises:
        ShardError: Another process holds it, or it cannot be made.
    """
    with ExitStack() as stack:
        try:
            with writing(out):
                stack.enter_context(sole_user(out))
        except InUseError as error:
            raise ShardError(str(error)) from None
        yield


def begin(out: Path) -> None:
    """Mark a folder as being written, or clear what a killed run left half-written in it.

    Raises:
        ShardError: The folder holds tars that no unfinished run left.
    """
    if (out / _RECEIPTS).is_dir():
        remove_partial_files(out)
        return
    if strange := next(out.rglob("*.tar"), None):
        raise ShardError(
            f"{out} holds {strange.relative_to(out)}, which no unfinished run of this command "
            "left: give an empty folder"
        )
    with writing(out / _RECEIPTS):
        (out / _RECEIPTS).mkdir()


@contextmanager
def clearing_partial_files(out: Path) -> Iterator[None]:
    """Clear what killed writers left half-written, whatever ends the block."""
    try:
        yield
    finally:
        remove_partial_files(out)


def remove_strays(out: Path, shards: Collection[Shard]) -> None:
    """Remove the tars of earlier tries that are not among the dataset's shards."""
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
    """Note that a class is finished.

    Raises:
        ShardError: The receipt cannot be written.
    """
    receipt = _Receipt(
        fingerprint=fingerprint,
        shards=result.shards,
        rows=result.rows.tolist(),
        image_formats=sorted(result.image_formats),
    )
    path = _receipt_path(out, split, class_name)
    with writing(path), write_atomically(path, durable=False) as file:
        file.write(receipt.model_dump_json(by_alias=True).encode())


def load_receipt(out: Path, split: str, class_name: str, fingerprint: str) -> ShardedClass | None:
    """Return a class that an earlier run finished.

    Returns:
        The class, or None where it was not finished, is not what would be written now, or its
        tars are not as they were.
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
        is_kept=True,
    )


def _receipt_path(out: Path, split: str, class_name: str) -> Path:
    return out / _RECEIPTS / escaped(split) / f"{escaped(class_name)}.json"


def _is_intact(out: Path, shard: Shard) -> bool:
    try:
        return file_sha256(out / shard.path) == shard.sha256
    except OSError:
        return False
