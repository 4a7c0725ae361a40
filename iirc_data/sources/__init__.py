"""Raw datasets: a source yields its images class by class, in the dataset's own order."""

from iirc_data.sources.aircraft import AircraftSource, open_aircraft
from iirc_data.sources.base import Sample, Source
from iirc_data.sources.cifar import CifarSource, open_cifar
from iirc_data.sources.derived import ClassSubset, ReencodedSource
from iirc_data.sources.folder import FolderSource, TarFolderSource, open_folder
from iirc_data.sources.imagenet import (
    ImageNetTars,
    open_imagenet,
    open_imagenet_tars,
    open_imagenet_tree,
)
from iirc_data.sources.inaturalist import INaturalistSource, open_inaturalist
from iirc_data.sources.pets import PetsSource, open_pets
from iirc_data.sources.tiny_imagenet import TinyImageNetSource, open_tiny_imagenet

__all__ = [
    "AircraftSource",
    "CifarSource",
    "ClassSubset",
    "FolderSource",
    "INaturalistSource",
    "ImageNetTars",
    "PetsSource",
    "ReencodedSource",
    "Sample",
    "Source",
    "TarFolderSource",
    "TinyImageNetSource",
    "open_aircraft",
    "open_cifar",
    "open_folder",
    "open_imagenet",
    "open_imagenet_tars",
    "open_imagenet_tree",
    "open_inaturalist",
    "open_pets",
    "open_tiny_imagenet",
]
