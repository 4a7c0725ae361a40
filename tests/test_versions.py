"""Versions of a dataset at one address share shards; digests pin one; interrupted at any moment."""

import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from iirc_data.benchmarks import Benchmark
from iirc_data.commands.data import app
from iirc_data.errors import ShardError
from iirc_data.shards import Manifest, ShardStore, write_shards
from iirc_data.shards.card import CARD_MARK, Card
from iirc_data.shards.manifest import MANIFEST_NAME, TAXONOMY_NAME
from iirc_data.shards.publication import Publication
from iirc_data.shards.remote import RemoteDataset
from iirc_data.shards.sharing import MARKER_NAME, publish, pull
from iirc_data.shards.verify import verify
from iirc_data.shards.versions import with_names_of_its_own
from iirc_data.sources import open_folder
from tests.conftest import encode, noise_image, write_image_folder

COUNTS = {"train": {"cat": 3, "dog": 2, "owl": 1}, "test": {"cat": 1, "dog": 1}}


class Versions(NamedTuple):
    """Three versions of a dataset: another dog and a new class; then a cat less."""

    first: Path
    second: Path
    third: Path


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Versions:
    folder = tmp_path_factory.mktemp("versions")
    images = write_image_folder(folder / "images", COUNTS, height=8, width=8)
    roots = []
    for name in Versions._fields:
        if name == "second":
            (images / "train/dog/0000.jpg").write_bytes(encode(noise_image(90, 8, 8)))
            (images / "train/ant").mkdir()
            (images / "train/ant/0.jpg").write_bytes(encode(noise_image(91, 8, 8)))
        if name == "third":
            (images / "train/cat/0000.jpg").unlink()
        write_shards(open_folder(images), folder / name)
        roots.append(folder / name)
    return Versions(*roots)


@pytest.fixture
def versions(originals, tmp_path, monkeypatch) -> Versions:
    """Copies of the versions, which publishing may change."""
    monkeypatch.setenv("IIRC_CACHE", str(tmp_path / "cache"))
    yield Versions(*(shutil.copytree(root, tmp_path / root.name) for root in originals))
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["memory://lab/animals", "{}/lab/animals"])
def address(request, tmp_path) -> str:
    return request.param.format(tmp_path)


def digest_of(root: Path | str) -> str:
    return RemoteDataset.open(root).manifest.digest


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def images_of(store: ShardStore) -> list[bytes]:
    return [store.read(row).tobytes() for row in range(len(store))]


def taxonomy_of(folder: Path) -> bytes | None:
    path = folder / TAXONOMY_NAME
    return path.read_bytes() if path.exists() else None


TAXONOMIES = pytest.mark.parametrize("taxonomy", [None, '{"pet": ["cat"]}'], ids=["none", "own"])
"""Of the second version; the first one has another."""


def write_taxonomies(versions: Versions, taxonomy: str | None) -> None:
    (versions.first / TAXONOMY_NAME).write_text('{"animal": ["dog"]}')
    if taxonomy is not None:
        (versions.second / TAXONOMY_NAME).write_text(taxonomy)


def paths_of(manifest: Manifest) -> set[str]:
    return {shard.path for shard in manifest.shards}


# --- pinned digests ---------------------------------------------------------------------------


def test_a_pinned_digest_is_verified_wherever_an_address_is_accepted(versions, address, tmp_path):
    publish(versions.first, address)
    right, wrong = (f"{address}@sha256:{d}" for d in (digest_of(versions.first), "0" * 64))
    assert images_of(ShardStore.open(right)) == images_of(ShardStore.open(versions.first))
    assert digest_of(right.replace(right[-64:], right[-64:].upper())) == digest_of(versions.first)
    pull(right, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(versions.first)
    for use in (ShardStore.open, RemoteDataset.open, lambda a: pull(a, tmp_path / "other")):
        with pytest.raises(ShardError, match=f"has the digest {right[-64:]}.* digest 0{{64}}"):
            use(wrong)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ShardError, match="cannot publish to a pinned digest"):
        publish(versions.first, right)


@pytest.mark.parametrize("pin", ["", "12345678abcd", "g" * 64, "0" * 65])
def test_what_is_no_digest_pins_nothing(versions, pin):
    with pytest.raises(ShardError, match="expected ADDRESS@sha256: and the 64"):
        ShardStore.open(f"{versions.first}@sha256:{pin}")


