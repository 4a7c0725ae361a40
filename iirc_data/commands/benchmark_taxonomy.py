"""The taxonomy that the options of ``iirc benchmarks make`` choose."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from iirc_data.benchmarks.making import with_classes
from iirc_data.commands.taxonomy_sources import TaxonomySource
from iirc_data.errors import BenchmarkError
from iirc_data.spelling import with_known_spelling
from iirc_data.taxonomies.reduction import (
    lower_superclasses,
    merged,
    restricted,
    telling_superclasses,
    upper_superclasses,
)
from iirc_data.taxonomies.wordnet import WordNet
from iirc_data.taxonomy import Taxonomy


@dataclass(frozen=True)
class Choice:
    """What to keep of a taxonomy.

    Attributes:
        classes: Leaf classes to keep; None for all.
        superclasses: Superclasses to keep; None for all, of WordNet those that tell classes apart.
        n_levels: Largest number of levels; None for all.
        from_leaves: Keep the levels next to the leaf classes, instead of the upper ones.
        several_superclasses: Whether a class may have several superclasses.
    """

    classes: Sequence[str] | None = None
    superclasses: Sequence[str] | None = None
    n_levels: int | None = None
    from_leaves: bool = False
    several_superclasses: bool = False


def chosen_taxonomy(
    sources: Sequence[TaxonomySource], wordnet: WordNet | None, choice: Choice
) -> Taxonomy:
    """Return the taxonomy of a benchmark.

    Args:
        sources: Sources, whose classes and superclasses are merged.
        wordnet: Take superclasses from WordNet instead; the leaf classes are WordNet ids.
        choice: What to keep.

    Raises:
        BenchmarkError: The sources contradict each other, lack what is chosen, or have a class
            under several superclasses although ``choice`` does not allow it.
    """
    taxonomy = merged((source.taxonomy for source in sources), "the sources together")
    datasets = [source.classes for source in sources if source.classes is not None]
    if datasets:
        taxonomy = with_classes(taxonomy, dict.fromkeys(c for names in datasets for c in names))
    if wordnet is not None:
        taxonomy = wordnet.taxonomy(
            _selected(taxonomy, choice) if sources else choice.classes or (),
            several_superclasses=choice.several_superclasses,
        )
    if not taxonomy.levels:
        raise BenchmarkError("no classes: give a source, or --classes with --wordnet")
    leaves = _selected(taxonomy, choice)
    kept = restricted(taxonomy, leaves, _kept_superclasses(taxonomy, wordnet, choice))
    if choice.n_levels is not None:
        if choice.n_levels > kept.n_levels:
            raise BenchmarkError(
                f"{choice.n_levels} levels were asked for, the taxonomy has {kept.n_levels}"
            )
        nearest = lower_superclasses if choice.from_leaves else upper_superclasses
        kept = restricted(kept, leaves, nearest(kept, choice.n_levels))
    _check_superclasses(kept, choice)
    return kept


def _selected(taxonomy: Taxonomy, choice: Choice) -> Collection[str]:
    known = dict.fromkeys(taxonomy.leaf_classes)
    if choice.classes is None:
        return known
    if missing := [name for name in choice.classes if name not in known]:
        raise BenchmarkError(
            f"{len(missing)} of the chosen classes are no leaf classes of the taxonomy: "
            f"{with_known_spelling(missing, known)}"
        )
    return choice.classes


def _kept_superclasses(
    taxonomy: Taxonomy, wordnet: WordNet | None, choice: Choice
) -> Collection[str]:
    if choice.superclasses is None:
        return telling_superclasses(taxonomy) if wordnet else set(taxonomy.superclasses)
    named = {wordnet.id_of(name) if wordnet else name: name for name in choice.superclasses}
    if missing := [name for key, name in named.items() if key not in taxonomy.superclasses]:
        raise BenchmarkError(
            f"no class is below {len(missing)} of the chosen superclasses: "
            f"{with_known_spelling(missing, taxonomy.superclasses)}"
        )
    return set(named)


def _check_superclasses(taxonomy: Taxonomy, choice: Choice) -> None:
    for name in taxonomy.levels:
        above = taxonomy.superclasses_of(name)
        if len(above) > 1 and not choice.several_superclasses:
            raise BenchmarkError(
                f"class {name!r} has the superclasses {', '.join(map(repr, above))}: "
                "--several-superclasses allows that"
            )
