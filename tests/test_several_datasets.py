"""Benchmarks of several datasets: names, views, images of one batch, training and moving."""

import json
import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iirc_data.augment import (
    IMAGE_PRESETS,
    ImagePreset,
    ImageSteps,
    PerDataset,
    RandomResizedCrop,
    uniform,
)
from iirc_data.benchmarks import Benchmark, parse_benchmark
from iirc_data.commands.shard.selection import select
from iirc_data.datasets import by_dataset, open_datasets
from iirc_data.datasets_loader import get_lifelong_datasets
from iirc_data.errors import BenchmarkError, CheckpointError, ConfigurationError, IIRCError
from iirc_data.loader import make_loader
from iirc_data.loader.decoder import DecodeRequest
from iirc_data.loader.resize import decode_and_augment
from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.cache_folder import CacheFolder
from iirc_data.shards.union import UnionStore
from iirc_data.sources import open_folder
from iirc_data.task_sequence import TaskSequence
from iirc_train import sweep
from iirc_train.cli.app import app
from iirc_train.config import ExperimentConfig
from iirc_train.run.directory import BUFFER_NAME, RunDirectory
from iirc_train.run.record import read_record
from iirc_train.training.components import Experiment
from iirc_train.training.launch import repeat_experiment, resume_experiment, run_experiment
from iirc_train.training.trainer import Training
from tests.conftest import write_image_folder
from tests.test_resume import QUIET, BrokenOffError, break_off_at_save

pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to 0")

SIZES = {"small": (32, 32), "large": (48, 40)}
COUNTS = {
    "small": {"train": {"cat": 10, "dog": 12, "unused": 2}, "test": {"cat": 2, "dog": 3}},
    "large": {"train": {"dog": 11, "fox": 10, "tulip": 9}, "val": {"dog": 2, "fox": 2, "tulip": 3}},
}
LARGE = {
    "size": 32,
    "train": {"crop": "random_resized", "flip": True},
    "evaluate": {"resize": 36, "crop": "center"},
    "mean": [0.3, 0.4, 0.5],
    "std": [0.1, 0.2, 0.3],
}
CONTENT = {
    "name": "both",
    "datasets": {
        "small": {"transforms": "cifar", "splits": {"intask_valid_ratio": 0.25}},
        "large": {"transforms": LARGE},
    },
    "superclasses": {"animal": ["small/cat", "dog", "large/fox"]},
    "joined_classes": {"dog": ["small/dog", "large/dog"]},
    "other_classes": ["large/tulip"],
    "schedules": [[["animal"], ["dog", "large/tulip"], ["small/cat", "large/fox"]]],
}
SETUP = {
    "n_layers": 8,
    "n_memories_per_class": 4,
    "epochs_per_task": 1,
    "batch_size": 16,
    "lr": 0.1,
    "device": "cpu",
    "decoder": "pillow",
    "threads": 1,
    "method": "icarl_cnn",
}


def parsed(**changes) -> Benchmark:
    return parse_benchmark(json.dumps(CONTENT | changes), "both.json")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("datasets")
    for name, (height, width) in SIZES.items():
        images = write_image_folder(
            folder / f"{name}-images", COUNTS[name], height=height, width=width
        )
        write_shards(open_folder(images), folder / name)
    return {name: str(folder / name) for name in SIZES}


@pytest.fixture(scope="module")
def store(places) -> UnionStore:
    return UnionStore.open(places)


@pytest.fixture(scope="module")
def settings(places, tmp_path_factory) -> dict[str, object]:
    file = tmp_path_factory.mktemp("benchmark") / "both.json"
    file.write_text(json.dumps(CONTENT))
    return SETUP | {"benchmark": str(file), "data": places}


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "trained"
    return run_experiment(ExperimentConfig.parse(settings), output, QUIET)


# --- names -----------------------------------------------------------------------------------


