"""Loaders turn task views and replayed memories into batches, decoded by DALI or Pillow."""

from iirc_data.definitions import DecoderName
from iirc_data.loader.batch import Batch, KnowsDatasets, ReplaySource, indicator_targets
from iirc_data.loader.decoder import Decoder
from iirc_data.loader.loader import Loader
from iirc_data.loader.make import make_decoder, make_loader
from iirc_data.loader.normalization import Normalization

# former names
Engine = Decoder
EngineName = DecoderName
make_engine = make_decoder

__all__ = [
    "Batch",
    "Decoder",
    "DecoderName",
    "Engine",
    "EngineName",
    "KnowsDatasets",
    "Loader",
    "Normalization",
    "ReplaySource",
    "indicator_targets",
    "make_decoder",
    "make_engine",
    "make_loader",
]