def test_an_altered_version_is_not_taken_for_the_pinned_one(versions, tmp_path):
    publish(versions.first, tmp_path / "lab")
    pinned = f"{tmp_path / 'lab'}@sha256:{digest_of(versions.first)}"
    publish(versions.second, tmp_path / "lab", new_version=True)
    kept = tmp_path / "lab/versions" / f"{digest_of(pinned)}.json"
    shutil.copy(tmp_path / "lab/manifest.json", kept)
    with pytest.raises(ShardError, match=f"{kept.name} has another digest"):
        ShardStore.open(pinned)


# --- new versions -----------------------------------------------------------------------------


def test_versions_share_the_shards_that_did_not_change(versions, address, tmp_path, monkeypatch):
    put = Counter()
    function = Publication._put

    def counting(self, path, name, *rest):
        put[name] += 1
        return function(self, path, name, *rest)

    monkeypatch.setattr(Publication, "_put", counting)
    publish(versions.first, address)
    first = tree(versions.first)
    plain = paths_of(RemoteDataset.open(versions.second).manifest)
    put.clear()
    second = publish(versions.second, address, new_version=True)
    (dog,) = paths_of(second) - plain
    assert re.fullmatch(r"train/dog-000000-[0-9a-f]{12}\.tar", dog)
    assert {name for name in put if name.endswith(".tar")} == {dog, "train/ant-000000.tar"}
    put.clear()
    publish(versions.third, address, new_version=True)
    (cat,) = (name for name in put if name.endswith(".tar"))
    assert cat.startswith("train/cat-000000-")
    put.clear()
    publish(versions.third, address, new_version=True)
    assert not put

    for root in versions:
        assert verify(root).problems == []
        pinned = f"{address}@sha256:{digest_of(root)}"
        out = tmp_path / f"out {root.name}"
        pull(pinned, out)
        assert tree(out) == tree(root)
        assert images_of(ShardStore.open(pinned)) == images_of(ShardStore.open(root))
    assert tree(versions.first) == first
    assert digest_of(address) == digest_of(versions.third)
    publish(versions.first, address, new_version=True)  # back again: nothing but its description
    assert not [name for name in put if name.endswith(".tar")]
    assert digest_of(address) == digest_of(versions.first)


def test_a_new_version_has_to_be_asked_for(versions, address):
    publish(versions.first, address)
    with pytest.raises(ShardError, match=r"another dataset: .*(--new-version|--update)"):
        publish(versions.second, address)
    assert digest_of(address) == digest_of(versions.first)


@pytest.mark.parametrize("links", [True, False])
def test_renaming_keeps_a_folder_complete_when_it_is_interrupted(versions, monkeypatch, links):
    first = RemoteDataset.open(versions.first).manifest
    before = RemoteDataset.open(versions.second).manifest
    expected = with_names_of_its_own(before, [first])
    if not links:

        def no_links(*_: object) -> None:
            raise PermissionError(1, "no links")

        monkeypatch.setattr(os, "link", no_links)
    publish(versions.first, "memory://lab")
    for fail_at in count(1):
        events = count(1)

        def sync(descriptor: int, events=events, fail_at=fail_at) -> None:
            if next(events) == fail_at:
                raise OSError(5, "disk failed")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", sync)
            try:
                publish(versions.second, "memory://lab", new_version=True)
            except ShardError as error:
                assert "disk failed" in str(error)
        found = verify(versions.second)
        assert found.problems == []
        assert found.absent == []
        if next(events) < fail_at:
            break
    assert fail_at > 2
    assert found.manifest == expected
    assert {p for p in tree(versions.second) if p.endswith(".tar")} == paths_of(expected)