def test_a_benchmark_file_of_one_dataset_stays_as_it_is(tiny_benchmark):
    written = tiny_benchmark.model_dump_json()
    assert "datasets" not in written and "joined_classes" not in written
    assert Benchmark.model_validate_json(written) == tiny_benchmark
    both = parsed()
    assert Benchmark.model_validate_json(both.model_dump_json()) == both
    assert both.dataset == "small + large"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"other_classes": ["tulip"]}, "'tulip' names no dataset: write 'small/tulip' or 'large/t"),
        ({"other_classes": ["lagre/tulip"]}, "'lagre/tulip' is of none of the datasets small, lar"),
        ({"other_classes": ["large/dog"]}, "the images of 'large/dog' belong to 'dog' and 'large/"),
        ({"joined_classes": {"dog": ["small/dog", "dog"]}}, "joined_classes: class 'dog' names no"),
        (
            {"joined_classes": CONTENT["joined_classes"] | {"hen": ["small/hen"]}},
            "joined_classes: 'hen' is in neither",
        ),
        (
            {"joined_classes": {"dog": ["small/dog"], "large/tulip": ["large/rose"]}},
            "joined_classes: 'large/tulip' is the name of a class of one dataset",
        ),
        (
            {"datasets": CONTENT["datasets"] | {"huge": {"transforms": "cifar"}}},
            "no class is of dataset 'huge': write its classes as 'huge/CLASS'",
        ),
        (
            {"datasets": CONTENT["datasets"] | {"large": {"transforms": "imagenet"}}},
            "images of 'small' are shown at 32 pixels, those of 'large' at 224",
        ),
        ({"datasets": {}, "dataset": "x"}, "joined_classes: need datasets"),
        ({"datasets": {"a/b": {}}}, "datasets"),
        ({"datasets": {"small": {"transform": "cifar"}}}, "datasets.small.transform: Extra"),
        ({"datasets": [1]}, "datasets"),
    ],
)
def test_wrong_names_are_refused_with_a_remedy(changes, said):
    with pytest.raises(BenchmarkError) as error:
        parsed(**changes)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("one", "small, large: give the place of each by name, --data small=PATH --data large="),
        (["small"], "draws from dataset 'large', for which no data is given: add --data large="),
        (["small", "Large", "large"], "has no dataset 'Large' \\(there is 'large'\\)"),
    ],
)
def test_data_must_be_that_of_the_benchmark(places, given, said):
    data = places["small"] if given == "one" else dict.fromkeys(given, places["small"])
    with pytest.raises(BenchmarkError, match=said):
        open_datasets(parsed(), data)


def test_a_benchmark_of_one_dataset_refuses_data_by_name(tiny_benchmark, tiny_store, store):
    with pytest.raises(BenchmarkError, match=r"draws from one dataset.*give one place"):
        open_datasets(tiny_benchmark, {"tiny": tiny_store.root})
    with pytest.raises(BenchmarkError, match="draws from one dataset"):
        TaskSequence.from_store(tiny_benchmark, store, "train")


def test_data_that_cannot_be_opened_or_lacks_classes_is_named(places, tmp_path):
    with pytest.raises(IIRCError, match=r"dataset 'large': .*nowhere does not exist"):
        open_datasets(parsed(), places | {"large": tmp_path / "nowhere"})
    swapped = UnionStore.open({"small": places["large"], "large": places["small"]})
    with pytest.raises(BenchmarkError, match="dataset 'small' does not have: cat"):
        TaskSequence.from_store(parsed(), swapped, "train")


def test_what_serves_one_dataset_only_says_so(settings, tmp_path):
    file = str(settings["benchmark"])
    with pytest.raises(BenchmarkError, match="draws from the datasets small, large: train on it"):
        get_lifelong_datasets(file, tmp_path)
    with pytest.raises(BenchmarkError, match="without --benchmark"):
        select(None, classes=None, benchmark=parsed())
    with pytest.raises(BenchmarkError, match="image preset for each of its datasets"):
        _ = parsed().image_preset


