"""``iirc benchmarks make``: sources of taxonomies, what is kept of them, and wrong input."""

import json
import zipfile

import pytest
from typer.testing import CliRunner

from iirc_data.benchmarks import (
    SamplingSettings,
    content_digest,
    load_benchmark,
    manifests_folder,
)
from iirc_data.benchmarks.making import starting_benchmark
from iirc_data.commands.empty_shares import classes_without_share
from iirc_data.errors import BenchmarkError
from iirc_data.shards import write_shards
from iirc_data.sources import open_folder
from iirc_data.taxonomies.wordnet import open_wordnet
from iirc_data.taxonomy import Taxonomy
from iirc_train.cli.benchmarks import app

TABLE = """class,parent
animal,
vehicle,
pet,animal
bear,animal
cat,pet
dog,pet
bus,vehicle
truck,vehicle
tulip,
"""
DEEP = {"animal": ["pet", "bear"], "vehicle": ["bus", "truck"], "pet": ["cat", "dog"]}


def run(*arguments):
    return CliRunner().invoke(app, ["make", *map(str, arguments)])


def made(path, *arguments):
    result = run(*arguments, "--output", path)
    assert result.exit_code == 0, result.output
    benchmark = load_benchmark(path)
    assert f"digest {content_digest(benchmark)}" in result.output
    assert content_digest(benchmark) in benchmark.attribution
    return benchmark


def refused(path, *arguments):
    result = run(*arguments, "--output", path)
    assert result.exit_code == 1, result.output
    assert not path.exists()
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "deep.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "made.json"


# Sources


def test_a_table_a_json_file_and_a_tree_of_folders_give_the_same_taxonomy(table, tmp_path, out):
    written = tmp_path / "deep.json"
    written.write_text(json.dumps(DEEP))
    tree = tmp_path / "tree"
    for leaf in ("animal/pet/cat", "animal/pet/dog", "animal/bear", "vehicle/bus", "vehicle/truck"):
        (tree / leaf).mkdir(parents=True)
        (tree / leaf / "1.jpg").touch()
    (tree / ".cache").mkdir()
    for number, source in enumerate((table, written, tree)):
        benchmark = made(out.with_stem(f"{number}"), source, "--task-size", 2)
        lists = {name: sorted(names) for name, names in benchmark.superclasses.items()}
        assert lists == {name: sorted(names) for name, names in DEEP.items()}
        assert benchmark.other_classes == (["tulip"] if source == table else [])
        assert (benchmark.dataset, benchmark.name) == (source.stem, f"{number}")


def test_the_shards_give_the_classes_and_other_sources_the_upper_levels(
    tiny_store, table, tmp_path, out
):
    upper = tmp_path / "upper.csv"
    upper.write_text("class,parent\nthing,\nanimal,thing\nvehicle,thing\n")
    lower = tmp_path / "lower.json"
    lower.write_text(json.dumps({"animal": ["bear", "cat", "dog"], "vehicle": ["bus", "truck"]}))
    benchmark = made(out, tiny_store.root, upper, lower, "--task-size", 2, "--dataset", "tiny")
    assert benchmark.labels_of("cat") == ("thing", "animal", "cat")
    assert benchmark.other_classes == ["tulip"]
    assert tiny_store.digest in benchmark.attribution and "upper.csv (SHA" in benchmark.attribution
    assert benchmark.transforms == "cifar"  # images of 32 pixels
    line = refused(out.with_stem("cut"), tiny_store.root, table.with_stem("no"), "--task-size", 2)
    assert "cannot read taxonomy" in line
    table.write_text(TABLE.replace("tulip", "Tulip"))
    line = refused(out.with_stem("cut"), tiny_store.root, table, "--task-size", 2)
    assert "the taxonomy names 1 classes that the dataset lacks: 'Tulip' (there is 'tulip')" in line


def test_a_taxonomy_beside_the_shards_is_read_and_small_shares_are_reported(
    tiny_folder, tmp_path, out
):
    shards = tmp_path / "shards"
    write_shards(open_folder(tiny_folder), shards)
    (shards / "taxonomy.json").write_text(json.dumps(DEEP))
    result = run(
        shards / "manifest.json",
        "--task-size",
        2,
        "--output",
        out,
        "--superclass-data-pct",
        "0.4,0.01",
    )
    assert result.exit_code == 0, result.output
    assert load_benchmark(out).superclasses == DEEP
    assert load_benchmark(out).sampling.superclass_data_pct == [0.4, 0.01]
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("warning: 1 classes would show no training image, for example pet")


