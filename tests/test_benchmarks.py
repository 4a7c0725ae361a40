"""The benchmark definitions: the published ones, a user's own, wrong ones, and their commands."""

import importlib.metadata
import json

import iirc.datasets_loader
import pytest
from typer.testing import CliRunner

from iirc_data.benchmarks import (
    Benchmark,
    benchmark_names,
    benchmark_text,
    load_benchmark,
    manifests_folder,
)
from iirc_data.commands.benchmarks import app, task_sizes
from iirc_data.commands.task_sizes import tasks_in_words
from iirc_data.errors import BenchmarkError
from iirc_train.config.places import absolute_benchmark
from tools.make_benchmarks import PUBLISHED, convert, published_metadata

# schedules, classes of the first task, further tasks, their classes
SHAPES = {
    "iirc_cifar100": (10, 10, 21, 5),
    "incremental_cifar100": (10, 50, 10, 5),
    "iirc_imagenet_full": (5, 63, 34, 30),
    "iirc_imagenet_lite": (5, 63, 9, 30),
    "incremental_imagenet_full": (5, 160, 28, 30),
    "incremental_imagenet_lite": (5, 160, 9, 30),
}
# superclasses, leaf classes
TAXONOMIES = {
    "iirc_cifar100": (15, 100),
    "incremental_cifar100": (0, 100),
    "iirc_imagenet_full": (85, 998),
    "iirc_imagenet_lite": (85, 998),
    "incremental_imagenet_full": (0, 1000),
    "incremental_imagenet_lite": (0, 1000),
}


# The published benchmarks


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_benchmark_has_its_published_shape(name):
    benchmark = load_benchmark(name)
    n_schedules, first, n_further, further = SHAPES[name]
    n_superclasses, n_leaves = TAXONOMIES[name]
    assert len(benchmark.schedules) == n_schedules
    for schedule in benchmark.schedules:
        assert [len(task) for task in schedule] == [first] + [further] * n_further
    assert len(benchmark.superclasses) == n_superclasses
    assert len(benchmark.leaf_classes) == n_leaves
    assert benchmark.name == name
    assert "MIT" in benchmark.attribution and "Abdelsalam" in benchmark.attribution


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_benchmark_has_the_tasks_and_indices_of_the_published_loader(name):
    benchmark = load_benchmark(name)
    for schedule in range(len(benchmark.schedules)):
        tasks, indices = iirc.datasets_loader._get_tasks_configuration(name, schedule)
        assert benchmark.tasks(schedule) == tasks
        assert benchmark.class_names_to_idx(schedule) == indices
        joint, _ = iirc.datasets_loader._get_tasks_configuration(name, schedule, joint=True)
        assert benchmark.tasks(schedule, joint=True) == joint


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_benchmark_has_the_published_classes_in_their_order_and_settings(name):
    benchmark = load_benchmark(name)
    metadata = published_metadata()
    kind, dataset = name.split("_")[:2]
    if kind == "iirc":
        suffix = "_wnids" if dataset == "imagenet" else ""
        hierarchy = json.loads((metadata / f"iirc_{dataset}_hierarchy{suffix}.json").read_text())
        assert list(benchmark.superclasses.items()) == list(hierarchy["super_classes"].items())
        assert benchmark.other_classes == hierarchy["other_sub_classes"]
    else:
        classes = json.loads((metadata / f"{dataset}_classes.json").read_text())["classes"]
        assert benchmark.leaf_classes == classes
    configurations = json.loads((metadata / "dataset_configurations.json").read_text())
    assert configurations[f"{kind}_{dataset}"] == {
        "intask_valid_train_ratio": benchmark.splits.intask_valid_ratio,
        "posttask_valid_train_ratio": benchmark.splits.posttask_valid_ratio,
        **benchmark.sampling.model_dump(),
        "using_image_path": dataset == "imagenet",
    }