def test_names_of_places_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b").mkdir()
    assert by_dataset(["a=b"]) == "a=b"
    assert by_dataset(["./c=d"]) == "./c=d"
    assert by_dataset(["s3://bucket/x?y=z"]) == "s3://bucket/x?y=z"
    assert by_dataset(["c=d"]) == {"c": "d"}
    assert by_dataset(["c=s3://x?y=z", "a=b"]) == {"c": "s3://x?y=z", "a": "b"}
    for wrong in (["x", "y"], ["a=x", "y"], ["a=x", "a=y"], []):
        with pytest.raises(ValueError):
            by_dataset(wrong)


# --- samples ---------------------------------------------------------------------------------


def test_a_union_reads_what_its_datasets_read(places, store):
    alone = [ShardStore.open(place) for place in places.values()]
    expected = [(one, row) for one in alone for row in range(len(one))]
    ids = np.random.default_rng(0).permutation(len(expected))
    for union in (store, pickle.loads(pickle.dumps(store))):
        assert len(union) == len(expected)
        union.will_read(ids)
        for sample_id, many in zip(ids, union.read_many(ids), strict=True):
            one, row = expected[sample_id]
            assert many.tobytes() == one.read(row).tobytes()
            assert union.read(int(sample_id)).tobytes() == many.tobytes()
            assert union.name(int(sample_id)) == one.name(row)
        sizes = [one.table.sizes(np.array([row]))[0] for one, row in expected]
        assert np.array_equal(union.sizes(ids), np.array(sizes)[ids])
        numbers = [alone.index(one) for one, _ in expected]
        assert np.array_equal(union.dataset_numbers(ids), np.array(numbers)[ids])
    for outside in (-1, len(expected)):
        with pytest.raises(IndexError):
            store.read(outside)


def test_the_digest_of_a_union_covers_names_order_and_data(places, store):
    small, large = places.values()
    assert UnionStore.open(places).digest == store.digest
    others = [{"large": large, "small": small}, {"small": small, "l": large}, {"small": small}]
    digests = {UnionStore.open(other).digest for other in others} | {store.digest}
    assert len(digests) == 4


LEAVES = ["small/cat", "dog", "large/fox", "large/tulip"]


@pytest.mark.parametrize("order", ["dataset", "published_imagenet"])
@pytest.mark.parametrize("split", ["train", "intask_valid", "posttask_valid", "test"])
def test_a_view_shows_what_the_datasets_show_alone(places, store, split, order):
    """Each dataset alone is a benchmark in the class-incremental setup."""
    datasets = json.loads(json.dumps(CONTENT["datasets"]))
    datasets["large"]["image_order"] = order
    both = parsed(
        setup="CIL",
        superclasses={},
        other_classes=LEAVES,
        schedules=[[LEAVES]],
        datasets=datasets,
    )
    view = TaskSequence.from_store(both, store, split).view(0)
    expected, first = [], 0
    for name, classes in (("small", ["cat", "dog"]), ("large", ["dog", "fox", "tulip"])):
        part = ShardStore.open(places[name])
        alone = {"name": name, "dataset": name, "setup": "CIL", "other_classes": classes}
        alone |= {"splits": datasets[name].get("splits", {}), "schedules": [[classes]]}
        alone |= {"image_order": datasets[name].get("image_order", "dataset")}
        own = TaskSequence.from_store(Benchmark.model_validate(alone), part, split).view(0)
        for sample_id, (label, _) in zip(own.sample_ids, own.labels, strict=True):
            leaf = "dog" if classes[label] == "dog" else f"{name}/{classes[label]}"
            expected.append((first + int(sample_id), leaf))
        first += len(part)
    shown = [view.class_names[label] for label in view.labels[:, 0]]
    assert list(zip(view.sample_ids.tolist(), shown, strict=True)) == expected
    assert len(expected) > 0


