"""Published API: unpacks ImageNet's original files into one folder per class.

Sharding does not need this step: it reads the original files in place.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from iirc_data.console import errors_in_one_line
from iirc_data.definitions import PathLike
from iirc_data.errors import SourceError
from iirc_data.sources.base import Source
from iirc_data.sources.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR, open_imagenet_tars


def prepare_imagenet(source_dir: PathLike, target_dir: PathLike) -> None:
    """Unpack ImageNet into ``train/<WordNet id>/*.JPEG`` and ``val/<WordNet id>/*.JPEG``.

    An interrupted call can be repeated: the folder of a class gets its final name when it is
    complete, and existing class folders are kept.

    Args:
        source_dir: Folder that contains ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar``
            and ``ILSVRC2012_devkit_t12.tar.gz``.
        target_dir: Folder in which ``train`` and ``val`` are created.

    Raises:
        SourceError: A file is missing or damaged, or the images cannot be written.
    """
    train, val, devkit = (Path(source_dir) / name for name in (TRAIN_TAR, VAL_TAR, DEVKIT))
    source = open_imagenet_tars(train, val, devkit)
    jobs = [(split, name) for split, names in source.classes().items() for name in names]
    for split, name in track(jobs, "classes", console=Console(stderr=True)):
        write_class_folder(source, split, name, Path(target_dir) / split / name)


def write_class_folder(source: Source, split: str, class_name: str, folder: Path) -> None:
    """Write the images of a class into a folder, unless the folder exists.

    Raises:
        SourceError: An image cannot be read or written.
    """
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for sample in source.samples(split, class_name):
            # uppercase, as in ImageNet and as the published loader requires
            (partial / f"{sample.key}.{sample.extension.upper()}").write_bytes(sample.data)
        partial.replace(folder)
    except OSError as error:
        raise SourceError(f"cannot write {folder}: {error.strerror or error}") from error


def main(
    source_dir: Annotated[
        Path, typer.Option("--source_dir", help="Folder with the three original files.")
    ],
    target_dir: Annotated[
        Path, typer.Option("--target_dir", help="Folder in which train and val are created.")
    ],
) -> None:
    """Unpack ImageNet's original files into one folder per class."""
    with errors_in_one_line():
        prepare_imagenet(source_dir, target_dir)


if __name__ == "__main__":
    typer.run(main)