def test_the_published_entries_for_imagenet_have_equal_split_ratios():
    # the published loader reads iirc_imagenet's entry for incremental_imagenet, too
    configurations = json.loads((published_metadata() / "dataset_configurations.json").read_text())
    for ratio in ("intask_valid_train_ratio", "posttask_valid_train_ratio"):
        assert (
            configurations["iirc_imagenet"][ratio] == configurations["incremental_imagenet"][ratio]
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_converting_again_gives_the_file_that_comes_with_the_package(name):
    assert importlib.metadata.version("iirc") == "1.0.1"
    converted = benchmark_text(convert(name, published_metadata()))
    assert (manifests_folder() / f"{name}.json").read_text() == converted


def test_converting_a_folder_that_is_not_the_published_metadata_names_what_is_missing(tmp_path):
    with pytest.raises(BenchmarkError, match=r"cannot read .*cifar100_classes\.json: No such file"):
        convert("incremental_cifar100", tmp_path)
    (tmp_path / "cifar100_classes.json").write_text('{"classes": ["apple"]}')
    (tmp_path / "dataset_configurations.json").write_text("{}")
    with pytest.raises(BenchmarkError, match="no 'incremental_cifar100'"):
        convert("incremental_cifar100", tmp_path)


def test_every_imagenet_class_has_a_readable_name_and_no_two_the_same():
    for name in ("iirc_imagenet_full", "incremental_imagenet_lite"):
        benchmark = load_benchmark(name)
        assert set(benchmark.readable_names) == set(benchmark.leaf_classes)
        everyone = [*benchmark.superclasses, *benchmark.leaf_classes]
        assert len({benchmark.readable_name(c) for c in everyone}) == len(everyone)
    benchmark = load_benchmark("iirc_imagenet_full")
    assert benchmark.readable_name("n02110341") == "dalmatian"
    assert benchmark.readable_name("n07930864") == "cup (n07930864)"  # beside the superclass cup
    assert benchmark.readable_name("dog") == "dog"


@pytest.mark.parametrize("address", ["https://host/b.json?sig=secret", "s3://me:secret@b/b.json"])
def test_a_benchmark_at_an_address_is_refused_without_showing_what_signs_it(address):
    with pytest.raises(BenchmarkError, match="read from a file, not from an address") as raised:
        load_benchmark(absolute_benchmark(address))
    assert "secret" not in str(raised.value)


# A user's own file, right and wrong


OWN = {
    "schema_version": 1,
    "name": "own",
    "dataset": "photographs",
    "superclasses": {"animal": ["cat", "dog"], "plant": ["tulip"]},
    "other_classes": ["bus"],
    "schedules": [[["animal", "bus"], ["cat", "dog"]], [["plant"], ["tulip"]]],
}


@pytest.fixture
def write_own(tmp_path):
    def write(**changes) -> str:
        path = tmp_path / "own.json"
        path.write_text(json.dumps({**OWN, **changes}))
        return str(path)

    return write


def test_a_users_file_works_where_a_name_does(write_own):
    benchmark = load_benchmark(write_own())
    assert benchmark.tasks(1) == [["plant"], ["tulip"]]
    assert benchmark.labels_of("dog") == ("animal", "dog")
    assert benchmark.labels_of("bus") == ("bus",)
    # the defaults of the published Dataset constructor
    assert benchmark.sampling.model_dump() == {
        "superclass_data_pct": 0.6,
        "subclass_data_pct": 0.6,
        "superclass_sampling_size_cap": 100,
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schema_version": 2}, "schema_version 2, this release reads up to 1"),
        ({"schema_version": "1"}, "schema_version: .*got '1'"),
        ({"name": ""}, "name: "),
        ({"name": 7}, "name: .*string, got 7"),
        ({"dataset": None}, "dataset: .*string, got None"),
        ({"setup": "iirc"}, "setup: .*'IIRC' or 'CIL', got 'iirc'"),
        ({"transforms": "mnist"}, "transforms: .*'cifar' or 'imagenet'"),
        ({"shedules": []}, "shedules: Extra inputs"),
        ({"superclasses": []}, "superclasses: .*dictionary"),
        ({"superclasses": {"animal": []}}, "superclasses.animal: .*at least 1"),
        ({"superclasses": {"animal": ["dog"], "pet": ["dog"]}}, "superclasses.pet: class 'dog'"),
        ({"superclasses": {"animal": ["dog", "dog"]}}, "superclasses.animal: class 'dog'"),
        ({"superclasses": {"animal": ["animal"]}}, "its own ancestor: 'animal' -> 'animal'"),
        ({"setup": "CIL"}, "superclasses: need setup 'IIRC'"),
        ({"other_classes": "bus"}, "other_classes: .*list, got 'bus'"),
        ({"other_classes": [""]}, "other_classes.0: "),
        ({"other_classes": [1]}, "other_classes.0: .*string, got 1"),
        ({"other_classes": ["bus", "bus"]}, "other_classes: class 'bus' is already in"),
        ({"other_classes": ["dog"]}, "other_classes: class 'dog' .* superclasses.animal"),
        ({"other_classes": ["None"]}, "'None': that name stands for no label"),
        ({"readable_names": {"dgo": "a dog"}}, "readable_names: .*did you mean 'dog'"),
        ({"splits": {"intask_valid_ratio": 1.5}}, "splits.intask_valid_ratio: .*got 1.5"),
        ({"splits": {"intask_valid_ratio": float("nan")}}, "splits.intask_valid_ratio: .*got nan"),
        (
            {"splits": {"intask_valid_ratio": 0.6, "posttask_valid_ratio": 0.4}},
            "splits: .* leave samples to train on",
        ),
        ({"sampling": {"superclass_data_pct": -0.1}}, "sampling.superclass_data_pct: .*-0.1"),
        ({"sampling": {"subclass_data_pct": "0.8"}}, "sampling.subclass_data_pct: .*'0.8'"),
        ({"sampling": {"subclass_data_pct": True}}, "sampling.subclass_data_pct: .*True"),
        (
            {"sampling": {"superclass_sampling_size_cap": 0}},
            "superclass_sampling_size_cap: .*got 0",
        ),
        ({"schedules": []}, "schedules: .*at least 1"),
        ({"schedules": [[]]}, "schedules.0: .*at least 1"),
        ({"schedules": [[["dog"], []]]}, "schedules.0.1: .*at least 1"),
        ({"schedules": [["dog"]]}, "schedules.0.0: .*list, got 'dog'"),
        ({"schedules": [[["dog"]], [["cat"], ["dgo"]]]}, "schedules.1.1: .*did you mean 'dog'"),
        ({"schedules": [[["dog"], ["cat", "dog"]]]}, "schedules.0.1: class 'dog' .*by task 0"),
        ({"schedules": [[["dog", "dog"]]]}, "schedules.0.0: class 'dog' .*by task 0"),
    ],
)
def test_a_wrong_file_gets_an_error_of_one_line_that_names_the_field(write_own, changes, message):
    path = write_own(**changes)
    with pytest.raises(BenchmarkError, match=message) as caught:
        load_benchmark(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "dataset", "schedules"])