@pytest.mark.parametrize(("n", "empty"), [(5, []), (4, ["animal", "vehicle", "pet"])])
def test_shares_are_those_of_the_images_that_validation_leaves(n, empty):
    leaves = ["bear", "bus", "cat", "dog", "truck"]
    benchmark = starting_benchmark("deep", Taxonomy(DEEP), leaves).model_copy(
        update={"sampling": SamplingSettings(superclass_data_pct=0.2)}
    )  # 10% of 5, rounded down, is 0 for each validation: all 5 are trained on
    assert classes_without_share(benchmark, dict.fromkeys(leaves, n)) == empty


def test_a_benchmark_gives_new_schedules_of_its_taxonomy(out):
    benchmark = made(out, "iirc_cifar100", "--task-size", 5, "--first-task", 10, "--seeds", "0-1,7")
    published = load_benchmark("iirc_cifar100")
    assert {len(schedule) for schedule in benchmark.schedules} == {22}
    assert len(benchmark.schedules) == 3
    for field in ("superclasses", "other_classes", "dataset", "transforms", "sampling", "splits"):
        assert getattr(benchmark, field) == getattr(published, field)
    assert "MIT" in benchmark.attribution


def test_the_file_states_command_origin_licence_and_schedules(table, out):
    arguments = [table, "--task-size", 2, "--order", "mixed", "--order", "level-by-level"]
    benchmark = made(
        out, *arguments, "--seeds", "0-1", "--origin", "The zoo.", "--license", "CC-BY-4.0"
    )
    assert benchmark.attribution.startswith(
        "The zoo. Made with `iirc benchmarks make deep.csv --task-size 2 --order mixed --order "
        "level-by-level --seeds 0-1` from deep.csv (SHA-256 "
    )
    assert "Licence of the taxonomy: CC-BY-4.0. Digest" in benchmark.attribution
    assert benchmark.description == (
        "6 classes of deep under 3 superclasses, 3 levels in all. Schedules 0 to 1: mixed, 4 tasks "
        "of 2 classes, then a last task of 1. Schedules 2 to 3: level-by-level, tasks of 3, 2, 2 "
        "and 2 classes."
    )
    shown = CliRunner().invoke(app, ["show", str(out)]).output
    assert content_digest(benchmark) in shown.replace("\n", "")


def test_a_file_with_other_content_is_kept(table, out):
    made(out, table, "--task-size", 2)
    made(out, table, "--task-size", 2)
    before = out.read_bytes()
    result = run(table, "--task-size", 1, "--output", out)
    assert result.exit_code == 1 and "exists and has other content" in result.stderr
    assert out.read_bytes() == before
    assert len(made(out, table, "--task-size", 1, "--overwrite").tasks()) == 8


def test_the_benchmark_to_start_from_has_any_depth():
    classes = ["bear", "bus", "cat", "dog", "truck", "tulip"]
    benchmark = starting_benchmark("deep", Taxonomy(DEEP), classes)
    assert benchmark.superclasses == DEEP
    assert benchmark.tasks() == [
        ["animal", "vehicle"],
        ["pet", "bear", "bus", "tulip", "truck"],
        ["cat", "dog"],
    ]


# What is kept


def test_levels_classes_and_superclasses_are_chosen(table, out):
    arguments = [table, "--task-size", 2]
    upper = made(out, *arguments, "--levels", 2)
    assert upper.superclasses == {"animal": ["bear", "cat", "dog"], "vehicle": ["bus", "truck"]}
    lower = made(out.with_stem("lower"), *arguments, "--levels", 2, "--levels-from", "leaves")
    assert lower.superclasses == {"vehicle": ["bus", "truck"], "pet": ["cat", "dog"]}
    assert lower.other_classes == ["bear", "tulip"]
    pets = made(out.with_stem("pets"), *arguments, "--classes", "cat,dog", "--superclasses", "pet")
    assert pets.superclasses == {"pet": ["cat", "dog"]} and pets.other_classes == []


