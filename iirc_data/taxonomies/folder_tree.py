"""A taxonomy in a tree of folders: folders of images below folders of superclasses."""

import os
from pathlib import Path

from iirc_data.errors import BenchmarkError
from iirc_data.sources.base import is_hidden
from iirc_data.taxonomies.reduction import make_taxonomy
from iirc_data.taxonomy import Taxonomy

_SPLITS = {"train", "val", "valid", "validation", "test"}


def read_folder_tree(root: Path, *, several_superclasses: bool = False) -> Taxonomy:
    """Read a taxonomy from folders within folders; hidden files and folders are ignored.

    Args:
        root: The folder, which is no class itself. A folder below it is a superclass if it contains
            folders, and a leaf class if it contains files.
        several_superclasses: Whether folders with the same name in different places are one class.

    Raises:
        BenchmarkError: A folder is empty, or contains both files and folders, two folders have the
            same name, or ``root`` is the parent of the splits of an image folder.
        OSError: A folder cannot be read.
    """
    superclasses: dict[str, list[str]] = {}
    places: dict[str, Path] = {}
    top = _folders(root)
    if not top:
        raise BenchmarkError(f"{root} contains no folder: each leaf class has a folder with images")
    if _SPLITS.issuperset(top):
        raise BenchmarkError(
            f"{root} contains the splits {', '.join(top)}: give one of them, {root / top[0]}"
        )
    waiting = [root / name for name in reversed(top)]
    while waiting:
        folder = waiting.pop()
        name = folder.name
        if name in folder.relative_to(root).parts[:-1]:
            raise BenchmarkError(f"{folder}: class {name!r} is its own ancestor; rename a folder")
        if name in places and not several_superclasses:
            raise BenchmarkError(
                f"class {name!r} is in {places[name]} and in {folder}: rename one, or pass "
                "--several-superclasses if they are one class"
            )
        below = _folders(folder)
        if name in places and bool(below) != (name in superclasses):
            raise BenchmarkError(
                f"class {name!r} is a leaf class in one and a superclass in the other of "
                f"{places[name]} and {folder}: rename one"
            )
        places.setdefault(name, folder)
        if below:
            known = superclasses.setdefault(name, [])
            known += [other for other in below if other not in known]
            waiting += [folder / other for other in reversed(below)]
    return make_taxonomy(superclasses, top, str(root))


def _folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, which contains folders or files."""
    folders, file = [], None
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            else:
                file = entry.name
    if folders and file is not None:
        raise BenchmarkError(
            f"{folder} contains files ({file}) and folders ({min(folders)}): a class cannot be "
            "both a leaf class and a superclass"
        )
    if not folders and file is None:
        raise BenchmarkError(f"{folder} is empty: a leaf class has a folder with images")
    return sorted(folders)
