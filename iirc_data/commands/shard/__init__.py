"""``iirc data shard``: raw datasets to per-class tar shards, one module per kind of dataset."""

import typer

from iirc_data.commands.shard.aircraft import shard_aircraft
from iirc_data.commands.shard.cifar import shard_cifar
from iirc_data.commands.shard.folder import shard_folder
from iirc_data.commands.shard.imagenet import shard_imagenet
from iirc_data.commands.shard.inaturalist import shard_inaturalist
from iirc_data.commands.shard.pets import shard_pets
from iirc_data.commands.shard.tiny_imagenet import shard_tiny_imagenet

app = typer.Typer(
    help="Write a raw dataset as per-class tar shards.", no_args_is_help=True, add_completion=False
)
app.command("cifar")(shard_cifar)
app.command("imagenet")(shard_imagenet)
app.command("tiny-imagenet")(shard_tiny_imagenet)
app.command("aircraft")(shard_aircraft)
app.command("inaturalist")(shard_inaturalist)
app.command("pets")(shard_pets)
app.command("folder")(shard_folder)