def test_classes_of_one_name_are_kept_apart_unless_joined(store):
    apart = ["small/cat", "small/dog", "large/dog", "large/fox", "large/tulip"]
    both = parsed(
        setup="CIL", superclasses={}, joined_classes={}, other_classes=apart, schedules=[[apart]]
    )
    view = TaskSequence.from_store(both, store, "test").view(0)
    counts = np.bincount(view.labels[:, 0], minlength=5).tolist()
    assert dict(zip(view.class_names, counts, strict=True)) == dict(
        zip(apart, [2, 3, 2, 2, 3], strict=True)
    )


def test_superclass_and_subclass_share_each_datasets_images(store):
    """Taken together, the superclass would show dogs of one dataset and the subclass the others."""
    both = parsed(sampling={"superclass_data_pct": 0.5, "subclass_data_pct": 0.5})
    tasks = TaskSequence.from_store(both, store, "train")
    dogs = [
        view.sample_ids[[store.name(i).split("/")[-1].startswith("dog") for i in view.sample_ids]]
        for view in (tasks.view(0), tasks.view(1))
    ]
    left = {"small": 12 - 3 - 1, "large": 11 - 1 - 1}
    for ids in dogs:
        shown = np.bincount(store.dataset_numbers(ids)).tolist()
        assert shown == [n // 2 for n in left.values()]
    assert np.intersect1d(*dogs).size == 0


# --- images ----------------------------------------------------------------------------------


HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
DECODERS = ["pillow", *(["dali"] if HAS_DALI else [])]


@pytest.fixture(scope="module")
def view(store):
    return TaskSequence.from_store(parsed(), store, "test").view([0, 1, 2])


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_mixed_batch_is_evaluated_as_each_dataset_alone(places, store, view, decoder):
    presets = parsed().image_presets
    options = {"train": False, "batch_size": 100, "decoder": decoder, "resident": False}
    (together,) = make_loader(view, store, transforms=presets, **options)
    numbers = store.dataset_numbers(view.sample_ids)
    assert set(numbers) == {0, 1}
    first = 0
    for number, (name, place) in enumerate(places.items()):
        alone = ShardStore.open(place)
        own = view.subset(np.flatnonzero(numbers == number))
        moved = own.__class__(**{**vars(own), "sample_ids": own.sample_ids - first})
        (expected,) = make_loader(moved, alone, transforms=presets[name], **options)
        assert torch.equal(together.images[numbers == number], expected.images)
        assert torch.equal(together.targets[numbers == number], expected.targets)
        first += len(alone)
    (bytes_,) = make_loader(view, store, transforms=presets, normalize=False, **options)
    assert bytes_.images.dtype == torch.uint8


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_mixed_batch_is_augmented_by_each_datasets_own_transform(store, view, decoder):
    presets = parsed().image_presets
    jitter = ImageSteps(crop="random", padding=2, flip=True, color_jitter={"brightness": 0.5})
    presets["small"] = presets["small"].model_copy(update={"train": jitter})
    loader = make_loader(
        view, store, transforms=presets, train=True, shuffle=False, batch_size=5,
        normalize=False, decoder=decoder, seed=3,
    )  # fmt: skip
    shown = torch.cat([batch.images for batch in loader]).permute(0, 2, 3, 1)
    transforms = [preset.transforms.train for preset in presets.values()]
    random = uniform(3, 0, 0, len(view), max(t.n_random for t in transforms))
    names = store.dataset_numbers(view.sample_ids)
    for place, sample_id in enumerate(view.sample_ids.tolist()):
        transform = transforms[names[place]]
        height, width = store.sizes(np.array([sample_id])).T
        drawn = transform.parameters(height, width, random[place : place + 1, : transform.n_random])
        request = DecodeRequest([store.read(sample_id)], drawn, lambda _: "image")
        image = decode_and_augment(request, 0)
        image = image.flip(1) if drawn.flip[0] else image
        if drawn.operations is None:
            assert torch.equal(shown[place], image)
        else:
            assert drawn.operations[0] and not torch.equal(shown[place], image)


def test_ranks_together_show_what_one_process_shows(store, view):
    options = {"transforms": parsed().image_presets, "train": True, "decoder": "pillow", "seed": 5}
    (whole,) = make_loader(view, store, batch_size=len(view), **options)
    half = len(view) // 2
    parts = [
        next(iter(make_loader(view, store, batch_size=half, rank=rank, world_size=2, **options)))
        for rank in range(2)
    ]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.sample_ids, torch.cat([part.sample_ids for part in parts]))


