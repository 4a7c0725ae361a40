"""The lifelong datasets: equal to the published package, and as documented."""

import io
import itertools
import pickle
import sys
import warnings

import iirc.lifelong_dataset.torch_dataset as published
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from iirc_data.definitions import CIL_SETUP, IIRC_SETUP, NO_LABEL_PLACEHOLDER
from iirc_data.errors import BenchmarkError, LoaderError
from iirc_data.lifelong_dataset import tensorflow_dataset, torch_dataset
from iirc_data.lifelong_dataset.torch_dataset import Dataset
from tests.conftest import encode, noise_image
from tests.odd_images import odd_images, pixels_to_show

COMBINATIONS = [("A", "Aa")] * 5 + [("A", "Ab")] * 4 + [("B", "Ba")] * 5 + [("C",)] * 3
TASKS = [["A", "B"], ["Aa", "C"], ["Ab", "Ba"]]
SHARES = {"superclass_data_pct": 0.6, "subclass_data_pct": 0.8}


def numbered(combinations):
    """Return samples whose "image" is their position, which identifies them."""
    return list(enumerate(combinations))


def identity(image):
    return image


def make(combinations=COMBINATIONS, tasks=TASKS, **options):
    options = {"essential_transforms_fn": identity, **SHARES, **options}
    return Dataset(numbered(combinations), tasks, **options)


def items(dataset):
    return [dataset.get_item(index) for index in range(len(dataset))]


def labels_of(dataset):
    return [dataset.get_labels(index) for index in range(len(dataset))]


# -- against the published package -----------------------------------------------------------


@st.composite
def hierarchies(draw):
    """Draw label combinations and tasks: superclasses, single classes, and irregular cases."""
    n_super = draw(st.integers(1, 3))
    combinations = []
    for sup in range(n_super):
        combinations += [(f"S{sup}", f"S{sup}_{sub}") for sub in range(draw(st.integers(1, 4)))]
    combinations += [(f"lone{number}",) for number in range(draw(st.integers(0, 3)))]
    combinations += [("S0",)] * draw(st.booleans())  # a sample with the superclass only
    combinations += [("S1", "S0_0")] * (n_super > 1 and draw(st.booleans()))  # two superclasses
    classes = draw(st.permutations(sorted({name for labels in combinations for name in labels})))
    kept = classes[: draw(st.integers(1, len(classes)))]  # the others are in no task
    cuts = sorted(draw(st.sets(st.integers(1, len(kept)), max_size=3)) | {0, len(kept)})
    tasks = [kept[start:end] for start, end in itertools.pairwise(cuts)]
    tasks[-1] = tasks[-1] + draw(st.lists(st.sampled_from(kept), max_size=2))  # some come again
    samples = [
        labels for labels in combinations for _ in range(draw(st.integers(5, 9)))
    ]  # at least 5, because the published code shows all samples if a share rounds to 0
    return draw(st.permutations(samples)), tasks


