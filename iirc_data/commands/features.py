"""``iirc features publish`` and ``pull``: copying cached features between machines."""

from typing import Annotated

import typer

from iirc_data.commands.cache import Folder, chosen_features
from iirc_data.commands.data import Workers, progress_bar
from iirc_data.console import errors_in_one_line, one_line
from iirc_data.features.sharing import DEFAULT_WORKERS, publish_features, pull_features
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.remote import cache_base

app = typer.Typer(
    help="Compute the features of frozen networks ahead, and copy them.", no_args_is_help=True
)


@app.command("publish")
def publish(
    digest: Annotated[
        str, typer.Argument(help="Digest of the features, or its beginning; see iirc data cache.")
    ],
    address: Annotated[str, typer.Argument(help="Folder or URL to copy to (s3://, …).")],
    folder: Folder = None,
    workers: Workers = DEFAULT_WORKERS,
) -> None:
    """Copy the cached features of a dataset to an address from which others can pull them."""
    with errors_in_one_line():
        cache = CacheFolder(cache_base(folder))
        name = chosen_features(cache, digest).name
        with progress_bar("publish") as progress:
            content = publish_features(cache, name, address, workers=workers, progress=progress)
        typer.echo(one_line(f"{address}: features {name}"))
        typer.echo(f"digest {content}")


@app.command("pull")
def pull(
    address: Annotated[
        str, typer.Argument(help="Folder or URL of features; @sha256:DIGEST pins the digest.")
    ],
    folder: Folder = None,
    workers: Workers = DEFAULT_WORKERS,
) -> None:
    """Copy published features into the cache, where runs find them; run again to resume."""
    with errors_in_one_line():
        cache = CacheFolder(cache_base(folder))
        with progress_bar("pull") as progress:
            key, content = pull_features(cache, address, workers=workers, progress=progress)
        typer.echo(one_line(f"features of {key.dataset} (digest {key.dataset_digest})"))
        typer.echo(one_line(f"network  {key.network}, weights {key.weights}"))
        typer.echo(one_line(f"cache    {cache.base / key.digest}"))
        typer.echo(f"digest   {content}")
