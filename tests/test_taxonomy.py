"""Taxonomies of any depth: levels, labels, and the samples that each level shows."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iirc_data.benchmarks import Benchmark, SamplingSettings, class_order
from iirc_data.definitions import IIRC_SETUP, NO_LABEL
from iirc_data.label_combinations import (
    joined_labels,
    label_combinations,
    label_ranks,
    most_specific,
    visible_labels,
)
from iirc_data.task_sequence import TaskSequence
from iirc_data.taxonomy import Taxonomy

DEEP = {"life": ["animal", "plant"], "animal": ["dog", "cat"], "dog": ["pug", "husky"]}
SEVERAL = {"pet": ["dog", "fish"], "animal": ["mammal", "fish"], "mammal": ["dog", "cow"]}


def benchmark(superclasses, **settings):
    names = dict.fromkeys([*superclasses, *(n for names in superclasses.values() for n in names)])
    return Benchmark(
        name="deep",
        dataset="deep",
        superclasses=superclasses,
        schedules=[[[name] for name in names]],
        **settings,
    )


@pytest.mark.parametrize(
    ("superclasses", "leaf", "labels", "ranks"),
    [
        (DEEP, "husky", ("life", "animal", "dog", "husky"), (0, 1, 2, 3)),
        (DEEP, "cat", ("life", "animal", "cat"), (0, 1, 2)),
        (DEEP, "plant", ("life", "plant"), (0, 1)),
        (SEVERAL, "dog", ("pet", "animal", "mammal", "dog"), (0, 0, 1, 2)),
        (SEVERAL, "fish", ("pet", "animal", "fish"), (0, 0, 1)),
        (SEVERAL, "cow", ("animal", "mammal", "cow"), (0, 1, 2)),
    ],
)
def test_a_leaf_class_has_its_ancestors_as_labels_the_upper_levels_first(
    superclasses, leaf, labels, ranks
):
    taxonomy = Taxonomy(superclasses)
    assert (taxonomy.labels_of(leaf), taxonomy.ranks_of(leaf)) == (labels, ranks)
    assert leaf in taxonomy.leaf_classes and not set(taxonomy.leaf_classes) & set(superclasses)


def test_levels_are_counted_from_the_top_along_the_longest_way():
    assert Taxonomy(DEEP, ["car"]).n_levels == 4
    assert Taxonomy(DEEP, ["car"]).levels["car"] == 0
    assert Taxonomy(SEVERAL).levels == {
        "pet": 0,
        "animal": 0,
        "mammal": 1,
        "fish": 1,
        "dog": 2,
        "cow": 2,
    }
    assert (Taxonomy({}, ["car"]).n_levels, Taxonomy({}).n_levels) == (1, 1)


@pytest.mark.parametrize(
    ("superclasses", "settings", "message"),
    [
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, {}, "is its own ancestor: .*'a' -> 'b'"),
        ({"a": ["a"]}, {}, "is its own ancestor"),
        (SEVERAL, {}, r"superclasses.animal: class 'fish' is already in superclasses.pet"),
        ({"a": ["b", "b"]}, {"several_superclasses": True}, "class 'b' is already in superclasses"),
        (DEEP, {"other_classes": ["dog"]}, "other_classes: 'dog' is a superclass"),
        (DEEP, {"other_classes": ["cat"]}, "class 'cat' is already in superclasses.animal"),
    ],
)
def test_a_contradictory_taxonomy_is_refused(superclasses, settings, message):
    with pytest.raises(ValueError, match=message):
        benchmark(superclasses, **settings)


def test_a_benchmark_states_several_superclasses_in_its_file_only_if_it_has_them():
    assert "several_superclasses" not in benchmark(DEEP).model_dump()
    written = benchmark(SEVERAL, several_superclasses=True)
    assert Benchmark.model_validate(written.model_dump()) == written


def test_a_copy_with_another_taxonomy_forgets_the_former_one():
    changed = benchmark(DEEP).model_copy(update={"superclasses": {"life": ["plant"]}})
    assert changed.leaf_classes == ["plant"]


def sequence_of(superclasses, n_images=1, sampling=None, tasks=None):
    """Return the tasks of a taxonomy, with so many images of each leaf class."""
    taxonomy = Taxonomy(superclasses)
    tasks = tasks or [[name] for name in taxonomy.levels]
    leaves = [leaf for leaf in taxonomy.leaf_classes for _ in range(n_images)]
    return TaskSequence(
        np.arange(len(leaves)),
        label_combinations(map(taxonomy.labels_of, leaves), class_order(tasks)),
        tasks,
        setup=IIRC_SETUP,
        sampling=sampling,
        complete_information=False,
        ranks=label_ranks(taxonomy, leaves),
        taxonomy=taxonomy,
    )


@given(
    n=st.integers(0, 40),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    own=st.floats(0, 1),
    cap=st.integers(1, 6),
)
def test_each_level_shows_a_window_of_a_leaf_classes_images(n, fractions, own, cap):
    """Level k of K: a window of p * n images, from (1 - p) * n * k / (K - 1) on, rounded down."""
    settings = SamplingSettings(
        superclass_data_pct=fractions, subclass_data_pct=own, superclass_sampling_size_cap=cap
    )
    leaves_below = {"life": 4, "animal": 3, "dog": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shares that round to 0
        sequence = sequence_of(DEEP, n, settings)
    first_image = {"plant": 0, "cat": n, "pug": 2 * n, "husky": 3 * n}
    for task, name in enumerate(Taxonomy(DEEP).levels):
        expected = []
        for leaf, start in first_image.items():
            labels = Taxonomy(DEEP).labels_of(leaf)
            if name not in labels:
                continue
            k, last = labels.index(name), len(labels) - 1
            p = own if k == last else fractions[min(k, len(fractions) - 1)]
            if k < last and leaves_below[name] > cap:
                p = cap / leaves_below[name] * p
            shown = int(p * n)
            begin = (n - shown) * k // last
            expected += range(start + begin, start + begin + shown)
        assert sorted(sequence.view(task).sample_ids) == sorted(expected)


@pytest.mark.parametrize("n", [4, 9, 40, 101])
def test_with_a_share_of_one_kth_no_image_is_shown_at_two_levels(n):
    superclasses = {"life": ["animal"], "animal": ["dog"], "dog": ["pug", "husky"]}
    each = SamplingSettings(superclass_data_pct=1 / 4, subclass_data_pct=1 / 4)
    sequence = sequence_of(superclasses, n, each)
    shown = np.concatenate([sequence.view(task).sample_ids for task in range(len(sequence))])
    assert len(np.unique(shown)) == len(shown) == 8 * int(n / 4)


def test_superclasses_of_the_same_level_show_the_same_images_of_a_leaf_class():
    settings = SamplingSettings(superclass_data_pct=0.4, subclass_data_pct=0.8)
    sequence = sequence_of(SEVERAL, 10, settings)
    shown = {
        name: set(sequence.view(task).sample_ids.tolist())
        for name, task in zip(sequence.class_names_to_idx, range(len(sequence)), strict=True)
    }
    dogs, fish, cows = (range(start, start + 10) for start in (0, 10, 20))  # in the file's order
    assert shown["pet"] == {*dogs[:4], *fish[:4]}
    assert shown["animal"] == {*dogs[:4], *fish[:4], *cows[:4]}
    assert shown["mammal"] == {*dogs[3:7], *cows[3:7]}
    assert shown["dog"] == {*dogs[2:]}


def test_ancestors_are_those_of_the_taxonomy_also_across_a_class_of_no_task():
    tasks = [["animal", "pet"], ["dog", "fish", "cow"]]  # mammal has no task
    sequence = sequence_of(SEVERAL, tasks=tasks)
    index = sequence.class_names_to_idx
    expected = np.eye(5, dtype=bool)
    for lower, upper in [("dog", "pet"), ("dog", "animal"), ("fish", "pet"), ("fish", "animal")]:
        expected[index[lower], index[upper]] = True
    expected[index["cow"], index["animal"]] = True
    assert np.array_equal(sequence.ancestors, expected)


def test_samples_with_three_labels_without_a_taxonomy_give_the_same_ancestors():
    labels = np.array([[0, 1, 2], [0, 3, -1], [4, -1, -1]], np.int32)
    sequence = TaskSequence(
        np.arange(3),
        labels,
        [["a"], ["b"], ["c"], ["d"], ["e"]],
        setup=IIRC_SETUP,
        sampling=None,
        complete_information=True,
    )
    pairs = {(1, 0), (2, 0), (2, 1), (3, 0), *((i, i) for i in range(5))}
    assert set(zip(*np.nonzero(sequence.ancestors), strict=True)) == pairs
    shown = [sequence.view(2).labels.tolist(), sequence.view([0, 2], 2).labels.tolist()]
    assert shown == [[[0, 1, 2]], [[0, 1, 2], [0, -1, -1]]]


@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=4, max_size=4), max_size=8),
    st.sets(st.integers(0, 5)),
)
def test_hidden_labels_leave_no_gap(rows, seen):
    labels = np.array(rows, np.int32).reshape(-1, 4)
    visible = np.isin(np.arange(7), list(seen))
    kept = [[label for label in row if label in seen] for row in rows]
    assert [
        [label for label in row if label != NO_LABEL]
        for row in visible_labels(labels, visible).tolist()
    ] == kept
    assert visible_labels(labels, visible).shape == labels.shape


def test_labels_of_different_widths_are_joined():
    joined = joined_labels([np.array([[1, 2]], np.int32), np.array([[3, 4, 5, -1]], np.int32)])
    assert joined.tolist() == [[1, 2, -1, -1], [3, 4, 5, -1]]
    assert most_specific(joined).tolist() == [2, 5]
