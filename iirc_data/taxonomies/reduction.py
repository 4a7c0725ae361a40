"""Taxonomies from other taxonomies: several merged, fewer classes, fewer levels."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from iirc_data.errors import BenchmarkError
from iirc_data.taxonomy import Taxonomy


def make_taxonomy(
    superclasses: Mapping[str, Sequence[str]], other_classes: Iterable[str], where: str
) -> Taxonomy:
    """Return a taxonomy.

    Args:
        superclasses: See :class:`~iirc_data.taxonomy.Taxonomy`.
        other_classes: Further classes; those that have a superclass or a subclass are left out.
        where: Its name in error messages.

    Raises:
        BenchmarkError: A class is its own ancestor, or a superclass has no subclass,
            or one twice.
    """
    if empty := [name for name, names in superclasses.items() if not names]:
        raise BenchmarkError(f"{where}: superclass {empty[0]!r} has no subclass")
    for superclass, names in superclasses.items():
        if len(set(names)) < len(names):
            name = Counter(names).most_common(1)[0][0]
            raise BenchmarkError(f"{where}: superclass {superclass!r} lists {name!r} twice")
    listed = {*superclasses, *(name for names in superclasses.values() for name in names)}
    others = [name for name in dict.fromkeys(other_classes) if name not in listed]
    try:
        return Taxonomy(superclasses, others)
    except ValueError as error:
        raise BenchmarkError(f"{where}: {error}") from error


def merged(taxonomies: Iterable[Taxonomy], where: str) -> Taxonomy:
    """Return the taxonomy with the classes of several.

    A leaf class of one may be a superclass in another.

    Raises:
        BenchmarkError: A class is its own ancestor.
    """
    superclasses: dict[str, dict[str, None]] = {}
    others: list[str] = []
    for taxonomy in taxonomies:
        for superclass, names in taxonomy.superclasses.items():
            superclasses.setdefault(superclass, {}).update(dict.fromkeys(names))
        others += taxonomy.other_classes
    return make_taxonomy({name: [*names] for name, names in superclasses.items()}, others, where)


def restricted(
    taxonomy: Taxonomy, leaf_classes: Collection[str], superclasses: Collection[str]
) -> Taxonomy:
    """Return the part of a taxonomy with some of its classes.

    A class whose direct superclass is left out is listed under the nearest kept ones above.

    Args:
        taxonomy: The taxonomy.
        leaf_classes: The leaf classes to keep.
        superclasses: The superclasses to keep, except those without a kept leaf class below them.
    """
    leaves = {*taxonomy.leaf_classes}.intersection(leaf_classes)
    used = {above for leaf in leaves for above in taxonomy.ancestors_of(leaf)}
    kept = used.intersection(superclasses)
    nearest: dict[str, tuple[str, ...]] = {}
    for name in sorted(taxonomy.levels, key=taxonomy.levels.__getitem__):
        nearest[name] = _nearest(taxonomy, name, kept, nearest)
    below: dict[str, list[str]] = {name: [] for name in taxonomy.superclasses if name in kept}
    listed = (name for names in taxonomy.superclasses.values() for name in names)
    for name in dict.fromkeys(listed):
        if name in kept or name in leaves:
            for above in nearest[name]:
                below[above].append(name)
    others = [leaf for leaf in taxonomy.leaf_classes if leaf in leaves and not nearest[leaf]]
    return Taxonomy(below, others)


def _nearest(
    taxonomy: Taxonomy,
    name: str,
    kept: Collection[str],
    nearest: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    direct = taxonomy.superclasses_of(name)
    found = dict.fromkeys(
        above for direct_one in direct for above in _self_or(direct_one, kept, nearest)
    )
    if all(above in kept for above in direct):
        return tuple(found)
    implied = {above for other in found for above in taxonomy.ancestors_of(other)}
    return tuple(above for above in found if above not in implied)


def _self_or(
    name: str, kept: Collection[str], nearest: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    return (name,) if name in kept else nearest[name]


def upper_superclasses(taxonomy: Taxonomy, n_levels: int) -> set[str]:
    """Return the superclasses of the upper ``n_levels - 1`` levels.

    With them alone, leaf classes have at most ``n_levels`` levels.
    """
    return {name for name in taxonomy.superclasses if taxonomy.levels[name] < n_levels - 1}


def lower_superclasses(taxonomy: Taxonomy, n_levels: int) -> set[str]:
    """Return the superclasses at most ``n_levels - 1`` levels above each leaf class below them."""
    heights = dict.fromkeys(taxonomy.levels, 0)
    for name in sorted(taxonomy.levels, key=taxonomy.levels.__getitem__, reverse=True):
        for above in taxonomy.superclasses_of(name):
            heights[above] = max(heights[above], heights[name] + 1)
    return {name for name in taxonomy.superclasses if heights[name] < n_levels}


def telling_superclasses(taxonomy: Taxonomy) -> set[str]:
    """Return the superclasses that tell leaf classes apart from others, each in its own way.

    A superclass with one leaf class below it, or with all, tells nothing. Of superclasses with the
    same leaf classes below them, the lowest is returned.
    """
    leaves_below: defaultdict[str, set[str]] = defaultdict(set)
    for leaf in taxonomy.leaf_classes:
        for above in taxonomy.ancestors_of(leaf):
            leaves_below[above].add(leaf)
    lowest: dict[frozenset[str], str] = {}
    for name in sorted(leaves_below, key=taxonomy.levels.__getitem__):
        lowest[frozenset(leaves_below[name])] = name
    n_leaves = len(taxonomy.leaf_classes)
    return {name for leaves, name in lowest.items() if 1 < len(leaves) < n_leaves}
