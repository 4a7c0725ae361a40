"""From the ranks of a dataset's classes to a taxonomy in which every name is unique."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from iirc_data.errors import SourceError

Superclasses: TypeAlias = dict[str, list[str]]
"""Superclass to its direct subclasses, which may be superclasses themselves."""

Lineage: TypeAlias = tuple[tuple[str, str], ...]
"""Rank and name of each ancestor of a class, from the top down, and of the class itself."""


@dataclass(frozen=True)
class Hierarchy:
    """The classes of a dataset under unique names.

    Attributes:
        class_names: The name of the leaf class of each lineage, in the given order.
        taxonomy: Superclasses level by level from the top down; names are sorted within each.
    """

    class_names: tuple[str, ...]
    taxonomy: Superclasses


def build_hierarchy(lineages: Sequence[Lineage], where: str) -> Hierarchy:
    """Give the classes of all levels unique names, and collect them into a taxonomy.

    A class keeps the name that the dataset gives it, with ``_`` in place of ``/``, which file names
    cannot contain. If classes share a name, the only leaf class among them keeps it, and the others
    add their rank, for example ``DC-3 (family)`` beside the variant ``DC-3``. If classes of one
    rank share a name, they add their superclass too: ``Oenanthe (genus in Apiaceae)``. The names do
    not depend on the order of the lineages.

    Args:
        lineages: One lineage for each leaf class. Ranks may be missing.
        where: Name of the dataset in error messages.

    Returns:
        The names and the taxonomy.

    Raises:
        SourceError: Two leaf classes have the same lineage, or a name in parentheses is taken.
    """
    leaves = set(lineages)
    if len(leaves) < len(lineages):
        twice = Counter(lineages).most_common(1)[0][0]
        raise SourceError(f"{where} lists the class {_path(twice)} twice: download it again")
    nodes = {lineage[:depth] for lineage in leaves for depth in range(1, len(lineage) + 1)}
    names = _unique_names(nodes, leaves, where)
    children: dict[Lineage, list[str]] = {}
    for node, name in names.items():
        if len(node) > 1:
            children.setdefault(node[:-1], []).append(name)
    order = sorted(children, key=lambda node: (len(node), names[node]))
    taxonomy = {names[node]: sorted(children[node]) for node in order}
    return Hierarchy(tuple(names[lineage] for lineage in lineages), taxonomy)


def _unique_names(
    nodes: Collection[Lineage], leaves: Collection[Lineage], where: str
) -> dict[Lineage, str]:
    plain = {node: node[-1][1].replace("/", "_") for node in nodes}
    shared = Counter(plain.values())
    shared_by_leaves = Counter(plain[leaf] for leaf in leaves)
    shared_in_rank = Counter((plain[node], node[-1][0]) for node in nodes)
    names: dict[Lineage, str] = {}
    for node in sorted(nodes, key=len):
        name, rank = plain[node], node[-1][0]
        if shared[name] == 1 or (node in leaves and shared_by_leaves[name] == 1):
            names[node] = name
        elif shared_in_rank[name, rank] == 1:
            names[node] = f"{name} ({rank})"
        else:
            above = f" in {names[node[:-1]]}" if len(node) > 1 else ""
            names[node] = f"{name} ({rank}{above})"
    if len(set(names.values())) < len(names):
        name = Counter(names.values()).most_common(1)[0][0]
        both = " and ".join(_path(node) for node in names if names[node] == name)
        raise SourceError(f"{where}: {both} would both be named {name!r}: rename one")
    return names


def _path(lineage: Lineage) -> str:
    return repr(" > ".join(name for _, name in lineage))
