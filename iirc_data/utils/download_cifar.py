"""Published API: downloads CIFAR-100 from its authors' site."""

import shutil
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from iirc_data.console import errors_in_one_line
from iirc_data.definitions import PathLike
from iirc_data.errors import SourceError
from iirc_data.sources.cifar import CIFAR100
from iirc_data.sources.download import download
from iirc_data.utils.utils import print_msg


def download_extract_cifar100(root: PathLike = "data") -> None:
    """Download CIFAR-100 (161 MiB), check its digest, and extract it.

    An existing archive is not downloaded again. Unlike the published package, this function still
    checks and extracts it.

    Args:
        root: Folder for ``cifar-100-python.tar.gz`` and the extracted folder ``cifar-100-python``.

    Raises:
        SourceError: The archive cannot be downloaded or extracted, or its digest is wrong.
    """
    archive = Path(root) / CIFAR100.archive
    if not archive.exists():
        print_msg("downloading CIFAR 100")
    download(CIFAR100.url, archive, CIFAR100.sha256)
    print_msg("dataset downloaded")
    print_msg("extracting CIFAR 100")
    try:
        _extract(archive)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise SourceError(f"cannot extract {archive}: {error}") from error
    print_msg("dataset extracted")


def _extract(archive: Path) -> None:
    """Extract an archive next to it. Files get their final names after all have been extracted."""
    partial = archive.with_name(f".{archive.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(partial, filter="data")
        for file in [path for path in partial.rglob("*") if path.is_file()]:
            target = archive.parent / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(
    dataset_path: Annotated[
        Path, typer.Option("--dataset_path", help="Folder for the dataset.")
    ] = (Path("data")),
) -> None:
    """Download and extract CIFAR-100."""
    with errors_in_one_line():
        download_extract_cifar100(dataset_path)


if __name__ == "__main__":
    typer.run(main)
