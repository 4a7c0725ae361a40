"""The setting that replaces a benchmark's image preset."""

from iirc_data.augment import IMAGE_PRESETS
from iirc_data.augment.network_images import NetworkImages, preset_for
from iirc_data.benchmarks import Benchmark, load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.config.settings import nearest_name

AUTO = "auto"
"""The value of ``image_preset`` for what pretrained weights expect, else :data:`BENCHMARK`."""

BENCHMARK = "benchmark"
"""The value of ``image_preset`` for which a benchmark's own preset stays."""


def checked_image_preset(name: str) -> str:
    """Return the name of an image preset, :data:`AUTO` or :data:`BENCHMARK`.

    Raises:
        ValueError: There is no such preset.
    """
    if name not in (AUTO, BENCHMARK, *IMAGE_PRESETS):
        known = ", ".join(IMAGE_PRESETS)
        raise ValueError(
            f"choose {AUTO} (the benchmark's), {BENCHMARK} or {known}"
            f"{nearest_name(name, IMAGE_PRESETS)}"
        )
    return name


def benchmark_as_shown(
    place: str, image_preset: str, expected: NetworkImages | None = None
) -> Benchmark:
    """Return a benchmark with the image preset that a configuration asks for.

    Args:
        place: Name or JSON file of the benchmark.
        image_preset: Name of an image preset, :data:`AUTO` or :data:`BENCHMARK`.
        expected: The images that pretrained weights expect; with :data:`AUTO`, each dataset's
            images are shown so.

    Raises:
        BenchmarkError: There is no such benchmark.
        ConfigurationError: The benchmark's datasets have image presets of their own.
    """
    benchmark = load_benchmark(place)
    if image_preset == AUTO and expected is not None:
        return _as_expected(benchmark, expected)
    if image_preset in (AUTO, BENCHMARK):
        return benchmark
    own = [name for name, dataset in benchmark.datasets.items() if dataset.transforms]
    if own:
        raise ConfigurationError(
            f"image_preset {image_preset} would replace the transforms that benchmark "
            f"{benchmark.name} gives to {', '.join(own)}: set image_preset to {AUTO}, and change "
            "the transforms of these datasets in a copy of the benchmark's file"
        )
    return benchmark.model_copy(update={"transforms": image_preset})


def _as_expected(benchmark: Benchmark, expected: NetworkImages) -> Benchmark:
    presets = benchmark.image_presets
    if not benchmark.datasets:
        (preset,) = presets.values()
        return benchmark.model_copy(update={"transforms": preset_for(expected, preset)})
    datasets = {
        name: dataset.model_copy(update={"transforms": preset_for(expected, presets[name])})
        for name, dataset in benchmark.datasets.items()
    }
    return benchmark.model_copy(update={"datasets": datasets})
