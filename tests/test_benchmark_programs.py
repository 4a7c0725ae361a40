"""The benchmark programs, at tiny sizes: they run, compare what they should, and say where."""

import multiprocessing
import re
from contextlib import ExitStack

import pytest
import torch

from benchmarks import bottleneck, buffer_commits, loader, small_images, stages, timing
from benchmarks.bottleneck import Stage, costs_of_loading, verdict
from benchmarks.contenders import Contender, Workload, measure, ours
from benchmarks.images import DrawnPhotographs, RepeatedImages, opened
from benchmarks.results import RESULTS_FOLDER, Machine, Result, Speed
from benchmarks.timing import interleaved
from iirc_data.errors import LoaderError
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import open_folder

NOT_NEEDED = {"FFCV", "decoding alone: PyTurboJPEG"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> ShardStore:
    folder = tmp_path_factory.mktemp("photographs")
    write_shards(RepeatedImages(DrawnPhotographs(6, width=96), 24, 4), folder)
    return ShardStore.open(folder)


def workload(store: ShardStore, **changes: object) -> Workload:
    settings = {
        "preset": "imagenet",
        "normalize": True,
        "batch_size": 8,
        "workers": 2,
        "device": torch.device("cpu"),
    }
    return Workload.of_size(store, 24, **settings | changes)


def test_the_loader_benchmark_times_every_contender_that_is_installed(
    photographs, tmp_path, capsys
):
    before = set(multiprocessing.active_children())
    loader.main(photographs.root, images=24, batch_size=8, workers=2, runs=1, results=tmp_path)
    (path,) = tmp_path.iterdir()
    result = Result.model_validate_json(path.read_bytes())
    for speed in result.speeds:
        if speed.median is None:
            assert speed.contender in NOT_NEEDED and speed.note == "not installed"
        else:
            assert speed.images_per_second == [speed.median] and speed.median > 0
    for output in ("float32, normalised", "uint8"):
        names = {speed.contender for speed in result.speeds if speed.output == output}
        assert names == {contender.name for contender in loader.CONTENDERS + loader.ON_CPU}
    printed, reported = capsys.readouterr()
    for contender in loader.CONTENDERS + loader.ON_CPU:
        assert reported.count(f"\n{contender.name}: ") == 2  # for each output
    assert f"written to {path}" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if str(path) not in line)
    assert set(multiprocessing.active_children()) <= before


def test_the_small_image_benchmark_writes_shards_of_what_it_is_given(tiny_folder, tmp_path):
    small_images.main(tiny_folder, images=64, batch_size=16, workers=2, runs=2, results=tmp_path)
    (path,) = tmp_path.iterdir()
    result = Result.model_validate_json(path.read_bytes())
    assert len(result.speeds) == 2 * len(small_images.CONTENDERS)
    assert all(len(speed.images_per_second) == 2 for speed in result.speeds)
    assert result.settings["images per epoch"] == 64


@pytest.mark.filterwarnings("ignore:image 0 would be trained on at")
@pytest.mark.parametrize("decoder", ["pillow", "dali"])
def test_the_benchmark_of_stages_times_each_and_says_what_limits(
    photographs, tmp_path, capsys, decoder
):
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    stages.main(
        photographs.root,
        preset="cifar",
        network="resnet8",
        decoder=decoder,
        images=24,
        batch_size=8,
        workers=2,
        steps=2,
        runs=1,
        results=tmp_path,
    )
    (path,) = tmp_path.iterdir()
    result = Result.model_validate_json(path.read_bytes())
    speeds = {name for name in result.figures if name.endswith(" (images/s)")}
    expected = {
        value for name, value in vars(bottleneck).items() if name.isupper() and name[0] != "_"
    }
    absent = {bottleneck.TRANSFER} | ({bottleneck.FEED} if decoder == "pillow" else set())
    assert speeds == {f"{name} (images/s)" for name in expected - absent}
    assert all(result.figures[name] > 0 for name in speeds)
    assert 0 < result.figures["waiting share"] < 1
    printed = capsys.readouterr().out
    assert "the network waited for images" in printed and " limits" in printed
    with pytest.raises(LoaderError, match="no transforms 'cifr'"):
        stages.main(photographs.root, preset="cifr", results=tmp_path)


