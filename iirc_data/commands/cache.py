"""``iirc data cache``: what the cache of remote datasets and features holds, and clearing it."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from iirc_data.console import errors_in_one_line, one_line, plain_console
from iirc_data.errors import ShardError
from iirc_data.features.array import described
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.cache_size import size_in_bytes
from iirc_data.shards.remote import cache_base
from iirc_data.shards.store import read_manifest

Folder = Annotated[
    Path | None, typer.Option(help="The cache; by default IIRC_CACHE, or ~/.cache/iirc.")
]


def show_cache(
    digest: Annotated[
        list[str] | None,
        typer.Argument(help="Digest of a cached dataset or of features, or its beginning."),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove these datasets from the cache; by default all.")
    ] = False,
    limit: Annotated[
        str | None,
        typer.Option(help="Set the limit for all later runs, such as 50GB; 'none' for no limit."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Show what the cache of remote datasets and features holds, set its limit, or clear it.

    Commands that are reading a cleared dataset fetch it again. Cleared features are computed again
    by the next run that needs them.
    """
    with errors_in_one_line():
        try:
            cache = CacheFolder(cache_base(folder))
            if limit is not None:
                cache.set_limit(None if limit == "none" else size_in_bytes(limit, "--limit"))
            chosen = _chosen(cache, digest or [])
            if clear:
                freed = sum(cache.clear(dataset) for dataset in chosen)
                typer.echo(one_line(f"{cache.base}: {decimal(freed)} freed"))
                return
        except OSError as error:
            raise ShardError(
                f"cannot change {cache.base}: {error.strerror or error}; give another --folder"
            ) from error
        _show(cache, chosen)


def _show(cache: CacheFolder, datasets: list[Path]) -> None:
    table = Table("dataset", "digest", "size", "held", "pinned", box=None)
    pinned = cache.pins.everywhere()
    for dataset in datasets:
        held = cache.held(dataset)
        needed = sum(file.bytes for file in held if file.path in pinned)
        name, digest, size = _described(dataset)
        total = sum(file.bytes for file in held)
        table.add_row(name, digest[:16], decimal(size), decimal(total), decimal(needed))
    total = sum(file.bytes for dataset in cache.datasets() for file in cache.held(dataset))
    typer.echo(one_line(f"cache  {cache.base}"))
    typer.echo(f"held   {decimal(total)}")
    typer.echo(f"limit  {'none' if cache.limit is None else decimal(cache.limit)}")
    plain_console().print(table)


def chosen_features(cache: CacheFolder, digest: str) -> Path:
    """Return the folder of the features in a cache whose digest begins as given.

    Raises:
        ShardError: There are none, or several.
    """
    found = [path for path in cache.datasets() if path.name.startswith(digest)]
    if len(found) != 1:
        there = f"{len(found)} digests that begin with" if found else "no features"
        raise ShardError(f"{cache.base} holds {there} {digest!r}: iirc data cache lists them")
    return found[0]


def _chosen(cache: CacheFolder, digests: list[str]) -> list[Path]:
    datasets = cache.datasets()
    if not digests:
        return datasets
    known = {dataset: _described(dataset)[1] for dataset in datasets}
    chosen = []
    for digest in digests:
        found = [path for path, known_digest in known.items() if known_digest.startswith(digest)]
        if not found:
            held = ", ".join(text[:16] for text in known.values()) or "nothing"
            raise ShardError(f"{cache.base} holds no dataset {digest!r}: it holds {held}")
        chosen += found
    return chosen


def _described(dataset: Path) -> tuple[str, str, int]:
    """Return the name, digest and size in bytes of a cached dataset, or of its features."""
    with suppress(ShardError):
        key, (n_samples, size) = described(dataset)
        return f"features of {key.dataset}, {key.network}", dataset.name, 4 * n_samples * size
    try:
        manifest = read_manifest(dataset)
    except ShardError:
        return "?", dataset.name, 0  # its manifest has not been written yet
    return manifest.dataset, manifest.digest, sum(shard.bytes for shard in manifest.shards)