calls = st.lists(
    st.tuples(
        st.sampled_from(["choose_task", "load_tasks_up_to", "complete", "incomplete", "reset"]),
        st.integers(0, 3),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hierarchy=hierarchies(),
    calls=calls,
    setup=st.sampled_from([IIRC_SETUP, CIL_SETUP]),
    one_label=st.booleans(),
    test_mode=st.booleans(),
    complete=st.sampled_from([None, True, False]),
    shares=st.tuples(st.sampled_from([0.3, 0.5, 1.0]), st.sampled_from([0.25, 0.8, 1.0])),
    cap=st.integers(1, 4),
)
@pytest.mark.filterwarnings("ignore:complete_information_mode")
@pytest.mark.filterwarnings("ignore:.*rounds to 0")
def test_every_call_order_shows_what_the_published_package_shows(
    hierarchy, calls, setup, one_label, test_mode, complete, shares, cap
):
    combinations, tasks = hierarchy
    if setup == CIL_SETUP and one_label:
        combinations = [labels[-1:] for labels in combinations]
    options = {
        "setup": setup,
        "test_mode": test_mode,
        "complete_information_mode": complete,
        "superclass_data_pct": shares[0],
        "subclass_data_pct": shares[1],
        "superclass_sampling_size_cap": cap,
    }
    theirs = published.Dataset(numbered(combinations), tasks, **options)
    ours = make(combinations, tasks, **options)
    assert ours.task_id_to_data_idx == theirs.task_id_to_data_idx
    assert_in_step(ours, theirs)
    for name, task in calls:
        if name in ("choose_task", "load_tasks_up_to"):
            arguments = (task % len(tasks),)
        else:
            arguments = ()
            name = name if name == "reset" else f"enable_{name}_information_mode"
        try:
            getattr(theirs, name)(*arguments)
        except AssertionError:
            with pytest.raises(BenchmarkError, match="complete information mode"):
                getattr(ours, name)(*arguments)
        else:
            getattr(ours, name)(*arguments)
        assert_in_step(ours, theirs)


def assert_in_step(ours, theirs):
    assert len(ours) == len(theirs)
    assert ours.cur_task_data_ids == theirs.cur_task_data_ids
    assert ours.cur_task == theirs.cur_task
    assert ours.cur_task_id == theirs.cur_task_id
    assert set(ours.seen_classes) == set(theirs.seen_classes)
    for index in range(len(ours)):
        try:
            expected_image, *expected_labels = theirs.get_item(index)
        except AssertionError:  # two labels in the class-incremental setup
            for ask in (ours.get_item, ours.get_labels):
                with pytest.raises(BenchmarkError, match=r"shows one: use setup=IIRC_SETUP"):
                    ask(index)
            continue
        image, *labels = ours.get_item(index)
        assert image == expected_image
        assert set(labels) == set(expected_labels)
        assert labels[0] != NO_LABEL_PLACEHOLDER
        assert tuple(labels) == ours.get_labels(index)
    for name in ours.cur_task:
        indices = []
        for dataset in (ours, theirs):
            np.random.seed(len(theirs))
            indices.append(dataset.get_image_indices_by_cla(name, num_samples=4).tolist())
        assert indices[0] == indices[1]


def test_all_the_published_defaults_are_kept():
    images = [(noise_image(number), labels) for number, labels in enumerate(COMBINATIONS)]
    ours, theirs = Dataset(images, TASKS), published.Dataset(images, TASKS)
    for name in (
        "setup",
        "using_image_path",
        "cache_images",
        "test_mode",
        "complete_information_mode",
        "superclass_data_pct",
        "subclass_data_pct",
        "superclass_sampling_size_cap",
        "total_dataset_size",
        "n_tasks",
        "tasks",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert torch.equal(ours[0][0], theirs[0][0])


# -- tasks, classes seen, labels ---------------------------------------------------------------


def test_task_0_is_chosen_and_seen_from_the_start():
    dataset = make()
    assert dataset.cur_task_id == 0
    assert dataset.cur_task == ["A", "B"]
    assert dataset.seen_classes == ["A", "B"]
    assert len(dataset) > 0


def test_an_earlier_task_chosen_again_keeps_the_labels_of_all_that_was_seen():
    dataset = make(test_mode=True)
    assert set(labels_of(dataset)) == {("A", "None"), ("B", "None")}
    dataset.choose_task(1)
    dataset.choose_task(0)
    assert dataset.seen_classes == ["A", "B", "Aa", "C"]
    assert set(labels_of(dataset)) == {("A", "Aa"), ("A", "None"), ("B", "None")}
    dataset.reset()
    assert dataset.seen_classes == ["A", "B"]
    assert set(labels_of(dataset)) == {("A", "None"), ("B", "None")}


def test_seen_classes_stand_in_the_order_of_the_tasks_whatever_the_order_of_calls():
    dataset = make(test_mode=True)
    dataset.choose_task(2)
    dataset.choose_task(1)
    assert dataset.seen_classes == ["A", "B", "Aa", "C", "Ab", "Ba"]


def test_switching_the_information_mode_changes_the_labels_at_once():
    dataset = make()
    dataset.choose_task(1)
    assert dataset.get_labels(0) == ("Aa", "None")
    dataset.enable_complete_information_mode()
    assert dataset.get_labels(0) == ("A", "Aa")
    dataset.enable_incomplete_information_mode()
    assert dataset.get_labels(0) == ("Aa", "None")


def test_loading_several_tasks_needs_complete_information_in_the_iirc_setup_only():
    with pytest.raises(BenchmarkError, match="enable_complete_information_mode"):
        make().load_tasks_up_to(1)
    dataset = make([(labels[-1],) for labels in COMBINATIONS], setup=CIL_SETUP)
    dataset.load_tasks_up_to(2)
    assert dataset.cur_task == ["A", "B", "Aa", "C", "Ab", "Ba"]
    assert len(dataset) == len(COMBINATIONS)


@pytest.mark.parametrize(
    "test_mode, complete, split", [(True, False, "test"), (False, True, "train")]
)
def test_an_unusual_information_mode_is_warned_of_when_a_task_is_chosen(test_mode, complete, split):
    dataset = make(test_mode=test_mode, complete_information_mode=complete)
    with pytest.warns(UserWarning, match=f"mode is {complete} for the current {split}") as caught:
        dataset.choose_task(1)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(test_mode=test_mode).choose_task(1)


def test_superclass_comes_before_subclass_also_where_it_is_scheduled_later():
    # 20 pairs, because an order that depends on the hash seed is right for some by chance
    subclasses, superclasses = [f"sub{i}" for i in range(20)], [f"S{i}" for i in range(20)]
    pairs = list(zip(superclasses, subclasses, strict=True))
    dataset = make(pairs, [subclasses, superclasses], test_mode=True)
    dataset.load_tasks_up_to(1)
    assert labels_of(dataset) == pairs
    assert dataset.seen_classes == subclasses + superclasses


def test_shares_round_down_for_each_combination_as_in_the_published_code():
    # the prose of the documentation says 15 and 8
    combinations = [("A", "Aa"), ("A", "Ab")] * 15
    dataset = make(combinations, [["A"], ["Aa"]], superclass_data_pct=0.5, subclass_data_pct=0.5)
    assert len(dataset) == 14
    dataset.choose_task(1)
    assert len(dataset) == 7


# -- indices by class --------------------------------------------------------------------------


def test_indices_of_a_class_are_shuffled_by_default_and_follow_numpys_seed():
    dataset = make([("A",)] * 40, [["A"]])
    np.random.seed(3)
    first = dataset.get_image_indices_by_cla("A")
    np.random.seed(3)
    assert np.array_equal(dataset.get_image_indices_by_cla("A"), first)
    assert sorted(first.tolist()) == list(range(40)) != first.tolist()
    assert dataset.get_image_indices_by_cla("A", shuffle=False).tolist() == list(range(40))
    assert dataset.get_image_indices_by_cla("A", num_samples=5, shuffle=False).tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert len(dataset.get_image_indices_by_cla("A", num_samples=100)) == 40
    assert len(dataset.get_image_indices_by_cla("A", num_samples=0)) == 0


def test_indices_of_a_class_outside_the_current_task_are_refused():
    dataset = make()
    with pytest.raises(BenchmarkError, match="'Aa' is not in the current task 0, which has A, B"):
        dataset.get_image_indices_by_cla("Aa")
    with pytest.raises(BenchmarkError, match="num_samples is -2, expected -1"):
        dataset.get_image_indices_by_cla("A", num_samples=-2)


def test_a_class_without_samples_has_no_indices():
    dataset = make(tasks=[["A", "Z"]])
    found = dataset.get_image_indices_by_cla("Z")
    assert found.tolist() == []
    assert found.dtype == np.int64


# -- images and transforms ---------------------------------------------------------------------


@pytest.fixture
def image_files(tmp_path):
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(noise_image(number, mode="L" if number == 5 else "RGB"), "PNG"))
        paths.append(str(path))
    return paths


def from_files(paths, **options):
    return Dataset(
        [(path, ("A" if number < 4 else "B",)) for number, path in enumerate(paths)],
        [["A"], ["B"]],
        using_image_path=True,
        **options,
    )


def test_paths_are_read_as_rgb_when_asked_for(image_files):
    dataset = from_files(image_files)
    image, *_ = dataset.get_item(2)
    assert np.array_equal(image, noise_image(2))
    dataset.choose_task(1)
    grey, *_ = dataset.get_item(1)
    assert grey.mode == "RGB"
    assert np.array_equal(np.asarray(grey)[..., 0], noise_image(5, mode="L"))


def test_images_of_every_pixel_format_are_converted_as_pillow_does(tmp_path):
    for name, data in odd_images().items():
        (tmp_path / name).write_bytes(data)
    names = sorted(odd_images())
    samples = [(str(tmp_path / name), ("A",)) for name in names]
    dataset = Dataset(samples, [["A"]], using_image_path=True)
    for index, name in enumerate(names):
        image, *_ = dataset.get_item(index)
        assert np.array_equal(image, pixels_to_show(Image.open(tmp_path / name))), name
        image.save(tmp_path / "saved.png")


def test_cached_images_are_read_once_and_forgotten_when_the_task_changes(image_files):
    dataset = from_files(image_files, cache_images=True, essential_transforms_fn=identity)
    first = dataset[0][0]
    assert dataset[0][0] is first
    assert len(dataset.cached_images) == 1
    for change in (
        lambda: dataset.choose_task(1),
        lambda: dataset.choose_task(0),
        dataset.reset,
    ):
        dataset.get_item(0)
        change()
        assert dataset.cached_images == {}
    assert from_files(image_files, essential_transforms_fn=identity)[0][0] is not first


@pytest.mark.parametrize("content", [None, b"", b"no image", "cut"])
def test_an_image_that_cannot_be_read_is_named(image_files, tmp_path, content):
    path = tmp_path / "0.png"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if content == "cut" else content)
    dataset = from_files(image_files)
    with pytest.raises(LoaderError, match=r"0\.png"):
        dataset.get_item(0)
    with pytest.raises(LoaderError, match=r"0\.png"):
        dataset[0]


