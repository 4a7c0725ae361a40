"""Small datasets with a taxonomy, in their original layouts: Aircraft, iNaturalist, Pets."""

import json
from pathlib import Path

from tests.conftest import encode, noise_image

AIRCRAFT = (
    ("Boeing", "Boeing 707", "707-320"),
    ("Boeing", "Boeing 737", "737-700"),
    ("Boeing", "Boeing 737", "737-800"),
    ("Douglas Aircraft Company", "DC-3", "DC-3"),
    ("Lockheed Martin", "F-16", "F-16A/B"),
    ("McDonnell Douglas", "F/A-18", "F/A-18"),
)
"""Manufacturer, family and variant."""


def write_aircraft(root: Path) -> Path:
    """Write ``fgvc-aircraft-2013b``; each variant has an image in each of train, val and test."""
    data = root / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    for names, column in (("manufacturers", 0), ("families", 1), ("variants", 2)):
        known = sorted({row[column] for row in AIRCRAFT})
        (data / f"{names}.txt").write_text("".join(f"{name}\n" for name in known))
    number = 1_340_192
    images: dict[str, list[tuple[str, tuple[str, str, str]]]] = {}
    for row in AIRCRAFT:
        for split in ("train", "val", "test"):
            number = number * 7 % 2_000_003
            (data / "images" / f"{number:07d}.jpg").write_bytes(encode(noise_image(number, 52)))
            images.setdefault(split, []).append((f"{number:07d}", row))
    images["trainval"] = images["train"] + images["val"]
    for split, listed in images.items():
        (data / f"images_{split}.txt").write_text("".join(f"{name}\n" for name, _ in listed))
        for column, rank in enumerate(("manufacturer", "family", "variant")):
            lines = "".join(f"{name} {row[column]}\n" for name, row in listed)
            (data / f"images_{rank}_{split}.txt").write_text(lines)
    return data.parent


PETS = {"Abyssinian": 1, "Bengal": 1, "american_bulldog": 2, "great_pyrenees": 2}
"""Breed to number of the species."""


def write_pets(root: Path) -> Path:
    """Write ``oxford-iiit-pet``, with the odd files that are beside the listed images."""
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for row, (breed, species) in enumerate(PETS.items()):
        for number in (100, 2, 31):
            name = f"{breed}_{number}"
            image_format = "PNG" if name == "Abyssinian_2" else "JPEG"
            image = encode(noise_image(1000 * row + number), image_format)
            (folder / "images" / f"{name}.jpg").write_bytes(image)
            split = "test" if number == 31 else "trainval"
            lines[split].append(f"{name} {row + 1} {species} {row + 1}\n")
    for split, text in lines.items():
        (folder / "annotations" / f"{split}.txt").write_text("".join(text))
    header = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    listed = header + "".join(lines["trainval"] + lines["test"])
    (folder / "annotations" / "list.txt").write_text(listed)
    (folder / "annotations" / "trimaps" / "._Abyssinian_2.png").write_bytes(b"Mac OS X")
    for name in ("._Abyssinian_2.jpg", "Abyssinian_34.jpg", "Abyssinian_100.mat"):
        (folder / "images" / name).write_bytes(b"GIF89a")
    return folder


RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
SPECIES = (
    "Animalia Chordata Aves Passeriformes Muscicapidae Oenanthe oenanthe",
    "Animalia Chordata Aves Suliformes Sulidae Morus bassanus",
    "Plantae Tracheophyta Magnoliopsida Apiales Apiaceae Oenanthe crocata",
    "Plantae Tracheophyta Magnoliopsida Rosales Moraceae Ficus carica",
    "Plantae Tracheophyta Magnoliopsida Rosales Moraceae Morus alba",
)
"""The ranks of each species, in the order of the categories."""


def inaturalist_categories() -> list[dict]:
    return [
        {
            "id": number,
            "name": " ".join(ranks.split()[5:]),
            "supercategory": "Birds" if "Aves" in ranks else "Plants",
            **dict(zip(RANKS, ranks.split()[:6], strict=True)),
        }
        for number, ranks in enumerate(SPECIES)
    ]


def write_coco(path: Path, labels: dict[str, int], categories: list[dict], first_id: int) -> None:
    """Write annotations as iNaturalist does.

    Args:
        path: The file.
        labels: Path below the folder of ``path``, and category, of each image.
        categories: The categories.
        first_id: Number of the first image.
    """
    images, annotations = [], []
    for number, (name, category) in enumerate(labels.items(), first_id):
        rights = {"license": 1, "rights_holder": 'Élodie "É" [x], {y}', "latitude": None}
        images.append({"id": number, "width": 32, "height": 32, "file_name": name, **rights})
        annotations.append({"id": number, "image_id": number, "category_id": category})
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(encode(noise_image(number)))
    content = {"info": {"year": 2021, "contributor": "[]"}, "images": images}
    content |= {"categories": categories, "annotations": annotations[::-1], "licenses": []}
    path.write_text(json.dumps(content))


def write_inaturalist_2021(root: Path, train: str = "train", per_class: int = 2) -> Path:
    """Write iNaturalist 2021, or its mini version with ``train="train_mini"``."""
    root.mkdir(parents=True, exist_ok=True)
    categories = inaturalist_categories()
    for category, ranks in zip(categories, SPECIES, strict=True):
        category["image_dir_name"] = "_".join([f"{category['id']:05d}", *ranks.split()])
    for first, split, n in ((0, train, per_class), (1000, "val", 1)):
        labels = {
            f"{split}/{c['image_dir_name']}/{first + 31 * number + c['id']:08x}-7f.jpg": c["id"]
            for number in range(n)
            for c in categories
        }
        write_coco(root / f"{split}.json", labels, categories, first)
    return root


def write_inaturalist_2018(root: Path) -> Path:
    """Write iNaturalist 2018; both splits share folders, and the annotations hide the names."""
    root.mkdir(parents=True)
    categories = inaturalist_categories()
    hidden = [
        c | {"name": str(c["id"])} | {rank: c[rank][::-1] for rank in RANKS} for c in categories
    ]
    for first, split, n in ((0, "train", 2), (1000, "val", 1)):
        labels = {
            f"train_val2018/{c['supercategory']}/{c['id']}/{10 * k + c['id']:032x}.jpg": c["id"]
            for k in range(first, first + n)
            for c in categories
        }
        write_coco(root / f"{split}2018.json", labels, hidden, first)
    (root / "categories.json").write_text(json.dumps(categories))
    return root
