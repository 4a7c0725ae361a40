"""Sharding speed, compared with ``tar cf`` of the same files in the same run.

    python -m benchmarks.sharding ../shared/data/imagenet_sample_500.tar

The photographs are copied until they amount to a gigabyte, in classes as large as ImageNet's. The
copies are kept for the next measurement, because ext4 creates files slowly for minutes after
thousands of files were created or deleted. The runs of the contenders alternate, each after a
``sync``; the first run of each is not counted, and medians are compared. ``tar`` leaves its output
in the page cache, whereas finished shards are on disk. Therefore, a third line gives ``tar`` and
``sync`` together.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.images import RepeatedImages
from benchmarks.timing import interleaved
from iirc_data.console import run_tool
from iirc_data.shards import write_shards
from iirc_data.sources import FolderSource, open_folder


def replicate(images: Path, folder: Path, size: int, n_classes: int) -> int:
    """Copy the photographs of an image folder, repeatedly, into classes of equal size.

    Args:
        images: Image folder, or a tar of an image folder.
        folder: Folder for the copies; if it exists, it is used unchanged.
        size: Approximate total size in bytes.
        n_classes: Number of classes.

    Returns:
        Total size of the copies in bytes.
    """
    if folder.exists():
        return sum(path.stat().st_size for path in folder.rglob("*.JPEG"))
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    source = RepeatedImages.of_bytes(open_folder(images), size, n_classes)
    written = 0
    for split, names in source.classes().items():
        for name in names:
            (unfinished / split / name).mkdir(parents=True)
            for sample in source.samples(split, name):
                path = unfinished / split / name / f"{sample.key}.JPEG"
                written += path.write_bytes(sample.data)
    unfinished.rename(folder)
    return written


def main(
    images: Annotated[Path, typer.Argument(help="Image folder, or a tar of an image folder.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder for files. [default: iirc-benchmark in the temporary folder]"),
    ] = None,
    megabytes: Annotated[int, typer.Option(help="Megabytes of images to shard.")] = 1_100,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 8,
    workers: Annotated[int, typer.Option(help="Number of worker processes.")] = 1,
    runs: Annotated[int, typer.Option(help="Runs of each contender.")] = 7,
) -> None:
    """Measure, and print medians."""
    folder = folder or Path(tempfile.gettempdir(), "iirc-benchmark")
    root = folder / f"images-{megabytes}-{classes}"
    size = replicate(images, root, megabytes * 10**6, classes)
    print(f"{size / 1e6:,.0f} MB in {classes} classes, {workers} worker(s), {runs} runs each")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        out, tar = Path(temporary, "shards"), Path(temporary, "images.tar")

        def run_tar() -> None:
            subprocess.run(["tar", "cf", tar, root.name], cwd=folder, check=True)

        def run_tar_and_sync() -> None:
            run_tar()
            os.sync()

        contenders: dict[str, Callable[[], object]] = {
            "shards": lambda: write_shards(FolderSource(root), out, workers=workers),
            "tar cf": run_tar,
            "tar cf, sync": run_tar_and_sync,
        }

        def clean() -> None:
            shutil.rmtree(out, ignore_errors=True)
            tar.unlink(missing_ok=True)
            os.sync()

        interleaved(contenders, 1, clean)
        timings = interleaved(contenders, runs, clean)
        speed = {name: size / 1e6 / timing.median for name, timing in timings.items()}
        for name, megabytes_per_second in speed.items():
            print(
                f"{name:13} {megabytes_per_second:8,.0f} MB/s (median), "
                f"{size / 1e6 / min(timings[name].seconds):8,.0f} MB/s (best); "
                f"shards reach {speed['shards'] / megabytes_per_second:.2f} of its median"
            )


if __name__ == "__main__":
    run_tool(main)