FAST = {
    bottleneck.READ_AS_FOUND: Stage(bottleneck.READ_AS_FOUND, 9000),
    bottleneck.PARAMETERS: Stage(bottleneck.PARAMETERS, 9000, 1.0),
    bottleneck.REQUEST: Stage(bottleneck.REQUEST, 9000, 9.0),
    bottleneck.FEED: Stage(bottleneck.FEED, 9000, 10.0),
    bottleneck.DECODE: Stage(bottleneck.DECODE, 9000),
    bottleneck.DECODER: Stage(bottleneck.DECODER, 8000),
    bottleneck.NORMALIZE: Stage(bottleneck.NORMALIZE, 9000),
    bottleneck.LOADER: Stage(bottleneck.LOADER, 500),
    bottleneck.STEP: Stage(bottleneck.STEP, 2000),
}


@pytest.mark.parametrize(
    ("slow", "is_resident", "sentence"),
    [
        (
            Stage(bottleneck.LOADER, 8200),
            False,
            "The network limits: the loader alone delivers 4.1 times as many images",
        ),
        (Stage(bottleneck.READ_AS_FOUND, 500), False, "most of all reading: .* a local disk"),
        (Stage(bottleneck.DECODE, 500), False, "most of all decoding: .* --resize 256"),
        (Stage(bottleneck.DECODER, 500), False, "most of all resizing and collecting: "),
        (Stage(bottleneck.FEED, 9000, 2000.0), False, "most of all feeding .*resident images"),
        (Stage(bottleneck.TRANSFER, 500), False, "most of all transfer: "),
        (Stage(bottleneck.NORMALIZE, 500), False, "most of all normalisation: "),
        (Stage(bottleneck.DECODE, 500), True, "Augmenting resident images limits: .* 4.0 times"),
    ],
)
def test_the_slowest_stage_limits_unless_the_network_is_slower(slow, is_resident, sentence):
    found = verdict([*(FAST | {slow.name: slow}).values()], is_resident)
    assert re.search(sentence, found), found


def test_costs_of_loading_do_not_count_a_part_twice():
    costs = costs_of_loading(FAST.values())
    assert costs[bottleneck.DECODER] == pytest.approx(1 / 8000 - 1 / 9000)
    assert costs[bottleneck.FEED] == pytest.approx(20e-6)
    assert costs[bottleneck.TRANSFER] == 0  # there is none on a CPU


def test_the_buffer_benchmark_times_each_step_beside_a_sync_of_the_whole_folder(tmp_path, capsys):
    buffer_commits.main(classes=12, classes_per_task=2, memories=2, width=8, folder=tmp_path)
    printed = capsys.readouterr().out
    assert "12 classes in 6 commits, 2 memories of 8 x 8 each; 2.3 files per class" in printed
    for syncing in ("what was written", "the whole folder"):
        for step in ("commit", "collect", "replay source"):
            assert f"syncing {syncing}: {step:13} first " in printed
    assert "times as long (medians)" in printed
    assert not list(tmp_path.iterdir())


def test_a_contender_that_gives_other_images_is_refused(photographs):
    def unnormalised(workload: Workload, stack: ExitStack):
        epoch = ours("pillow")(workload, stack)
        return lambda: (images.mul(0.25).add(0.45) for images in epoch())

    def one_too_few(workload: Workload, stack: ExitStack):
        epoch = ours("pillow")(workload, stack)
        return lambda: (images[1:] for images in epoch())

    def other_layout(workload: Workload, stack: ExitStack):
        epoch = ours("pillow")(workload, stack)
        return lambda: (images.permute(0, 2, 3, 1) for images in epoch())

    first = Contender("ours", "ours", ours("pillow"))
    for wrong in (unnormalised, one_too_few, other_layout):
        with pytest.raises(RuntimeError, match="images of wrong differ from those of the first"):
            measure(workload(photographs), [first, Contender("wrong", "peer", wrong)], 1)