def test_a_class_incremental_benchmark_has_the_leaf_classes_only(table, out):
    benchmark = made(out, table, "--task-size", 2, "--setup", "CIL", "--first-task", 4)
    assert benchmark.superclasses == {} and benchmark.setup == "CIL"
    assert list(map(len, benchmark.tasks())) == [4, 2]
    assert sorted(benchmark.leaf_classes) == ["bear", "bus", "cat", "dog", "truck", "tulip"]


def test_several_superclasses_are_declared_by_a_flag(table, out):
    table.write_text(TABLE + "cat,animal\n")
    line = refused(out, table, "--task-size", 2)
    assert "line 11: class 'cat' has another parent in an earlier line: pet" in line
    assert "--several-superclasses" in line
    benchmark = made(out, table, "--task-size", 2, "--several-superclasses")
    assert benchmark.several_superclasses
    assert benchmark.taxonomy.superclasses_of("cat") == ("animal", "pet")


def test_one_level_per_sample_sets_the_fractions_by_the_number_of_levels(table, out):
    sampling = made(out, table, "--task-size", 2, "--one-level-per-sample").sampling
    assert (sampling.superclass_data_pct, sampling.subclass_data_pct) == (1 / 3, 1 / 3)


def test_the_three_level_benchmark_of_cifar100_is_the_one_that_its_command_makes(out):
    written = load_benchmark("iirc3_cifar100")
    coarse = [name for names in list(written.superclasses.values())[:6] for name in names]
    assert len(coarse) == 20 and all(len(written.superclasses[name]) == 5 for name in coarse)
    assert set(written.leaf_classes) == set(load_benchmark("incremental_cifar100").leaf_classes)
    assert {len(written.labels_of(leaf)) for leaf in written.leaf_classes} == {3}
    table = manifests_folder() / "cifar100_three_levels.csv"
    arguments = [
        "--task-size",
        12,
        "--seeds",
        "0-9",
        "--image-preset",
        "cifar",
        "--dataset",
        "cifar100",
    ]
    again = made(out.with_stem("iirc3_cifar100"), table, *arguments)
    assert again.schedules == written.schedules
    assert content_digest(again) == content_digest(written)
    assert again.attribution.split("Made with")[1].split("Licence")[0] in written.attribution


# Wrong input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class\na\n", "has no column 'parent'"),
        ("class,parent\n", "has no row below its first line"),
        ("class,parent\na\n", "line 2 has 1 columns, expected 2"),
        ("class,parent\n,a\n", "line 2 names no class"),
        ("class,parent\na,\nb,a\nb,a\n", "line 4: class 'b' repeats line 3"),
        ("class,parent\na,\nb,a\nb,\n", "line 4: class 'b' has another parent in an earlier line"),
        (
            "class,parent\nanimal,\ndog,anmial\n",
            "parent 'anmial' has no row; did you mean 'animal'",
        ),
        ("class,parent\na,b\nb,c\nc,a\n", "a class is its own ancestor: "),
        ("class,parent\na,a\n", "a class is its own ancestor: 'a'"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(table, out, content, message):
    table.write_text(content)
    assert message in refused(out, table, "--task-size", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task-size", "9"], "task size 9: expected 1 to 7, the number of classes after"),
        (["--task-size", "2", "--first-task", "3"], "first task 3: expected 1 to 2"),
        (["--task-size", "2", "--levels", "4"], "4 levels were asked for, the taxonomy has 3"),
        (["--task-size", "2", "--classes", "cow"], "1 of the chosen classes are no leaf classes"),
        (["--task-size", "2", "--superclasses", ""], "--superclasses '' names no class"),
        (["--task-size", "2", "--superclasses", "pets"], "no class is below 1 of the chosen"),
        (["--task-size", "2", "--classes", "tulip"], "no class has a superclass: give a taxonomy"),
        (["--task-size", "2", "--seeds", "x"], "--seeds 'x': expected numbers such as 0-4,7"),
        (["--task-size", "2", "--superclass-data-pct", "2"], "expected fractions from 0 to 1"),
        (["--task-size", "2", "--image-preset", "x"], "no image preset is named 'x'"),
        (["--task-size", "2", "--posttask-valid-ratio", "0.9"], "must be below 1"),
        (["--task-size", "2", "--setup", "CIL", "--order", "mixed"], "--order needs --setup IIRC"),
        (["--task-size", "2", "--levels-from", "leaves"], "--levels-from needs --levels"),
        (
            ["--task-size", "2", "--one-level-per-sample", "--subclass-data-pct", "0.5"],
            "--subclass-data-pct contradicts --one-level-per-sample",
        ),
        (["--task-size", "2", "--wordnet", "nowhere"], "no data.noun in nowhere: install WordNet"),
    ],
)
def test_wrong_options_are_refused_in_one_line(table, out, arguments, message):
    assert message in refused(out, table, *arguments)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a/b/1.jpg", "a/2.jpg"],
            "contains files (2.jpg) and folders (b): a class cannot be both",
        ),
        (["a/b/1.jpg", "a/c/"], "c is empty: a leaf class has a folder with images"),
        (["a/b/a/1.jpg"], "class 'a' is its own ancestor"),
        (["a/x/1.jpg", "b/x/1.jpg"], "class 'x' is in "),
        (["train/a/1.jpg", "test/a/1.jpg"], "contains the splits test, train: give one of them"),
        (["1.jpg"], "contains no folder"),
    ],
)
def test_a_wrong_tree_of_folders_is_refused_in_one_line(tmp_path, out, files, message):
    for name in files:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    assert message in refused(out, tmp_path / "tree", "--task-size", 1)


