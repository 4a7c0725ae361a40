"""Loading photographs for training, beside other loaders and beside decoding alone.

    python -m benchmarks.loader SHARDS_OR_IMAGES

Every contender gives the same images, cropped to 224 x 224 at random and mirrored, in batches:
float32 normalised, and uint8. All use every processor and are built once; the first epoch, in which
files come into memory, workers start and images are checked, is not timed. Then epochs take turns;
medians are compared. The limit is the fastest of several ways to decode whole images and do nothing
else, on the GPU with ``--device cuda``. ``v1`` and ``v2`` are torchvision's kinds of transforms.
"""

import typer

from benchmarks import limits, peers
from benchmarks.comparison import BatchSize, Data, Device, Images, Results, Runs, Workers, compare
from benchmarks.contenders import Contender, ours
from benchmarks.images import DrawnPhotographs
from benchmarks.results import RESULTS_FOLDER
from iirc_data.loader.decoder import default_threads

CONTENDERS = (
    Contender("ours, DALI", "ours", ours("dali")),
    Contender("ours, torch", "ours", ours("pillow")),
    Contender("DataLoader, Pillow, v1", "peer", peers.pillow),
    Contender("DataLoader, torchvision.io, v2", "peer", peers.torchvision),
    Contender("webdataset, Pillow, v1", "peer", peers.webdataset),
    Contender("FFCV", "peer", peers.ffcv),
)
ON_CPU = (
    Contender("decoding alone: Pillow", "limit", limits.pillow),
    Contender("decoding alone: torchvision.io", "limit", limits.torchvision),
    Contender("decoding alone: PyTurboJPEG", "limit", limits.turbojpeg),
    Contender("decoding alone: DALI", "limit", limits.dali),
)
ON_GPU = (
    Contender("torchvision.io, v2, both on the GPU", "peer", peers.torchvision_on_gpu),
    Contender("decoding alone: torchvision.io", "limit", limits.torchvision_on_gpu),
    Contender("decoding alone: DALI", "limit", limits.dali),
)


def main(
    data: Data = None,
    images: Images = 2000,
    batch_size: BatchSize = 128,
    workers: Workers = None,
    runs: Runs = 5,
    device: Device = "cpu",
    results: Results = RESULTS_FOLDER,
) -> None:
    """Measure, print a table, and write a JSON file."""
    compare(
        "loader" if device == "cpu" else "loader-gpu",
        CONTENDERS + (ON_CPU if device == "cpu" else ON_GPU),
        preset="imagenet",
        data=data,
        drawn=DrawnPhotographs(),
        images=images,
        batch_size=batch_size,
        workers=workers or default_threads(),
        runs=runs,
        device=device,
        results=results,
    )


if __name__ == "__main__":
    typer.run(main)