def test_without_a_gpu_none_is_measured(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoaderError, match="no CUDA device"):
        loader.main(photographs.root, device="cuda", results=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_workload_takes_whole_training_shards_until_they_are_enough(tiny_store):
    found = Workload.of_size(
        tiny_store,
        21,
        preset="cifar",
        normalize=True,
        batch_size=8,
        workers=1,
        device=torch.device("cpu"),
    )
    shards = [tiny_store.manifest.shards[number] for number in found.shard_numbers]
    assert [shard.path for shard in shards] == ["train/bear-000000.tar", "train/bus-000000.tar"]
    assert len(found.sample_ids) == sum(shard.samples for shard in shards) == 40


def test_images_are_repeated_and_dealt_out_evenly(tiny_folder):
    source = RepeatedImages(open_folder(tiny_folder), n_images=300, n_classes=7)
    classes = [list(source.samples("train", name)) for name in source.classes()["train"]]
    assert {len(samples) for samples in classes} <= {300 // 7, 300 // 7 + 1}
    samples = [sample for of_class in classes for sample in of_class]
    assert len({sample.key for sample in samples}) == 300
    originals = [path.read_bytes() for path in tiny_folder.rglob("*.jpg")]
    assert {sample.data for sample in samples} == set(originals)


def test_drawn_images_serve_where_none_are_given():
    with opened(None, DrawnPhotographs(2, width=64), 5, 2) as store:
        root = store.root
        assert len(store) == 5
        assert {*store.table.height.tolist()} == {48, 36}
    assert not root.exists()


def test_contenders_take_turns():
    turns: list[str] = []
    timings = interleaved(
        {name: lambda name=name: turns.append(name) or name for name in "ab"},
        3,
        before_each=lambda: turns.append("-"),
    )
    assert "".join(turns) == "-a-b" * 3
    assert timings["b"].results == ["b"] * 3
    assert len(timings["a"].seconds) == 3


def test_a_line_is_printed_for_each_round_that_takes_a_second_or_more(monkeypatch, capsys):
    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    interleaved({"a": lambda: 1, "b": lambda: 2}, 2)
    assert capsys.readouterr().err.splitlines() == [
        "round 1 of 2: 5 s",
        "round 2 of 2: 5 s",
    ]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 0.0)
    interleaved({"a": lambda: 1}, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", sorted(RESULTS_FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_kept_results_name_contenders_as_the_programs_do(path):
    result = Result.model_validate_json(path.read_bytes())
    program = small_images if result.name.startswith("small-images") else loader
    contenders = {contender.name for contender in program.CONTENDERS}
    contenders |= {contender.name for contender in getattr(program, "ON_CPU", ())}
    assert {speed.contender for speed in result.speeds} <= contenders


def test_tables_give_ratios_to_the_fastest_of_ours_and_shares_of_the_fastest_limit():
    def speed(name, role, median):
        return Speed(
            contender=name, role=role, output="uint8", images_per_second=[median], median=median
        )

    result = Result(
        name="loader",
        date="2025-01-01T00:00:00+00:00",
        machine=Machine(cpu="CPU (R) 9", cores=4, memory_gib=8, gpu=None),
        versions={"python": "3.11"},
        settings={"runs": 1},
        speeds=[
            speed("ours", "ours", 600.0),
            speed("ours, slow", "ours", 300.0),
            speed("peer", "peer", 400.0),
            Speed(contender="FFCV", role="peer", output="uint8", note="not installed"),
            speed("limit", "limit", 1000.0),
            speed("slow limit", "limit", 500.0),
        ],
    )
    lines = result.markdown().splitlines()
    assert "| ours, slow | 300 |  | 0.30 |" in lines
    assert "| peer | 400 | 1.50 | 0.40 |" in lines
    assert "| FFCV | not installed |  |  |" in lines
    assert "| slow limit | 500 |  |  |" in lines
    assert result.machine.slug == "cpu-r-9-4-cores"