def test_a_missing_field_is_named(write_own, tmp_path, field):
    content = {key: value for key, value in OWN.items() if key != field}
    (tmp_path / "own.json").write_text(json.dumps(content))
    with pytest.raises(BenchmarkError, match=f"{field}: Field required"):
        load_benchmark(tmp_path / "own.json")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"name": "own"', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"\x89PNG\r\n\x1a\n", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
        (b"null", "expected a JSON object, got None"),
        (b"[]", r"expected a JSON object, got \[\]"),
        (b'"' + b"a" * 100_000 + b'"', "expected a JSON object, got 'aaa"),
        (b'{"superclasses": ' + b"[" * 500 + b"]" * 500 + b"}", "superclasses: "),
        (b'{"superclasses": {"a": ["b"], "a": ["c"]}}', "'a' occurs 2 times in one object"),
    ],
)
def test_a_file_that_is_no_benchmark_at_all_gets_a_short_error(tmp_path, content, message):
    path = tmp_path / "own.json"
    path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=message) as caught:
        load_benchmark(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "missing.json", tmp_path / "folder.json", "nul\0.json"):
        with pytest.raises(BenchmarkError, match="cannot read benchmark file"):
            load_benchmark(path)


@pytest.mark.parametrize(
    "misspelt, nearest",
    [
        ("iirc_cifar1000", "iirc_cifar100"),
        ("irc_cifar100", "iirc_cifar100"),
        ("IIRC-ImageNet-lite", "iirc_imagenet_lite"),
        ("incremental_imagenet_ful", "incremental_imagenet_full"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(misspelt, nearest):
    with pytest.raises(BenchmarkError, match=f"did you mean '{nearest}'"):
        load_benchmark(misspelt)


@pytest.mark.parametrize("name", ["", ".", "..", "mnist", "../manifests/iirc_cifar100"])
def test_an_unknown_name_gets_the_list_of_names(name):
    with pytest.raises(BenchmarkError, match=f"Known: {', '.join(benchmark_names())};"):
        load_benchmark(name)


@pytest.mark.parametrize("schedule", [-1, 2])
def test_a_schedule_that_does_not_exist_is_refused(schedule):
    with pytest.raises(BenchmarkError, match="has schedules 0 to 1, got"):
        Benchmark.model_validate(OWN).tasks(schedule)


# iirc benchmarks


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})


def test_the_list_shows_every_benchmark_with_its_counts_in_80_columns():
    result = run()
    assert result.exit_code == 0
    rows = {
        line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.strip()
    }
    for name in benchmark_names():
        assert name in rows
    assert rows["iirc_cifar100"] == ["115", "15", "100", "10", "22", "10+21x5"]
    assert rows["iirc_imagenet_full"] == ["1,083", "85", "998", "5", "35", "63+34x30"]
    assert rows["incremental_imagenet_lite"] == ["430", "0", "1,000", "5", "10", "160+9x30"]
    assert max(map(len, result.output.splitlines())) <= 80


def test_the_list_is_grouped_by_setup_and_dataset_and_steps_are_in_ascending_order():
    lines = [line.strip() for line in run().output.splitlines()]
    groups = ["IIRC, cifar100", "IIRC, imagenet", "CIL, cifar10", "CIL, cifar100", "CIL, imagenet"]
    assert [line for line in lines if line in groups] == groups
    group = lines[lines.index("CIL, cifar100") + 1 :]
    names = [line.split()[0] for line in group[: group.index("")]]
    assert names[:3] == [f"cil_cifar100_b0_{steps}" for steps in (5, 10, 20)]
    assert names[-2:] == ["incremental_cifar100", "split_cifar100"]


def test_show_prints_taxonomy_and_schedule_with_readable_names():
    result = run("show", "iirc_imagenet_full", "--schedule", "4")
    assert result.exit_code == 0
    taxonomy, schedule = (" ".join(part.split()) for part in result.output.split("Schedule 4"))
    assert "dalmatian" in taxonomy and "African crocodile" in taxonomy
    assert "35 tasks, 1,083 classes" in schedule
    assert "dalmatian" in schedule
    assert "n02110341" not in result.output


def test_show_takes_a_users_own_file_and_prints_its_names_as_they_are(write_own):
    names = {"dog": "[bold]dog[/bold] \N{DOG FACE}"}
    result = run("show", write_own(readable_names=names), "--schedule", "1")
    assert result.exit_code == 0
    assert "Schedule 1 of 0 to 1: 2 tasks, 2 classes" in result.output
    assert "[bold]dog[/bold] \N{DOG FACE}" in result.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["iirc_cifar1000"], "did you mean 'iirc_cifar100'"),
        (["iirc_cifar100", "--schedule", "10"], "has schedules 0 to 9, got 10"),
        (["missing.json"], "cannot read benchmark file missing.json"),
    ],
)
def test_show_answers_an_error_with_one_line_and_exit_status_1(arguments, message):
    result = run("show", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_task_sizes_are_shortened():
    assert task_sizes([["a"], ["b", "c"], ["d", "e"], ["f"]]) == "1+2x2+1"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([3, 3, 3], "3 tasks of 3 classes"),
        ([1, 1], "2 tasks of 1 class"),
        ([7], "1 task of 7 classes"),
        ([1, 3, 3, 1], "tasks of 1, 3, 3 and 1 classes"),
        ([4, 2], "tasks of 4 and 2 classes"),
        ([50, *[5] * 10], "a first task of 50 classes, then 10 tasks of 5"),
        ([1, *[3] * 10, 2], "a first task of 1 class, then 10 tasks of 3, then a last task of 2"),
        ([*[2] * 5, 1], "5 tasks of 2 classes, then a last task of 1"),
        ([*[1000] * 2, *[20] * 1200], "2 tasks of 1,000 classes, then 1,200 tasks of 20"),
        ([1, 2, 3, 4, 5], "5 tasks of 1 to 5 classes"),
    ],
)
def test_task_sizes_in_words_are_plain_english_and_never_long(sizes, words):
    assert tasks_in_words([["c"] * size for size in sizes]) == words