@TAXONOMIES
def test_an_interrupted_new_version_leaves_the_old_one_readable(
    originals, versions, address, tmp_path, monkeypatch, taxonomy
):
    """Where each file that is put there, and the removal of the marker, may be the last event."""
    first = digest_of(versions.first)
    filesystem, folder = fsspec.core.url_to_fs(address)
    expected: dict[str, list[bytes]] = {}
    taxonomies: dict[str, bytes | None] = {}
    between_taxonomy_and_manifest = []
    put = Publication._put
    for n_done in count():
        if n_done:
            filesystem.rm(folder, recursive=True)
        shutil.rmtree(versions.second)
        shutil.copytree(originals.second, versions.second)
        write_taxonomies(versions, taxonomy)
        publish(versions.first, address)
        calls = count(1)

        def putting(self, path, name, *rest, calls=calls, n_done=n_done):
            if next(calls) > n_done:
                raise ShardError("cable out")
            put(self, path, name, *rest)

        with monkeypatch.context() as broken:
            broken.setattr(Publication, "_put", putting)
            try:
                publish(versions.second, address, new_version=True, workers=1)
            except ShardError as error:
                assert str(error) == "cable out"
        for root in (versions.first, versions.second):
            expected[digest_of(root)] = images_of(ShardStore.open(root))
            taxonomies[digest_of(root)] = taxonomy_of(root)
        for place in (address, f"{address}@sha256:{first}"):
            store = ShardStore.open(place, cache=tmp_path / f"cold {n_done}")
            assert store.digest == first or place == address
            assert images_of(store) == expected[store.digest]
        finished = next(calls) == n_done + 1
        assert (digest_of(address) != first) == finished
        pull(address, tmp_path / f"interrupted {n_done}")
        if taxonomy_of(tmp_path / f"interrupted {n_done}") != taxonomies[digest_of(address)]:
            between_taxonomy_and_manifest.append(n_done)
        publish(versions.second, address, new_version=True)
        pull(address, tmp_path / f"out {n_done}")
        assert tree(tmp_path / f"out {n_done}") == tree(versions.second)
        assert not filesystem.exists(f"{folder}/{MARKER_NAME}")
        if finished:
            break
    # two descriptions, marker, shards, taxonomy, table and manifest
    assert n_done == 2 + 1 + 2 + 2 + 2 + bool(taxonomy)
    assert between_taxonomy_and_manifest == [n_done - 1]


# --- update -----------------------------------------------------------------------------------


@TAXONOMIES
@pytest.mark.parametrize("names", ["of its own", "of the old version"])
def test_an_update_fetches_what_differs_and_is_never_a_mixture(
    versions, tmp_path, monkeypatch, names, taxonomy
):
    """Where every event of the update may be its last."""
    source = str(versions.second)
    write_taxonomies(versions, taxonomy)
    if names == "of its own":
        publish(versions.first, "memory://lab")
        publish(versions.second, "memory://lab", new_version=True)
        source = "memory://lab"
    taxonomies = {digest_of(root): taxonomy_of(root) for root in (versions.first, versions.second)}
    out, second = tmp_path / "out", tree(versions.second)
    with pytest.raises(ShardError, match=r"already holds another dataset.*--update"):
        pull(versions.second, shutil.copytree(versions.first, tmp_path / "refused"))
    fetched = []
    download, unlink, replace = RemoteDataset._download, Path.unlink, Path.replace
    for fail_at in count(1):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(versions.first, out)
        fetched.clear()
        events = count(1)

        def event(events=events, fail_at=fail_at) -> None:
            if next(events) >= fail_at:
                raise KeyboardInterrupt

        def downloading(self, shard, *rest, event=event):
            event()
            fetched.append(shard.path)
            return download(self, shard, *rest)

        def unlinking(path, missing_ok=False, event=event):
            if path.parent.is_relative_to(out) and "partial" not in path.name:
                event()
            return unlink(path, missing_ok=missing_ok)

        def replacing(path, target, event=event):
            event()
            return replace(path, target)

        with monkeypatch.context() as watched:
            watched.setattr(RemoteDataset, "_download", downloading)
            watched.setattr(Path, "unlink", unlinking)
            watched.setattr(Path, "replace", replacing)
            try:
                pull(source, out, update=True, workers=1)
            except KeyboardInterrupt:
                pass
            else:
                break
        update = (out / MANIFEST_NAME).exists()
        if update:
            assert verify(out).problems == []  # the old version, whole or in part, or the new one
            assert taxonomy_of(out) == taxonomies[digest_of(out)]
        pull(source, out, update=update)
        files = tree(out)
        assert {name: files.get(name) for name in second} == second
        assert taxonomy_of(out) == taxonomies[digest_of(out)]
    assert fail_at > 6
    assert len(fetched) == 2
    assert tree(out) == second


