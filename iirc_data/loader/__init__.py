"""Loaders: task views and replayed memories to batches, through DALI or Pillow."""

from iirc_data.loader.batch import Batch, ReplaySource, indicator_targets
from iirc_data.loader.decoder import Engine
from iirc_data.loader.loader import Loader
from iirc_data.loader.make import EngineName, make_engine, make_loader
from iirc_data.loader.normalization import Normalization

__all__ = [
    "Batch",
    "Engine",
    "EngineName",
    "Loader",
    "Normalization",
    "ReplaySource",
    "indicator_targets",
    "make_engine",
    "make_loader",
]
