"""Checks of a source before anything is written."""

import os
from pathlib import Path

from iirc_data.errors import ShardError, SourceError
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.shards.shard_names import shard_path
from iirc_data.shards.table import TABLE_NAME
from iirc_data.sources.base import Source, inputs_of
from iirc_data.spelling import in_quotes, spelt_twice

_LONGEST_NAME = 255  # bytes, on every common file system


def check_before_writing(source: Source, out: Path) -> None:
    """Check everything that requires reading no image.

    Raises:
        SourceError: See :func:`check_names`; or the layout of the source is wrong.
        ShardError: See :func:`check_apart`.
    """
    check_apart(source, out)
    check_names(source.name, source.classes())


def check_names(dataset: str, classes: dict[str, list[str]]) -> None:
    """Check the names of a dataset, its splits and its classes.

    Args:
        dataset: Name of the dataset.
        classes: The class names of each split.

    Raises:
        SourceError: A name cannot be part of a shard's path or of the manifest; or two names, in
            one split or in two, differ only in case, in stored accents or in outer blanks.
    """
    _check_printable(dataset, "the dataset")
    splits_of: dict[str, list[str]] = {}
    for split, names in classes.items():
        _check_name(split, "a split")
        if split in (MANIFEST_NAME, TABLE_NAME):
            raise SourceError(f"a split is named {split!r}, like a file beside shards: rename it")
        for name in names:
            splits_of.setdefault(name, []).append(split)
    for name in splits_of:
        _check_name(name, "a class")
    _check_spellings(dataset, "classes", splits_of)
    _check_spellings(dataset, "splits", {split: [] for split in classes})


def _check_spellings(dataset: str, kind: str, places: dict[str, list[str]]) -> None:
    pairs = spelt_twice(places)
    if not pairs:
        return
    first, second = pairs[0]
    more = f" ({len(pairs)} such pairs)" if len(pairs) > 1 else ""
    raise SourceError(
        f"{dataset}: the {kind} {in_quotes(first, second)}{_in(places[first])} and "
        f"{in_quotes(second, first)}{_in(places[second])} differ only in case, accents or "
        f"blanks{more}: rename one; spell a class alike in every split"
    )


def _check_name(name: str, kind: str) -> None:
    _check_printable(name, kind)
    if "/" in name or not name:
        raise SourceError(f"{kind} is named {name!r}, which cannot be part of a path: rename it")
    if (size := len(os.fsencode(Path(shard_path("", name, 0)).name))) > _LONGEST_NAME:
        raise SourceError(
            f"{kind} is named {name!r:.60}, too long for a shard's name: shorten it by "
            f"{size - _LONGEST_NAME} bytes"
        )


def _check_printable(name: str, kind: str) -> None:
    if not name.isprintable():
        is_undecoded = any("\udc80" <= character <= "\udcff" for character in name)
        shown = name.encode(errors="surrogateescape") if is_undecoded else name
        problem = "UTF-8" if is_undecoded else "printable"
        raise SourceError(f"{kind} is named {shown!r}, which is not {problem}: rename it")


def _in(splits: list[str]) -> str:
    return f" (in {' and '.join(splits)})" if splits else ""


def check_apart(source: Source, out: Path) -> None:
    """Check that neither the shard folder nor an input of the source contains the other.

    Otherwise shards would be read as images, and files beside them would look like half-written
    shards. Links are followed.

    Raises:
        ShardError: One contains the other.
    """
    out_and_above = _with_folders_above(out)
    for path in inputs_of(source):
        path_and_above = _with_folders_above(path)
        if path_and_above[0] == out_and_above[0]:
            relation = "is"
        elif path_and_above[0] in out_and_above:
            relation = "lies inside"
        elif out_and_above[0] in path_and_above:
            relation = "contains"
        else:
            continue
        raise ShardError(
            f"the shard folder {out} {relation} {path}, which the dataset is read from: give a "
            "separate folder"
        )


def _with_folders_above(path: Path) -> list[tuple[int, int] | Path]:
    """Return device and inode of a path and its parents; for what does not exist, the path."""
    real = Path(os.path.realpath(path))
    found: list[tuple[int, int] | Path] = []
    for folder in (real, *real.parents):
        try:
            status = folder.stat()
        except OSError:
            found.append(folder)
        else:
            found.append((status.st_dev, status.st_ino))
    return found
