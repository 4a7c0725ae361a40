"""Raw datasets: a source yields its images class by class, in the dataset's own order."""

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

__all__ = [
    "CifarSource",
    "ClassSubset",
    "FolderSource",
    "ImageNetTars",
    "ReencodedSource",
    "Sample",
    "Source",
    "TarFolderSource",
    "open_cifar",
    "open_folder",
    "open_imagenet",
    "open_imagenet_tars",
    "open_imagenet_tree",
]
