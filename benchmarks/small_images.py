"""Loads small images for training, resident and streamed, compared with a DataLoader.

    python -m benchmarks.small_images SHARDS_OR_IMAGES

The images are augmented like CIFAR. The DataLoader has two workers and keeps decoded images in
memory. This project's streaming loader decodes in every epoch; the resident loader decodes only in
the first epoch, which is not timed. The epochs of the contenders alternate, and medians are
compared.
"""

from benchmarks import peers
from benchmarks.comparison import BatchSize, Data, Device, Images, Results, Runs, Workers, compare
from benchmarks.contenders import Contender, ours
from benchmarks.results import RESULTS_FOLDER
from iirc_data.console import run_tool
from iirc_data.loader.decoder import default_threads
from iirc_data.sources.drawn import DrawnSource

CONTENDERS = (
    Contender("ours, resident", "ours", ours("auto", resident=True)),
    Contender("ours, streamed by DALI", "ours", ours("dali")),
    Contender("ours, streamed by Pillow", "ours", ours("pillow")),
    Contender("DataLoader, decoded images, v1", "peer", peers.decoded_pillow),
)


def main(
    data: Data = None,
    images: Images = 20_000,
    batch_size: BatchSize = 128,
    workers: Workers = 2,
    runs: Runs = 5,
    device: Device = "cpu",
    results: Results = RESULTS_FOLDER,
) -> None:
    """Measure, print a table, and write a JSON file."""
    compare(
        "small-images" if device == "cpu" else "small-images-gpu",
        CONTENDERS,
        preset="cifar",
        data=data,
        drawn=DrawnSource(),
        images=images,
        batch_size=batch_size,
        workers=workers or default_threads(),
        runs=runs,
        device=device,
        results=results,
    )


if __name__ == "__main__":
    run_tool(main)