def test_transforms_follow_the_documentation():
    options = {"essential_transforms_fn": lambda image: ("essential", image)}
    plain = make(**options)
    assert plain[0][0] == ("essential", 0)
    augmented = make(**options, augmentation_transforms_fn=lambda image: ("augmented", image))
    assert augmented[0][0] == ("augmented", 0)
    with pytest.raises(RuntimeError, match="inside"), augmented.disable_augmentations():
        assert augmented[0][0] == ("essential", 0)
        with augmented.disable_augmentations():
            pass
        assert augmented[0][0] == ("essential", 0)
        raise RuntimeError("inside")
    assert augmented[0][0] == ("augmented", 0)
    assert augmented.get_item(0)[0] == 0


def test_the_tensorflow_flavour_gives_arrays_and_iterates_as_a_generator_must():
    images = [(noise_image(number), ("A",)) for number in range(3)]
    dataset = tensorflow_dataset.Dataset(images, [["A"]])
    found = list(iter(dataset))  # as tf.data.Dataset.from_generator does
    assert len(found) == 3
    for (image, *labels), (expected, _) in zip(found, images, strict=True):
        assert isinstance(image, np.ndarray)
        assert image.dtype == np.uint8
        assert np.array_equal(image, expected)
        assert labels == ["A", "None"]
    assert "tensorflow" not in sys.modules


