"""Schedules of taxonomies of any depth, and taxonomies that are parts of others."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.benchmarks import make_schedule
from iirc_data.benchmarks.making import one_level_per_sample
from iirc_data.benchmarks.schedules import ORDERS
from iirc_data.errors import BenchmarkError
from iirc_data.taxonomies.reduction import (
    lower_superclasses,
    make_taxonomy,
    merged,
    restricted,
    telling_superclasses,
    upper_superclasses,
)
from iirc_data.taxonomy import Taxonomy
from tests.test_taxonomy import sequence_of

FOREST = {"animal": ["cat"], "plant": ["oak"]}
SEEDS = st.none() | st.integers(0, 2**40)


@st.composite
def taxonomies(draw, several=True):
    """A taxonomy of up to 15 classes; each has up to two superclasses among those before it."""
    superclasses: dict[str, list[str]] = {}
    n = draw(st.integers(1, 15))
    for number in range(n):
        above = st.lists(st.integers(0, max(number - 1, 0)), max_size=1 + several, unique=True)
        for one in draw(above) if number else []:
            superclasses.setdefault(f"c{one}", []).append(f"c{number}")
    return make_taxonomy(superclasses, [f"c{number}" for number in range(n)], "it")


@settings(max_examples=60)
@given(taxonomy=taxonomies(), order=st.sampled_from(ORDERS), seed=SEEDS, data=st.data())
def test_every_class_has_one_task_and_its_superclasses_earlier_ones(taxonomy, order, seed, data):
    size = data.draw(st.integers(1, len(taxonomy.levels)))
    first = data.draw(st.none() | st.integers(1, len(taxonomy.levels)))
    try:
        tasks = make_schedule(taxonomy, order, task_size=size, first_task=first, seed=seed)
    except BenchmarkError as error:
        assert "expected 1 to" in str(error)
        return
    place = {name: number for number, task in enumerate(tasks) for name in task}
    assert sorted(name for task in tasks for name in task) == sorted(taxonomy.levels)
    for name, task in place.items():
        assert all(place[above] < task for above in taxonomy.superclasses_of(name))
    assert all(tasks) and max(map(len, tasks[1:]), default=0) <= size
    assert first is None or len(tasks[0]) <= first
    kind = order if taxonomy.superclasses else "mixed"
    levels = [[taxonomy.levels[name] for name in task] for task in tasks]
    if kind == "superclasses-first":
        assert set(levels[0]) == {0} and taxonomy.superclasses.keys() >= set(tasks[0])
    if kind == "level-by-level":
        assert [max(task) for task in levels] == sorted(min(task) for task in levels)
        return
    for number, task in enumerate(tasks[1:-1], 1):
        later = [name for name, at in place.items() if at > number]
        ready = [n for n in later if all(place[a] < number for a in taxonomy.superclasses_of(n))]
        assert len(task) == size or not ready


@settings(max_examples=20)
@given(taxonomy=taxonomies(), order=st.sampled_from(ORDERS), seed=st.integers(0, 99))
def test_a_schedule_does_not_depend_on_the_order_in_which_classes_are_listed(taxonomy, order, seed):
    turned = {k: v[::-1] for k, v in reversed(taxonomy.superclasses.items())}
    other = Taxonomy(turned, taxonomy.other_classes[::-1])
    first, second = (make_schedule(t, order, task_size=1, seed=seed) for t in (taxonomy, other))
    assert first == second


def test_all_orders_of_a_forest_are_equally_likely():
    names = ["animal", "plant", "cat", "oak"]
    orders = [
        order
        for order in permutations(names)
        if order.index("animal") < order.index("cat") and order.index("plant") < order.index("oak")
    ]
    drawn = Counter(
        tuple(name for (name,) in make_schedule(Taxonomy(FOREST), "mixed", task_size=1, seed=seed))
        for seed in range(1_200)
    )
    assert drawn.keys() == set(orders)
    assert all(150 < n < 250 for n in drawn.values())  # of 200, four standard deviations


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("superclasses-first", ["plant animal", "dog oak car", "husky cat rose", "pug"]),
        ("level-by-level", ["plant animal car", "cat rose", "oak dog", "pug husky"]),
        ("mixed", ["animal plant car", "dog oak cat", "husky rose pug"]),
    ],
)
def test_the_schedule_of_a_seed_never_changes(order, expected):
    taxonomy = Taxonomy(
        {"animal": ["dog", "cat"], "plant": ["oak", "rose"], "dog": ["pug", "husky"]}, ["car"]
    )
    tasks = make_schedule(taxonomy, order, task_size=3, seed=1993)
    assert tasks == [task.split() for task in expected]


def test_without_a_seed_leaf_classes_of_different_superclasses_take_turns():
    taxonomy = Taxonomy({"animal": ["cat", "dog"], "plant": ["oak"]}, ["car", "bus"])
    tasks = make_schedule(taxonomy, "superclasses-first", task_size=2)
    assert tasks == [["animal", "plant"], ["cat", "oak"], ["car", "dog"], ["bus"]]


def test_a_level_is_divided_evenly():
    taxonomy = Taxonomy({"a": [f"leaf{n}" for n in range(10)]})
    tasks = make_schedule(taxonomy, "level-by-level", task_size=4, seed=0)
    assert list(map(len, tasks)) == [1, 3, 3, 4]


@pytest.mark.parametrize(
    ("order", "sizes", "message"),
    [
        ("mixed", {"task_size": 5}, "task size 5: expected 1 to 4, the number of classes"),
        ("mixed", {"task_size": 0}, "task size 0: expected 1 to 4"),
        (
            "superclasses-first",
            {"task_size": 3},
            "task size 3: expected 1 to 2, the number of classes after the first task",
        ),
        (
            "superclasses-first",
            {"task_size": 1, "first_task": 3},
            "first task 3: expected 1 to 2, the number of superclasses of the top level",
        ),
        (
            "level-by-level",
            {"task_size": 1, "first_task": 3},
            "first task 3: expected 1 to 2, the number of classes of the top level",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(order, sizes, message):
    with pytest.raises(BenchmarkError, match=message):
        make_schedule(Taxonomy(FOREST), order, **sizes)


# Parts of a taxonomy


def edges(taxonomy):
    return {(above, name) for above, names in taxonomy.superclasses.items() for name in names}


@settings(max_examples=40)
@given(taxonomy=taxonomies(), data=st.data())
def test_a_part_of_a_taxonomy_keeps_the_chosen_labels_of_the_chosen_leaves(taxonomy, data):
    leaves = data.draw(st.sets(st.sampled_from(taxonomy.leaf_classes), min_size=1))
    names = st.sampled_from([*taxonomy.superclasses, "no class"])
    kept = data.draw(st.sets(names))
    part = restricted(taxonomy, leaves, kept)
    assert set(part.leaf_classes) == leaves
    for leaf in leaves:
        expected = {*taxonomy.ancestors_of(leaf)} & kept
        assert {*part.ancestors_of(leaf)} == expected
    whole = restricted(taxonomy, taxonomy.leaf_classes, taxonomy.superclasses)
    assert edges(whole) == edges(taxonomy)
    assert whole.other_classes == taxonomy.other_classes


@settings(max_examples=40)
@given(taxonomy=taxonomies(), n_levels=st.integers(2, 5))
def test_levels_are_kept_from_the_top_or_from_the_leaves(taxonomy, n_levels):
    upper, lower = (
        restricted(taxonomy, taxonomy.leaf_classes, chosen(taxonomy, n_levels))
        for chosen in (upper_superclasses, lower_superclasses)
    )
    for part in (upper, lower):
        assert part.n_levels <= n_levels
        if n_levels >= taxonomy.n_levels:
            assert edges(part) == edges(taxonomy)
    tops = {name for name in taxonomy.superclasses if taxonomy.levels[name] == 0}
    assert {name for name in upper.superclasses if upper.levels[name] == 0} == tops
    above_leaves_only = {
        name
        for name, names in taxonomy.superclasses.items()
        if taxonomy.superclasses.keys().isdisjoint(names)
    }
    assert above_leaves_only <= lower.superclasses.keys()


def test_superclasses_that_tell_nothing_are_found():
    chain = {"entity": ["animal", "car"], "animal": ["dog", "cat"], "dog": ["hound"]}
    taxonomy = Taxonomy({**chain, "hound": ["beagle", "whippet"], "cat": ["siamese"]})
    assert telling_superclasses(taxonomy) == {"animal", "hound"}


def test_sources_are_merged_and_a_leaf_of_one_is_a_superclass_in_another():
    upper, lower = (
        Taxonomy({"animal": ["dog"]}, ["car"]),
        Taxonomy({"dog": ["pug"]}, ["dog", "bus"]),
    )
    both = merged([upper, lower], "both")
    assert both.superclasses == {"animal": ["dog"], "dog": ["pug"]}
    assert both.other_classes == ["car", "bus"]
    with pytest.raises(BenchmarkError, match="both: superclasses: a class is its own ancestor"):
        merged([upper, Taxonomy({"dog": ["animal"]})], "both")


@settings(max_examples=20)
@pytest.mark.filterwarnings("ignore:classes show no sample")
@given(taxonomy=taxonomies(several=False), n=st.integers(1, 30))
def test_with_one_level_per_sample_no_sample_is_shown_twice(taxonomy, n):
    sampling = one_level_per_sample(taxonomy)
    sequence = sequence_of(taxonomy.superclasses, n, sampling) if taxonomy.superclasses else ()
    views = [sequence.view(task) for task in range(len(sequence))]
    shown = Counter(int(i) for view in views for i in view.sample_ids)
    assert max(shown.values(), default=1) == 1
