"""Frozen features: computing them beside a plain loop, and reading them from the cache.

    python -m benchmarks.features [SHARDS]
    python -m benchmarks.features SHARDS --network efficientnet_lite0 --weights default

*Computing*: images a second from encoded images to features, beside the loop that most programs
have: Pillow, torchvision's transforms, a DataLoader with 2 workers, and the network in evaluation
mode. Both read the same images with the same network and yield the same features, which is checked.

*Reading*: seconds to read 60,000 features of 1,280 numbers whole, from files that the operating
system holds in memory, beside the zarr library and a file of NumPy.

Runs alternate, and medians are compared.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
import zarr
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.images import DrawnPhotographs, opened
from benchmarks.timing import Timing, interleaved
from iirc_data.augment import IMAGE_PRESETS, ImagePreset
from iirc_data.augment.network_images import preset_for
from iirc_data.console import run_tool
from iirc_data.decoding import decode
from iirc_data.errors import ConfigurationError
from iirc_data.features.array import FeatureArray
from iirc_data.features.filling import fill, load
from iirc_data.features.key import FeatureKey, shown_by
from iirc_data.loader import make_decoder
from iirc_data.shards import ShardStore
from iirc_data.shards.cache_folder import CacheFolder
from iirc_train.config.experiment import MethodConfig
from iirc_train.models.networks import expected_images, make_network
from iirc_train.training.features import BATCH_SIZES, extracted

N_WORKERS = 2
CPU = torch.device("cpu")


class PILDataset(Dataset[torch.Tensor]):
    """Images as evaluation shows them, decoded and resized by Pillow."""

    def __init__(self, store: ShardStore, preset: ImagePreset, rows: NDArray[np.int64]) -> None:
        steps = preset.evaluate
        size = preset.size or 0
        interpolation = transforms.InterpolationMode(steps.interpolation)
        self._store, self._rows = store, rows
        self._transform = transforms.Compose(
            [
                *([transforms.Resize(steps.resize, interpolation)] if steps.resize else []),
                *([transforms.CenterCrop(size)] if steps.crop else []),
                transforms.ToTensor(),
                transforms.Normalize(preset.mean, preset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        row = int(self._rows[index])
        image: torch.Tensor = self._transform(
            decode(self._store.read(row), lambda: self._store.name(row))
        )
        return image


def computing(
    store: ShardStore, config: MethodConfig, preset: ImagePreset, n_images: int, runs: int
) -> dict[str, Timing[NDArray[np.float32]]]:
    """Time both ways of computing features, and check that they agree.

    Raises:
        RuntimeError: The features differ.
    """
    torch.manual_seed(0)
    net = make_network(config, 100).eval()
    rows = np.sort(np.random.default_rng(0).choice(len(store), n_images, replace=False))
    decoder = make_decoder("auto", CPU)

    def ours() -> NDArray[np.float32]:
        found = extracted(
            net, store, preset, rows, decoder=decoder, device=CPU, network=config.network
        )
        return np.concatenate(list(found))

    def plain() -> NDArray[np.float32]:
        images = PILDataset(store, preset, rows)
        with torch.inference_mode():
            batches = DataLoader(images, BATCH_SIZES["cpu"], num_workers=N_WORKERS)
            return torch.cat([net(batch)[1] for batch in batches]).numpy()

    contenders: dict[str, Callable[[], NDArray[np.float32]]] = {
        "iirc features compute": ours,
        "Pillow and DataLoader": plain,
    }
    timings = interleaved(contenders, runs)
    a, b = (timing.results[0] for timing in timings.values())
    # decoders and resizing round differently
    similarity = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    if similarity < 0.99:
        raise RuntimeError(f"the features differ: their cosine similarity is {similarity:.3f}")
    return timings


def reading(shape: tuple[int, int], runs: int) -> dict[str, Timing[float]]:
    """Time reading features whole, each in its own format."""
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    rows = np.arange(shape[0])
    key = FeatureKey(
        network="random",
        weights="0" * 64,
        image_preset=shown_by(IMAGE_PRESETS["imagenet"]),
        dataset="random",
        dataset_digest="0" * 64,
    )
    with TemporaryDirectory() as folder:
        cache, file = CacheFolder(Path(folder)), Path(folder) / "values.npy"
        made = FeatureArray(cache, key, shape)
        fill(made, rows, lambda missing: iter([values[missing]]))
        np.save(file, values)

        def ours() -> float:
            array = FeatureArray(cache, key, shape)
            assert not len(load(array, rows))
            return float(array.values[-1, -1])

        contenders: dict[str, Callable[[], float]] = {
            "iirc, checksums verified": ours,
            "zarr": lambda: float(np.asarray(zarr.open_array(made.folder, mode="r")[:])[-1, -1]),
            "numpy.load, no checksums": lambda: float(np.load(file)[-1, -1]),
        }
        timings = interleaved(contenders, runs)
    assert len({result for timing in timings.values() for result in timing.results}) == 1
    return timings


def main(
    shards: Annotated[Path | None, typer.Argument(help="Shard folder. [default: drawn]")] = None,
    network: Annotated[str, typer.Option(help="The network.")] = "resnet18",
    weights: Annotated[
        str, typer.Option(help="Its weights; their images replace the preset's.")
    ] = "none",
    preset: Annotated[str, typer.Option(help="Image preset.")] = "imagenet",
    n_images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Number of features to read.")] = 60_000,
    size: Annotated[int, typer.Option(min=1, help="Numbers of a feature to read.")] = 1280,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
) -> None:
    """Measure computing and reading features on the CPU."""
    if preset not in IMAGE_PRESETS:
        raise ConfigurationError(f"no image preset {preset!r}: choose {', '.join(IMAGE_PRESETS)}")
    config = MethodConfig(network=network, weights=weights)
    expected = expected_images(network, weights)
    images = preset_for(expected, IMAGE_PRESETS[preset]) if expected else IMAGE_PRESETS[preset]
    drawn = DrawnPhotographs(min(n_images, 64), width=500)
    with opened(shards, drawn, n_images, 4) as store:
        times = computing(store, config, images, n_images, runs)
    print(f"computing: {network}, {n_images} images, {torch.get_num_threads()} thread(s)")
    for name, timing in times.items():
        print(f"  {name:26s} {n_images / timing.median:8.1f} images/s")
    ours, plain = times.values()
    print(f"  ratio {plain.median / ours.median:.2f}")
    read = reading((rows, size), runs)
    print(f"reading: {rows:,} features of {size:,} numbers, {4e-6 * rows * size:.0f} MB, warm")
    for name, of_reader in read.items():
        print(f"  {name:26s} {of_reader.median:8.2f} s")


if __name__ == "__main__":
    run_tool(main)
