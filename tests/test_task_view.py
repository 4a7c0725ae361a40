"""Task views, against the published package and against their own promises."""

import os
import subprocess
import sys
import warnings

import iirc.lifelong_dataset.torch_dataset as published
import numpy as np
import pytest

from iirc_data.benchmarks import SamplingSettings
from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, TRAIN
from iirc_data.errors import BenchmarkError
from iirc_data.splits import published_imagenet_order, split_sample_ids, split_training_samples
from iirc_data.task_sequence import TaskSequence


def published_dataset(benchmark, store, split, schedule, complete, test_mode):
    """The published dataset over the same samples; an "image" is its sample id."""
    ids = split_sample_ids(benchmark, store.manifest, store.table, split)
    samples = [
        (int(i), benchmark.labels_of(store.manifest.classes[store.table.class_id[i]])) for i in ids
    ]
    sampling = benchmark.sampling.model_dump()
    return published.Dataset(
        samples,
        benchmark.tasks(schedule),
        setup=IIRC_SETUP,
        test_mode=test_mode,
        complete_information_mode=complete,
        **sampling,
    )


def names(view):
    return [{view.class_names[i] for i in row if i >= 0} for row in view.labels]


@pytest.mark.parametrize("schedule", [0, 1])
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("split", ["train", "intask_valid", "posttask_valid", "test"])
@pytest.mark.filterwarnings("ignore:complete_information_mode")
@pytest.mark.filterwarnings("ignore:.*rounds to 0")
def test_views_equal_the_published_package_sample_for_sample(
    tiny_benchmark, tiny_store, split, complete, schedule
):
    if split == "intask_valid":  # two samples a class: the published slice [-0:] must not be hit
        sampling = SamplingSettings(superclass_data_pct=0.5, subclass_data_pct=0.5)
        tiny_benchmark = tiny_benchmark.model_copy(update={"sampling": sampling})
    test_mode = split in ("test", "posttask_valid")
    reference = published_dataset(tiny_benchmark, tiny_store, split, schedule, complete, test_mode)
    sequence = TaskSequence.from_table(
        tiny_benchmark,
        tiny_store.manifest,
        tiny_store.table,
        split,
        schedule=schedule,
        complete_information=complete,
    )
    for task in range(len(sequence)):
        reference.choose_task(task)
        view = sequence.view(task)
        expected = [reference.get_item(i) for i in range(len(reference))]
        assert len(view) > 0
        assert view.sample_ids.tolist() == [sample_id for sample_id, *_ in expected]
        assert names(view) == [set(labels) - {"None"} for _, *labels in expected]
        assert set(view.seen_class_names) == set(reference.seen_classes)
    if complete:
        last = len(sequence) - 1
        reference.load_tasks_up_to(last)
        union = sequence.view(range(last + 1))
        assert union.sample_ids.tolist() == [
            reference.get_item(i)[0] for i in range(len(reference))
        ]


