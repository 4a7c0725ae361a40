"""A tiny two-level image dataset, sharded once per session, and access to shared test data."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iirc_data.benchmarks import Benchmark, SamplingSettings, SplitSettings
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import open_folder
from tests.ce_methods import write_single_labels

SHARED = Path(os.environ.get("IIRC_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name data after its argument: bytes may hold the time, and then differ between workers."""
    is_long = isinstance(val, str) and len(val) > 80
    return argname if is_long or isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory):
    """Keep the user's cache of datasets and features out of the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IIRC_CACHE", str(tmp_path_factory.mktemp("cache") / "iirc"))
        yield


@pytest.fixture(scope="session")
def shared_file():
    """Return a function that finds a file of the shared test data, or skips the test."""

    def get(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} does not exist (set IIRC_SHARED to the folder that contains it)")
        return path

    return get


def noise_image(seed: int, height: int = 32, width: int = 32, mode: str = "RGB") -> Image.Image:
    """Return smooth noise, which survives JPEG and differs for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, image_format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=image_format)
    return file.getvalue()


def write_image_folder(root: Path, counts: dict[str, dict[str, int]], **image: int | str) -> Path:
    """Write ``root/split/class/*.jpg`` with the given number of images per split and class."""
    seed = 0
    for split, classes in counts.items():
        for class_name, n in classes.items():
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for number in range(n):
                (folder / f"{number:04d}.jpg").write_bytes(encode(noise_image(seed, **image)))
                seed += 1
    return root


TINY_TREE = {
    "train": {"bear": 20, "bus": 20, "cat": 25, "dog": 30, "truck": 20, "tulip": 15},
    "test": {"bear": 5, "bus": 4, "cat": 5, "dog": 6, "truck": 5, "tulip": 3},
}


@pytest.fixture(scope="session")
def tiny_benchmark() -> Benchmark:
    """Two superclasses and a class without one; a superclass shares its task with other classes."""
    return Benchmark(
        name="tiny",
        dataset="tiny",
        superclasses={"animal": ["bear", "cat", "dog"], "vehicle": ["bus", "truck"]},
        other_classes=["tulip"],
        splits=SplitSettings(intask_valid_ratio=0.1, posttask_valid_ratio=0.1),
        sampling=SamplingSettings(
            superclass_data_pct=0.5, subclass_data_pct=0.8, superclass_sampling_size_cap=2
        ),
        schedules=[
            [["animal", "vehicle"], ["dog", "bus"], ["tulip", "cat"], ["bear", "truck"]],
            [["vehicle"], ["animal", "tulip", "truck"], ["bear", "cat"], ["dog", "bus"]],
        ],
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("tiny") / "images", TINY_TREE)


@pytest.fixture(scope="session")
def tiny_store(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    out = tmp_path_factory.mktemp("tiny-shards")
    write_shards(open_folder(tiny_folder), out)
    return ShardStore.open(out)


@pytest.fixture(scope="session")
def tiny_settings(
    tiny_benchmark: Benchmark, tiny_store: ShardStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """Settings of an experiment, without the method; a run takes a second or two."""
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    path.write_text(tiny_benchmark.model_dump_json())
    write_single_labels(path.parent)
    return {
        "benchmark": str(path),
        "data": str(tiny_store.root),
        "n_layers": 8,
        "n_memories_per_class": 3,
        "epochs_per_task": 1,
        "batch_size": 16,
        "lr": 0.1,
        "device": "cpu",
    }