def test_other_sources_are_refused_in_one_line(tmp_path, out):
    for content, message in (
        ('{"a": []}', "superclass 'a' has no subclass"),
        ('{"a": ["b", "b"]}', "superclass 'a' lists 'b' twice"),
        ('{"name": "b"}', "is not a valid benchmark"),
    ):
        (tmp_path / "t.json").write_text(content)
        assert message in refused(out, tmp_path / "t.json", "--task-size", 1)
    (tmp_path / "t.txt").touch()
    assert "expected a shard folder" in refused(out, tmp_path / "t.txt", "--task-size", 1)
    missing = refused(out, "nowhere", "--task-size", 1)
    assert "there is no folder nowhere, and no benchmark is named 'nowhere'" in missing
    assert "no classes: give a source" in refused(out, "--task-size", 1)
    result = run("iirc_cifar100", "--task-size", 5, "--output", tmp_path / "made.yaml")
    assert "expected a file name that ends in .json" in result.stderr


# WordNet

NOUNS = {  # name: hypernyms
    "entity": [],
    "animal": ["entity"],
    "artifact": ["entity"],
    "pet": ["animal"],
    "dog": ["animal", "pet"],
    "hunting dog": ["dog"],
    "beagle": ["hunting dog"],
    "whippet": ["hunting dog"],
    "cat": ["animal"],
    "bus": ["artifact"],
    "Rex": [],
}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """A folder with a small WordNet in the format of its files, and the ids of its nouns."""
    header = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  \n"
    offsets, position = {}, len(header)

    def line(name):
        pointers = [f"@ {offsets.get(above, 0):08d} n 0000" for above in NOUNS[name]]
        if name == "Rex":
            pointers = [f"@i {offsets.get('dog', 0):08d} n 0000"]
        words = f"02 {name.replace(' ', '_')} 0 other_{name.replace(' ', '_')} 1"
        count = f"{len(pointers) + 1:03d}"
        links = " ".join([*pointers, "~ 00000001 n 0000"])
        return f"{offsets.get(name, 0):08d} 05 n {words} {count} {links} | what it is\n"

    for name in NOUNS:
        offsets[name], position = position, position + len(line(name))
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.noun").write_text(header + "".join(map(line, NOUNS)))
    senses = {name: [offsets[name]] for name in NOUNS}
    senses["dog"].append(offsets["Rex"])
    rows = (
        f"{name.lower().replace(' ', '_')} n {len(of)} 2 @ ~ {len(of)} 0 "
        + " ".join(f"{o:08d}" for o in of)
        for name, of in sorted(senses.items())
    )
    (folder / "index.noun").write_text(header + "".join(f"{row}  \n" for row in rows))
    return folder, {name: f"n{offset:08d}" for name, offset in offsets.items()}


