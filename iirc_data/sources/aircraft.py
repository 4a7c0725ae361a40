"""FGVC-Aircraft 2013b as it is unpacked: images, and lists of their variants and families."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, check_exists, file_stamp
from iirc_data.sources.hierarchy import Lineage, Superclasses, build_hierarchy
from iirc_data.sources.listed import ListedSource, Listing, listed_lines

FOLDER = "fgvc-aircraft-2013b"
BANNER_HEIGHT = 20
"""Rows at the bottom of each image with copyright information."""

Labels: TypeAlias = dict[str, dict[str, str]]
"""For each rank, the class of each image."""

_RANKS = {
    "manufacturer": "manufacturers.txt",
    "family": "families.txt",
    "variant": "variants.txt",
}
_AGAIN = f"unpack {FOLDER}.tar.gz again"


def open_aircraft(path: Path, *, separate_val: bool = False) -> "AircraftSource":
    """Open FGVC-Aircraft 2013b, unpacked.

    The folder holds ``data/images/*.jpg``, the names of all classes in ``data/variants.txt``,
    ``data/families.txt`` and ``data/manufacturers.txt``, and for each split the lists
    ``data/images_variant_<split>.txt``, ``data/images_family_<split>.txt`` and
    ``data/images_manufacturer_<split>.txt``.

    Args:
        path: The folder ``fgvc-aircraft-2013b``, its parent, or its folder ``data``.
        separate_val: Read the dataset's training and validation images as the splits ``train`` and
            ``val``; by default both are ``train``, as in the dataset's lists ``trainval``.

    Returns:
        The source.

    Raises:
        SourceError: The folder does not contain FGVC-Aircraft, or its files contradict each other.
    """
    wanted = f"unpack {FOLDER}.tar.gz and give the folder {FOLDER}"
    check_exists(path, wanted)
    candidates = (path / "data", path / FOLDER / "data", path)
    root = next((root for root in candidates if (root / _RANKS["variant"]).is_file()), None)
    if root is None:
        raise SourceError(f"{path} has no data/{_RANKS['variant']}: {wanted}")
    source = AircraftSource(root, separate_val)
    source.classes()
    return source


@dataclass(frozen=True)
class AircraftSource(ListedSource):
    """FGVC-Aircraft; its leaf classes are the variants. Bounding boxes are ignored.

    The taxonomy has the manufacturers above the families. Many families share the name of their
    only variant: the family is then named ``DC-3 (family)``.

    Attributes:
        root: The folder ``data``.
        separate_val: Whether the validation images are a split of their own.
    """

    separate_val: bool = False

    @property
    def name(self) -> str:
        """``"fgvc_aircraft"``."""
        return "fgvc_aircraft"

    @property
    def _content(self) -> tuple[dict[str, Listing], Superclasses]:
        lists = {"train": "trainval", "test": "test"}
        if self.separate_val:
            lists = {name: name for name in ("train", "val", "test")}
        stamps = tuple(file_stamp(path) for path in _files(self.root, tuple(lists.values())))
        return _read(self.root, tuple(lists.items()), stamps)


def _files(root: Path, lists: tuple[str, ...]) -> Iterator[Path]:
    for rank, names in _RANKS.items():
        yield root / names
        yield from (root / f"images_{rank}_{name}.txt" for name in lists)


@lru_cache(maxsize=1)  # not kept in the source, which is sent to a process with every class
def _read(
    root: Path, lists: tuple[tuple[str, str], ...], stamps: tuple[FileStamp, ...]
) -> tuple[dict[str, Listing], Superclasses]:
    known = {
        rank: {line for _, line in listed_lines(root / names, _AGAIN)}
        for rank, names in _RANKS.items()
    }
    labels = {
        split: {rank: _read_labels(root, rank, name, known[rank]) for rank in _RANKS}
        for split, name in lists
    }
    lineages = _lineages(labels.values(), root)
    hierarchy = build_hierarchy(list(lineages.values()), str(root))
    class_of = dict(zip(lineages, hierarchy.class_names, strict=True))
    listings: dict[str, Listing] = {}
    for split, of_split in labels.items():
        listing: dict[str, list[str]] = {}
        for image, variant in sorted(of_split["variant"].items()):
            listing.setdefault(class_of[variant], []).append(f"images/{image}.jpg")
        listings[split] = listing
    return listings, hierarchy.taxonomy


def _lineages(splits: Iterable[Labels], root: Path) -> dict[str, Lineage]:
    """Return the lineage of each variant, on which all images must agree."""
    lineages: dict[str, Lineage] = {}
    for labels in splits:
        images = labels["variant"].keys()
        for rank in _RANKS:
            if one_sided := sorted(labels[rank].keys() ^ images):
                raise SourceError(
                    f"{root}: {len(one_sided)} images are in only one of the lists of variant and "
                    f"{rank} ({', '.join(one_sided[:3])}): {_AGAIN}"
                )
        for image in images:
            lineage = tuple((rank, labels[rank][image]) for rank in _RANKS)
            variant = labels["variant"][image]
            if (other := lineages.setdefault(variant, lineage)) != lineage:
                both = " and ".join(
                    " > ".join(name for _, name in each) for each in (other, lineage)
                )
                raise SourceError(f"{root}: variant {variant!r} is in both {both}: {_AGAIN}")
    return lineages


def _read_labels(root: Path, rank: str, name: str, known: set[str]) -> dict[str, str]:
    """Return the class of each image in one list; lines are ``0787226 Name of the class``."""
    path = root / f"images_{rank}_{name}.txt"
    labels: dict[str, str] = {}
    for number, line in listed_lines(path, _AGAIN):
        image, _, label = line.partition(" ")
        if label not in known:
            raise SourceError(
                f"{path}, line {number}: {_RANKS[rank]} has no {rank} {label!r}: {_AGAIN}"
            )
        if "/" in image:
            raise SourceError(
                f"{path}, line {number}: {image!r} is not the name of an image: {_AGAIN}"
            )
        if image in labels:
            raise SourceError(f"{path}, line {number}: image {image} occurs twice: {_AGAIN}")
        labels[image] = label
    return labels