def test_a_dataloader_gives_every_sample_also_of_a_dataset_that_was_sent_to_a_worker(image_files):
    dataset = from_files(image_files, cache_images=True)
    expected = torch.stack([dataset[index][0] for index in range(4)])
    for sent in (dataset, pickle.loads(pickle.dumps(dataset))):
        ((images, first, second),) = torch.utils.data.DataLoader(sent, batch_size=4)
        assert torch.equal(images, expected)
        assert list(first) == ["A"] * 4
        assert list(second) == ["None"] * 4


@pytest.mark.parametrize("index", [0, -1, np.int64(2), torch.tensor(1)])
def test_an_index_is_any_integer(index):
    dataset = make()
    expected = items(dataset)[int(index)]
    assert dataset.get_item(index) == dataset[index] == expected


def test_an_index_beyond_the_task_is_an_index_error():
    dataset = make()
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]


# -- state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [[1], [2, 0], [0, 1, 2], ["up to 1"], []])
def test_a_state_goes_through_a_weights_only_file_and_on_from_there(moves):
    dataset = make(test_mode=True)
    for move in moves:
        if move == "up to 1":
            dataset.load_tasks_up_to(1)
        else:
            dataset.choose_task(move)
    file = io.BytesIO()
    torch.save(dataset.dataset_state_dict(), file)
    file.seek(0)
    other = make(test_mode=True, complete_information_mode=False)
    other.load_dataset_state_dict(torch.load(file, weights_only=True))
    for name in ("cur_task", "cur_task_id", "cur_task_data_ids", "seen_classes"):
        assert getattr(other, name) == getattr(dataset, name)
    assert other.complete_information_mode
    assert items(other) == items(dataset)


