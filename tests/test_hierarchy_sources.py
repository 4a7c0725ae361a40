"""FGVC-Aircraft, iNaturalist and Oxford-IIIT Pets in their own layouts, beside torchvision."""

import json
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import typer
from torchvision.datasets import FGVCAircraft, INaturalist, OxfordIIITPet
from typer.testing import CliRunner

from iirc_data.commands.shard.aircraft import shard_aircraft
from iirc_data.commands.shard.cifar import shard_cifar
from iirc_data.commands.shard.inaturalist import shard_inaturalist
from iirc_data.commands.shard.pets import shard_pets
from iirc_data.errors import SourceError
from iirc_data.shards import ShardStore, write_shards
from iirc_data.sources import (
    FolderSource,
    ReencodedSource,
    open_aircraft,
    open_cifar,
    open_inaturalist,
    open_pets,
)
from tests.raw_datasets import dump_cifar, write_cifar10, write_cifar100
from tests.raw_hierarchies import (
    RANKS,
    SPECIES,
    write_aircraft,
    write_inaturalist_2018,
    write_inaturalist_2021,
    write_pets,
)
from tools import shard_aircraft as aircraft_tool
from tools import shard_inaturalist as inaturalist_tool
from tools import shard_pets as pets_tool

WRITERS = {
    "aircraft": (write_aircraft, open_aircraft, shard_aircraft),
    "inaturalist": (write_inaturalist_2021, open_inaturalist, shard_inaturalist),
    "inaturalist_2018": (write_inaturalist_2018, open_inaturalist, shard_inaturalist),
    "pets": (write_pets, open_pets, shard_pets),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return {name: write(root / name) for name, (write, *_) in WRITERS.items()}


@pytest.fixture
def copy_of(originals, tmp_path):
    """Return a function that copies an original, to be damaged."""
    return lambda name: Path(shutil.copytree(originals[name], tmp_path / originals[name].name))


def labels(source, split):
    """Return the class of each image, by key."""
    return {
        sample.key: name
        for name in source.classes()[split]
        for sample in source.samples(split, name)
    }


def ancestors(taxonomy, name):
    """Return the class and what is above it, from the top down, without the added ranks."""
    above = {sub: sup for sup, subs in taxonomy.items() for sub in subs}
    chain = [name]
    while chain[0] in above:
        chain.insert(0, above[chain[0]])
    return [link.partition(" (")[0] for link in chain]


# --- the images and labels of torchvision's classes -------------------------------------------


@pytest.mark.parametrize(
    ("separate_val", "splits"),
    [
        (False, {"train": "trainval", "test": "test"}),
        (True, {"train": "train", "val": "val", "test": "test"}),
    ],
)
def test_aircraft_has_torchvisions_labels_on_all_three_levels(originals, separate_val, splits):
    root = originals["aircraft"]
    source = open_aircraft(root, separate_val=separate_val)
    assert source.classes().keys() == splits.keys()
    for split, name in splits.items():
        ours = labels(source, split)
        for level, rank in enumerate(("manufacturer", "family", "variant")):
            theirs = FGVCAircraft(root.parent, name, rank)
            assert {key: ancestors(source.taxonomy(), c)[level] for key, c in ours.items()} == {
                Path(file).stem: theirs.classes[label].replace("/", "_")
                for file, label in zip(theirs._image_files, theirs._labels, strict=True)
            }


def test_pets_have_torchvisions_breeds_and_species(originals):
    root = originals["pets"]
    source = open_pets(root)
    for split, name in {"train": "trainval", "test": "test"}.items():
        theirs = OxfordIIITPet(root.parent, name, ["category", "binary-category"])
        expected = {}
        for position, path in enumerate(theirs._images):
            _, (breed, species) = theirs[position]
            expected[path.stem] = [theirs.bin_classes[species], theirs.classes[breed]]
        taxonomy = source.taxonomy()
        ours = {key: ancestors(taxonomy, name) for key, name in labels(source, split).items()}
        readable = {key: [cat, b.replace("_", " ").title()] for key, (cat, b) in ours.items()}
        assert readable == expected


def test_inaturalist_2021_has_torchvisions_labels_on_all_levels(originals, tmp_path):
    root = originals["inaturalist"]
    source = open_inaturalist(root)
    for split, version in {"train": "2021_train", "val": "2021_valid"}.items():
        (tmp_path / version).symlink_to(root / split)
        theirs = INaturalist(tmp_path, version, [*RANKS])
        expected = {
            Path(file).stem: [
                *(theirs.category_name(r, theirs.categories_map[category][r]) for r in RANKS),
                " ".join(theirs.all_categories[category].split("_")[-2:]),
            ]
            for category, file in theirs.index
        }
        ours = labels(source, split)
        assert {key: ancestors(source.taxonomy(), name) for key, name in ours.items()} == expected


def test_inaturalist_2018_has_torchvisions_categories_and_divides_their_folders_by_split(
    originals, tmp_path
):
    root = originals["inaturalist_2018"]
    source = open_inaturalist(root)
    (tmp_path / "2018").symlink_to(root / "train_val2018")
    theirs = {
        Path(file).stem: " ".join(SPECIES[category].split()[5:])
        for category, file in INaturalist(tmp_path, "2018").index
    }
    splits = [labels(source, split) for split in ("train", "val")]
    assert [Counter(split.values()) for split in splits] == [
        dict.fromkeys(theirs.values(), n) for n in (2, 1)
    ]
    assert splits[0] | splits[1] == theirs


def test_the_mini_version_is_another_dataset_with_the_same_classes(originals, tmp_path):
    write_inaturalist_2021(tmp_path / "both", per_class=3)
    root = write_inaturalist_2021(tmp_path / "both", train="train_mini", per_class=1)
    with pytest.raises(SourceError, match=r"iNaturalist 2021 and 2021-mini: say which, with"):
        open_inaturalist(root)
    full, mini = (open_inaturalist(root, release) for release in ("2021", "2021-mini"))
    assert (full.name, mini.name) == ("inaturalist_2021", "inaturalist_2021_mini")
    assert full.classes() == mini.classes() and full.taxonomy() == mini.taxonomy()
    assert [source.weight("train", "Morus alba") for source in (full, mini)] == [3, 1]
    assert open_inaturalist(originals["inaturalist"]).taxonomy() == full.taxonomy()


# --- taxonomies --------------------------------------------------------------------------------


def test_names_that_levels_or_families_share_are_told_apart(originals):
    aircraft = open_aircraft(originals["aircraft"]).taxonomy()
    assert aircraft["Douglas Aircraft Company"] == ["DC-3 (family)"]
    assert aircraft["DC-3 (family)"] == ["DC-3"]
    assert aircraft["F-16"] == ["F-16A_B"] and aircraft["F_A-18 (family)"] == ["F_A-18"]
    nature = open_inaturalist(originals["inaturalist"]).taxonomy()
    assert nature["Muscicapidae"] == ["Oenanthe (genus in Muscicapidae)"]
    assert nature["Oenanthe (genus in Apiaceae)"] == ["Oenanthe crocata"]
    assert list(nature)[:2] == ["Animalia", "Plantae"]


@pytest.mark.parametrize("empty", ['""', "null"])
def test_an_empty_rank_is_skipped(copy_of, empty):
    root = copy_of("inaturalist_2018")
    edit("categories.json", '"Suliformes"', empty)(root)
    assert open_inaturalist(root).taxonomy()["Aves"] == ["Passeriformes", "Sulidae"]


def test_cifar100_has_its_coarse_labels_and_cifar10_has_none(tmp_path):
    folder = write_cifar100(tmp_path)
    taxonomy = {"fruit_and_vegetables": ["apple"], "non-insect_invertebrates": ["bee", "crab"]}
    assert open_cifar(folder).taxonomy() == taxonomy
    assert open_cifar(write_cifar10(tmp_path)).taxonomy() is None
    assert not run(shard_cifar, folder, tmp_path / "out").exit_code
    assert json.loads((tmp_path / "out/taxonomy.json").read_text()) == taxonomy
    for name in ("train", "test"):  # a copy without them has no taxonomy
        n = len(open_cifar(folder).images(name).labels)
        content = {b"fine_labels": [0] * n, b"data": np.zeros((n, 3072), np.uint8)}
        dump_cifar(folder / name, content)
    assert open_cifar(folder).taxonomy() is None


@pytest.mark.parametrize(
    ("coarse", "problem"),
    [
        ([0, 1, 1, 0], "a class has images of two superclasses"),
        ([0, 2, 0, 2], "superclass number 2 in 'coarse_labels', but meta names 2"),
        ([0, 1, 0], "no class number for each of its 4 images in 'coarse_labels'"),
    ],
)
def test_coarse_labels_that_contradict_themselves_are_an_error(tmp_path, coarse, problem):
    folder = write_cifar100(tmp_path, 4, 4)
    content = {b"fine_labels": [0, 1, 0, 1], b"data": np.zeros((4, 3072), np.uint8)}
    dump_cifar(folder / "train", content | {b"coarse_labels": coarse})
    with pytest.raises(SourceError, match=problem):
        open_cifar(folder).taxonomy()


# --- commands ----------------------------------------------------------------------------------


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", WRITERS)
def test_the_shards_are_those_of_the_images_in_class_folders(originals, tmp_path, name):
    _, open_source, command = WRITERS[name]
    source = open_source(originals[name])
    assert pickle.loads(pickle.dumps(source)) == source  # for worker processes
    plain = tmp_path / source.name
    for split, class_names in source.classes().items():
        for class_name in class_names:
            (plain / split / class_name).mkdir(parents=True)
            for sample in source.samples(split, class_name):
                path = plain / split / class_name / f"{sample.key}.{sample.extension}"
                path.write_bytes(Path(sample.origin).read_bytes())
    expected = write_shards(FolderSource(plain), tmp_path / "plain")
    result = run(command, originals[name], tmp_path / "out", "--check-decode")
    assert result.exit_code == 0, result.output
    assert f"taxonomy {tmp_path}/out/taxonomy.json" in result.output
    assert ShardStore.open(tmp_path / "out").manifest == expected
    assert json.loads((tmp_path / "out/taxonomy.json").read_text()) == source.taxonomy()


def test_a_part_of_the_classes_has_its_part_of_the_taxonomy_under_the_same_names(
    originals, tmp_path
):
    result = run(
        shard_aircraft, originals["aircraft"], tmp_path / "out", "--classes", "DC-3,737-800"
    )
    assert result.exit_code == 0, result.output
    taxonomy = json.loads((tmp_path / "out/taxonomy.json").read_text())
    assert taxonomy == {
        "Boeing": ["Boeing 737"],
        "Douglas Aircraft Company": ["DC-3 (family)"],
        "Boeing 737": ["737-800"],
        "DC-3 (family)": ["DC-3"],
    }


def test_a_taxonomy_beside_finished_shards_is_left_alone(originals, tmp_path):
    assert run(shard_pets, originals["pets"], tmp_path / "out").exit_code == 0
    (tmp_path / "out/taxonomy.json").write_text("{}")
    result = run(shard_pets, originals["pets"], tmp_path / "out")
    assert result.exit_code == 1 and "already holds a finished dataset" in result.stderr
    assert (tmp_path / "out/taxonomy.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("aircraft", "data/images"), ("inaturalist", "val"), ("pets", "annotations")],
)
def test_shards_may_lie_beside_what_is_read_but_not_in_it(copy_of, name, folder):
    root, command = copy_of(name), WRITERS[name][2]
    result = run(command, root, root / folder / "shards")
    assert result.exit_code == 1 and "lies inside" in result.stderr
    assert run(command, root, root / "shards").exit_code == 0


def test_a_changed_image_or_label_changes_the_fingerprint_of_its_class(copy_of):
    root = copy_of("inaturalist")
    source = open_inaturalist(root)

    def fingerprints():
        return {(s, c): source.fingerprint(s, c) for s, cs in source.classes().items() for c in cs}

    def changed(before, after):
        return {key for key in before | after if before.get(key) != after.get(key)}

    before = fingerprints()
    assert changed(before, fingerprints()) == set()
    next((root / "train").glob("00003_*/*.jpg")).write_bytes(b"other")
    after = fingerprints()
    assert changed(before, after) == {("train", "Ficus carica")}
    edit("val.json", '"category_id": 4', '"category_id": 3')(root)
    assert changed(after, fingerprints()) == {("val", "Ficus carica"), ("val", "Morus alba")}


def test_the_banner_of_aircraft_is_removed_where_asked(originals, tmp_path):
    plain = ["--classes", "DC-3", "--quality", 100]
    for out, options in {"whole": plain, "cropped": [*plain, "--crop-banner"]}.items():
        result = run(shard_aircraft, originals["aircraft"], tmp_path / out, *options)
        assert result.exit_code == 0, result.output
    whole, cropped = (ShardStore.open(tmp_path / out) for out in ("whole", "cropped"))
    assert cropped.manifest.dataset == "fgvc_aircraft-crop20-q100"
    assert whole.manifest.digest != cropped.manifest.digest
    assert set(whole.table.height) == {52} and set(cropped.table.height) == {32}
    assert set(cropped.table.width) == {32}


def test_an_image_that_would_lose_all_its_rows_is_named(copy_of, tmp_path, originals):
    root = copy_of("aircraft")
    small = next((originals["pets"] / "images").glob("Bengal_*.jpg")).read_bytes()
    name = (root / "data/images_test.txt").read_text().split()[0]
    (root / f"data/images/{name}.jpg").write_bytes(small)
    source = ReencodedSource(open_aircraft(root), crop_bottom=32)
    with pytest.raises(SourceError, match=rf"{name}\.jpg is 32 pixels high: removing 32 rows"):
        list(source.samples("test", "707-320"))


def test_the_scripts_in_tools_are_the_commands():
    assert aircraft_tool.main is shard_aircraft
    assert inaturalist_tool.main is shard_inaturalist
    assert pets_tool.main is shard_pets


# --- damage ------------------------------------------------------------------------------------


def edit(name, old, new):
    """Return damage that replaces the first match of a pattern in a file."""

    def damage(root):
        text = (root / name).read_text()
        changed = re.sub(old, new, text, count=1)
        assert changed != text
        (root / name).write_text(changed)

    return damage


def remove(name):
    """Return damage that removes a file or folder."""

    def damage(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


VARIANTS, FAMILIES = "data/images_variant_test.txt", "data/images_family_test.txt"
TEST = "annotations/test.txt"
TRAIN, VAL, NAMES = "train.json", "val.json", "categories.json"
LAST = '"image_id": 1004'

DAMAGE = {
    "aircraft": [
        (remove("data"), r"has no data/variants\.txt: unpack fgvc-aircraft-2013b"),
        (remove("data/families.txt"), r"cannot read .*families\.txt: No such file"),
        (remove(VARIANTS), r"cannot read .*images_variant_test\.txt: No such file"),
        (remove("data/images"), r"cannot read .*images: No such file"),
        (lambda r: (r / VARIANTS).write_text("\n"), r"variant_test\.txt lists nothing"),
        (lambda r: (r / VARIANTS).write_bytes(b"\0"), r"variant_test\.txt is not a text"),
        (edit(VARIANTS, "707-320", "707"), r"line 1: variants\.txt has no variant '707'"),
        (edit(VARIANTS, r"^\d+", "../images/1"), "line 1: '../images/1' is not the name of"),
        (edit(VARIANTS, r"(\d+) (.*)\n", r"\1 \2\n\1 \2\n"), r"line 2: image \d+ occurs twice"),
        (edit(VARIANTS, r"\d+", "1"), "2 images are in only one of the lists of variant and man"),
        (edit(FAMILIES, "707", "737"), "variant '707-320' is in both Boeing > Boeing 707 > 707-"),
    ],
    "pets": [
        (remove("annotations"), "has no folder annotations/"),
        (remove(TEST), r"cannot read .*test\.txt: No such file"),
        (remove("images"), r"cannot read .*images: No such file"),
        (
            remove("images/Abyssinian_2.jpg"),
            r"images lacks 1 of 2 images .* 'Abyssinian' of split train \(Abyssinian_2\.jpg\)",
        ),
        (edit(TEST, " 1 1 1", " 1 3 1"), r"line 1: species 3, expected 1 \(cat\) or 2"),
        (edit(TEST, " 1 1 1", ""), "line 1: expected an image like great_pyrenees_36 and three"),
        (edit(TEST, "A", "/A"), "line 1: expected an image like great_pyrenees_36 and three"),
        (edit(TEST, "_31", "_/../31"), "line 1: expected an image like great_pyrenees_36 and"),
        (edit(TEST, " 1 1 1", " 1 2 1"), "class number and species 1 and 2, earlier 1 and 1"),
        (edit(TEST, r"(.*)\n", r"\1\n\1\n"), "line 2: image Abyssinian_31 occurs twice"),
    ],
    "inaturalist": [
        (remove(TRAIN), r"has none of train2018\.json, train\.json, train_mini\.json"),
        (remove(VAL), r"cannot read .*val\.json: No such file"),
        (edit(VAL, "{", "["), r"val\.json is not valid JSON \(.*: download it again"),
        (edit(VAL, r'"licenses": \[\]\}', ""), r"val\.json is not valid JSON \(.*: download it ag"),
        (edit(VAL, "annotations", "labels"), r"val\.json has no annotations: expected"),
        (edit(VAL, '"file_name"', '"path"'), "images contains .* object with id and file_name"),
        (edit(VAL, LAST, '"image_id": "4"'), "annotations contains .* with image_id and categ"),
        (edit(VAL, LAST, '"image_id": 1003'), "annotations lists image 1003 twice"),
        (edit(VAL, LAST, '"image_id": 9'), "2 images are in only one .* is image 9:"),
        (edit(VAL, '"category_id": 4', '"category_id": 77'), "1 categories .* first is 77:"),
        (edit(VAL, '"val/', '"../val/'), "is outside of the dataset's folder"),
        (edit(VAL, '"val/', '"/val/'), "is outside of the dataset's folder"),
        (edit(VAL, r"\.jpg", ".gif"), r"lacks 1 of 1 images .*\.gif\)"),
        (edit(TRAIN, '"genus"', '"genre"'), r"train\.json has the category .*expected id, name"),
        (edit(TRAIN, "Morus bassanus", ""), r"train\.json has the category .*expected id, name"),
        (edit(TRAIN, '"id": 1, "name"', '"id": 0, "name"'), "gives two categories the same id"),
    ],
    "inaturalist_2018": [
        (remove(NAMES), r"lacks categories\.json: download it too"),
        (edit(NAMES, r"\[", "{"), r"categories\.json is not valid JSON"),
        (lambda r: (r / NAMES).write_text("{}"), r"categories\.json is not a list of categories"),
    ],
}


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        pytest.param(name, *damage, id=f"{name}-{number}")
        for name, damages in DAMAGE.items()
        for number, damage in enumerate(damages)
    ],
)
def test_damage_is_one_line_with_a_remedy_before_anything_is_written(
    copy_of, tmp_path, name, damage, problem
):
    root = copy_of(name)
    damage(root)
    result = run(WRITERS[name][2], root, tmp_path / "out")
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert re.search(problem, line), line
    assert not (tmp_path / "out").exists()
