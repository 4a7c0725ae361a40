"""``iirc features``: the cached features of frozen networks."""

from typing import ClassVar

import typer

from iirc_data.commands import features
from iirc_train.cli.lazy import LazyGroup


class _FeatureCommands(LazyGroup):
    places: ClassVar = {"compute": "iirc_train.cli.compute_features:compute"}
    summaries: ClassVar = {
        "compute": "Compute the features of a benchmark's images ahead of the runs that train on "
        "them."
    }


app = typer.Typer(
    cls=_FeatureCommands, help=features.app.info.help, no_args_is_help=True, add_completion=False
)
app.add_typer(features.app)