def test_epochs_of_one_dataset_need_only_its_steps(store, view):
    both = PerDataset(dict(enumerate(p.transforms.train for p in parsed().image_presets.values())))
    side = np.full(3, 40, np.int32)
    random = np.zeros((3, both.n_random))
    alone = both.of_datasets([0])
    drawn = alone.parameters(np.zeros(3, np.int64), side, side, random[:, : alone.n_random])
    assert drawn.window is None and drawn.resize is None
    mixed = both.parameters(np.zeros(3, np.int64), side, side, random)
    assert mixed.resize is not None and mixed.window is not None
    sizes = PerDataset({0: both.transforms[0], 1: IMAGE_PRESETS["imagenet"].transforms.train})
    with pytest.raises(IIRCError, match=r"different sizes.*32, 32.*224, 224.*one size"):
        sizes.parameters(np.array([0, 1, 0]), side, side, random)
    ways = PerDataset({0: RandomResizedCrop(9), 1: RandomResizedCrop(9, interpolation="bicubic")})
    random = np.zeros((3, ways.n_random))
    with pytest.raises(IIRCError, match=r"bicubic and bilinear: give .* one interpolation"):
        ways.parameters(np.array([0, 1, 0]), side, side, random)


def test_images_of_several_datasets_are_resident_where_none_is_resized(places, store, view):
    presets = parsed().image_presets
    with pytest.raises(IIRCError, match="cannot be resident: images differ in size"):
        make_loader(view, store, transforms=presets, train=True, resident=True)
    twins = UnionStore.open({"small": places["small"], "large": places["small"]})
    dark = ImagePreset(
        size=32, train=ImageSteps(crop="random", padding=8), mean=(0.1,) * 3, std=(0.5,) * 3
    )
    presets = {"small": presets["small"], "large": dark}
    leaves = ["small/cat", "large/cat", "large/dog"]
    mine = parsed(
        setup="CIL", superclasses={}, joined_classes={}, other_classes=leaves, schedules=[[leaves]]
    )
    everything = TaskSequence.from_store(mine, twins, "train").view(0)
    kept, read = (
        list(make_loader(everything, twins, transforms=presets, train=True, resident=resident))
        for resident in (True, False)
    )
    for one, other in zip(kept, read, strict=True):
        assert torch.equal(one.images, other.images)


def test_memories_without_a_dataset_are_refused(store, view):
    class Replay:
        labels, heights, widths = np.zeros((1, 2), np.int32), np.array([32]), np.array([32])

        def __len__(self):
            return 1

    with pytest.raises(IIRCError, match="Replay does not say which of them a memory is from"):
        make_loader(view, store, Replay(), transforms=parsed().image_presets, train=False)
    with pytest.raises(IIRCError, match="no transforms for dataset 'large', only for small, huge"):
        presets = dict.fromkeys(["small", "huge"], IMAGE_PRESETS["cifar"])
        make_loader(view, store, transforms=presets, train=False)


# --- runs ------------------------------------------------------------------------------------


def metrics(run: Path) -> bytes:
    return (run / "metrics.jsonl").read_bytes()


