"""The Oxford-IIIT Pet dataset as it is unpacked: images, and lists of their breeds and species."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from iirc_data.errors import SourceError
from iirc_data.sources.base import FileStamp, check_exists, file_stamp
from iirc_data.sources.hierarchy import Superclasses, build_hierarchy
from iirc_data.sources.listed import ListedSource, Listing, listed_lines

FOLDER = "oxford-iiit-pet"
LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}

_SPECIES = {"1": "Cat", "2": "Dog"}
_AGAIN = "unpack images.tar.gz and annotations.tar.gz again"


def open_pets(path: Path) -> "PetsSource":
    """Open the Oxford-IIIT Pet dataset, unpacked.

    The folder holds ``images/*.jpg``, ``annotations/trainval.txt`` and ``annotations/test.txt``.

    Args:
        path: The folder of ``images`` and ``annotations``, or the parent of a folder
            ``oxford-iiit-pet`` of both.

    Returns:
        The source.

    Raises:
        SourceError: The folder does not contain the dataset, or its files contradict each other.
    """
    wanted = (
        "unpack images.tar.gz and annotations.tar.gz of the Oxford-IIIT Pet dataset in one folder, "
        "and give that folder"
    )
    check_exists(path, wanted)
    root = next((r for r in (path, path / FOLDER) if (r / "annotations").is_dir()), None)
    if root is None:
        raise SourceError(f"{path} has no folder annotations/: {wanted}")
    source = PetsSource(root)
    source.classes()
    return source


@dataclass(frozen=True)
class PetsSource(ListedSource):
    """The listed images of the Oxford-IIIT Pet dataset; its leaf classes are the 37 breeds.

    The taxonomy has the two species, Cat and Dog, above the breeds.

    The folder ``images`` also holds 41 images that the lists leave out, among them GIFs, and files
    of other kinds. These are ignored, as are head boxes and segmentation masks. Four listed images
    are PNGs with names ending in ``.jpg``; like all images, they are copied byte for byte.

    Attributes:
        root: The folder of ``images`` and ``annotations``.
    """

    @property
    def name(self) -> str:
        """``"oxford_pets"``."""
        return "oxford_pets"

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders that are read."""
        return (self.root / "images", self.root / "annotations")

    @property
    def _content(self) -> tuple[dict[str, Listing], Superclasses]:
        stamps = tuple(file_stamp(self.root / name) for name in LISTS.values())
        return _read(self.root, stamps)


@lru_cache(maxsize=1)  # not kept in the source, which is sent to a process with every class
def _read(root: Path, stamps: tuple[FileStamp, ...]) -> tuple[dict[str, Listing], Superclasses]:
    listings: dict[str, dict[str, list[str]]] = {}
    annotations: dict[str, tuple[str, str]] = {}  # number and species of each breed
    for split, name in LISTS.items():
        listing = listings.setdefault(split, {})
        seen: set[str] = set()
        for number, line in listed_lines(root / name, _AGAIN):
            where = f"{root / name}, line {number}"
            image, breed, number_and_species = _parse(line, where)
            if image in seen:
                raise SourceError(f"{where}: image {image} occurs twice: {_AGAIN}")
            seen.add(image)
            if annotations.setdefault(breed, number_and_species) != number_and_species:
                raise SourceError(
                    f"{where}: breed {breed!r} has class number and species "
                    f"{' and '.join(number_and_species)}, earlier "
                    f"{' and '.join(annotations[breed])}: {_AGAIN}"
                )
            listing.setdefault(breed, []).append(f"images/{image}.jpg")
    lineages = [(("species", _SPECIES[kind]), ("breed", b)) for b, (_, kind) in annotations.items()]
    hierarchy = build_hierarchy(lineages, str(root))
    class_of = dict(zip(annotations, hierarchy.class_names, strict=True))
    return {
        split: {class_of[breed]: sorted(paths) for breed, paths in listing.items()}
        for split, listing in listings.items()
    }, hierarchy.taxonomy


def _parse(line: str, where: str) -> tuple[str, str, tuple[str, str]]:
    """Return image, breed, and class number and species of ``great_pyrenees_36 16 2 11``."""
    parts = line.split()
    breed = parts[0].rpartition("_")[0]
    numbers = parts[1:]
    if len(numbers) != 3 or not breed or "/" in parts[0] or not all(map(str.isdecimal, numbers)):
        raise SourceError(
            f"{where}: expected an image like great_pyrenees_36 and three numbers, got "
            f"{line[:80]!r}: {_AGAIN}"
        )
    if parts[2] not in _SPECIES:
        raise SourceError(f"{where}: species {parts[2]}, expected 1 (cat) or 2 (dog): {_AGAIN}")
    return parts[0], breed, (parts[1], parts[2])