def test_wordnet_gives_the_superclasses_that_tell_classes_apart(wordnet, out):
    folder, ids = wordnet
    leaves = [ids[name] for name in ("beagle", "whippet", "cat", "bus", "Rex")]
    benchmark = made(out, "--classes", ",".join(leaves), "--wordnet", folder, "--task-size", 2)
    names = {
        benchmark.readable_name(s): {benchmark.readable_name(c) for c in classes}
        for s, classes in benchmark.superclasses.items()
    }
    assert names == {
        "animal": {"dog", "cat"},
        "dog": {"hunting dog", "Rex"},
        "hunting dog": {"beagle", "whippet"},
    }
    assert benchmark.other_classes == [ids["bus"]]
    assert "WordNet 3.0, Copyright 2006 by Princeton University" in benchmark.attribution
    assert "WordNet licence" in benchmark.attribution
    again = made(out.with_stem("again"), out, "--wordnet", folder, "--task-size", 2)
    assert again.superclasses == benchmark.superclasses


def test_a_cut_of_wordnet_lists_synsets_by_id_or_sense(wordnet, out, tmp_path):
    folder, ids = wordnet
    (tmp_path / "wnids.txt").write_text("\n".join(ids[name] for name in ("beagle", "cat", "bus")))
    cut = f"{ids['animal']},dog.n.01"
    benchmark = made(
        out, "--classes", tmp_path / "wnids.txt", "--wordnet", folder, "--superclasses", cut,
        "--task-size", 2,
    )  # fmt: skip
    assert benchmark.superclasses == {
        ids["animal"]: [ids["dog"], ids["cat"]],
        ids["dog"]: [ids["beagle"]],
    }


def test_several_hypernyms_are_followed_if_declared(wordnet):
    folder, ids = wordnet
    nouns = open_wordnet(folder)
    taxonomy = nouns.taxonomy([ids["beagle"]], several_superclasses=True)
    assert taxonomy.superclasses_of(ids["dog"]) == (ids["animal"], ids["pet"])
    assert nouns.taxonomy([ids["beagle"]]).superclasses_of(ids["dog"]) == (ids["animal"],)


def test_wordnet_is_found_where_the_system_or_nltk_installs_it(wordnet, tmp_path, monkeypatch):
    folder, ids = wordnet
    archive = tmp_path / "nltk_data" / "corpora" / "wordnet.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("data.noun", "index.noun"):
            packed.write(folder / name, f"wordnet/{name}")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk_data"))
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path / "nowhere"))
    for nouns in (open_wordnet(tmp_path / "nltk_data"), open_wordnet(archive)):
        assert nouns.readable_name(ids["hunting dog"]) == "hunting dog"
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert open_wordnet().where == str(folder)
    archive.write_bytes(b"no archive")
    with pytest.raises(BenchmarkError, match=r"cannot read .*wordnet\.zip"):
        open_wordnet(archive)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dog", "beagle"], r"\(dog\) is a leaf class and a superclass of n.* \(hunting dog\)"),
        (["n99999999"], "'n99999999' is no noun synset of WordNet 3.0"),
        (["n00000003"], "'n00000003' is no noun synset"),
        (["dog.n.01"], "'dog.n.01' is no noun synset"),
    ],
)
def test_ids_that_wordnet_lacks_are_refused(wordnet, names, message):
    folder, ids = wordnet
    with pytest.raises(BenchmarkError, match=message):
        open_wordnet(folder).taxonomy([ids.get(name, name) for name in names])


def test_senses_that_wordnet_lacks_and_damaged_files_are_refused(wordnet, tmp_path):
    folder, ids = wordnet
    nouns = open_wordnet(folder)
    assert (nouns.id_of("dog.n.1"), nouns.id_of("Dog.n.02")) == (ids["dog"], ids["Rex"])
    with pytest.raises(BenchmarkError, match="'dog' has 2 senses as a noun"):
        nouns.id_of("dog.n.03")
    with pytest.raises(BenchmarkError, match="'cow' has 0 senses"):
        nouns.id_of("cow.n.01")
    data = (folder / "data.noun").read_text()
    start = int(ids["dog"][1:])
    (tmp_path / "data.noun").write_text(data[: start + 30] + "\n")
    with pytest.raises(BenchmarkError, match=r"cannot read WordNet in .*: No such file"):
        open_wordnet(tmp_path)
    (tmp_path / "index.noun").touch()
    with pytest.raises(BenchmarkError, match=f"the line of {ids['dog']} is damaged"):
        open_wordnet(tmp_path).synset(ids["dog"])