def test_a_union_of_one_dataset_trains_as_the_dataset_does(
    tiny_benchmark, tiny_settings, tiny_store, tmp_path
):
    def qualified(names):
        return [name if name == "animal" else f"tiny/{name}" for name in names]

    tasks = [["animal", "tulip"], ["cat", "bear"]]
    plain = tiny_benchmark.model_dump(mode="json") | {"schedules": [tasks]}
    named = plain | {
        "datasets": {"tiny": {}},
        "superclasses": {s: qualified(n) for s, n in tiny_benchmark.superclasses.items()},
        "other_classes": qualified(tiny_benchmark.other_classes),
        "schedules": [[qualified(task) for task in tasks]],
    }
    place = str(tiny_store.root)
    runs = []
    for name, content, data in (("plain", plain, place), ("union", named, {"tiny": place})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        settings = {"method": "icarl_cnn", "threads": 1, "data": data}
        settings["benchmark"] = str(tmp_path / f"{name}.json")
        config = ExperimentConfig.parse(tiny_settings | settings)
        runs.append(run_experiment(config, tmp_path / name, QUIET))
    assert metrics(runs[0]) == metrics(runs[1])


def test_a_run_records_the_digests_of_all_datasets(trained, places, store):
    digests = {name: ShardStore.open(place).digest for name, place in places.items()}
    recorded = read_record(trained)["dataset"]
    assert recorded["digest"] == store.digest
    assert {name: part["digest"] for name, part in recorded["datasets"].items()} == digests


def test_memories_keep_their_dataset(trained, settings, store):
    with Experiment(ExperimentConfig.parse(settings), trained / BUFFER_NAME) as experiment:
        training = Training(experiment, RunDirectory.open(trained)[0])
        training.restore()
        memories = experiment.buffer.replay_source(experiment.class_names_to_idx)
        images = {store.read(i).tobytes(): i for i in range(len(store))}
        ids = np.array([images[memories.read(slot).tobytes()] for slot in range(len(memories))])
    assert np.array_equal(memories.datasets, store.dataset_numbers(ids))
    assert set(memories.datasets) == {0, 1}
    assert memories.subset(np.array([3, 0])).datasets.tolist() == memories.datasets[[3, 0]].tolist()


@pytest.mark.skipif(not HAS_DALI, reason="needs DALI")
def test_decoders_train_alike(trained, settings, tmp_path):
    config = ExperimentConfig.parse(settings | {"decoder": "dali"})
    assert metrics(run_experiment(config, tmp_path / "dali", QUIET)) == metrics(trained)


@pytest.fixture(scope="module")
def begun_once(settings, places, tmp_path_factory) -> Path:
    """A run that ended in its second task; one of its datasets has since moved."""
    folder = tmp_path_factory.mktemp("begun")
    for name, place in places.items():
        shutil.copytree(place, folder / name)
    data = {name: str(folder / name) for name in places}
    config = ExperimentConfig.parse(settings | {"data": data})
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 4)
        experiment = Experiment(config, folder / "run" / BUFFER_NAME)
        Training(experiment, RunDirectory.create(folder / "run", config)).run(QUIET)
    (folder / "large").rename(folder / "moved")
    return folder


@pytest.fixture
def begun(begun_once, tmp_path) -> Path:
    return shutil.copytree(begun_once / "run", tmp_path / "run")


def test_a_run_resumes_after_one_dataset_moved(begun, begun_once, trained):
    with pytest.raises(ConfigurationError, match=r"the run's data large is not at .*large=PLACE"):
        resume_experiment(begun, QUIET)
    small, moved = str(begun_once / "small"), str(begun_once / "moved")
    with pytest.raises(ConfigurationError, match="the run's data large is not at"):
        resume_experiment(begun, QUIET, changes={"data": [f"small={small}"]})
    resume_experiment(begun, QUIET, changes={"data": [f"large={moved}"]})
    assert metrics(begun) == metrics(trained)
    assert RunDirectory.open(begun)[1].data == {"small": small, "large": moved}


