"""Names in a taxonomy: each is unique, and as the dataset gives it where that is possible."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iirc_data.errors import SourceError
from iirc_data.sources.hierarchy import build_hierarchy
from iirc_data.taxonomies.reduction import restricted
from iirc_data.taxonomy import Taxonomy

RANKS = ("order", "family", "genus")
NAMES = st.sampled_from(["a", "b", "c/d", ""])


def lineage(*names):
    """Return a lineage with the given names; an empty name leaves its rank out."""
    above = [(rank, name) for rank, name in zip(RANKS, names[:-1], strict=True) if name]
    return (*above, ("species", names[-1]))


LINEAGES = st.lists(
    st.builds(lineage, NAMES, NAMES, NAMES, NAMES.filter(bool)), min_size=1, unique=True
)


def chain(taxonomy, name):
    """Return the superclasses of a class and the class, from the top down."""
    above = {sub: sup for sup, subs in taxonomy.items() for sub in subs}
    names = [name]
    while names[0] in above:
        names.insert(0, above[names[0]])
    return names


@settings(max_examples=50)
@given(LINEAGES)
def test_every_class_has_one_name_and_its_own_superclasses(lineages):
    hierarchy = build_hierarchy(lineages, "here")
    taxonomy = hierarchy.taxonomy
    listed = [name for names in taxonomy.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert len(set(hierarchy.class_names)) == len(lineages)
    assert set(hierarchy.class_names).isdisjoint(taxonomy)
    for leaf, path in zip(hierarchy.class_names, lineages, strict=True):
        plain = [name.partition(" (")[0] for name in chain(taxonomy, leaf)]
        assert plain == [name.replace("/", "_") for _, name in path]
    places = {name: place for place, name in enumerate(taxonomy)}
    for superclass, subclasses in taxonomy.items():
        assert subclasses == sorted(subclasses)
        assert all(places.get(name, len(places)) > places[superclass] for name in subclasses)


@settings(max_examples=50)
@given(LINEAGES, st.randoms())
def test_names_do_not_depend_on_the_order(lineages, random):
    hierarchy = build_hierarchy(lineages, "here")
    named = dict(zip(lineages, hierarchy.class_names, strict=True))
    shuffled = random.sample(lineages, len(lineages))
    again = build_hierarchy(shuffled, "here")
    assert list(again.taxonomy.items()) == list(hierarchy.taxonomy.items())
    assert [named[path] for path in shuffled] == list(again.class_names)


@settings(max_examples=50)
@given(LINEAGES, st.data())
def test_a_part_of_the_leaf_classes_keeps_what_is_above_them_and_nothing_else(lineages, data):
    hierarchy = build_hierarchy(lineages, "here")
    kept = data.draw(st.sets(st.sampled_from(hierarchy.class_names)))
    part = restricted(Taxonomy(hierarchy.taxonomy), kept, hierarchy.taxonomy).superclasses
    for name in kept:
        assert chain(part, name) == chain(hierarchy.taxonomy, name)
    listed = {*part, *(name for names in part.values() for name in names)}
    assert listed == {
        name for leaf in kept for name in chain(part, leaf) if len(chain(part, leaf)) > 1
    }


def test_names_that_cannot_be_told_apart_are_an_error():
    twice = [lineage("a", "b", "c", "d"), lineage("a", "b", "c", "d")]
    with pytest.raises(SourceError, match=r"here lists the class 'a > b > c > d' twice"):
        build_hierarchy(twice, "here")
    alike = [lineage("a", "", "", "c/d"), lineage("a", "", "", "c_d")]
    with pytest.raises(SourceError, match=r"both be named 'c_d \(species in a\)': rename one"):
        build_hierarchy(alike, "here")