def test_an_update_of_some_classes_keeps_no_old_shard_of_the_others(versions, tmp_path):
    out = shutil.copytree(versions.first, tmp_path / "out")
    pull(versions.second, out, classes={"ant"}, update=True)
    found = verify(out)
    assert found.problems == []
    assert found.absent == ["train/dog-000000.tar"]


# --- cards ------------------------------------------------------------------------------------


class Text(HTMLParser):
    """Collects the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.text += " "


def test_a_card_says_what_the_dataset_holds_and_how_to_pull_it(
    versions, tiny_benchmark, address, tmp_path
):
    (tmp_path / "tiny.json").write_text(tiny_benchmark.model_dump_json())
    publish(versions.first, address)
    arguments = [str(versions.second), address, "--new-version", "--license", "CC-BY-4.0"]
    result = CliRunner().invoke(
        app, ["publish", *arguments, "--benchmark", str(tmp_path / "tiny.json")]
    )
    assert result.exit_code == 0, result.output
    assert "shards were renamed" in result.stdout
    second = digest_of(versions.second)
    read = fsspec.filesystem("memory" if "://" in address else "file").cat_file
    card, page = (read(f"{address}/{name}").decode() for name in ("README.md", "index.html"))
    assert card.startswith('---\nlicense: "cc-by-4.0"\n')
    for text in (card, Text(page).text):
        assert f"sha256:{second}" in text
        place = address if "://" in address else "ADDRESS"  # others cannot read a local path
        assert f"iirc data pull {place}@sha256:{second} shards" in text
        assert str(tmp_path) not in text
        assert f"sha256:{digest_of(versions.first)}" in text
        assert "CC-BY-4.0" in text
        assert "animal: cat, dog" in text.replace("\\", "")
        assert re.search(r"train\W+4\W+7\W+4\W", text)
    pull(address, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(versions.second)


def test_a_card_gives_the_public_address_of_a_folder_that_a_server_serves(versions, tmp_path):
    public = "https://lab.org/tiny"
    arguments = [str(versions.first), str(tmp_path / "lab"), "--page-address", public]
    assert CliRunner().invoke(app, ["publish", *arguments]).exit_code == 0
    for name in ("README.md", "index.html"):
        page = (tmp_path / "lab" / name).read_text()
        assert f"iirc data pull {public}@sha256:{digest_of(versions.first)} shards" in page


def test_a_page_of_other_origin_stays(versions, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/README.md").write_text("ours")
    for licence in ("MIT", "CC0-1.0"):
        publish(versions.first, tmp_path / "lab", card=Card(licence))
    assert (tmp_path / "lab/README.md").read_text() == "ours"
    page = (tmp_path / "lab/index.html").read_text()
    assert CARD_MARK in page
    assert "CC0-1.0" in page


def test_a_card_shows_the_levels_above_the_classes_of_the_dataset_only(versions):
    manifest = RemoteDataset.open(versions.first).manifest
    benchmark = Benchmark(
        name="deep",
        dataset="any",
        superclasses={
            "life": ["animal", "plant"],
            "plant": ["tree"],
            "tree": ["oak"],
            "animal": ["cat", "dog", "emu"],
        },
        schedules=[[["life"]]],
    )
    page = Card(benchmark=benchmark).pages(manifest, "s3://lab/a", [])["README.md"]
    assert "- life: animal\n- animal: cat, dog\n" in page and "tree" not in page


def test_a_card_shows_every_name_as_it_is(versions):
    manifest = RemoteDataset.open(versions.first).manifest
    odd = ["<script>alert(1)</script>", "a|b", "*c*", "`d`"]
    manifest = manifest.model_copy(update={"classes": odd, "dataset": "</title>&amp;"})
    pages = Card("x\n---\ny: 1").pages(manifest, "s3://lab/a b", [])
    assert "<script>" not in pages["README.md"].replace("\\<", "")
    assert "<script>" not in pages["index.html"]
    assert ", ".join(odd) in Text(pages["index.html"]).text
    assert pages["README.md"].split("\n---\n")[0].count("\n") == 5
    assert f"'s3://lab/a b@sha256:{manifest.digest}'" in pages["README.md"]