def test_a_sweep_resumes_after_one_dataset_moved(begun, begun_once, settings, trained, tmp_path):
    places = {"small": str(begun_once / "small"), "large": str(begun_once / "moved")}
    folder = tmp_path / f"sweep/{settings['method']}/schedule_0/seed_0"
    shutil.copytree(begun, folder)
    (run,) = sweep.plan(tmp_path / "sweep", overrides=settings | {"data": places})
    outcome = sweep.train(run, sweep.Processes(tmp_path))
    assert outcome.error is None
    assert metrics(folder) == metrics(trained)
    assert RunDirectory.open(folder)[1].data == places


def test_a_run_resumes_with_its_own_datasets_only(begun, trained, tmp_path):
    images = write_image_folder(tmp_path / "other-images", COUNTS["large"], height=48, width=41)
    write_shards(open_folder(images), tmp_path / "other")
    changes = {"data": {"large": str(tmp_path / "other")}}
    with pytest.raises(CheckpointError, match=r"another dataset \(large: \w+, now large: \w+\)"):
        resume_experiment(begun, QUIET, changes=changes)
    with pytest.raises(
        ConfigurationError, match=r"was made with dataset large-images, digest .*; "
    ):
        repeat_experiment(trained, tmp_path / "again", QUIET, changes=changes)


def test_presets_that_do_not_fit_the_images_name_the_dataset(settings, places, tmp_path):
    whole = {"mean": [0.5] * 3, "std": [0.2] * 3}
    content = CONTENT | {
        "datasets": {"small": {"transforms": "cifar"}, "large": {"transforms": whole}}
    }
    file = tmp_path / "whole.json"
    file.write_text(json.dumps(content))
    said = r"datasets 'small' and 'large' differ in size: .*32 x 32 pixels, .*48 x 40: give the"
    with pytest.raises(BenchmarkError, match=said):
        Experiment(ExperimentConfig.parse(settings | {"benchmark": str(file)}))


def test_commands_take_several_datasets(settings, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [f"{name}={place}" for name, place in places.items()]
    file = str(settings["benchmark"])

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        return done.output if done.exception is None else f"{done.output} {done.exception}"

    shown = said("benchmarks", "show", file)
    assert "dataset small: 2 classes; image preset cifar" in shown
    assert "class dog joins small/dog, large/dog" in shown
    digests = said("data", "digest", *named, "--benchmark", file).splitlines()
    assert digests[0].startswith("dataset small ") and digests[1].startswith("dataset large ")
    assert digests[2] == f"dataset {UnionStore.open(places).digest}"
    assert "give the place of each" in said("data", "digest", places["small"], "--benchmark", file)
    sheet = said("data", "show", *named, "--benchmark", file, "--task", "1", "--images", "4")
    assert "4 images" in sheet
    pulled = said("data", "pull", places["large"], "here", "--benchmark", file)
    assert "--dataset NAME" in pulled
    said("data", "pull", places["large"], "here", "--benchmark", file, "--dataset", "large",
         "--tasks", "2")  # fmt: skip
    shards = {path.name for path in Path("here").rglob("*.tar")}
    assert shards == {"fox-000000.tar"}
    options = [word for place in named for word in ("--data", place)]
    words = ["train", "--benchmark", file, *options, "--method", "finetune", "--n-layers", "8",
             "--epochs-per-task", "1", "--device", "cpu", "--output", "run"]  # fmt: skip
    assert "run: run" in said(*words)
    assert RunDirectory.open(Path("run"))[1].data == places


def test_a_run_trains_on_features_that_each_dataset_has_cached_by_itself(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))
    own = settings | {"frozen": True, "augment": False, "cache_features": True}
    run = run_experiment(ExperimentConfig.parse(own), tmp_path / "run", QUIET)
    with Experiment(ExperimentConfig.parse(own)) as experiment:
        stored = {array.key.dataset_digest for array in experiment.samples.arrays}
        assert stored == {store.digest for store in experiment.store.datasets.values()}
        assert len(CacheFolder(tmp_path / "cache").datasets()) == len(stored) == 2
    assert len(metrics(run)) > 0