def test_a_state_holds_plain_values_only():
    dataset = make(tasks=[[np.str_("A"), "B"], ["Aa"]], test_mode=np.True_)
    dataset.choose_task(np.int64(1))

    def flat(value):
        if isinstance(value, list | dict):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from flat(inner)
        else:
            yield value

    assert {type(value) for value in flat(dataset.dataset_state_dict())} == {str, int, bool}


@pytest.mark.parametrize(
    "change, match",
    [
        ({"version": 2}, "version"),
        ({"tasks": [["A"]]}, "tasks"),
        ({"total_dataset_size": 3}, "total_dataset_size"),
        ({"task_ids": [7]}, "no task 7"),
        ({"seen_classes": ["Z"]}, "unknown classes"),
        ({"task_ids": []}, "not the state of a dataset: task_ids: .*at least 1"),
        ({"task_ids": ["0"]}, r"not the state of a dataset: task_ids\.0: .*integer"),
        ({"seen_classes": None}, "not the state of a dataset: seen_classes: .*list"),
        ({"complete_information_mode": "no"}, "complete_information_mode: .*boolean"),
        ({"dataset": None}, "not the state of a dataset: dataset: Extra"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, match):
    dataset = make(test_mode=True)
    dataset.choose_task(1)
    before = dataset.dataset_state_dict()
    with pytest.raises(BenchmarkError, match=match):
        dataset.load_dataset_state_dict({**before, **change})
    assert dataset.dataset_state_dict() == before


def test_what_is_no_state_is_refused():
    for state in (None, {}, {"dataset": []}):
        with pytest.raises(BenchmarkError, match="not the state of a dataset"):
            make().load_dataset_state_dict(state)


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sample, match",
    [
        ((0, "cat"), r"sample 1 has the labels 'cat', expected a tuple"),
        ((0, ()), "sample 1 .* different class names"),
        ((0, ("A", "Aa", "A")), "sample 1 .* different class names"),
        ((0, ("A", "A")), "different class names"),
        ((0, (1,)), "expected a tuple of class names"),
        ((0, ("A", "None")), "stands for no label"),
        ("A", r"sample 1 is 'A', expected \(image"),
    ],
)
@pytest.mark.parametrize("module", [torch_dataset, tensorflow_dataset])
def test_a_malformed_sample_is_named(module, sample, match):
    with pytest.raises(BenchmarkError, match=match):
        module.Dataset([(0, ("A",)), sample], [["A"]])


@pytest.mark.parametrize(
    "options, match",
    [
        ({"setup": "iirc"}, "setup is 'iirc', expected IIRC_SETUP"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": ["AB"]}, "task 0 is 'AB', expected a list"),
        ({"superclass_data_pct": 1.5}, "superclass_data_pct is 1.5"),
        ({"subclass_data_pct": -0.1}, "subclass_data_pct is -0.1"),
        ({"superclass_sampling_size_cap": 0}, "superclass_sampling_size_cap is 0"),
    ],
)
def test_an_argument_out_of_range_is_named(options, match):
    with pytest.raises(BenchmarkError, match=match):
        make(**options)


@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_that_does_not_exist_is_refused_and_changes_nothing(task):
    dataset = make(test_mode=True)
    dataset.choose_task(1)
    before = dataset.dataset_state_dict()
    for move in (dataset.choose_task, dataset.load_tasks_up_to):
        with pytest.raises(BenchmarkError, match=f"no task {task}: expected 0 to 2"):
            move(task)
    assert dataset.dataset_state_dict() == before


def test_an_empty_dataset_has_empty_tasks():
    dataset = Dataset([], [["A"]])
    assert len(dataset) == 0
    assert dataset.task_id_to_data_idx == {0: []}


def test_the_users_list_is_kept_as_it_is():
    samples = [(Image.new("RGB", (2, 2)), ("A",))]
    dataset = Dataset(samples, [["A"]])
    assert dataset.dataset is samples
    assert dataset.get_item(0)[0] is samples[0][0]
