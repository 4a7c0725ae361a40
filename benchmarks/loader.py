"""Loads photographs for training, compared with other loaders and with decoding alone.

    python -m benchmarks.loader SHARDS_OR_IMAGES

Every contender yields batches of the same images, with a random crop to 224 x 224 and a flip: first
normalised float32, then uint8. Contenders use all processors and are built once. The first epoch is
not timed: it reads the files into memory, starts workers, and checks the images. The following
epochs of the contenders alternate, and medians are compared. The limit is the fastest of several
decoders that decode whole images and do nothing else; with ``--device cuda``, on the GPU. ``v1``
and ``v2`` are the two APIs of torchvision's transforms.
"""

from benchmarks import limits, peers
from benchmarks.comparison import BatchSize, Data, Device, Images, Results, Runs, Workers, compare
from benchmarks.contenders import Contender, ours
from benchmarks.images import DrawnPhotographs
from benchmarks.results import RESULTS_FOLDER
from iirc_data.console import run_tool
from iirc_data.loader.decoder import default_threads

CONTENDERS = (
    Contender("ours, DALI", "ours", ours("dali")),
    Contender("ours, Pillow", "ours", ours("pillow")),
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
    run_tool(main)