def test_labels_of_complete_information_depend_on_the_latest_task_seen(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_table(
        tiny_benchmark, tiny_store.manifest, tiny_store.table, "test"
    )
    at_once, later = sequence.view(0), sequence.view(0, seen_up_to=1)
    assert {"animal"} in names(at_once)
    assert {"animal", "dog"} not in names(at_once)
    assert {"animal", "dog"} in names(later)
    assert {"animal", "cat"} not in names(later)
    assert later.n_seen_classes == 4


def test_superclass_comes_before_subclass_and_a_lone_label_comes_first(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_table(
        tiny_benchmark, tiny_store.manifest, tiny_store.table, "test"
    )
    view = sequence.view(range(4))
    superclasses = {"animal", "vehicle"}
    assert (view.labels[:, 0] >= 0).all()
    for first, second in view.labels:
        if second >= 0:
            assert view.class_names[first] in superclasses
            assert view.class_names[second] not in superclasses
        else:
            assert view.class_names[first] == "tulip"


def test_incomplete_information_shows_only_labels_of_the_current_task(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_table(
        tiny_benchmark, tiny_store.manifest, tiny_store.table, "train"
    )
    for task, classes in enumerate(tiny_benchmark.tasks(0)):
        assert set.union(*names(sequence.view(task))) == set(classes)


def test_a_subclass_share_that_rounds_to_zero_shows_no_sample_and_warns():
    labels = np.array([[0, 1]] * 3, np.int32)
    sampling = SamplingSettings(superclass_data_pct=1.0, subclass_data_pct=0.3)
    with pytest.warns(UserWarning, match="the data has too few images.* rounds to 0 for Aa;"):
        sequence = TaskSequence(
            np.arange(3),
            labels,
            [["A"], ["Aa"]],
            setup=IIRC_SETUP,
            sampling=sampling,
            complete_information=False,
        )
    assert len(sequence.view(0)) == 3
    assert len(sequence.view(1)) == 0


@pytest.mark.parametrize(
    ("split", "said"),
    [("train", "training has"), ("intask_valid", r"in-task validation \(not training\) has")],
)
def test_the_warning_of_too_few_images_names_the_split(tiny_benchmark, tiny_store, split, said):
    sampling = SamplingSettings(superclass_data_pct=0.5, subclass_data_pct=0.01)
    benchmark = tiny_benchmark.model_copy(update={"sampling": sampling})
    with pytest.warns(UserWarning, match=f"^{said} too few images.*for dog, bus, cat, bear, truck"):
        TaskSequence.from_store(benchmark, tiny_store, split)


def test_label_combinations_of_a_users_list_are_sampled_apart():
    # ("A",) beside ("A", "Aa"), and Aa also under B: as published, grouped by combination
    combos = [("A",), ("A", "Aa"), ("B", "Aa"), ("A", "Aa"), ("B",), ("B", "Aa")] * 5
    tasks = [["A", "B"], ["Aa"]]
    index = {"A": 0, "B": 1, "Aa": 2}
    labels = np.array([[index[c[0]], index[c[1]] if len(c) > 1 else -1] for c in combos], np.int32)
    settings = {
        "superclass_data_pct": 0.3,
        "subclass_data_pct": 0.5,
        "superclass_sampling_size_cap": 100,
    }
    reference = published.Dataset([(i, c) for i, c in enumerate(combos)], tasks, **settings)
    sequence = TaskSequence(
        np.arange(len(combos)),
        labels,
        tasks,
        setup=IIRC_SETUP,
        sampling=SamplingSettings(**settings),
        complete_information=False,
    )
    for task in range(2):
        assert sequence.view(task).sample_ids.tolist() == reference.task_id_to_data_idx[task]


def test_the_first_samples_of_a_class_go_by_the_published_order(tiny_benchmark, tiny_store):
    """The published order of classes is the taxonomy's, that of the shards is alphabetical."""
    superclasses = {"vehicle": ["truck", "bus"], "animal": ["dog", "bear", "cat"]}
    benchmark = tiny_benchmark.model_copy(update={"superclasses": superclasses})
    ids = split_sample_ids(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    leaves = [tiny_store.manifest.classes[i] for i in tiny_store.table.class_id[ids]]
    order = sorted(range(len(ids)), key=lambda i: benchmark.leaf_classes.index(leaves[i]))
    samples = [(int(ids[i]), benchmark.labels_of(leaves[i])) for i in order]
    reference = published.Dataset(
        samples, benchmark.tasks(0), setup=IIRC_SETUP, **benchmark.sampling.model_dump()
    )
    sequence = TaskSequence.from_table(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    cut = 0
    for task in range(4):
        view = sequence.view(task)
        reference.choose_task(task)
        shuffled = view.subset(np.random.default_rng(0).permutation(len(view)))
        for name in benchmark.tasks(0)[task]:
            for n in (0, 1, 7, 20, 1000):
                indices = reference.get_image_indices_by_cla(name, num_samples=n, shuffle=False)
                expected = sorted(reference.get_item(i)[0] for i in indices)
                class_index = sequence.class_names_to_idx[name]
                for shown in (view, shuffled):
                    found = shown.positions_of_class(class_index, n)
                    assert found.tolist() == sorted(found)
                    assert sorted(shown.sample_ids[found]) == expected
                alphabetical = view.positions_of_class(class_index)[:n]
                cut += sorted(view.sample_ids[alphabetical]) != expected
    assert cut > 2  # where it matters


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("sampling", [None, SamplingSettings(subclass_data_pct=0.5)])
def test_two_labels_count_for_each_task_in_the_class_incremental_setup(sampling, complete):
    # A and Aa, B, A and Ab, A and a class of no task
    labels = np.array([[0, 2], [1, -1], [0, 3], [0, 4]], np.int32)
    sequence = TaskSequence(
        np.arange(10, 14),
        labels,
        [["A"], ["B", "Aa"], ["Ab"]],
        setup=CIL_SETUP,
        sampling=sampling,
        complete_information=complete,
    )
    assert [sequence.view(task).sample_ids.tolist() for task in range(3)] == [
        [10, 12, 13],
        [10, 11],
        [12],
    ]
    assert sequence.view(range(3)).sample_ids.tolist() == [10, 11, 12, 13]
    shown = {tuple(row) for row in sequence.view(1).labels.tolist()}
    assert shown == ({(0, 2), (1, -1)} if complete else {(2, -1), (1, -1)})


def test_splits_take_the_first_samples_of_each_class_in_order(tiny_benchmark):
    class_ids = np.repeat(np.array([0, 1], np.int32), [20, 10])
    splits = split_training_samples(class_ids, tiny_benchmark.splits)
    assert splits["intask_valid"].tolist() == [0, 1, 20]
    assert splits["posttask_valid"].tolist() == [2, 3, 21]
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(30))


def test_the_published_imagenet_order_is_its_loaders_sorting_turned_round():
    paths = ["a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "c0", "c1", "c2", "d0"]
    class_ids = np.array(["abcd".index(path[0]) for path in paths], np.int32)
    listed = [path for name in "cab" for path in paths if path[0] == name]  # d is not listed
    indices = sorted(range(len(listed)), key=lambda k: listed[k])
    expected = [path for _, path in sorted(zip(indices, listed, strict=True))]
    found = [paths[position] for position in published_imagenet_order(class_ids, [2, 0, 1])]
    assert found == expected
    assert [path for path in found if path[0] == "b"] == ["b1", "b2", "b3", "b0"]
    assert len(published_imagenet_order(class_ids[:0], [0])) == 0


def test_splits_and_sampling_go_by_the_image_order_and_views_stay_ascending(
    tiny_benchmark, tiny_store
):
    views = {}
    for image_order in ("dataset", "published_imagenet"):
        benchmark = tiny_benchmark.model_copy(update={"image_order": image_order})
        sequence = TaskSequence.from_table(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
        views[image_order] = [sequence.view(task) for task in range(len(sequence))]
    digests = [[view.digest() for view in tasks] for tasks in views.values()]
    assert digests[0] != digests[1]
    for plain, reordered in zip(*views.values(), strict=True):
        assert len(plain) == len(reordered)
        for view in (plain, reordered):
            assert (np.diff(view.sample_ids) > 0).all()
            for sample_id, shown in zip(view.sample_ids, names(view), strict=True):
                leaf = tiny_store.manifest.classes[tiny_store.table.class_id[sample_id]]
                assert shown <= set(tiny_benchmark.labels_of(leaf))


def test_an_image_order_that_goes_by_classes_that_are_missing_is_warned_of(
    tiny_benchmark, tiny_store
):
    update = {"image_order": "published_imagenet", "other_classes": ["tulip", "rose"]}
    benchmark = tiny_benchmark.model_copy(update=update)
    with pytest.warns(UserWarning, match="lacks 1 classes .rose, …. .* not divided exactly"):
        split_sample_ids(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)


@pytest.mark.parametrize("task, seen", [(-1, None), (4, None), (2, 1), ((), None), (0, 9)])
def test_a_task_that_does_not_exist_is_refused(tiny_benchmark, tiny_store, task, seen):
    sequence = TaskSequence.from_table(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    with pytest.raises(BenchmarkError, match="expected tasks among"):
        sequence.view(task, seen)


def test_missing_classes_are_named(tiny_benchmark, tiny_store):
    update = {"other_classes": ["tulip", "rose"], "schedules": [[["rose"]]]}
    benchmark = tiny_benchmark.model_copy(update=update)
    with pytest.raises(BenchmarkError, match="rose"):
        TaskSequence.from_table(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)


@pytest.mark.parametrize("animal", ["animal", "life"])  # no task introduces what is between
def test_a_subclass_scheduled_before_its_superclass_is_allowed_with_one_warning(
    tiny_benchmark, tiny_store, animal
):
    superclasses = {"life": ["animal"], **tiny_benchmark.superclasses}
    benchmark = tiny_benchmark.model_copy(
        update={"superclasses": superclasses, "schedules": [[["dog", "cat"], [animal]]]}
    )
    with pytest.warns(UserWarning, match="before their superclass") as caught:
        TaskSequence.from_table(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    assert len(caught) == 1


def test_a_subclass_in_the_task_of_its_superclass_is_not_warned_of(tiny_benchmark, tiny_store):
    benchmark = tiny_benchmark.model_copy(update={"schedules": [[["dog", "cat", "animal"]]]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TaskSequence.from_table(benchmark, tiny_store.manifest, tiny_store.table, TRAIN)


def test_samples_per_class_takes_the_first_of_each_class(tiny_benchmark, tiny_store):
    ids = split_sample_ids(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN, 3)
    everything = split_sample_ids(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    classes = tiny_store.table.class_id
    for class_id in range(6):
        assert (
            ids[classes[ids] == class_id].tolist()
            == everything[classes[everything] == class_id][:3].tolist()
        )


def test_digest_is_the_same_under_every_hash_seed(tiny_store):
    program = (
        "import sys, numpy as np\n"
        "from iirc_data.task_sequence import TaskSequence\n"
        "labels = np.array([[0, 2], [0, 3], [1, -1], [0, 2]] * 9, np.int32)\n"
        "from iirc_data.benchmarks import SamplingSettings\n"
        "s = TaskSequence(np.arange(36), labels, [['A', 'B'], ['Aa'], ['Ab']], setup='IIRC',\n"
        "    sampling=SamplingSettings(), complete_information=False)\n"
        "print([s.view(t).digest() for t in range(3)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1


def test_ancestors_are_those_of_the_taxonomy(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_store(tiny_benchmark, tiny_store, TRAIN)
    idx = sequence.class_names_to_idx
    expected = np.eye(len(idx), dtype=bool)
    for superclass, subclasses in tiny_benchmark.superclasses.items():
        for subclass in subclasses:
            if {subclass, superclass} <= idx.keys():
                expected[idx[subclass], idx[superclass]] = True
    assert expected.sum() > len(idx) and np.array_equal(sequence.ancestors, expected)


def test_a_benchmark_without_superclasses_has_no_ancestors():
    labels = np.array([[0, 1], [0, 1]], np.int32)
    ids = np.arange(2)
    for setup, given in ((CIL_SETUP, labels), (IIRC_SETUP, labels[:, [0, 0]] * [1, 0] - [0, 1])):
        sequence = TaskSequence(
            ids,
            np.asarray(given, np.int32),
            [["a"], ["b"]],
            setup=setup,
            sampling=None,
            complete_information=True,
        )
        assert sequence.ancestors is None


def test_digest_tells_views_apart(tiny_benchmark, tiny_store):
    sequence = TaskSequence.from_table(tiny_benchmark, tiny_store.manifest, tiny_store.table, TRAIN)
    digests = [sequence.view(task).digest() for task in range(4)]
    assert len(set(digests)) == 4
    assert sequence.view(0).subset([0, 1]).digest() not in digests
