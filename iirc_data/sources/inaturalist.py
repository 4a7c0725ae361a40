"""iNaturalist 2018 and 2021 as they are unpacked: images, and annotations of each split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from iirc_data.errors import SourceError
from iirc_data.reading import read_text
from iirc_data.sources.base import FileStamp, cannot_read, check_exists, file_stamp
from iirc_data.sources.coco import CocoListing, read_coco
from iirc_data.sources.hierarchy import Lineage, Superclasses, build_hierarchy
from iirc_data.sources.listed import ListedSource, Listing

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")


@dataclass(frozen=True)
class Release:
    """The published form of one release.

    Attributes:
        train: File of annotations of the training images.
        val: File of annotations of the validation images.
        names: File of the categories' names, if those in ``train`` are obfuscated.
        folders: The folders of the images.
        n_classes: Number of species.
        n_images: Number of images of each split.
    """

    train: str
    val: str
    names: str | None
    folders: tuple[str, ...]
    n_classes: int
    n_images: Mapping[str, int]

    @property
    def annotations(self) -> tuple[str, ...]:
        """The files of annotations."""
        return (self.train, self.val, *((self.names,) if self.names else ()))


RELEASES = {
    "2018": Release(
        train="train2018.json",
        val="val2018.json",
        names="categories.json",
        folders=("train_val2018",),
        n_classes=8_142,
        n_images={"train": 437_513, "val": 24_426},
    ),
    "2021": Release(
        train="train.json",
        val="val.json",
        names=None,
        folders=("train", "val"),
        n_classes=10_000,
        n_images={"train": 2_686_843, "val": 100_000},
    ),
    "2021-mini": Release(
        train="train_mini.json",
        val="val.json",
        names=None,
        folders=("train_mini", "val"),
        n_classes=10_000,
        n_images={"train": 500_000, "val": 100_000},
    ),
}


def open_inaturalist(path: Path, release: str | None = None) -> "INaturalistSource":
    """Open iNaturalist, unpacked.

    The folder holds the annotations and the images:

    - 2018: ``train2018.json``, ``val2018.json``, ``categories.json`` with the names of the
      categories, and ``train_val2018/<group>/<category>/*.jpg``;
    - 2021: ``train.json``, ``val.json``, ``train/<category>/*.jpg`` and ``val/<category>/*.jpg``;
    - 2021-mini: as 2021, with ``train_mini.json`` and ``train_mini/``.

    Args:
        path: The folder.
        release: ``"2018"``, ``"2021"`` or ``"2021-mini"``; needed if the folder holds several.

    Returns:
        The source.

    Raises:
        SourceError: A file is missing or has another layout, or the folder holds several releases
            and ``release`` is None.
    """
    wanted = (
        "unpack annotations and images of iNaturalist 2018 or 2021 in one folder, and give that "
        "folder"
    )
    check_exists(path, wanted)
    if release is None:
        found = [name for name, files in RELEASES.items() if (path / files.train).exists()]
        if len(found) != 1:
            trains = ", ".join(files.train for files in RELEASES.values())
            raise SourceError(
                f"{path} holds iNaturalist {' and '.join(found)}: say which, with --release"
                if found
                else f"{path} has none of {trains}: {wanted}"
            )
        release = found[0]
    names = RELEASES[release].names
    if names is not None and not (path / names).exists():
        raise SourceError(
            f"{path} lacks {names}: download it too, because {RELEASES[release].train} holds "
            "obfuscated names"
        )
    source = INaturalistSource(path, str(release))
    source.classes()
    return source


@dataclass(frozen=True)
class INaturalistSource(ListedSource):
    """iNaturalist; its leaf classes are species, under their scientific names.

    The taxonomy has kingdoms, phyla, classes, orders, families and genera. Names that several taxa
    share, such as the genus Oenanthe of plants and of birds, become
    ``Oenanthe (genus in Apiaceae)`` and ``Oenanthe (genus in Muscicapidae)``. A rank that a
    category leaves empty is skipped.

    The test images have no labels and are not read.

    Attributes:
        root: The folder of the annotations.
        release: ``"2018"``, ``"2021"`` or ``"2021-mini"``.
    """

    release: str

    @property
    def name(self) -> str:
        """For example ``"inaturalist_2021"``."""
        return f"inaturalist_{self.release.replace('-', '_')}"

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files and folders that are read."""
        release = RELEASES[self.release]
        return tuple(self.root / name for name in (*release.annotations, *release.folders))

    @property
    def _content(self) -> tuple[dict[str, Listing], Superclasses]:
        names = RELEASES[self.release].annotations
        return _read(self.root, self.release, tuple(file_stamp(self.root / n) for n in names))


@lru_cache(maxsize=1)  # not kept in the source, which is sent to a process with every class
def _read(
    root: Path, release: str, stamps: tuple[FileStamp, ...]
) -> tuple[dict[str, Listing], Superclasses]:
    files = RELEASES[release]
    splits = {"train": root / files.train, "val": root / files.val}
    annotations = {split: read_coco(path) for split, path in splits.items()}
    if files.names is None:
        where, categories = splits["train"], annotations["train"].categories
    else:
        where = root / files.names
        categories = _read_categories(where)
    lineages = dict(_lineage(category, where) for category in categories)
    if len(lineages) < len(categories):
        raise SourceError(f"{where} gives two categories the same id: download it again")
    for split, read in annotations.items():
        if unknown := sorted(set(read.image_category.tolist()) - lineages.keys()):
            raise SourceError(
                f"{splits[split]} has images of {len(unknown)} categories that {where.name} lacks, "
                f"the first is {unknown[0]}: the two files do not belong together"
            )
    hierarchy = build_hierarchy(list(lineages.values()), str(where))
    class_of = dict(zip(lineages, hierarchy.class_names, strict=True))
    listings: dict[str, Listing] = {s: CocoListing(a, class_of) for s, a in annotations.items()}
    return listings, hierarchy.taxonomy


def _read_categories(path: Path) -> list[Any]:
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(content, list):
        raise SourceError(f"{path} is not a list of categories: download it again")
    return content


def _lineage(category: Any, where: Path) -> tuple[int, Lineage]:
    fields = category if isinstance(category, dict) else {}
    number, name = fields.get("id"), fields.get("name")
    above = [fields.get(rank, 0) for rank in RANKS]
    if (
        not isinstance(number, int)
        or not isinstance(name, str)
        or not name
        or not all(taxon is None or isinstance(taxon, str) for taxon in above)
    ):
        raise SourceError(
            f"{where} has the category {str(category)[:80]!r}, expected id, name and "
            f"{', '.join(RANKS)}: {' and '.join(RELEASES)} are the releases that can be read"
        )
    taxa = [(rank, taxon) for rank, taxon in zip(RANKS, above, strict=True) if taxon]
    return number, (*taxa, ("species", name))
